// SPDX-License-Identifier: MIT
#pragma once

#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"

namespace headwise {

namespace detail {

/// A count that is a type where it is known and a value where it is not.
template <Index Static>
struct Extent {
  constexpr Extent() = default;
  constexpr Extent(const char* name, Index value) {
    require(value == Static, name, " (", value, ") must be ", Static, ", the compile-time value");
  }
  static constexpr Index get() { return Static; }
};
template <>
struct Extent<dynamic> {
  constexpr Extent() = default;
  constexpr Extent(const char*, Index count) : value(count) {}
  constexpr Index get() const { return value; }
  Index value = 0;
};

}  // namespace detail

/// Largest head_dim and value_dim: the latent of DeepSeek-V2 and its rotated part, 512 + 64.
inline constexpr Index kMaxHeadDim = 576;

/// The shape of an attention layer. `Heads<32, 8, 128>` and `Heads<>{32, 8, 128}` are the same shape, one known at
/// compile time and one at run time; any count may be `dynamic`.
///   num_heads     query heads, at least 1
///   num_kv_heads  heads of K and V, 1 … num_heads (num_heads: MHA, 1: MQA, between: GQA)
///   head_dim      length of a query and of a key, 1 … 576
///   value_dim     length of a value and of an output; 0 or unset: head_dim
/// Throws std::invalid_argument when a count is out of range. num_heads need not be a multiple of num_kv_heads: then a
/// HeadMap says which query head reads which KV head.
template <Index NumHeads = dynamic, Index NumKvHeads = dynamic, Index HeadDim = dynamic, Index ValueDim = HeadDim>
class Heads {
  static_assert(NumHeads == dynamic || NumHeads >= 1, "num_heads must be at least 1");
  static_assert(NumKvHeads == dynamic || NumKvHeads >= 1, "num_kv_heads must be at least 1");
  static_assert(NumHeads == dynamic || NumKvHeads == dynamic || NumKvHeads <= NumHeads,
                "num_kv_heads must not exceed num_heads");
  static_assert(HeadDim == dynamic || (HeadDim >= 1 && HeadDim <= kMaxHeadDim), "head_dim must be 1 to 576");
  static_assert(ValueDim == dynamic || (ValueDim >= 1 && ValueDim <= kMaxHeadDim), "value_dim must be 1 to 576");

 public:
  static constexpr bool is_static =
      NumHeads != dynamic && NumKvHeads != dynamic && HeadDim != dynamic && ValueDim != dynamic;
  /// Whether num_heads is known at compile time not to be a multiple of num_kv_heads.
  static constexpr bool needs_map = NumHeads != dynamic && NumKvHeads != dynamic && NumHeads % NumKvHeads != 0;

  constexpr Heads()
    requires is_static
  = default;

  constexpr Heads(Index num_heads, Index num_kv_heads, Index head_dim, Index value_dim = 0)
      : num_heads_("num_heads", num_heads),
        num_kv_heads_("num_kv_heads", num_kv_heads),
        head_dim_("head_dim", head_dim),
        value_dim_("value_dim", value_dim == 0 ? head_dim : value_dim) {
    require(num_heads >= 1, "num_heads (", num_heads, ") must be at least 1");
    require(num_kv_heads >= 1 && num_kv_heads <= num_heads, "num_kv_heads (", num_kv_heads,
            ") must be 1 to num_heads (", num_heads, ")");
    require(head_dim >= 1 && head_dim <= kMaxHeadDim, "head_dim (", head_dim, ") must be 1 to ", kMaxHeadDim);
    require(value_dim >= 0 && value_dim <= kMaxHeadDim, "value_dim (", value_dim, ") must be 1 to ", kMaxHeadDim);
  }

  /// From the same shape with other counts static; throws if a compile-time count differs.
  template <Index H, Index KV, Index D, Index DV>
  constexpr Heads(const Heads<H, KV, D, DV>& other)  // NOLINT: converts on purpose
      : Heads(other.num_heads(), other.num_kv_heads(), other.head_dim(), other.value_dim()) {}

  constexpr Index num_heads() const { return num_heads_.get(); }
  constexpr Index num_kv_heads() const { return num_kv_heads_.get(); }
  constexpr Index head_dim() const { return head_dim_.get(); }
  constexpr Index value_dim() const { return value_dim_.get(); }
  /// Query heads per KV head; meaningful where num_heads is a multiple of num_kv_heads.
  constexpr Index group_size() const { return num_heads() / num_kv_heads(); }

 private:
  [[no_unique_address]] detail::Extent<NumHeads> num_heads_;
  [[no_unique_address]] detail::Extent<NumKvHeads> num_kv_heads_;
  [[no_unique_address]] detail::Extent<HeadDim> head_dim_;
  [[no_unique_address]] detail::Extent<ValueDim> value_dim_;
};

}  // namespace headwise
