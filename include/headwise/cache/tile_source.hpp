// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <concepts>

#include "headwise/core/index.hpp"
#include "headwise/core/tile_layout.hpp"

namespace headwise {

/// Where one tile's keys and values lie (core/tile_layout.hpp); aligned to kTileAlignment.
struct TilePointers {
  const void* keys;
  const void* values;
};

/// What a source still has of a sequence of `end` tokens: [0, sinks) and [begin, end). Those between were forgotten; none
/// were where begin <= sinks.
struct TokenRange {
  Index sinks = 0;
  Index begin = 0;
  Index end = 0;
  friend bool operator==(const TokenRange&, const TokenRange&) = default;
};

/// f(index) for each tile that holds a token of the range, ascending.
template <class F>
void for_each_tile(const TokenRange& range, F f) {
  const Index sink_tiles = ceil_div(range.sinks, kTileTokens);
  const Index end = range.begin < range.end ? ceil_div(range.end, kTileTokens) : 0;
  for (Index i = 0; i < sink_tiles; ++i) f(i);
  for (Index i = std::max(sink_tiles, range.begin / kTileTokens); i < end; ++i) f(i);
}

/// The one question every cache answers: where is tile `index` of this KV head of this sequence? Tile i holds tokens
/// 64·i … 64·i + 63. The contract:
///   - all elements of a tile with at least one stored token are readable, and those of unwritten slots and of padding
///     are finite (caches zero them);
///   - pointers stay valid while attention runs: a cache is not changed during a call.
///
/// Where format().values_in_keys, TilePointers::values is never looked at.
///
/// A source may say more, where it has these members:
///   key_transform()      → KeyTransform: what was done to keys before they were stored, and is to be done to queries
///   kept(sequence)       → TokenRange: which tokens are still there, its end num_tokens(sequence); all of them otherwise.
///                          Tiles with at least one kept token are asked for; all elements of those are readable, and what
///                          was forgotten in them may be anything. A call that would see a forgotten token is an error.
///   shared_tokens(a, b)  → Index: how many leading tokens two sequences hold in the very same tiles, a multiple of 64;
///                          attention may read those once for both (Options::share_prefix)
template <class S>
concept TileSource = requires(const S& source, Index i) {
  { source.format() } -> std::same_as<TileFormat>;
  { source.num_sequences() } -> std::same_as<Index>;
  { source.num_tokens(i) } -> std::same_as<Index>;         // of sequence i
  { source.tile(i, i, i) } -> std::same_as<TilePointers>;  // sequence, KV head, tile index
};

}  // namespace headwise
