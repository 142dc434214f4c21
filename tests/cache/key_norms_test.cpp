// SPDX-License-Identifier: MIT
// The sums of squared keys that a KvCache keeps beside its tiles.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "headwise/cache/kv_cache.hpp"
#include "tests/cache/cache_contents.hpp"
#include "tests/support/errors.hpp"

namespace headwise {
namespace {

using testing::expect_error;
using testing::random_numbers;
using testing::Snapshot;

template <class T>
class KeyNormsOf : public ::testing::Test {};
using Types = ::testing::Types<float, f16, bf16>;
TYPED_TEST_SUITE(KeyNormsOf, Types);

constexpr Index kHeads = 3;

struct Tokens {
  Index dim;
  std::vector<float> numbers;
  Tokens(Index count, Index head_dim, unsigned seed)
      : dim(head_dim), numbers(random_numbers(count * kHeads * head_dim, seed)) {}
  View<const float> operator()(Index first, Index count) const {
    return {numbers.data() + first * kHeads * dim, count, kHeads, dim};
  }
};

template <class T>
KvCache<T> cache_of(Index dim, Index max_tokens, bool growing = false) {
  return KvCache<T>(Heads<>(kHeads, kHeads, dim), max_tokens, {.growing = growing, .key_norms = true});
}

template <class T>
std::vector<double> norms_of(const KvCache<T>& cache) {
  std::vector<double> result;
  for (Index layer = 0; layer < cache.num_layers(); ++layer)
    for (Index b = 0; b < cache.num_sequences(); ++b)
      for (Index g = 0; g < cache.layer_shape(layer).num_kv_heads; ++g)
        result.push_back(cache.key_norm_squares(layer, b, g));
  return result;
}

/// By the definition: token by token; within a key, dimension d adds to partial sum d mod 8.
template <class T>
double naive_norm(const KvCache<T>& cache, Index layer, Index sequence, Index kv_head) {
  std::vector<float> key(static_cast<std::size_t>(cache.layer_shape(layer).head_dim));
  double total = 0;
  for (Index t = 0; t < cache.num_tokens(layer, sequence); ++t) {
    cache.read_key(layer, sequence, t, kv_head, key);
    double p[8] = {};
    for (std::size_t d = 0; d < key.size(); ++d) p[d % 8] += static_cast<double>(key[d]) * static_cast<double>(key[d]);
    total += ((p[0] + p[4]) + (p[2] + p[6])) + ((p[1] + p[5]) + (p[3] + p[7]));
  }
  return total;
}

TYPED_TEST(KeyNormsOf, IsTheSumOfTheSquaresOfTheKeysAsStored) {
  for (const Index dim : {1, 7, 8, 46, 64, 128}) {
    const Index count = 150;
    const Tokens k(count, dim, 1);
    auto cache = cache_of<TypeParam>(dim, count);
    cache.append(k(0, count), k(0, count));
    for (Index g = 0; g < kHeads; ++g) {
      EXPECT_EQ(cache.key_norm_squares(0, 0, g), naive_norm(cache, 0, 0, g)) << dim;
      // and in another order, whose roundings are at most one per addition
      double rounded = 0;
      for (Index t = 0; t < count; ++t)
        for (Index d = 0; d < dim; ++d) {
          const double x = static_cast<double>(static_cast<float>(TypeParam(k(0, count)(0, t, g, d))));
          rounded += x * x;
        }
      EXPECT_NEAR(cache.key_norm_squares(0, 0, g), rounded, static_cast<double>(2 * count * dim) * 0x1p-53 * rounded);
    }
  }
}

TYPED_TEST(KeyNormsOf, AnyWayOfAppendingGivesTheSameBits) {
  const Index count = 64 * 3 + 21;
  const Tokens k(count, 46, 2);
  auto at_once = cache_of<TypeParam>(46, count);
  at_once.append(k(0, count), k(0, count));
  for (const std::vector<Index>& chunks :
       {std::vector<Index>{1}, {2}, {16}, {17}, {63, 1}, {64}, {65}, {5, 40, 100, 3}, {0, 1, 128}}) {
    auto cache = cache_of<TypeParam>(46, 1, true);  // also while it grows
    for (std::size_t i = 0; cache.num_tokens() < count; ++i) {
      const Index n = std::min(chunks[i % chunks.size()], count - cache.num_tokens());
      const auto piece = k(cache.num_tokens(), n);
      cache.append(piece, piece);
    }
    EXPECT_EQ(norms_of(cache), norms_of(at_once)) << chunks[0];
  }
}

TYPED_TEST(KeyNormsOf, TruncateGivesTheBitsOfNeverHavingAppendedEvenOfNan) {
  const Index count = 200;
  const Tokens k(count, 24, 3);
  Tokens bad(count, 24, 4);
  bad.numbers.assign(bad.numbers.size(), std::numeric_limits<float>::quiet_NaN());
  auto expected = cache_of<TypeParam>(24, count), all = cache_of<TypeParam>(24, count);
  all.append(k(0, count), k(0, count));
  for (const Index keep : {0, 1, 17, 63, 64, 65, 128, 150}) {
    auto cache = cache_of<TypeParam>(24, 2 * count, true);
    cache.append(k(0, keep), k(0, keep));
    cache.append(bad(0, count), bad(0, count));
    EXPECT_TRUE(std::isnan(cache.key_norm_squares(0, 0, 1)));
    cache.truncate(keep);
    expected.clear();
    expected.append(k(0, keep), k(0, keep));
    EXPECT_EQ(norms_of(cache), norms_of(expected)) << keep;

    cache.append(k(keep, count - keep), k(keep, count - keep));
    EXPECT_EQ(norms_of(cache), norms_of(all)) << keep;
    cache.truncate(keep / 2);  // once more, of tiles that were written twice
    expected.truncate(keep / 2);
    EXPECT_EQ(norms_of(cache), norms_of(expected)) << keep;
  }
}

TEST(KeyNorms, SquareEveryNumberOfF16Exactly) {
  KvCache<f16> cache(Heads<>(1, 1, 1), 1, {.key_norms = true});
  for (std::uint32_t bits = 0; bits <= 0xffff; ++bits) {
    f16 x;
    x.bits = static_cast<std::uint16_t>(bits);
    cache.clear();
    cache.append(View<const f16>(&x, 1, 1, 1), View<const f16>(&x, 1, 1, 1));
    const double value = static_cast<double>(static_cast<float>(x)), sum = cache.key_norm_squares(0, 0, 0);
    ASSERT_TRUE(sum == value * value || (std::isnan(sum) && std::isnan(value))) << bits << ": " << sum;
  }
}

TEST(KeyNorms, AreThoseOfEachLayerSequenceAndHead) {
  const std::vector<LayerShape> layers{{2, 16}, {1, 40, 8}, {3, 5}};
  KvCache<bf16> cache(layers, 10, {.num_sequences = 2, .growing = true, .key_norms = true});
  unsigned seed = 5;
  for (const Index count : {7, 70, 1})
    for (Index layer = 2; layer >= 0; --layer)
      for (Index b = 0; b < 2; ++b) {
        const LayerShape shape = cache.layer_shape(layer);
        const Index n = count + b;
        const auto k = random_numbers(n * shape.num_kv_heads * shape.head_dim, seed++);
        const auto v = random_numbers(n * shape.num_kv_heads * shape.value_dim, seed++);
        cache.append(layer, b, View<const float>(k.data(), n, shape.num_kv_heads, shape.head_dim),
                     View<const float>(v.data(), n, shape.num_kv_heads, shape.value_dim));
      }
  for (Index layer = 0; layer < 3; ++layer)
    for (Index b = 0; b < 2; ++b)
      for (Index g = 0; g < layers[static_cast<std::size_t>(layer)].num_kv_heads; ++g)
        EXPECT_EQ(cache.key_norm_squares(layer, b, g), naive_norm(cache, layer, b, g)) << layer << b << g;
}

TEST(KeyNorms, OfAnEmptyCacheAreZero) {
  auto cache = cache_of<float>(8, 100);
  EXPECT_EQ(norms_of(cache), std::vector<double>(3, 0.0));
  EXPECT_EQ(norms_of(cache.copy()), std::vector<double>(3, 0.0));
}

TEST(KeyNorms, ACopyHasThemAndGoesItsOwnWay) {
  const Tokens k(100, 8, 6);
  auto cache = cache_of<f16>(8, 100);
  cache.append(k(0, 70), k(0, 70));
  auto copy = cache.copy();
  const auto before = norms_of(cache);
  EXPECT_EQ(norms_of(copy), before);
  copy.append(k(70, 30), k(70, 30));
  EXPECT_EQ(norms_of(cache), before);
  cache.append(k(70, 30), k(70, 30));
  EXPECT_EQ(norms_of(copy), norms_of(cache));
  copy.truncate(65);
  cache.truncate(65);
  EXPECT_EQ(norms_of(copy), norms_of(cache));
}

TEST(KeyNorms, ChangeNothingElseOfTheCache) {
  const Tokens k(150, 46, 7);
  KvCache<bf16> with = cache_of<bf16>(46, 150), without(Heads<>(kHeads, kHeads, 46), 150);
  for (auto* cache : {&with, &without}) {
    cache->append(k(0, 130), k(0, 130));
    cache->truncate(70);
    cache->append(k(130, 20), k(130, 20));
  }
  EXPECT_EQ(Snapshot(with), Snapshot(without));
}

TEST(KeyNorms, MistakesAreNamed) {
  const KvCache<float> without(Heads<>(2, 2, 8), 10);
  expect_error([&] { without.key_norm_squares(0, 0, 0); }, {"key_norms (false)", "must be true"});
  const auto cache = cache_of<float>(8, 10);
  expect_error([&] { cache.key_norm_squares(1, 0, 0); }, {"layer (1)", "0 to num_layers - 1 (0)"});
  expect_error([&] { cache.key_norm_squares(0, -1, 0); }, {"sequence (-1)", "0 to num_sequences - 1 (0)"});
  expect_error([&] { cache.key_norm_squares(0, 0, 3); }, {"kv_head (3)", "0 to num_kv_heads - 1 (2)"});
}

}  // namespace
}  // namespace headwise
