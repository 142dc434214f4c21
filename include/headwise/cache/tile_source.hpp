// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>

#include "headwise/core/index.hpp"
#include "headwise/core/storage.hpp"

namespace headwise {

/// Where one tile's keys and values lie (core/tile_layout.hpp); aligned to kTileAlignment.
struct TilePointers {
  const void* keys;
  const void* values;
};

/// Shape and storage of the keys and values of one layer.
struct TileFormat {
  Storage key_storage;
  Storage value_storage;
  Index num_kv_heads;
  Index head_dim;
  Index value_dim;
};

/// What a source still has of a sequence of `end` tokens: [0, sinks) and [begin, end). Those between were forgotten; none
/// were where begin <= sinks.
struct TokenRange {
  Index sinks;
  Index begin;
  Index end;
  friend bool operator==(const TokenRange&, const TokenRange&) = default;
};

/// The one question every cache answers: where is tile `index` of this KV head of this sequence? Tile i holds tokens
/// 64·i … 64·i + 63. The contract:
///   - all elements of a tile with at least one stored token are readable, and those of unwritten slots and of padding
///     are finite (caches zero them);
///   - pointers stay valid while attention runs: a cache is not changed during a call.
/// A source that forgets old tokens says so with a further member, `TokenRange kept(Index sequence) const`, whose end is
/// num_tokens(sequence). It is asked for tiles with at least one token that it keeps; all elements of those are readable,
/// and what was forgotten in them may be anything. A call that would see a forgotten token is an error.
/// A source whose sequences may share tiles says so with a further member, `Index shared_tokens(Index a, Index b) const`:
/// how many leading tokens sequences a and b hold in the very same tiles, a multiple of 64, 0 for none. Attention may read
/// those once for both (Options::share_prefix).
template <class S>
concept TileSource = requires(const S& source, Index i) {
  { source.format() } -> std::same_as<TileFormat>;
  { source.num_sequences() } -> std::same_as<Index>;
  { source.num_tokens(i) } -> std::same_as<Index>;         // of sequence i
  { source.tile(i, i, i) } -> std::same_as<TilePointers>;  // sequence, KV head, tile index
};

}  // namespace headwise
