// SPDX-License-Identifier: MIT
#pragma once

#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"
#include "headwise/core/storage.hpp"
#include "headwise/cost/checked.hpp"

namespace headwise::cost {

/// How many bytes numbers take: `bits` each and, where they are quantized, `group_bytes` of scales (and zero points) for
/// every `group` consecutive ones. It names a size, not an encoding: formats that headwise cannot compute with count too.
class ElementFormat {
 public:
  constexpr ElementFormat(Storage storage) : bits_(8 * size_of(storage)) {}
  /// bits: 1 to 64. group: elements that share scales, 0: none, and then group_bytes is 0. Throws std::invalid_argument.
  explicit constexpr ElementFormat(Index bits, Index group = 0, Index group_bytes = 0)
      : bits_(bits), group_(group), group_bytes_(group_bytes) {
    require(bits >= 1 && bits <= 64, "bits (", bits, ") must be 1 to 64");
    require(group >= 0, "group (", group, ") must be at least 0 (0: no scales)");
    require(group_bytes >= 0 && (group > 0 || group_bytes == 0), "group_bytes (", group_bytes,
            ") must be at least 0, and 0 where group (", group, ") is 0");
  }
  /// 8 and 4 bits with an f16 scale for every 32 elements: 8.5 and 4.5 bits an element.
  static constexpr ElementFormat int8(Index group = 32, Index group_bytes = 2) {
    return ElementFormat(8, group, group_bytes);
  }
  static constexpr ElementFormat int4(Index group = 32, Index group_bytes = 2) {
    return ElementFormat(4, group, group_bytes);
  }
  /// One byte each and no scales.
  static constexpr ElementFormat fp8() { return ElementFormat(8); }

  constexpr Index bits() const { return bits_; }
  constexpr Index group() const { return group_; }
  constexpr Index group_bytes() const { return group_bytes_; }

  /// Bytes of `count` ≥ 0 consecutive elements: the last byte and the last group may be partly used.
  Index bytes(Index count) const {
    require(count >= 0, "count (", count, ") of elements must be at least 0");
    const Index bit_count = detail::product("bits of elements", {count, bits_});
    const Index scales = group_ == 0 ? 0 : detail::product("bytes of scales", {blocks(count, group_), group_bytes_});
    return detail::sum("bytes of elements", {blocks(bit_count, 8), scales});
  }

  friend constexpr bool operator==(const ElementFormat&, const ElementFormat&) = default;

 private:
  // ceil_div would overflow next to 2⁶³
  static constexpr Index blocks(Index count, Index size) { return count / size + (count % size != 0); }

  Index bits_;
  Index group_ = 0;
  Index group_bytes_ = 0;
};

/// How a cache stores keys and values. A row (head_dim or value_dim elements of one head and token) has groups of its own.
struct KvFormat {
  ElementFormat key, value;

  constexpr KvFormat(ElementFormat both) : key(both), value(both) {}
  constexpr KvFormat(Storage both) : key(both), value(both) {}
  constexpr KvFormat(ElementFormat keys, ElementFormat values) : key(keys), value(values) {}
};

/// How a model is stored: its weights, and the keys and values it makes.
struct Formats {
  ElementFormat weights = Storage::bf16;
  KvFormat kv = Storage::bf16;
};

}  // namespace headwise::cost
