// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <cstdint>

#include "headwise/core/index.hpp"
#include "headwise/core/tile_layout.hpp"
#include "headwise/score/tile_word.hpp"

namespace headwise {

/// A row of queries against a tile of keys, as a mask function is asked about it. `query` is a position, like those of keys.
struct MaskTile {
  Index sequence, head, query;
  Index first_key;  ///< 64 times the number of the tile
  Index keys;       ///< 1 … 64 that exist
};

/// The caller's own mask: a callable object that says which keys a query sees, beside what the other options say. It is
/// compiled where this is made, with the loop over a tile's keys around it, and called through one pointer per row and
/// tile. Refers to the callable, which must live during the call, or as long as a plan of it.
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
  explicit MaskFunction(const F& function) : function_(&function), call_(&call<F>), by_head_(kByHead<F>) {}
  template <class F>
    requires(!std::same_as<F, MaskFunction>)
  explicit MaskFunction(const F&& function) = delete;  // it would not live

  /// The keys of a tile that a row sees.
  std::uint64_t operator()(const MaskTile& tile) const { return call_(function_, tile); }
  /// Whether heads may see different keys.
  bool by_head() const { return by_head_; }

 private:
  template <class F>
  static constexpr bool kByWord = std::is_invocable_r_v<std::uint64_t, const F&, const MaskTile&>;
  template <class F>
  static constexpr bool kByHead = kByWord<F> || std::is_invocable_v<const F&, Index, Index, Index, Index>;

  template <class F>
  static std::uint64_t call(const void* object, const MaskTile& tile) {
    const F& function = *static_cast<const F*>(object);
    if constexpr (kByWord<F>) {
      return function(tile);
    } else {
      // bytes first: compilers make vectors of the loop
      alignas(kTileAlignment) std::uint8_t seen[kTileTokens] = {};
      const MaskTile at = tile;  // a copy: nothing that a function does can change it
      const auto sees = [&](Index j) -> std::uint8_t {
        if constexpr (kByHead<F>)
          return static_cast<bool>(function(at.sequence, at.head, at.query, at.first_key + j));
        else
          return static_cast<bool>(function(at.sequence, at.query, at.first_key + j));
      };
      if (at.keys == kTileTokens)
        for (Index j = 0; j < kTileTokens; ++j) seen[j] = sees(j);
      else
        for (Index j = 0; j < at.keys; ++j) seen[j] = sees(j);
      return detail::word_of_bytes(seen);
    }
  }

  const void* function_;
  std::uint64_t (*call_)(const void*, const MaskTile&);
  bool by_head_;
};

}  // namespace headwise
