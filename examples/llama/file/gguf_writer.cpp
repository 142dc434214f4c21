// SPDX-License-Identifier: MIT
#include "llama/file/gguf_writer.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <type_traits>

#include "headwise/core/error.hpp"
#include "headwise/core/storage.hpp"
#include "llama/file/gguf_parser.hpp"
#include "llama/file/new_file.hpp"

namespace llama {

static_assert(std::endian::native == std::endian::little, "GGUF files are little-endian, and so is what is written");

namespace {

using Bytes = std::vector<std::byte>;

void append(Bytes& bytes, const void* from, std::size_t count) {
  const std::size_t size = bytes.size();
  bytes.resize(size + count);
  if (count > 0) std::memcpy(bytes.data() + size, from, count);
}
template <class T>
  requires std::is_arithmetic_v<T>
void append(Bytes& bytes, T value) {
  append(bytes, &value, sizeof value);
}
void append(Bytes& bytes, std::string_view text) {
  append(bytes, static_cast<std::uint64_t>(text.size()));
  append(bytes, text.data(), text.size());
}
template <class T>
Bytes bytes_of(T value) {
  Bytes bytes;
  append(bytes, value);
  return bytes;
}
template <class T>
Bytes array_of(std::uint32_t type, std::span<const T> values) {
  Bytes bytes;
  append(bytes, type);
  append(bytes, static_cast<std::uint64_t>(values.size()));
  for (const T& value : values) append(bytes, value);
  return bytes;
}

void encode(TensorType type, const float* numbers, Index count, Bytes& out) {
  out.reserve(static_cast<std::size_t>(count) * sizeof(float));
  for (Index i = 0; i < count; ++i) {
    if (type == TensorType::f32)
      append(out, numbers[i]);
    else if (type == TensorType::f16)
      append(out, headwise::to_f16_bits(numbers[i]));
    else
      append(out, headwise::to_bf16_bits(numbers[i]));
  }
}

}  // namespace

void GgufWriter::set(std::string_view key, std::uint32_t value) { put(key, gguf_type::kU32, bytes_of(value)); }
void GgufWriter::set(std::string_view key, float value) { put(key, gguf_type::kF32, bytes_of(value)); }
void GgufWriter::set(std::string_view key, bool value) {
  put(key, gguf_type::kBool, bytes_of(static_cast<std::uint8_t>(value)));
}
void GgufWriter::set(std::string_view key, std::string_view value) { put(key, gguf_type::kString, bytes_of(value)); }
void GgufWriter::set(std::string_view key, std::span<const std::int32_t> values) {
  put(key, gguf_type::kArray, array_of(gguf_type::kI32, values));
}
void GgufWriter::set(std::string_view key, std::span<const std::string> values) {
  put(key, gguf_type::kArray, array_of(gguf_type::kString, values));
}
void GgufWriter::set(std::string_view key, const GgufEntry& value) {
  put(key, value.type, Bytes(value.value.begin(), value.value.end()));
}

bool GgufWriter::has(std::string_view key) const {
  return std::ranges::find(values_, key, &Value::key) != values_.end();
}
void GgufWriter::erase(std::string_view key) {
  std::erase_if(values_, [&](const Value& value) { return value.key == key; });
}

void GgufWriter::put(std::string_view key, std::uint32_t type, Bytes bytes) {
  const auto found = std::ranges::find(values_, key, &Value::key);
  if (found == values_.end())
    values_.push_back({std::string(key), type, std::move(bytes)});
  else
    *found = {std::string(key), type, std::move(bytes)};
}

GgufWriter::NewTensor& GgufWriter::new_tensor(std::string_view name, const BlockFormat& format,
                                              std::vector<std::uint64_t> sizes) {
  headwise::require(std::ranges::find(tensors_, name, &NewTensor::name) == tensors_.end(), "tensor ", in_quotes(name),
                    " must be added once");
  tensors_.push_back({std::string(name), &format, std::move(sizes), {}, {}});
  return tensors_.back();
}

void GgufWriter::add(const Tensor& tensor) {
  std::vector<std::uint64_t> sizes;
  for (const Index size : tensor.sizes) sizes.push_back(static_cast<std::uint64_t>(size));
  while (sizes.size() > 1 && sizes.back() == 1) sizes.pop_back();
  new_tensor(tensor.name, *tensor.format, std::move(sizes)).borrowed = tensor.data;
}

void GgufWriter::add_matrix(std::string_view name, const float* numbers, Index rows, Index columns, TensorType type) {
  headwise::require(type == TensorType::f32 || type == TensorType::f16 || type == TensorType::bf16, "type of tensor ",
                    in_quotes(name), " must be F32, F16 or BF16");
  NewTensor& tensor = new_tensor(name, *find_block_format(static_cast<std::uint32_t>(type)),
                                 {static_cast<std::uint64_t>(columns), static_cast<std::uint64_t>(rows)});
  encode(type, numbers, rows * columns, tensor.own);
}

void GgufWriter::add_vector(std::string_view name, const float* numbers, Index count) {
  NewTensor& tensor = new_tensor(name, *find_block_format(static_cast<std::uint32_t>(TensorType::f32)),
                                 {static_cast<std::uint64_t>(count)});
  encode(TensorType::f32, numbers, count, tensor.own);
}

std::vector<std::byte> GgufWriter::head() const {
  Bytes head;
  append(head, "GGUF", 4);
  append(head, std::uint32_t{3});
  append(head, static_cast<std::uint64_t>(tensors_.size()));
  append(head, static_cast<std::uint64_t>(values_.size()));
  for (const Value& value : values_) {
    append(head, std::string_view(value.key));
    append(head, value.type);
    append(head, value.bytes.data(), value.bytes.size());
  }
  std::uint64_t offset = 0;
  for (const NewTensor& tensor : tensors_) {
    append(head, std::string_view(tensor.name));
    append(head, static_cast<std::uint32_t>(tensor.sizes.size()));
    for (const std::uint64_t size : tensor.sizes) append(head, size);
    append(head, static_cast<std::uint32_t>(tensor.format->type));
    append(head, offset);
    offset += padded(tensor.data().size());
  }
  head.resize(padded(head.size()));
  return head;
}

std::size_t GgufWriter::padded(std::size_t size) const {
  const auto alignment = static_cast<std::size_t>(alignment_);
  return (size + alignment - 1) / alignment * alignment;
}

void GgufWriter::write(const std::string& path) const {
  NewFile file(path);
  file.write(head());
  for (const NewTensor& tensor : tensors_) {
    file.write(tensor.data());
    file.write(Bytes(padded(file.size()) - file.size()));
  }
  file.commit();
}

std::vector<std::byte> GgufWriter::bytes() const {
  Bytes bytes = head();
  for (const NewTensor& tensor : tensors_) {
    append(bytes, tensor.data().data(), tensor.data().size());
    bytes.resize(padded(bytes.size()));
  }
  return bytes;
}

}  // namespace llama
