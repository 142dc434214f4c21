// SPDX-License-Identifier: MIT
#include "llama/file/safetensors.hpp"

#include <algorithm>
#include <limits>

#include "llama/file/gguf.hpp"
#include "llama/file/gguf_parser.hpp"

namespace llama {

namespace {

constexpr std::size_t kLengthBytes = 8;
constexpr std::uint64_t kLongestHeader = 100'000'000;  // the official implementation's limit

const BlockFormat* find_format(const std::string& dtype) {
  for (const TensorType type : {TensorType::f32, TensorType::f16, TensorType::bf16}) {
    const BlockFormat* format = find_block_format(static_cast<std::uint32_t>(type));
    if (format->name == dtype) return format;
  }
  return nullptr;
}

}  // namespace

Safetensors::Safetensors(std::span<const std::byte> bytes, std::string name) : name_(std::move(name)) {
  const auto header = header_of(bytes);
  const auto data = bytes.subspan(kLengthBytes + header.size());
  const Json json = parse_json(header, name_);
  for (const auto& [key, value] : json.items()) {
    if (key == "__metadata__")
      check_metadata(value);
    else
      tensors_.push_back(read_tensor(key, value, data));
  }
  // tensors without elements begin where others do and come before them
  std::ranges::sort(tensors_, {}, [](const StoredTensor& tensor) {
    return std::pair(tensor.data.data(), tensor.data.data() + tensor.data.size());
  });
  check_that_tensors_tile(data);
  for (std::size_t i = 0; i < tensors_.size(); ++i) tensor_of_name_.emplace(tensors_[i].name, i);
}

std::span<const std::byte> Safetensors::header_of(std::span<const std::byte> bytes) const {
  if (bytes.size() < kLengthBytes)
    fail("ends after " + std::to_string(bytes.size()) + " bytes, in the middle of the length of its header (8 bytes)");
  const std::uint64_t length = gguf_type::load(bytes.first(kLengthBytes), gguf_type::kU64);
  if (length > kLongestHeader)
    fail("announces a header of " + std::to_string(length) + " bytes and may have at most " +
         std::to_string(kLongestHeader));
  if (length > bytes.size() - kLengthBytes)
    fail("announces a header of " + std::to_string(length) + " bytes, beyond the " +
         std::to_string(bytes.size() - kLengthBytes) + " that follow");
  const auto header = bytes.subspan(kLengthBytes, length);
  if (header.empty() || header.front() != std::byte{'{'}) fail("has a header that does not begin with '{'");
  return header;
}

void Safetensors::check_metadata(const Json& value) const {
  const JsonObject metadata(value, name_, "__metadata__");
  for (const auto& [key, held] : value.items())
    if (!held.is_string()) metadata.fail("__metadata__ must hold strings only; " + in_quotes(key) + " is none");
}

StoredTensor Safetensors::read_tensor(const std::string& name, const Json& description,
                                      std::span<const std::byte> data) const {
  const JsonObject tensor(description, name_, "tensor " + in_quotes(name));
  const BlockFormat* format = find_format(tensor.text("dtype"));
  if (!format) tensor.fail("dtype", "is not read; read are F32, F16 and BF16");

  constexpr Index most = std::numeric_limits<Index>::max();
  const auto integers = [&](const char* key) {
    std::vector<Index> values;
    for (const Json& value : tensor.array(key)) {
      if (!value.is_number_unsigned() || value.get<std::uint64_t>() > std::uint64_t{most})
        tensor.fail(key, "must hold integers from 0 to " + std::to_string(most));
      values.push_back(value.get<Index>());
    }
    return values;
  };
  std::vector<Index> shape = integers("shape");
  Index size = format->bytes;
  for (const Index length : shape)
    if (__builtin_mul_overflow(size, length, &size)) tensor.fail("shape", "has more bytes than any file");

  const std::vector<Index> offsets = integers("data_offsets");
  if (offsets.size() != 2 || offsets[0] > offsets[1]) tensor.fail("data_offsets", "must be [begin, end]");
  if (offsets[1] > std::ssize(data))
    tensor.fail("data_offsets", "lies beyond the " + std::to_string(data.size()) + " bytes of data in the file");
  if (offsets[1] - offsets[0] != size)
    tensor.fail("data_offsets", "has " + std::to_string(offsets[1] - offsets[0]) + " bytes and must have the " +
                                    std::to_string(size) + " of its shape");
  return {name, format, std::move(shape),
          data.subspan(static_cast<std::size_t>(offsets[0]), static_cast<std::size_t>(size))};
}

void Safetensors::check_that_tensors_tile(std::span<const std::byte> data) const {
  const std::byte* at = data.data();
  const StoredTensor* previous = nullptr;
  for (const StoredTensor& tensor : tensors_) {
    if (tensor.data.data() < at)
      fail("tensors " + in_quotes(previous->name) + " and " + in_quotes(tensor.name) + " share bytes");
    if (tensor.data.data() > at)
      fail("has " + std::to_string(tensor.data.data() - at) + " bytes before tensor " + in_quotes(tensor.name) +
           " that belong to no tensor");
    at += tensor.data.size();
    previous = &tensor;
  }
  const std::ptrdiff_t left = data.data() + data.size() - at;
  if (left > 0) fail("has " + std::to_string(left) + " bytes at its end that belong to no tensor");
}

const StoredTensor* Safetensors::find_tensor(std::string_view name) const {
  const auto found = tensor_of_name_.find(name);
  return found == tensor_of_name_.end() ? nullptr : &tensors_[found->second];
}

}  // namespace llama
