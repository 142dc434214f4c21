// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <span>

#include "headwise/cache/key_transform.hpp"
#include "headwise/cache/tile_source.hpp"
#include "headwise/core/error.hpp"
#include "headwise/core/tile_layout.hpp"

namespace headwise {

namespace detail {

/// What restore_sequence is called with where only its being there matters.
struct NoFill {
  void operator()(Index, Index, Index, std::byte*) const noexcept {}
};

}  // namespace detail

/// What saving and restoring ask of a cache. It has num_storages() of them, one per layer that makes its own keys and
/// values; tile `index` of a storage, sequence and KV head is storage_format(storage).bytes() of memory, the K tile and
/// then the V tile, and there is one for each tile that kept(storage, sequence) touches.
///
/// restore_sequence(sequence, ranges, fill) makes a sequence one that holds the tokens `ranges` [storage], whatever it held
/// before. It checks, makes room, and only then calls fill(storage, kv_head, index, std::byte* tile) once for each tile
/// that it keeps: `fill` copies the tile's bytes to there and cannot fail. A ring keeps what it can of a longer range.
/// Slots without a token are cleared and key norms made anew. Throws std::invalid_argument where the ranges do not fit the
/// cache and std::bad_alloc where there is no room; nothing has changed then.
template <class C>
concept TokenStore = requires(const C& cache, C& target, Index i, std::span<const TokenRange> ranges) {
  { cache.num_storages() } -> std::same_as<Index>;
  { cache.storage_format(i) } -> std::same_as<TileFormat>;              // of storage i
  { cache.storage_transform(i) } -> std::same_as<KeyTransform>;         // of storage i
  { cache.kept(i, i) } -> std::same_as<TokenRange>;                     // storage, sequence
  { cache.stored_tile(i, i, i, i) } -> std::same_as<const std::byte*>;  // storage, sequence, KV head, index
  target.restore_sequence(i, ranges, detail::NoFill{});
};

namespace detail {

/// That ranges [storage] are ones: 0 <= sinks <= begin <= end <= max_tokens.
inline void check_ranges(std::span<const TokenRange> ranges, Index num_storages, Index max_tokens) {
  require(std::ssize(ranges) == num_storages, "ranges (", ranges.size(), ") must be one per storage (", num_storages,
          ")");
  for (std::size_t s = 0; s < ranges.size(); ++s) {
    const auto& [sinks, begin, end] = ranges[s];
    require(0 <= sinks && sinks <= begin && begin <= end && end <= max_tokens, "ranges[", s, "] (sinks ", sinks,
            ", begin ", begin, ", end ", end, ") must have 0 <= sinks <= begin <= end <= ", max_tokens);
  }
}

}  // namespace detail

}  // namespace headwise
