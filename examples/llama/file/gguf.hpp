// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "llama/file/tensor_type.hpp"

namespace llama {

/// What is wrong with a model file: "<file>: <what> (<value>) <what was expected>".
struct GgufError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A tensor of a GGUF file. sizes[0] runs fastest; a matrix that maps n inputs to m outputs has sizes {n, m, 1, 1}: m
/// rows of n numbers, one after another.
struct Tensor {
  std::string_view name;
  const BlockFormat* format;
  std::array<Index, 4> sizes;
  std::span<const std::byte> data;

  Index rows() const { return sizes[1] * sizes[2] * sizes[3]; }
  Index row_bytes() const { return sizes[0] / format->elements * format->bytes; }
};

/// A key of a GGUF file with its value as it stands there: what a copy needs.
struct GgufEntry {
  std::string_view key;
  std::uint32_t type;
  std::span<const std::byte> value;
};

/// A GGUF file, version 3: named values and named tensors. Everything is checked when it is opened, so that whatever is
/// reached through it lies inside the file: counts, lengths, types, names, shapes, offsets and alignment.
/// Refers to the bytes it was made from.
class Gguf {
 public:
  /// `name` stands in messages. Throws GgufError.
  Gguf(std::span<const std::byte> bytes, std::string name);

  const std::string& name() const { return name_; }
  bool has(std::string_view key) const { return values_.contains(key); }
  bool holds_array(std::string_view key) const { return std::holds_alternative<Array>(value(key)); }
  /// All keys in the order of the file.
  const std::vector<GgufEntry>& entries() const { return entries_; }
  /// Where tensors begin in the file: at multiples of this.
  Index alignment() const { return alignment_; }

  /// The value of a key. Throw GgufError if the key is missing or holds another kind of value.
  std::int64_t integer(std::string_view key) const;  // any integer type
  double number(std::string_view key) const;         // any integer or float type
  bool boolean(std::string_view key) const;
  std::string_view text(std::string_view key) const;
  const std::vector<std::string_view>& texts(std::string_view key) const;
  std::vector<std::int64_t> integers(std::string_view key) const;

  const std::vector<Tensor>& tensors() const { return tensors_; }
  /// Null if there is none of that name.
  const Tensor* find_tensor(std::string_view name) const;
  /// Throws GgufError if there is none.
  const Tensor& tensor(std::string_view name) const;

  /// Throws GgufError with "<file>: " before the text: for those who find the contents wrong.
  [[noreturn]] void fail(const std::string& text) const { throw GgufError(name_ + ": " + text); }

 private:
  friend class GgufParser;

  struct Array {
    std::uint32_t element_type;
    std::uint64_t count;
    std::span<const std::byte> bytes;     // numbers
    std::vector<std::string_view> texts;  // strings
  };
  // std::uint64_t holds what std::int64_t cannot
  using Value = std::variant<std::int64_t, std::uint64_t, double, bool, std::string_view, Array>;

  const Value& value(std::string_view key) const;
  template <class T>
  const T& value_as(std::string_view key, const char* expected) const;

  std::string name_;
  std::unordered_map<std::string_view, Value> values_;
  std::vector<GgufEntry> entries_;
  Index alignment_ = 32;
  std::vector<Tensor> tensors_;
  std::unordered_map<std::string_view, std::size_t> tensor_of_name_;
};

/// `text` in quotes for a message: unprintable bytes as \xNN, long ones cut.
std::string in_quotes(std::string_view text);

}  // namespace llama
