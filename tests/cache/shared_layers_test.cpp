// SPDX-License-Identifier: MIT
// A KvCache whose layers share keys and values: Cross-Layer Attention.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "headwise/cache/kv_cache.hpp"
#include "tests/cache/cache_contents.hpp"
#include "tests/support/errors.hpp"

namespace headwise {
namespace {

using testing::expect_error;
using testing::random_numbers;
using testing::Snapshot;

std::vector<LayerShape> layers_of(Index count, const LayerShape& shape) {
  return std::vector<LayerShape>(static_cast<std::size_t>(count), shape);
}

Index bytes_per_token(Index kv_heads, Index head_dim, std::string_view sharing) {
  const KvCache<bf16> cache(layers_of(20, {kv_heads, head_dim}), KvSharing::by_name(sharing, 20), 64);
  EXPECT_EQ(cache.bytes(), 64 * cache.bytes_per_token());
  EXPECT_EQ(cache.num_layers(), 20);
  return cache.bytes_per_token();
}

TEST(SharedLayers, TakeThePublishedBytesPerToken) {
  // 20 layers, 2 bytes (Brandon et al. 2024, arXiv 2405.12981)
  EXPECT_EQ(bytes_per_token(16, 128, "none"), 163840);
  EXPECT_EQ(bytes_per_token(4, 128, "none"), 40960);
  EXPECT_EQ(bytes_per_token(2, 128, "none"), 20480);
  EXPECT_EQ(bytes_per_token(1, 128, "none"), 10240);
  EXPECT_EQ(bytes_per_token(1, 128, "cla2"), 5120);
  EXPECT_EQ(bytes_per_token(1, 64, "cla2"), 2560);
  EXPECT_EQ(bytes_per_token(1, 128, "cla3"), 3584);
  EXPECT_EQ(bytes_per_token(1, 128, "cla4"), 2560);
  for (const char* name : {"keep-ends", "dense-front", "dense-back"})
    EXPECT_EQ(bytes_per_token(1, 128, name), 5632) << name;
  // published 3,680 and 3,600: tiles pad 46 and 90 dims to 48 and 96
  EXPECT_EQ(bytes_per_token(1, 46, "none"), 3680 / 46 * 48);
  EXPECT_EQ(bytes_per_token(1, 90, "cla2"), 3600 / 90 * 96);
}

/// Layers 0 and 2 of {0, 0, 2, 0} hold 70 and 10 tokens of two sequences.
struct Shared {
  KvCache<float> cache;
  std::vector<float> numbers = random_numbers(2 * 100 * 3 * 8, 1);

  explicit Shared(CacheOptions options = {})
      : cache(std::vector<LayerShape>{{2, 8}, {2, 8}, {3, 5, 7}, {2, 8, 8}},
              KvSharing::from_sources(std::vector<Index>{0, 0, 2, 0}), 100, with_two(options)) {
    append(0, 70);
    append(2, 10);
  }
  static CacheOptions with_two(CacheOptions options) {
    options.num_sequences = 2;
    return options;
  }
  void append(Index layer, Index count) {
    const LayerShape s = cache.layer_shape(layer);
    cache.append(layer, View<const float>(numbers.data(), 2, count, s.num_kv_heads, s.head_dim),
                 View<const float>(numbers.data() + 5, 2, count, s.num_kv_heads, s.value_dim));
  }
};

TEST(SharedLayers, ReadTheKeysAndValuesOfTheirSource) {
  Shared shared({.key_norms = true});
  const auto& cache = shared.cache;
  EXPECT_EQ(cache.sharing().source(3), 0);
  EXPECT_EQ(cache.num_layers(), 4);
  for (const Index borrower : {1, 3}) {
    EXPECT_EQ(cache.layer_shape(borrower), (LayerShape{2, 8, 8}));
    EXPECT_EQ(cache.num_tokens(borrower, 1), 70);
    EXPECT_EQ(cache.max_tokens(borrower), 100);
    std::vector<float> mine(8), theirs(8);
    cache.read_key(borrower, 1, 69, 1, mine);
    cache.read_key(0, 1, 69, 1, theirs);
    EXPECT_EQ(mine, theirs);
    EXPECT_EQ(cache.key_norm_squares(borrower, 1, 1), cache.key_norm_squares(0, 1, 1));
    for (Index b = 0; b < 2; ++b)
      for (Index g = 0; g < 2; ++g)
        EXPECT_EQ(cache.layer(borrower).tile(b, g, 1).keys, cache.layer(0).tile(b, g, 1).keys);
  }
  EXPECT_EQ(cache.num_tokens(2), 10);
}

TEST(SharedLayers, ShowWhatTheirSourceAppendsLaterEvenWhenItGrows) {
  KvCache<float> cache(layers_of(2, {1, 8}), KvSharing::every(2, 2), 1, {.growing = true});
  const auto borrower = cache.layer(1);
  const auto k = random_numbers(200 * 8, 2);
  cache.append(0, View<const float>(k.data(), 200, 1, 8), View<const float>(k.data(), 200, 1, 8));
  EXPECT_EQ(borrower.num_tokens(0), 200);
  EXPECT_EQ(borrower.tile(0, 0, 3).keys, cache.layer(0).tile(0, 0, 3).keys);
  EXPECT_EQ(cache.max_tokens(1), 200);
}

TEST(SharedLayers, AreChangedOnce) {
  Shared shared;
  auto& cache = shared.cache;
  EXPECT_EQ(cache.bytes(), 2 * 2 * (2 * tile_bytes(Storage::f32, 8, 8) + 3 * tile_bytes(Storage::f32, 5, 7)));

  std::vector<float> first(8), key(8);
  cache.read_key(0, 0, 3, 0, first);
  // a swap done once per layer would be undone by the second
  cache.reorder(std::vector<Index>{1, 0});
  for (Index layer : {0, 1, 3}) {
    cache.read_key(layer, 1, 3, 0, key);
    EXPECT_EQ(key, first) << layer;
  }
  auto copy = cache.copy();
  EXPECT_EQ(Snapshot(copy), Snapshot(cache));
  EXPECT_EQ(copy.sharing(), cache.sharing());
  EXPECT_EQ(copy.layer(3).tile(0, 0, 0).keys, copy.layer(0).tile(0, 0, 0).keys);
  EXPECT_NE(copy.layer(3).tile(0, 0, 0).keys, cache.layer(3).tile(0, 0, 0).keys);

  cache.truncate(40);
  EXPECT_EQ(cache.num_tokens(0), 40);
  EXPECT_EQ(cache.num_tokens(3), 40);
  EXPECT_EQ(cache.num_tokens(2), 10);
  cache.clear();
  for (Index layer = 0; layer < 4; ++layer) EXPECT_EQ(cache.num_tokens(layer, 1), 0);
  EXPECT_EQ(copy.num_tokens(3), 70);
}

TEST(SharedLayers, AreOnlyChangedThroughTheirSource) {
  Shared shared;
  const Snapshot before(shared.cache);
  expect_error([&] { shared.append(1, 2); }, {"layer (1)", "keys and values of layer 0", "makes its own"});
  expect_error([&] { shared.append(3, 0); }, {"layer (3)", "keys and values of layer 0"});
  expect_error([&] { shared.cache.truncate(3, 0, 5); }, {"layer (3)", "keys and values of layer 0"});
  EXPECT_EQ(Snapshot(shared.cache), before);
}

TEST(SharedLayers, MustHaveEqualShapes) {
  const auto make = [](std::vector<LayerShape> layers, std::vector<Index> sources) {
    return [=] { KvCache<float>(layers, KvSharing::from_sources(sources), 10); };
  };
  expect_error(make({{2, 8}, {1, 8}}, {0, 0}),
               {"layers[1] (num_kv_heads 1, head_dim 8, value_dim 8, window 0", "layers[0]", "num_kv_heads 2"});
  expect_error(make({{2, 8}, {2, 8}, {2, 16}}, {0, 1, 1}), {"layers[2]", "head_dim 16", "layers[1]", "head_dim 8"});
  expect_error(make({{2, 8}, {2, 8, 4}}, {0, 0}), {"layers[1]", "value_dim 4", "value_dim 8"});
  expect_error(make({{2, 8}, {2, 8}}, {0, 0, 0}), {"sharing (3 layers)", "shapes (2)"});
  expect_error(make({}, {0}), {"sharing (1 layers)", "shapes (0)"});
  EXPECT_NO_THROW(make({{2, 8}, {1, 4}, {2, 8, 8}}, {0, 1, 0})());
}

}  // namespace
}  // namespace headwise
