// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <cstdint>
#include <type_traits>

#include "headwise/core/index.hpp"
#include "headwise/core/tile_layout.hpp"
#include "headwise/score/tile_word.hpp"
#include "headwise/simd/region.hpp"

namespace headwise {

/// A row of queries against a tile of keys, as a mask function is asked about it. `query` is a position, like those of keys.
struct MaskTile {
  Index sequence, head, query;
  Index first_key;  ///< 64 times the number of the tile
  Index keys;       ///< 1 … 64 that exist
};

namespace detail {

template <class F>
concept SeesByWord = std::is_invocable_v<const F&, const MaskTile&>;
template <class F>
concept SeesByHead = SeesByWord<F> || std::is_invocable_v<const F&, Index, Index, Index, Index>;

using MaskThunk = std::uint64_t (*)(const void* self, const MaskTile& tile);

#if defined(__x86_64__) && !defined(HEADWISE_NATIVE_ONLY)
#define HEADWISE_MASK_THUNKS
namespace masks_sse2 {
#include "headwise/score/mask_thunk.inl.hpp"
}
HEADWISE_REGION_BEGIN("avx2,fma")
namespace masks_avx2 {
#include "headwise/score/mask_thunk.inl.hpp"
}
HEADWISE_REGION_END
HEADWISE_REGION_BEGIN("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")
namespace masks_avx512 {
#include "headwise/score/mask_thunk.inl.hpp"
}
HEADWISE_REGION_END
#else
namespace masks_native {
#include "headwise/score/mask_thunk.inl.hpp"
}
#endif

}  // namespace detail

/// The caller's own mask: a callable object that says which keys a query sees, beside what the other options say. It is
/// compiled where this is made, with the loop over a tile's keys around it, for every ISA that the kernels have, and called
/// through one pointer per row and tile. Refers to the callable, which must live during the call, or as long as a plan of it.
///
/// One of:
///   bool(Index sequence, Index head, Index query, Index key)
///   bool(Index sequence, Index query, Index key)      the same to all heads: worked out once for those of a group
///   std::uint64_t(const MaskTile&)                    bit j: whether key first_key + j is seen; others are ignored
/// `query` is the query's position p, `key` a key's, 0 … the keys of the sequence. Must give the same for the same
/// arguments, and must not throw. It is asked only about rows that see some key of the tile otherwise, by several threads
/// at once.
class MaskFunction {
 public:
  template <class F>
    requires std::predicate<const F&, Index, Index, Index, Index> || std::predicate<const F&, Index, Index, Index> ||
                 std::same_as<std::invoke_result_t<const F&, const MaskTile&>, std::uint64_t>
  explicit MaskFunction(const F& function) : function_(&function), by_head_(detail::SeesByHead<F>) {
#if defined(HEADWISE_MASK_THUNKS)
    of_4_lanes_ = detail::masks_sse2::see_row<F>;
    of_8_lanes_ = detail::masks_avx2::see_row<F>;
    of_16_lanes_ = detail::masks_avx512::see_row<F>;
#else
    of_4_lanes_ = of_8_lanes_ = of_16_lanes_ = detail::masks_native::see_row<F>;
#endif
  }
  template <class F>
    requires(!std::same_as<F, MaskFunction>)
  explicit MaskFunction(const F&& function) = delete;  // it would not live

  /// The keys of a tile that a row sees.
  std::uint64_t operator()(const MaskTile& tile) const { return of_4_lanes_(function_, tile); }
  /// The same, with the instructions of an ISA of so many lanes of f32: 4, 8 or 16.
  std::uint64_t operator()(int lanes, const MaskTile& tile) const {
    return (lanes == 16 ? of_16_lanes_ : lanes == 8 ? of_8_lanes_ : of_4_lanes_)(function_, tile);
  }
  /// Whether heads may see different keys.
  bool by_head() const { return by_head_; }

 private:
  const void* function_;
  detail::MaskThunk of_4_lanes_, of_8_lanes_, of_16_lanes_;
  bool by_head_;
};

}  // namespace headwise
