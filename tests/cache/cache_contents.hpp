// SPDX-License-Identifier: MIT
#pragma once

#include <random>
#include <string>
#include <vector>

#include "headwise/cache/kv_cache.hpp"

namespace headwise::testing {

/// Random numbers that no 16-bit type holds exactly.
template <class T = float>
std::vector<T> random_numbers(Index count, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<T> result;
  result.reserve(static_cast<std::size_t>(count));
  for (Index i = 0; i < count; ++i) result.push_back(T(normal(generator)));
  return result;
}

/// All bytes that a kernel may read: every tile with at least one token that is kept.
inline std::string tile_bytes_of(const KvCache<>& cache) {
  std::string bytes;
  for (Index layer = 0; layer < cache.num_layers(); ++layer) {
    const auto tiles = cache.layer(layer);
    const TileFormat format = tiles.format();
    for (Index b = 0; b < tiles.num_sequences(); ++b)
      for (Index g = 0; g < format.num_kv_heads; ++g)
        for_each_tile(tiles.kept(b), [&](Index i) {
          bytes.append(static_cast<const char*>(tiles.tile(b, g, i).keys), static_cast<std::size_t>(format.bytes()));
        });
  }
  return bytes;
}

/// Everything of a cache that must not change when a call fails.
struct Snapshot {
  std::string tiles;
  std::vector<Index> counts;
  explicit Snapshot(const KvCache<>& cache) : tiles(tile_bytes_of(cache)) {
    for (Index layer = 0; layer < cache.num_layers(); ++layer) {
      counts.push_back(cache.max_tokens(layer));
      for (Index b = 0; b < cache.num_sequences(); ++b) {
        const TokenRange kept = cache.layer(layer).kept(b);
        counts.insert(counts.end(), {kept.sinks, kept.begin, kept.end, cache.num_tokens(layer, b)});
      }
    }
    counts.push_back(cache.bytes());
  }
  bool operator==(const Snapshot&) const = default;
};

}  // namespace headwise::testing
