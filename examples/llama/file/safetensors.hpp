// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "llama/file/json.hpp"
#include "llama/file/tensor_type.hpp"

namespace llama {

/// A tensor of a .safetensors file. The last of its sizes runs fastest: a matrix that maps n inputs to m outputs has
/// sizes {m, n}.
struct StoredTensor {
  std::string name;
  const BlockFormat* format;
  std::vector<Index> sizes;
  std::span<const std::byte> data;
};

/// A .safetensors file of F32, F16 and BF16 tensors: [8 bytes: length of the header][JSON header][data]. Everything is
/// checked when it is opened, as the official implementation does, so that whatever is reached through it lies inside the
/// file: every byte of the data belongs to exactly one tensor, whose shape it fits.
/// Refers to the bytes it was made from.
class Safetensors {
 public:
  /// `name` stands in messages. Throws ModelFileError.
  Safetensors(std::span<const std::byte> bytes, std::string name);

  const std::string& name() const { return name_; }
  /// In the order of their data.
  const std::vector<StoredTensor>& tensors() const { return tensors_; }
  /// Null if there is none of that name.
  const StoredTensor* find_tensor(std::string_view name) const;

 private:
  std::span<const std::byte> header_of(std::span<const std::byte> bytes) const;
  void check_metadata(const Json& value) const;
  StoredTensor read_tensor(const std::string& name, const Json& description, std::span<const std::byte> data) const;
  void check_that_tensors_tile(std::span<const std::byte> data) const;
  [[noreturn]] void fail(const std::string& text) const { throw ModelFileError(name_ + ": " + text); }

  std::string name_;
  std::vector<StoredTensor> tensors_;
  std::map<std::string, std::size_t, std::less<>> tensor_of_name_;
};

}  // namespace llama
