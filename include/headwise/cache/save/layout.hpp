// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "headwise/cache/key_transform.hpp"
#include "headwise/cache/tile_source.hpp"
#include "headwise/cache/token_store.hpp"
#include "headwise/core/tile_layout.hpp"
#include "headwise/core/xxh64.hpp"

// What a saved sequence says of itself: of each storage its format, what was done to keys, and which tokens it holds.

namespace headwise::detail {

/// A KeyTransform by what it does: two that differ in a factor differ in the hash.
struct SavedTransform {
  bool hadamard = false;
  bool has_channel_scales = false;
  std::uint64_t channel_scales_hash = 0;  // XXH64 of c [num_kv_heads][head_dim] as floats; 0 without
  friend bool operator==(const SavedTransform&, const SavedTransform&) = default;
};

inline SavedTransform saved_transform(const KeyTransform& transform, const TileFormat& format) {
  SavedTransform result{transform.hadamard, transform.channel_scales != nullptr, 0};
  if (result.has_channel_scales)
    result.channel_scales_hash = Xxh64::of(std::as_bytes(
        std::span(transform.channel_scales, static_cast<std::size_t>(format.num_kv_heads * format.head_dim))));
  return result;
}

/// One storage of a cache or of a file.
struct StorageLayout {
  TileFormat format;
  SavedTransform transform;
  Index layer = -1;  // that makes its keys and values, where a cache says so; a file does not
};

template <TokenStore C>
std::vector<StorageLayout> layout_of(const C& cache) {
  std::vector<StorageLayout> layout;
  std::vector<Index> layers;
  if constexpr (requires { cache.sharing().producers(); }) layers = cache.sharing().producers();
  for (Index s = 0; s < cache.num_storages(); ++s) {
    const TileFormat format = cache.storage_format(s);
    layout.push_back({format, saved_transform(cache.storage_transform(s), format),
                      s < std::ssize(layers) ? layers[static_cast<std::size_t>(s)] : -1});
  }
  return layout;
}

/// The tiles of one KV head that a file has for a range, as for_each_tile names them: [0, sinks) and [first, end).
struct SavedTiles {
  Index sinks, first, end;

  explicit SavedTiles(const TokenRange& range)
      : sinks(ceil_div(range.sinks, kTileTokens)),
        first(std::max(sinks, range.begin / kTileTokens)),
        end(range.begin < range.end ? std::max(first, ceil_div(range.end, kTileTokens)) : first) {}
  Index count() const { return sinks + end - first; }
  /// How many lie before tile `index`.
  Index place(Index index) const { return index < sinks ? index : sinks + index - first; }
};

/// The same tokens in the one way that a file has: a range in which nothing was forgotten starts at 0.
inline TokenRange saved_range(const TokenRange& range) {
  return range.begin <= range.sinks ? TokenRange{0, 0, range.end} : range;
}

}  // namespace headwise::detail
