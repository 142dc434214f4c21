// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "llama/file/gguf.hpp"

namespace llama {

/// Puts a GGUF file together, version 3: keys, then tensors. Data is either referred to (of a mapped file, say, which must
/// outlive this) or kept here.
class GgufWriter {
 public:
  explicit GgufWriter(Index alignment = 32) : alignment_(alignment) {}

  void set(std::string_view key, std::uint32_t value);
  void set(std::string_view key, float value);
  void set(std::string_view key, bool value);
  void set(std::string_view key, std::string_view value);
  void set(std::string_view key, const char* value) { set(key, std::string_view(value)); }
  void set(std::string_view key, std::span<const std::int32_t> values);
  void set(std::string_view key, std::span<const std::string> values);
  /// A value as another file has it. A key that is there already gets it in its place.
  void set(std::string_view key, const GgufEntry& value);
  bool has(std::string_view key) const;
  void erase(std::string_view key);

  /// A tensor as it is elsewhere, not copied. Throws std::invalid_argument if the name is there already.
  void add(const Tensor& tensor);
  /// `rows` rows of `columns` numbers, stored as f32, f16 or bf16, rounded to nearest.
  void add_matrix(std::string_view name, const float* numbers, Index rows, Index columns, TensorType type);
  void add_vector(std::string_view name, const float* numbers, Index count);
  Index num_tensors() const { return std::ssize(tensors_); }

  /// Writes all of it to a file that appears whole or not at all. Throws std::runtime_error.
  void write(const std::string& path) const;
  /// The same in memory.
  std::vector<std::byte> bytes() const;

 private:
  struct Value {
    std::string key;
    std::uint32_t type;
    std::vector<std::byte> bytes;
  };
  struct NewTensor {
    std::string name;
    const BlockFormat* format;
    std::vector<std::uint64_t> sizes;
    std::vector<std::byte> own;           // the data, or
    std::span<const std::byte> borrowed;  // where it is
    std::span<const std::byte> data() const { return own.empty() ? borrowed : std::span<const std::byte>(own); }
  };

  std::vector<std::byte> head() const;
  std::size_t padded(std::size_t size) const;
  void put(std::string_view key, std::uint32_t type, std::vector<std::byte> bytes);
  NewTensor& new_tensor(std::string_view name, const BlockFormat& format, std::vector<std::uint64_t> sizes);

  Index alignment_;
  std::vector<Value> values_;
  std::vector<NewTensor> tensors_;
};

}  // namespace llama
