// SPDX-License-Identifier: MIT
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <set>
#include <vector>

#include "headwise/cache/paged_cache.hpp"

// What the sequences of a PagedCache hold, as vectors of rows.

namespace headwise::testing {

/// A token of one layer: [kv_head][head_dim] and [kv_head][value_dim].
struct ModelToken {
  std::vector<float> key, value;
};

inline bool same_bits(const float* a, const float* b, Index count) {
  return std::memcmp(a, b, static_cast<std::size_t>(count) * sizeof(float)) == 0;
}

/// Tokens of a sequence: [producer][token].
using ModelSequence = std::vector<std::vector<ModelToken>>;

/// Tokens packed as append takes them.
struct PackedTokens {
  std::vector<float> keys, values;
  void add(const ModelToken& token) {
    keys.insert(keys.end(), token.key.begin(), token.key.end());
    values.insert(values.end(), token.value.begin(), token.value.end());
  }
};
inline View<const float> keys_of(const PackedTokens& tokens, const LayerShape& shape) {
  return {tokens.keys.data(), std::ssize(tokens.keys) / (shape.num_kv_heads * shape.head_dim), shape.num_kv_heads,
          shape.head_dim};
}
inline View<const float> values_of(const PackedTokens& tokens, const LayerShape& shape) {
  return {tokens.values.data(), std::ssize(tokens.values) / (shape.num_kv_heads * shape.value_dim), shape.num_kv_heads,
          shape.value_dim};
}

/// A token is what is expected, bit for bit.
inline void expect_token(const AnyPagedCache& cache, Index layer, const SequenceId& id, Index t,
                         const ModelToken& expected) {
  const LayerShape shape = cache.layer_shape(layer);
  std::vector<float> key(static_cast<std::size_t>(shape.head_dim)), value(static_cast<std::size_t>(shape.value_dim));
  for (Index g = 0; g < shape.num_kv_heads; ++g) {
    cache.read_key(layer, id, t, g, key);
    cache.read_value(layer, id, t, g, value);
    ASSERT_TRUE(same_bits(key.data(), expected.key.data() + g * shape.head_dim, shape.head_dim))
        << "key of layer " << layer << ", token " << t << ", head " << g << ": " << key[0] << ", expected "
        << expected.key[static_cast<std::size_t>(g * shape.head_dim)];
    ASSERT_TRUE(same_bits(value.data(), expected.value.data() + g * shape.value_dim, shape.value_dim))
        << "value of layer " << layer << ", token " << t << ", head " << g;
  }
}

/// Unwritten slots, which kernels multiply by 0, hold finite numbers.
inline void expect_finite_rest(const AnyPagedCache& cache, Index layer, const SequenceId& id) {
  const Index tokens = cache.num_tokens(layer, id);
  if (tokens % kTileTokens == 0) return;
  const PagedLayer tiles = cache.layer(layer, std::span(&id, 1));
  const TileFormat format = tiles.format();
  std::vector<float> row(kMaxHeadDim);
  const auto finite = [&](Index dim) {
    for (Index d = 0; d < dim; ++d)
      if (!std::isfinite(row[static_cast<std::size_t>(d)])) return false;
    return true;
  };
  for (Index g = 0; g < format.num_kv_heads; ++g)
    for (Index slot = tokens % kTileTokens; slot < kTileTokens; ++slot) {
      const auto* tile = static_cast<const std::byte*>(tiles.tile(0, g, tokens / kTileTokens).keys);
      detail::read_stored_key(format, tile, slot, row.data());
      ASSERT_TRUE(finite(format.head_dim)) << "key of layer " << layer << ", slot " << slot << " behind " << tokens;
      detail::read_stored_value(format, tile, slot, row.data());
      ASSERT_TRUE(finite(format.value_dim)) << "value of layer " << layer << ", slot " << slot << " behind " << tokens;
    }
}

/// Everything of a sequence is what is expected.
inline void expect_sequence(const AnyPagedCache& cache, const SequenceId& id, const ModelSequence& expected) {
  std::size_t storage = 0;
  for (Index layer = 0; layer < cache.num_layers(); ++layer) {
    if (!cache.sharing().is_producer(layer)) continue;
    const auto& tokens = expected[storage++];
    ASSERT_EQ(cache.num_tokens(layer, id), std::ssize(tokens)) << "layer " << layer;
    for (Index t = 0; t < std::ssize(tokens); ++t)
      expect_token(cache, layer, id, t, tokens[static_cast<std::size_t>(t)]);
    expect_finite_rest(cache, layer, id);
  }
}

/// What the counters say is what the tables of the sequences hold.
inline void expect_counts(const AnyPagedCache& cache) {
  const PageCounts counts = cache.pages();
  EXPECT_EQ(counts.free + counts.used + counts.cached, counts.total);
  EXPECT_LE(counts.used, counts.peak);
  std::map<const void*, Index> holders;
  for (const SequenceId& id : cache.sequences()) {
    Index most = 0;
    for (Index layer = 0; layer < cache.num_layers(); ++layer) most = std::max(most, cache.num_tokens(layer, id));
    const PagedLayer tiles = cache.layer(0, std::span(&id, 1));
    const Index pages = ceil_div(most, cache.page_tokens());
    EXPECT_GE(cache.num_pages(id), pages);
    for (Index p = 0; p < cache.num_pages(id); ++p)
      ++holders[tiles.tile(0, 0, p * cache.page_tokens() / kTileTokens).keys];
  }
  Index shared = 0;
  for (const auto& [page, count] : holders) shared += count > 1;
  EXPECT_EQ(counts.used, std::ssize(holders));
  EXPECT_EQ(counts.shared, shared);
}

}  // namespace headwise::testing
