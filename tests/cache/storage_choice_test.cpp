// SPDX-License-Identifier: MIT
// Storage types chosen by a type or by an option, and what is done to keys before they are stored.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "headwise/cache/channel_scales.hpp"
#include "headwise/cache/kv_cache.hpp"
#include "tests/cache/cache_contents.hpp"
#include "tests/support/errors.hpp"

namespace headwise {
namespace {

using testing::expect_error;
using testing::random_numbers;
using testing::tile_bytes_of;

template <class K, class V>
void expect_same_cache() {
  const auto k = random_numbers(70 * 2 * 24, 1), v = random_numbers(70 * 2 * 40, 2);
  const Heads<> heads(2, 2, 24, 40);
  KvCache<K, V> typed(heads, 70);
  KvCache<> chosen(heads, 70, {.key_storage = Stored<K>::storage, .value_storage = Stored<V>::storage});
  for (KvCache<>* cache : {static_cast<KvCache<>*>(&typed), &chosen})
    cache->append(View<const float>(k.data(), 70, 2, 24), View<const float>(v.data(), 70, 2, 40));
  EXPECT_EQ(tile_bytes_of(typed), tile_bytes_of(chosen));
  EXPECT_EQ(typed.storage_format(0), chosen.storage_format(0));
  EXPECT_EQ(typed.storage_format(0), (TileFormat{Stored<K>::storage, Stored<V>::storage, 2, 24, 40}));
  EXPECT_EQ(tile_bytes_of(typed.copy()), tile_bytes_of(chosen));
}

TEST(StorageChoice, OfATypeAndOfAnOptionMakeTheSameCache) {
  expect_same_cache<float, float>();
  expect_same_cache<f16, int8>();
  expect_same_cache<bf16, e5m2>();
  expect_same_cache<e4m3, f16>();
  expect_same_cache<e5m2, int4>();
  expect_same_cache<int8, bf16>();
  expect_same_cache<int4, e4m3>();
}

TEST(StorageChoice, ValuesAreStoredAsKeysUnlessTheyAreNamed) {
  const Heads<> heads(1, 1, 8);
  EXPECT_EQ(KvCache<>(heads, 1, {.key_storage = Storage::int4}).storage_format(0).value_storage, Storage::int4);
  EXPECT_EQ((KvCache<int8, AnyStorage>(heads, 1)).storage_format(0).value_storage, Storage::int8);
  EXPECT_EQ((KvCache<int8, AnyStorage>(heads, 1, {.value_storage = Storage::f16})).storage_format(0).value_storage,
            Storage::f16);
  EXPECT_EQ(KvCache<int8>(heads, 1, {.key_storage = Storage::int8}).storage_format(0).key_storage, Storage::int8);
}

TEST(StorageChoice, MistakesAreNamed) {
  const Heads<> heads(1, 1, 8);
  expect_error([&] { KvCache<>(heads, 1, {}); }, {"key_storage (unset)", "must be given"});
  expect_error([&] { KvCache<int8>(heads, 1, {.key_storage = Storage::int4}); },
               {"key_storage (int4)", "must be int8, the compile-time type"});
  expect_error([&] { KvCache<int8>(heads, 1, {.value_storage = Storage::f32}); },
               {"value_storage (f32)", "must be int8"});
  expect_error([&] { KvCache<>(heads, 1, {.key_storage = static_cast<Storage>(9)}); }, {"key_storage (9)"});
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const auto with_scales = [&](std::vector<std::vector<float>> scales) {
    return [&heads, scales = std::move(scales)] { KvCache<float>(heads, 1, {.key_channel_scales = scales}); };
  };
  expect_error(with_scales({{}, {}}), {"key_channel_scales (2)", "one per layer (1)"});
  expect_error(with_scales({std::vector<float>(7, 1.0f)}), {"key_channel_scales[0] (7 factors)", "(8)"});
  expect_error(with_scales({{1, 1, 1, nan, 1, 1, 1, 1}}), {"key_channel_scales[0][3] (nan)"});
  expect_error(with_scales({{1, 1, 1, 1, 1, 0, 1, 1}}), {"key_channel_scales[0][5] (0)"});
  expect_error(with_scales({{1, 1, 1, 1, 1, 1, 1, -1}}), {"key_channel_scales[0][7] (-1)"});
  expect_error(
      [] {
        KvCache<float>(std::vector<LayerShape>(2, {1, 1}), KvSharing::every(2, 2), 1,
                       {.key_channel_scales = {{1}, {1}}});
      },
      {"key_channel_scales[1] (1 factors) must be empty", "layer 1 reads the keys of layer 0"});
}

/// keys · query of every token, of keys as stored and queries as attention is to transform them.
std::vector<double> scores(const KvCache<>& cache, std::vector<float> query) {
  const auto layer = cache.layer();
  const TileFormat format = layer.format();
  layer.key_transform().to_query(0, format.head_dim, query.data());
  std::vector<double> result;
  std::vector<float> key(query.size());
  for (Index t = 0; t < layer.num_tokens(0); ++t) {
    detail::read_stored_key(format, static_cast<const std::byte*>(layer.tile(0, 0, t / kTileTokens).keys),
                            t % kTileTokens, key.data());
    double sum = 0;
    for (std::size_t d = 0; d < key.size(); ++d) sum += static_cast<double>(key[d]) * static_cast<double>(query[d]);
    result.push_back(sum);
  }
  return result;
}

/// Keys with a few large channels, as models have them.
std::vector<float> keys_with_outliers(Index tokens, Index dim) {
  auto k = random_numbers(tokens * dim, 5);
  for (Index t = 0; t < tokens; ++t)
    for (const Index d : {std::min<Index>(3, dim - 1), dim / 2, dim - 1})
      k[static_cast<std::size_t>(t * dim + d)] *= 30;
  return k;
}

TEST(KeyTransforms, KeepTheProductsOfQueriesAndKeys) {
  for (const Index dim : {1, 24, 46, 96, 128}) {
    const Index tokens = 70;
    const auto k = keys_with_outliers(tokens, dim), q = random_numbers(dim, 6);
    const View<const float> rows(k.data(), tokens, 1, dim);
    KvCache<float> plain(Heads<>(1, 1, dim), tokens);
    plain.append(rows, rows);
    const auto want = scores(plain, q);
    for (int which = 1; which < 4; ++which) {
      CacheOptions options{.hadamard_keys = (which & 1) != 0};
      if (which & 2) options.key_channel_scales = {key_channel_scales(rows)};
      KvCache<float> cache(Heads<>(1, 1, dim), tokens, options);
      cache.append(rows, rows);
      const auto have = scores(cache.copy(), q);  // scales are copied along
      std::vector<float> key(static_cast<std::size_t>(dim));
      for (Index t = 0; t < tokens; ++t) {
        double size = 0, largest = 0;
        for (Index d = 0; d < dim; ++d) {
          const double x = static_cast<double>(k[static_cast<std::size_t>(t * dim + d)]);
          size += std::abs(x * static_cast<double>(q[static_cast<std::size_t>(d)]));
          largest = std::max(largest, std::abs(x));
        }
        // log2(dim) + 3 roundings of key and query each; a rotated number is up to sqrt(dim) times the largest
        const double roundings = 2 * (std::log2(static_cast<double>(dim)) + 3) * 0x1p-24;
        const double reach = which & 1 ? static_cast<double>(dim) * std::sqrt(static_cast<double>(dim)) : 1;
        const auto i = static_cast<std::size_t>(t);
        EXPECT_NEAR(have[i], want[i], roundings * reach * (size + 4 * largest)) << dim << " " << which;
        // and a key is read back as it was given
        cache.read_key(0, 0, t, 0, key);
        for (Index d = 0; d < dim; ++d)
          EXPECT_NEAR(key[static_cast<std::size_t>(d)], k[static_cast<std::size_t>(t * dim + d)],
                      roundings * largest * std::sqrt(static_cast<double>(dim)) * (which & 2 ? 30 : 1));
      }
    }
  }
}

TEST(KeyTransforms, LoseLessOfKeysWithOutliers) {
  const Index dim = 128, tokens = 200;
  const auto k = keys_with_outliers(tokens, dim), q = random_numbers(dim, 6);
  const View<const float> rows(k.data(), tokens, 1, dim);
  KvCache<float> exact(Heads<>(1, 1, dim), tokens);
  exact.append(rows, rows);
  const auto want = scores(exact, q);
  const auto error = [&](CacheOptions options) {
    KvCache<int4> cache(Heads<>(1, 1, dim), tokens, options);
    cache.append(rows, rows);
    const auto have = scores(cache, q);
    double sum = 0;
    for (std::size_t t = 0; t < have.size(); ++t) sum += (have[t] - want[t]) * (have[t] - want[t]);
    return std::sqrt(sum);
  };
  const double plain = error({});
  EXPECT_LT(error({.hadamard_keys = true}), plain);
  EXPECT_LT(error({.key_channel_scales = {key_channel_scales(rows)}}), plain);
}

TEST(KeyTransforms, ChannelScalesAreTheLargestOfEachChannelUpToAFactor) {
  // channels of head 0: 8, 2, silent; of head 1: all silent
  const std::vector<float> k{-8, 1, 0, 0, 0, 0, 4, -2, 0, 0, 0, 0};
  const auto scales = key_channel_scales(View<const float>(k.data(), 2, 2, 3));
  ASSERT_EQ(scales.size(), 6u);
  const float mean = std::cbrt(8.0f * 2.0f * (8.0f / 1024));
  EXPECT_FLOAT_EQ(scales[0], 8 / mean);
  EXPECT_FLOAT_EQ(scales[1], 2 / mean);
  EXPECT_FLOAT_EQ(scales[2], 8.0f / 1024 / mean);
  for (std::size_t i = 3; i < 6; ++i) EXPECT_EQ(scales[i], 1.0f);
  const std::vector<f16> bad{f16(1), f16(std::numeric_limits<float>::infinity())};
  expect_error([&] { key_channel_scales(View<const f16>(bad.data(), 1, 1, 2)); }, {"keys(0, 0, 0, 1) (inf)", "finite"});
}

}  // namespace
}  // namespace headwise
