// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace llama_test {

/// Bytes in the order a little-endian file has them.
class Bytes {
 public:
  template <class T>
    requires std::is_arithmetic_v<T>
  Bytes& put(T value) {
    const auto* from = reinterpret_cast<const std::byte*>(&value);
    bytes_.insert(bytes_.end(), from, from + sizeof value);
    return *this;
  }
  Bytes& raw(std::string_view text) {
    const auto* from = reinterpret_cast<const std::byte*>(text.data());
    bytes_.insert(bytes_.end(), from, from + text.size());
    return *this;
  }
  /// A length, then the characters.
  Bytes& text(std::string_view text) { return put(static_cast<std::uint64_t>(text.size())).raw(text); }
  Bytes& pad_to(std::size_t alignment) {
    while (bytes_.size() % alignment != 0) put(std::uint8_t{0});
    return *this;
  }
  Bytes& add(const Bytes& other) {
    bytes_.insert(bytes_.end(), other.bytes_.begin(), other.bytes_.end());
    return *this;
  }
  std::size_t size() const { return bytes_.size(); }
  const std::vector<std::byte>& all() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

/// Builds a GGUF file. Every number that a well-formed file derives from others can be set to anything instead.
class GgufWriter {
 public:
  std::string magic = "GGUF";
  std::uint32_t version = 3;
  std::size_t alignment = 32;       // how the data is laid out, whatever general.alignment says
  std::uint64_t extra_keys = 0;     // announced but not written
  std::uint64_t extra_tensors = 0;  //

  /// A key with its value type and its value as it stands in the file.
  GgufWriter& key(std::string_view name, std::uint32_t type, const Bytes& value) {
    keys_.text(name).put(type).add(value);
    ++num_keys_;
    return *this;
  }
  GgufWriter& u32(std::string_view name, std::uint32_t value) { return key(name, 4, Bytes().put(value)); }
  GgufWriter& f32(std::string_view name, float value) { return key(name, 6, Bytes().put(value)); }
  GgufWriter& boolean(std::string_view name, bool value) {
    return key(name, 7, Bytes().put(static_cast<std::uint8_t>(value)));
  }
  GgufWriter& text(std::string_view name, std::string_view value) { return key(name, 8, Bytes().text(value)); }
  GgufWriter& texts(std::string_view name, const std::vector<std::string>& values) {
    Bytes array;
    array.put(std::uint32_t{8}).put(static_cast<std::uint64_t>(values.size()));
    for (const std::string& value : values) array.text(value);
    return key(name, 9, array);
  }
  GgufWriter& i32s(std::string_view name, const std::vector<std::int32_t>& values) {
    Bytes array;
    array.put(std::uint32_t{5}).put(static_cast<std::uint64_t>(values.size()));
    for (const std::int32_t value : values) array.put(value);
    return key(name, 9, array);
  }

  /// A tensor whose data follows that of the tensor before.
  GgufWriter& tensor(std::string_view name, const std::vector<std::uint64_t>& sizes, std::uint32_t type,
                     const Bytes& data) {
    data_.pad_to(alignment);
    describe(name, sizes, type, data_.size());
    data_.add(data);
    return *this;
  }
  GgufWriter& tensor(std::string_view name, const std::vector<std::uint64_t>& sizes, std::span<const float> values) {
    Bytes data;
    for (const float value : values) data.put(value);
    return tensor(name, sizes, 0, data);
  }
  /// A description alone, of data that is anywhere.
  GgufWriter& describe(std::string_view name, const std::vector<std::uint64_t>& sizes, std::uint32_t type,
                       std::uint64_t offset) {
    tensors_.text(name).put(static_cast<std::uint32_t>(sizes.size()));
    for (const std::uint64_t size : sizes) tensors_.put(size);
    tensors_.put(type).put(offset);
    ++num_tensors_;
    return *this;
  }

  /// All but the data.
  Bytes head() const {
    Bytes out;
    out.raw(magic).put(version).put(num_tensors_ + extra_tensors).put(num_keys_ + extra_keys).add(keys_).add(tensors_);
    return out;
  }
  std::vector<std::byte> bytes() const { return head().pad_to(alignment).add(data_).all(); }

 private:
  Bytes keys_, tensors_, data_;
  std::uint64_t num_keys_ = 0, num_tensors_ = 0;
};

}  // namespace llama_test
