// SPDX-License-Identifier: MIT
#include "llama/file/gguf_parser.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

namespace llama {

namespace gguf_type {

std::uint64_t load(std::span<const std::byte> bytes, std::uint32_t type) {
  std::uint64_t bits = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) bits |= std::uint64_t{static_cast<std::uint8_t>(bytes[i])} << (8 * i);
  if (type == kI8) return static_cast<std::uint64_t>(std::int64_t{static_cast<std::int8_t>(bits)});
  if (type == kI16) return static_cast<std::uint64_t>(std::int64_t{static_cast<std::int16_t>(bits)});
  if (type == kI32) return static_cast<std::uint64_t>(std::int64_t{static_cast<std::int32_t>(bits)});
  return bits;
}

}  // namespace gguf_type

using namespace gguf_type;

namespace {

std::string number_text(std::uint64_t value) { return std::to_string(value); }

}  // namespace

void GgufParser::parse() {
  read_header();
  for (std::uint64_t i = 0; i < num_values_; ++i) read_value(i);
  read_alignment();
  for (std::uint64_t i = 0; i < num_tensors_; ++i) {
    out_.tensors_.push_back(read_tensor(i));
    const std::string_view name = out_.tensors_.back().name;
    if (!out_.tensor_of_name_.emplace(name, i).second) fail("tensor " + in_quotes(name) + " stands in the file twice");
  }
  place_tensors();
}

void GgufParser::read_header() {
  const auto magic = take(4, "the magic number");
  if (std::memcmp(magic.data(), "GGUF", 4) != 0)
    fail("is not a GGUF file: it begins with " +
         in_quotes({reinterpret_cast<const char*>(magic.data()), magic.size()}) + ", not 'GGUF'");
  const std::uint32_t version = take_u32("the version");
  if (version == 0x03000000u) fail("is a big-endian GGUF file; only little-endian ones are read");
  if (version != 3) fail("version (" + number_text(version) + ") must be 3");
  num_tensors_ = take_u64("the number of tensors");
  num_values_ = take_u64("the number of keys");
  // the least a key and its value take: length and one byte of name, type, one byte of value
  check_count(num_values_, 8 + 1 + 4 + 1, "keys");
  // name as above, number of dimensions, one dimension, type, offset
  check_count(num_tensors_, 8 + 1 + 4 + 8 + 4 + 8, "tensors");
}

void GgufParser::read_value(std::uint64_t number) {
  const std::string_view key = take_string("the name of key " + number_text(number));
  if (key.empty() || key.size() > 65535)
    fail("the name of key " + number_text(number) + " has " + number_text(key.size()) +
         " bytes and must have 1 to 65535");
  const std::string what = "the value of key " + in_quotes(key);
  const std::uint32_t type = take_u32("the type of key " + in_quotes(key));
  const std::size_t begin = at_;
  Gguf::Value value;
  if (type == kArray)
    value = read_array(what);
  else
    value = read_scalar(type, what);
  if (!out_.values_.emplace(key, std::move(value)).second) fail("key " + in_quotes(key) + " stands in the file twice");
  out_.entries_.push_back({key, type, bytes_.subspan(begin, at_ - begin)});
}

Gguf::Value GgufParser::read_scalar(std::uint32_t type, const std::string& what) {
  if (type == kString) return take_string(what);
  const std::size_t size = size_of(type);
  if (size == 0) fail(what + " has type " + number_text(type) + ", which GGUF does not have (0 to 12)");
  const std::uint64_t bits = load(take(size, what), type);
  switch (type) {
    case kF32:
      return static_cast<double>(std::bit_cast<float>(static_cast<std::uint32_t>(bits)));
    case kF64:
      return std::bit_cast<double>(bits);
    case kBool:
      if (bits > 1) fail(what + " is a boolean (" + number_text(bits) + ") and must be 0 or 1");
      return bits == 1;
    case kU64:
      if (bits >> 63) return bits;
      [[fallthrough]];
    default:
      return static_cast<std::int64_t>(bits);
  }
}

Gguf::Array GgufParser::read_array(const std::string& what) {
  Gguf::Array array{};
  array.element_type = take_u32("the element type of " + what);
  array.count = take_u64("the length of " + what);
  if (array.element_type == kArray) fail(what + " is an array of arrays, which no model needs");
  const bool strings = array.element_type == kString;
  const std::size_t size = strings ? 8 : size_of(array.element_type);  // a string takes at least its length
  if (size == 0)
    fail(what + " is an array of type " + number_text(array.element_type) + ", which GGUF does not have (0 to 12)");
  check_count(array.count, size, "elements of " + what);
  if (!strings) {
    array.bytes = take(array.count * size, what);
    return array;
  }
  array.texts.reserve(array.count);
  for (std::uint64_t i = 0; i < array.count; ++i) array.texts.push_back(take_string(what));
  return array;
}

void GgufParser::read_alignment() {
  constexpr std::string_view key = "general.alignment";
  if (!out_.has(key)) return;
  const std::int64_t alignment = out_.integer(key);
  if (alignment < 8 || alignment > 65536 || !std::has_single_bit(static_cast<std::uint64_t>(alignment)))
    fail("key " + in_quotes(key) + " (" + std::to_string(alignment) + ") must be a power of two from 8 to 65536");
  alignment_ = static_cast<std::uint64_t>(alignment);
  out_.alignment_ = alignment;
}

Tensor GgufParser::read_tensor(std::uint64_t number) {
  Tensor tensor{};
  tensor.name = take_string("the name of tensor " + number_text(number));
  if (tensor.name.empty() || tensor.name.size() > 64)
    fail("the name of tensor " + number_text(number) + " has " + number_text(tensor.name.size()) +
         " bytes and must have 1 to 64");
  const std::string what = "tensor " + in_quotes(tensor.name);

  const std::uint32_t dimensions = take_u32("the number of dimensions of " + what);
  if (dimensions < 1 || dimensions > 4)
    fail(what + " has " + number_text(dimensions) + " dimensions and must have 1 to 4");
  tensor.sizes.fill(1);
  Index elements = 1;
  for (std::uint32_t i = 0; i < dimensions; ++i) {
    const std::uint64_t size = take_u64("the dimensions of " + what);
    // a block stores at most 2 numbers in a byte: more elements than that cannot be in the file
    if (size < 1 || size > 2 * bytes_.size() || __builtin_mul_overflow(elements, static_cast<Index>(size), &elements))
      fail("dimension " + number_text(i) + " (" + number_text(size) + ") of " + what +
           " must be at least 1 and fit in the file");
    tensor.sizes[i] = static_cast<Index>(size);
  }

  const std::uint32_t type = take_u32("the type of " + what);
  tensor.format = find_block_format(type);
  if (!tensor.format) fail(what + " has type " + number_text(type) + "; read are " + std::string(kBlockFormatNames));
  if (tensor.sizes[0] % tensor.format->elements != 0)
    fail("rows of " + what + " have " + std::to_string(tensor.sizes[0]) + " elements, not a multiple of the " +
         std::to_string(tensor.format->elements) + " in a block of " + std::string(tensor.format->name));
  offsets_.push_back(take_u64("the offset of " + what));
  return tensor;
}

void GgufParser::place_tensors() {
  if (out_.tensors_.empty()) return;
  const std::size_t begin = (at_ + alignment_ - 1) / alignment_ * alignment_;
  const std::size_t available = begin < bytes_.size() ? bytes_.size() - begin : 0;
  for (std::size_t i = 0; i < out_.tensors_.size(); ++i) {
    Tensor& tensor = out_.tensors_[i];
    const std::string what = "tensor " + in_quotes(tensor.name);
    if (offsets_[i] % alignment_ != 0)
      fail("offset (" + number_text(offsets_[i]) + ") of " + what + " must be a multiple of the alignment (" +
           number_text(alignment_) + ")");
    Index size = 0;
    if (__builtin_mul_overflow(tensor.rows(), tensor.row_bytes(), &size) || offsets_[i] > available ||
        static_cast<std::uint64_t>(size) > available - offsets_[i])
      fail(what + " has its data at offset " + number_text(offsets_[i]) + ", beyond the " + number_text(available) +
           " bytes of data in the file");
    tensor.data = bytes_.subspan(begin + offsets_[i], static_cast<std::size_t>(size));
  }

  std::vector<const Tensor*> in_order;
  for (const Tensor& tensor : out_.tensors_) in_order.push_back(&tensor);
  std::ranges::sort(in_order, {}, [](const Tensor* tensor) { return tensor->data.data(); });
  for (std::size_t i = 1; i < in_order.size(); ++i)
    if (in_order[i - 1]->data.data() + in_order[i - 1]->data.size() > in_order[i]->data.data())
      fail("tensors " + in_quotes(in_order[i - 1]->name) + " and " + in_quotes(in_order[i]->name) + " share bytes");
}

std::span<const std::byte> GgufParser::take(std::uint64_t count, const std::string& what) {
  if (count > left())
    fail("ends after " + number_text(bytes_.size()) + " bytes, in the middle of " + what + " (" + number_text(count) +
         " bytes at byte " + number_text(at_) + ")");
  const auto taken = bytes_.subspan(at_, count);
  at_ += count;
  return taken;
}

std::uint32_t GgufParser::take_u32(const std::string& what) {
  return static_cast<std::uint32_t>(load(take(4, what), kU32));
}

std::uint64_t GgufParser::take_u64(const std::string& what) { return load(take(8, what), kU64); }

std::string_view GgufParser::take_string(const std::string& what) {
  const auto bytes = take(take_u64("the length of " + what), what);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

void GgufParser::check_count(std::uint64_t count, std::uint64_t bytes_each, const std::string& what) const {
  if (count > left() / bytes_each)
    fail("announces " + number_text(count) + " " + what + ", more than fit in the " + number_text(left()) +
         " bytes that are left");
}

}  // namespace llama
