// SPDX-License-Identifier: MIT
// RoPE in the append, and appends to several sequences in one call.
#include <gtest/gtest.h>

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
using testing::Snapshot;
using testing::tile_bytes_of;

class RopeAppend : public ::testing::TestWithParam<Storage> {};
INSTANTIATE_TEST_SUITE_P(Storages, RopeAppend,
                         ::testing::Values(Storage::f32, Storage::f16, Storage::bf16, Storage::e4m3, Storage::e5m2,
                                           Storage::int8, Storage::int4),
                         [](const auto& of) { return std::string(name_of(of.param)); });

KvCache<> cache_of(Storage storage, Index dim, Index max_tokens = 400) {
  return KvCache<>(Heads<>(3, 3, dim, 20), max_tokens,
                   {.num_sequences = 2, .growing = true, .key_storage = storage, .value_storage = Storage::f16});
}

template <class T>
std::vector<T> rounded(const std::vector<float>& numbers) {
  std::vector<T> result;
  for (const float x : numbers) result.push_back(T(x));
  return result;
}
template <class T>
std::vector<float> widened(const std::vector<T>& numbers) {
  std::vector<float> result;
  for (const T x : numbers) result.push_back(static_cast<float>(x));
  return result;
}

/// Appends keys of type T in chunks with a rope, and to another cache the same keys turned as floats by Rope::apply.
template <class T>
void expect_same(Storage storage, const RopeOptions& options) {
  const Index dim = 46, tokens = 131;
  const Rope rope(dim, options);
  const auto k = rounded<T>(random_numbers(tokens * 3 * dim, 1));
  const auto v = random_numbers(tokens * 3 * 20, 2);
  auto fused = cache_of(storage, dim), apart = cache_of(storage, dim);
  for (Index first = 0, n = 1; first < tokens; first += n, n = std::min<Index>(n * 3, tokens - first)) {
    const View<const float> values(v.data() + first * 60, n, 3, 20);
    const View<const T> keys(k.data() + first * 3 * dim, n, 3, dim);
    for (Index b = 0; b < 2; ++b) fused.append(0, b, keys, values, rope);
    auto turned = widened(std::vector<T>(keys.data(), keys.data() + n * 3 * dim));
    rope.apply(View<float>(turned.data(), n, 3, dim), first);
    for (Index b = 0; b < 2; ++b) apart.append(0, b, View<const float>(turned.data(), n, 3, dim), values);
  }
  EXPECT_EQ(tile_bytes_of(fused), tile_bytes_of(apart));
}

TEST_P(RopeAppend, StoresTheBitsOfTurningFirst) {
  expect_same<float>(GetParam(), {});
  expect_same<f16>(GetParam(), {.style = RopeStyle::interleaved, .rotary_dim = 20});
  expect_same<bf16>(GetParam(), {.scaling = DynamicNtkScaling{.factor = 4, .original_max_position = 60}});
}

TEST_P(RopeAppend, TransformsKeysAfterTheyAreTurned) {
  const Index dim = 24;
  const Rope rope(dim);
  const auto k = random_numbers(70 * dim, 3);
  const CacheOptions options{.key_storage = GetParam(),
                             .hadamard_keys = true,
                             .key_channel_scales = {key_channel_scales(View<const float>(k.data(), 70, 1, dim))}};
  KvCache<> fused(Heads<>(1, 1, dim), 70, options), apart(Heads<>(1, 1, dim), 70, options);
  const View<const float> rows(k.data(), 70, 1, dim);
  fused.append(rows, rows, rope);
  auto turned = k;
  rope.apply(View<float>(turned.data(), 70, 1, dim), 0);
  apart.append(View<const float>(turned.data(), 70, 1, dim), rows);
  EXPECT_EQ(tile_bytes_of(fused), tile_bytes_of(apart));
}

TEST(RopeAppend, IsOfTheKeysDimensions) {
  KvCache<float> cache(Heads<>(1, 1, 8, 16), 10);
  const auto k = random_numbers(160, 1);
  const View<const float> keys(k.data(), 3, 1, 8), values(k.data(), 3, 1, 16);
  const Snapshot before(cache);
  expect_error([&] { cache.append(keys, values, Rope(16)); }, {"head_dim (16) of the Rope", "(8)"});
  EXPECT_EQ(Snapshot(cache), before);
}

TEST_P(RopeAppend, RaggedAppendsAreThoseOfEachSequence) {
  const Index dim = 14;
  const Rope rope(dim, {.rotary_dim = 8});
  const CacheOptions options{.num_sequences = 4, .growing = true, .key_storage = GetParam()};
  KvCache<> together(Heads<>(2, 2, dim), 1, options), apart(Heads<>(2, 2, dim), 1, options);
  const auto k = random_numbers(200 * 2 * dim, 4), v = random_numbers(200 * 2 * dim, 5);
  const auto rows = [&](const std::vector<float>& from, Index first, Index count) {
    return View<const float>(from.data() + first * 2 * dim, count, 2, dim);
  };
  for (const std::vector<Index>& offsets :
       {std::vector<Index>{0, 70, 70, 71, 160}, {0, 1, 2, 3, 4}, {0, 0, 0, 0, 0}, {0, 0, 65, 200, 200}}) {
    const Index total = offsets.back();
    together.append_ragged(0, offsets, rows(k, 0, total), rows(v, 0, total), rope);
    together.append_ragged(0, offsets, rows(k, 0, total), rows(v, 0, total));
    for (Index b = 0; b < 4; ++b) {
      const Index first = offsets[static_cast<std::size_t>(b)],
                  count = offsets[static_cast<std::size_t>(b + 1)] - first;
      apart.append(0, b, rows(k, first, count), rows(v, first, count), rope);
      apart.append(0, b, rows(k, first, count), rows(v, first, count));
    }
    EXPECT_EQ(tile_bytes_of(together), tile_bytes_of(apart));
  }
}

TEST(RaggedAppend, MistakesAreNamedAndChangeNothing) {
  const LayerShape ring{1, 8, 8, 10};
  KvCache<bf16> cache(Heads<>(1, 1, 8), 10, {.num_sequences = 2});
  KvCache<bf16> rings(std::span<const LayerShape>(&ring, 1), 10, {.num_sequences = 2, .max_append = 5});
  const auto k = random_numbers(160, 1);
  const auto append = [&](KvCache<>& to, std::vector<Index> offsets, Index tokens) {
    return [&to, &k, offsets = std::move(offsets), tokens] {
      to.append_ragged(0, offsets, View<const float>(k.data(), tokens, 1, 8),
                       View<const float>(k.data(), tokens, 1, 8));
    };
  };
  append(cache, {0, 7, 9}, 9)();
  const Snapshot before(cache);
  expect_error(append(cache, {0, 3}, 3), {"offsets (2 numbers)", "num_sequences (2)"});
  expect_error(append(cache, {1, 2, 3}, 3), {"offsets[0] (1)", "must be 0"});
  expect_error(append(cache, {0, 2, 1}, 2), {"offsets[2] (1)", "before it (2)"});
  expect_error(append(cache, {0, 2, 4}, 5), {"offsets[2] (4)", "tokens of k (5)"});
  expect_error(append(cache, {0, 1, 10}, 10), {"tokens (9)", "2 stored", "max_tokens is 10"});  // the first would fit
  expect_error(append(rings, {0, 1, 7}, 7), {"tokens (6)", "max_append (5)"});
  expect_error(
      [&] {
        const View<const float> two(k.data(), 2, 3, 1, 8);
        cache.append_ragged(0, std::vector<Index>{0, 1, 3}, two, two);
      },
      {"sequences (2) of k", "must be 1"});
  EXPECT_EQ(Snapshot(cache), before);
  EXPECT_EQ(rings.num_tokens(0, 0), 0);
}

}  // namespace
}  // namespace headwise
