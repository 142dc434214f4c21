// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

#include "headwise/cache/paged_cache.hpp"
#include "tests/cache/cache_contents.hpp"
#include "tests/cache/paged_model.hpp"

namespace headwise::testing {

/// `count` tokens that the seed makes, of a layer.
inline PackedTokens tokens_like(const LayerShape& shape, Index count, unsigned seed) {
  return {random_numbers(count * shape.num_kv_heads * shape.head_dim, 2 * seed),
          random_numbers(count * shape.num_kv_heads * shape.value_dim, 2 * seed + 1)};
}
inline void append_tokens(AnyPagedCache& cache, Index layer, const SequenceId& id, const PackedTokens& tokens) {
  const LayerShape shape = cache.layer_shape(layer);
  cache.append(layer, id, keys_of(tokens, shape), values_of(tokens, shape));
}
/// The same tokens of the seed to every layer that makes its own.
inline void append_tokens(AnyPagedCache& cache, const SequenceId& id, Index count, unsigned seed) {
  for (Index layer = 0; layer < cache.num_layers(); ++layer)
    if (cache.sharing().is_producer(layer))
      append_tokens(cache, layer, id, tokens_like(cache.layer_shape(layer), count, seed));
}

/// All keys and values of a sequence, as they are read back.
inline std::vector<float> contents_of(const AnyPagedCache& cache, const SequenceId& id) {
  std::vector<float> result;
  for (Index layer = 0; layer < cache.num_layers(); ++layer) {
    const LayerShape shape = cache.layer_shape(layer);
    const Index tokens = cache.num_tokens(layer, id);
    if (tokens == 0) continue;
    for (Index g = 0; g < shape.num_kv_heads; ++g) {
      std::vector<float> keys(static_cast<std::size_t>(tokens * shape.head_dim)),
          values(static_cast<std::size_t>(tokens * shape.value_dim));
      cache.read_keys(layer, id, 0, tokens, g, keys);
      cache.read_values(layer, id, 0, tokens, g, values);
      result.insert(result.end(), keys.begin(), keys.end());
      result.insert(result.end(), values.begin(), values.end());
    }
  }
  return result;
}

/// Everything that must not change when a call fails.
struct PagedSnapshot {
  PageCounts pages;
  PrefixCounts prefixes;
  std::vector<std::vector<float>> contents;  // [sequence]
  std::vector<Index> sizes;
  explicit PagedSnapshot(const AnyPagedCache& cache) : pages(cache.pages()), prefixes(cache.prefixes()) {
    for (const SequenceId& id : cache.sequences()) {
      contents.push_back(contents_of(cache, id));
      sizes.push_back(cache.num_pages(id));
      for (Index layer = 0; layer < cache.num_layers(); ++layer) sizes.push_back(cache.num_tokens(layer, id));
    }
  }
  bool operator==(const PagedSnapshot&) const = default;
};

/// Where the pages of a sequence lie: the first tile of each.
inline std::vector<const void*> pages_of(const AnyPagedCache& cache, const SequenceId& id) {
  std::vector<const void*> result;
  const PagedLayer tiles = cache.layer(0, std::span(&id, 1));
  for (Index p = 0; p < cache.num_pages(id); ++p)
    result.push_back(tiles.tile(0, 0, p * cache.page_tokens() / kTileTokens).keys);
  return result;
}

}  // namespace headwise::testing
