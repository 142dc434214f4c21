// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>
#include <string>
#include <string_view>

#include "llama/file/gguf.hpp"

namespace llama {

/// The value types of a GGUF file, by their numbers in it.
namespace gguf_type {

inline constexpr std::uint32_t kU8 = 0, kI8 = 1, kU16 = 2, kI16 = 3, kU32 = 4, kI32 = 5, kF32 = 6, kBool = 7,
                               kString = 8, kArray = 9, kU64 = 10, kI64 = 11, kF64 = 12;

/// Bytes of a value; 0 for strings, arrays and unknown types.
constexpr std::size_t size_of(std::uint32_t type) {
  constexpr std::size_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return type < std::size(sizes) ? sizes[type] : 0;
}
constexpr bool is_integer(std::uint32_t type) { return type <= kI32 || type == kU64 || type == kI64; }

/// The little-endian value in `bytes`, sign-extended to 64 bits for signed integers, as it is for the others.
std::uint64_t load(std::span<const std::byte> bytes, std::uint32_t type);

}  // namespace gguf_type

/// Reads a file's head into a Gguf: header, keys and values, tensor descriptions. Nothing in the file is believed: no
/// count is used before what it counts is known to fit in the bytes that are left.
class GgufParser {
 public:
  GgufParser(std::span<const std::byte> bytes, Gguf& out) : bytes_(bytes), out_(out) {}
  void parse();

 private:
  void read_header();
  void read_value(std::uint64_t number);
  Gguf::Value read_scalar(std::uint32_t type, const std::string& what);
  Gguf::Array read_array(const std::string& what);
  void read_alignment();
  Tensor read_tensor(std::uint64_t number);
  void place_tensors();

  std::size_t left() const { return bytes_.size() - at_; }
  std::span<const std::byte> take(std::uint64_t count, const std::string& what);
  std::uint32_t take_u32(const std::string& what);
  std::uint64_t take_u64(const std::string& what);
  std::string_view take_string(const std::string& what);
  void check_count(std::uint64_t count, std::uint64_t bytes_each, const std::string& what) const;
  [[noreturn]] void fail(const std::string& text) const { out_.fail(text); }

  std::span<const std::byte> bytes_;
  Gguf& out_;
  std::size_t at_ = 0;
  std::uint64_t num_tensors_ = 0, num_values_ = 0, alignment_ = 32;
  std::vector<std::uint64_t> offsets_;  // of each tensor, from the first byte of the data
};

}  // namespace llama
