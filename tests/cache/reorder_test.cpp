// SPDX-License-Identifier: MIT
// Beam search: sequences of a cache become continuations of others. This file counts allocations for the whole test
// program, except where a sanitizer brings its own operator new.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "headwise/cache/kv_cache.hpp"
#include "tests/cache/cache_contents.hpp"
#include "tests/support/errors.hpp"
#include "tests/support/sanitizers.hpp"
#if !defined(HEADWISE_TEST_ASAN) && !defined(HEADWISE_TEST_TSAN)
#include "tests/support/counted_new.hpp"
#endif

namespace headwise {
namespace {

using testing::expect_error;
using testing::random_numbers;
using testing::Snapshot;

/// What a cache should hold, as vectors: of every layer, sequence and token one number that names its key and value.
struct Model {
  std::vector<LayerShape> layers;
  std::vector<std::vector<std::vector<unsigned>>> seeds;  // [layer][sequence][token]

  Model(std::vector<LayerShape> shapes, Index sequences)
      : layers(std::move(shapes)), seeds(layers.size(), std::vector<std::vector<unsigned>>(as_size(sequences))) {}
  static std::size_t as_size(Index i) { return static_cast<std::size_t>(i); }

  void reorder(const std::vector<Index>& parents) {
    for (auto& layer : seeds) {
      const auto old = layer;
      for (std::size_t b = 0; b < parents.size(); ++b) layer[b] = old[as_size(parents[b])];
    }
  }
  void append(KvCache<float>& cache, Index layer, Index sequence, Index count, unsigned& seed) {
    const LayerShape shape = cache.layer_shape(layer);
    std::vector<float> k, v;
    for (Index t = 0; t < count; ++t) {
      const auto key = key_of(shape, seed), value = value_of(shape, seed);
      k.insert(k.end(), key.begin(), key.end());
      v.insert(v.end(), value.begin(), value.end());
      seeds[as_size(layer)][as_size(sequence)].push_back(seed++);
    }
    cache.append(layer, sequence, View<const float>(k.data(), count, shape.num_kv_heads, shape.head_dim),
                 View<const float>(v.data(), count, shape.num_kv_heads, shape.value_dim));
  }
  static std::vector<float> key_of(const LayerShape& s, unsigned seed) {
    return random_numbers(s.num_kv_heads * s.head_dim, 2 * seed);
  }
  static std::vector<float> value_of(const LayerShape& s, unsigned seed) {
    return random_numbers(s.num_kv_heads * s.value_dim, 2 * seed + 1);
  }

  /// Every number of the cache, and that the slots behind the last token are zero.
  void expect(const KvCache<float>& cache) const {
    for (Index layer = 0; layer < cache.num_layers(); ++layer)
      for (Index b = 0; b < cache.num_sequences(); ++b) {
        const auto& tokens = seeds[as_size(layer)][as_size(b)];
        ASSERT_EQ(cache.num_tokens(layer, b), std::ssize(tokens)) << "layer " << layer << ", sequence " << b;
        expect_sequence(cache, layer, b, tokens);
      }
  }

 private:
  static void expect_sequence(const KvCache<float>& cache, Index layer, Index b, const std::vector<unsigned>& tokens) {
    const LayerShape s = cache.layer_shape(layer);
    std::vector<float> key(as_size(s.head_dim)), value(as_size(s.value_dim));
    for (Index t = 0; t < std::ssize(tokens); ++t) {
      const auto k = key_of(s, tokens[as_size(t)]), v = value_of(s, tokens[as_size(t)]);
      for (Index g = 0; g < s.num_kv_heads; ++g) {
        cache.read_key(layer, b, t, g, key);
        cache.read_value(layer, b, t, g, value);
        ASSERT_TRUE(std::equal(key.begin(), key.end(), k.begin() + g * s.head_dim)) << layer << b << t << g;
        ASSERT_TRUE(std::equal(value.begin(), value.end(), v.begin() + g * s.value_dim)) << layer << b << t << g;
      }
    }
    const Index in_last = std::ssize(tokens) % kTileTokens;
    if (in_last == 0) return;
    const auto source = cache.layer(layer);
    for (Index g = 0; g < s.num_kv_heads; ++g) {
      const TilePointers tile = source.tile(b, g, std::ssize(tokens) / kTileTokens);
      for (Index t = in_last; t < kTileTokens; ++t) {
        for (Index d = 0; d < s.head_dim; ++d)
          ASSERT_EQ(load_element(tile.keys, Storage::f32, key_index(Storage::f32, s.head_dim, t, d)), 0.0f);
        for (Index d = 0; d < s.value_dim; ++d)
          ASSERT_EQ(load_element(tile.values, Storage::f32, value_index(Storage::f32, s.value_dim, t, d)), 0.0f);
      }
    }
  }
};

const std::vector<LayerShape> kLayers{{2, 6, 10}, {1, 20}, {3, 5, 3}};

/// A cache of three layers with different lengths everywhere.
KvCache<float> filled(Model& model, Index sequences, CacheOptions options, unsigned& seed) {
  options.num_sequences = sequences;
  KvCache<float> cache(kLayers, options.growing ? 1 : 300, options);
  for (Index layer = 0; layer < 3; ++layer)
    for (Index b = 0; b < sequences; ++b) model.append(cache, layer, b, 40 * layer + 33 * b, seed);
  return cache;
}

TEST(Reorder, EverySequenceBecomesWhatItsParentWas) {
  // all 3^3 choices of parents: the identity, cycles, repeats, one parent of all
  for (Index choice = 0; choice < 27; ++choice) {
    const std::vector<Index> parents{choice % 3, choice / 3 % 3, choice / 9};
    unsigned seed = 1;
    Model model(kLayers, 3);
    auto cache = filled(model, 3, {}, seed);
    cache.reorder(parents);
    model.reorder(parents);
    model.expect(cache);
    for (Index b = 0; b < 3; ++b) model.append(cache, 1, b, 3 + 60 * b, seed);  // each goes its own way
    model.expect(cache);
    if (HasFatalFailure()) FAIL() << "choice " << choice;
  }
}

TEST(Reorder, RandomBeamSearchesAgreeWithVectors) {
  std::mt19937 random(7);
  for (const bool growing : {false, true}) {
    unsigned seed = 1;
    Model model(kLayers, 5);
    auto cache = filled(model, 5, {.growing = growing}, seed);
    for (int step = 0; step < 25; ++step) {
      std::vector<Index> parents;
      for (int b = 0; b < 5; ++b) parents.push_back(static_cast<Index>(random() % 5));
      cache.reorder(parents);
      model.reorder(parents);
      for (Index layer = 0; layer < 3; ++layer)
        for (Index b = 0; b < 5; ++b) model.append(cache, layer, b, static_cast<Index>(random() % 4), seed);
      if (step % 8 == 7) {
        Index most = 0;
        for (const auto& layer : model.seeds)
          for (const auto& tokens : layer) most = std::max(most, std::ssize(tokens));
        const Index keep = most - static_cast<Index>(random() % 64);
        cache.truncate(keep);
        for (auto& layer : model.seeds)
          for (auto& tokens : layer) tokens.resize(std::min(tokens.size(), static_cast<std::size_t>(keep)));
      }
      model.expect(cache);
      if (step == 12) cache = cache.copy();
      if (HasFatalFailure()) FAIL() << "step " << step;
    }
  }
}

TEST(Reorder, TakesTheKeyNormsAlong) {
  std::mt19937 random(8);
  unsigned seed = 1;
  Model model(kLayers, 4);
  auto cache = filled(model, 4, {.growing = true, .key_norms = true}, seed);
  for (int step = 0; step < 10; ++step) {
    std::vector<Index> parents;
    for (int b = 0; b < 4; ++b) parents.push_back(static_cast<Index>(random() % 4));
    cache.reorder(parents);
    model.reorder(parents);
    for (Index layer = 0; layer < 3; ++layer)
      for (Index b = 0; b < 4; ++b) model.append(cache, layer, b, static_cast<Index>(random() % 30), seed);
    if (step == 6) {
      cache.truncate(70);  // sums of earlier tiles must have come along
      for (auto& layer : model.seeds)
        for (auto& tokens : layer) tokens.resize(std::min<std::size_t>(tokens.size(), 70));
    }
    // the same tokens in a cache that was never reordered
    KvCache<float> fresh(kLayers, 1000, {.num_sequences = 4, .key_norms = true});
    Model copy(kLayers, 4);
    for (std::size_t layer = 0; layer < 3; ++layer)
      for (std::size_t b = 0; b < 4; ++b)
        for (unsigned token : model.seeds[layer][b])
          copy.append(fresh, static_cast<Index>(layer), static_cast<Index>(b), 1, token);
    for (Index layer = 0; layer < 3; ++layer)
      for (Index b = 0; b < 4; ++b)
        for (Index g = 0; g < kLayers[static_cast<std::size_t>(layer)].num_kv_heads; ++g)
          ASSERT_EQ(cache.key_norm_squares(layer, b, g), fresh.key_norm_squares(layer, b, g)) << step;
  }
}

TEST(Reorder, APermutationCopiesNothingAndOneThatKeepsItsPlaceKeepsItsMemory) {
  unsigned seed = 1;
  Model model(kLayers, 4);
  auto cache = filled(model, 4, {}, seed);
  const auto addresses = [&] {
    std::vector<const void*> result;
    for (Index b = 0; b < 4; ++b) result.push_back(cache.layer(1).tile(b, 0, 0).keys);
    return result;
  };
  const auto before = addresses();
  cache.reorder(std::vector<Index>{2, 0, 1, 3});
  EXPECT_EQ(addresses(), (std::vector<const void*>{before[2], before[0], before[1], before[3]}));
  const auto now = addresses();
  cache.reorder(std::vector<Index>{3, 0, 2, 3});  // 3 has two children, 1 none
  EXPECT_EQ(addresses(), (std::vector<const void*>{now[1], now[0], now[2], now[3]}));
}

TEST(Reorder, AllocatesNothing) {
#if defined(HEADWISE_TEST_ASAN) || defined(HEADWISE_TEST_TSAN)
  GTEST_SKIP() << "skipped: a sanitizer brings its own operator new";
#else
  unsigned seed = 1;
  Model model(kLayers, 4);
  auto cache = filled(model, 4, {.key_norms = true}, seed);
  const std::vector<Index> parents{3, 3, 0, 0};
  const long before = allocations;
  cache.reorder(parents);
  EXPECT_EQ(allocations, before);
  model.reorder(parents);
  model.expect(cache);
#endif
}

TEST(Reorder, MistakesAreNamedAndChangeNothing) {
  unsigned seed = 1;
  Model model(kLayers, 3);
  auto cache = filled(model, 3, {}, seed);
  const Snapshot before(cache);
  expect_error([&] { cache.reorder(std::vector<Index>{0, 1}); }, {"parents (2)", "one per sequence (3)"});
  expect_error([&] { cache.reorder(std::vector<Index>{0, 1, 2, 0}); }, {"parents (4)", "one per sequence (3)"});
  expect_error([&] { cache.reorder({}); }, {"parents (0)", "one per sequence (3)"});
  expect_error([&] { cache.reorder(std::vector<Index>{2, 1, 3}); }, {"parents[2] (3)", "0 to num_sequences - 1 (2)"});
  expect_error([&] { cache.reorder(std::vector<Index>{2, -1, 0}); }, {"parents[1] (-1)", "0 to num_sequences - 1 (2)"});
  EXPECT_EQ(Snapshot(cache), before);
  model.expect(cache);
}

}  // namespace
}  // namespace headwise
