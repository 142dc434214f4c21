// SPDX-License-Identifier: MIT
// Layers whose values are the first dimensions of their keys: half the bytes, appended without values; what would not work
// is refused. That every operation works is shown by tests/cache_cells.
#include <gtest/gtest.h>

#include <sstream>

#include "headwise/cache/paged_cache.hpp"
#include "headwise/cache/save.hpp"
#include "tests/cache/cache_contents.hpp"
#include "tests/support/errors.hpp"

namespace headwise {
namespace {

using namespace testing;

const LayerShape kDeepSeek{.num_kv_heads = 1, .head_dim = 576, .value_dim = 512, .values_in_keys = true};
const LayerShape kSmall{.num_kv_heads = 2, .head_dim = 24, .value_dim = 16, .values_in_keys = true};

View<const float> keys_of(const std::vector<float>& numbers, const LayerShape& shape) {
  return {numbers.data(), std::ssize(numbers) / (shape.num_kv_heads * shape.head_dim), shape.num_kv_heads,
          shape.head_dim};
}

TEST(LatentCache, TakesTheBytesOfItsKeysAlone) {
  KvCache<bf16> cache(std::span(&kDeepSeek, 1), 1024);
  EXPECT_EQ(cache.bytes_per_token(), 576 * 2);  // not (576 + 512)·2
  EXPECT_EQ(cache.bytes(), 1024 * 576 * 2);
  EXPECT_EQ(cache.layer_shape(), kDeepSeek);
  PagedCache<float> paged(std::span(&kDeepSeek, 1), 4);
  EXPECT_EQ(paged.bytes_per_token(), 576 * 4);
  EXPECT_EQ(paged.layer_shape(), kDeepSeek);
}

TEST(LatentCache, MayBeOneLayerBesideOthersAndOfAKindWithThem) {
  const std::vector<LayerShape> layers{kSmall, {1, 8, 12}};
  KvCache<int8, int4> cache(layers, 10);
  EXPECT_EQ(cache.storage_format(0).value_storage, Storage::int8) << "values are those of the keys";
  EXPECT_EQ(cache.storage_format(1).value_storage, Storage::int4);
  const std::vector<float> k = random_numbers(3 * 48, 1), other(3 * 12, 1.0f);
  cache.append(0, keys_of(k, kSmall));
  cache.append(1, View(other.data(), 3, 1, 8), View(other.data(), 3, 1, 12));
  std::vector<float> key(24), value(16);
  for (Index t = 0; t < 3; ++t)
    for (Index g = 0; g < 2; ++g) {
      cache.read_key(0, 0, t, g, key);
      cache.read_value(0, 0, t, g, value);
      EXPECT_TRUE(std::equal(value.begin(), value.end(), key.begin()));
    }
}

TEST(LatentCache, HasTheSameTilesHoweverItWasAppended) {
  const std::vector<float> k = random_numbers(150 * 48, 2);
  const View<const float> all = keys_of(k, kSmall);
  const auto part = [&](Index first, Index count) { return View<const float>(k.data() + first * 48, count, 2, 24); };
  KvCache<f16> once(std::span(&kSmall, 1), 150), pieces(std::span(&kSmall, 1), 150, {.growing = true}),
      ragged(std::span(&kSmall, 1), 150);
  once.append(all);
  pieces.append(0, 0, part(0, 1));
  pieces.append(0, part(1, 100));
  pieces.append(part(101, 49));
  const std::vector<Index> offsets{0, 150};
  ragged.append_ragged(0, offsets, all);
  EXPECT_EQ(tile_bytes_of(pieces), tile_bytes_of(once));
  EXPECT_EQ(tile_bytes_of(ragged), tile_bytes_of(once));
}

TEST(LatentCache, TurnsTheKeysAloneWhenTheyAreAppended) {
  std::vector<float> k = random_numbers(70 * 48, 3);
  const Rope rope(24, {.rotary_begin = 16});
  KvCache<float> fused(std::span(&kSmall, 1), 70), apart(std::span(&kSmall, 1), 70);
  fused.append(keys_of(k, kSmall), rope);
  rope.apply(View<float>(k.data(), 70, 2, 24), 0);
  apart.append(keys_of(k, kSmall));
  EXPECT_EQ(tile_bytes_of(fused), tile_bytes_of(apart));
}

TEST(LatentCache, ThatIsARingForgetsLikeAny) {
  LayerShape ring = kSmall;
  ring.window = 70;
  ring.num_sink_tokens = 2;
  KvCache<float> cache(std::span(&ring, 1), 1, {.max_append = 100});
  const std::vector<float> k = random_numbers(100 * 48, 4);
  for (int i = 0; i < 5; ++i) cache.append(keys_of(k, kSmall));
  std::vector<float> key(24), value(16);
  for (const Index token : {Index{0}, Index{1}, Index{430}, Index{499}}) {
    cache.read_key(0, 0, token, 1, key);
    cache.read_value(0, 0, token, 1, value);
    EXPECT_TRUE(std::equal(key.begin(), key.end(), k.begin() + token % 100 * 48 + 24)) << token;
    EXPECT_TRUE(std::equal(value.begin(), value.end(), key.begin())) << token;
  }
  expect_error([&] { cache.read_key(0, 0, 200, 0, key); }, {"forgotten"});
}

TEST(LatentCache, IsRestoredBitForBitAndOnlyAsWhatItIs) {
  const std::vector<float> k = random_numbers(90 * 48, 5);
  KvCache<bf16> cache(std::span(&kSmall, 1), 90);
  cache.append(keys_of(k, kSmall));
  std::stringstream file, again;
  save(cache, 0, file);
  EXPECT_LT(std::ssize(file.str()), 2 * kTileTokens * 2 * 24 * 2 + 200) << "keys alone";
  KvCache<bf16> restored(std::span(&kSmall, 1), 200);
  restore(restored, 0, file);
  EXPECT_EQ(tile_bytes_of(restored), tile_bytes_of(cache));
  PagedCache<bf16> paged(std::span(&kSmall, 1), 4);
  const SequenceId id = paged.create();
  file.seekg(0);
  restore(paged, id, file);
  save(paged, id, again);
  EXPECT_EQ(again.str(), file.str());

  LayerShape beside = kSmall;
  beside.values_in_keys = false;
  KvCache<bf16> other(std::span(&beside, 1), 90);
  file.seekg(0);
  expect_error([&] { restore(other, 0, file); }, {"having values in keys (1)", "must be 0"});
}

TEST(LatentCache, RefusesWhatWouldNotWork) {
  const std::vector<LayerShape> layers{kSmall, {2, 24, 16}};
  KvCache<float> cache(layers, 10);
  PagedCache<float> paged(layers, 2);
  const SequenceId id = paged.create();
  const std::vector<float> k = random_numbers(48, 6);
  const View<const float> keys = keys_of(k, kSmall), values(k.data(), 1, 2, 16);
  expect_error([&] { cache.append(0, keys, values); }, {"v (given)", "layer 0", "first 16 dimensions"});
  expect_error([&] { cache.append(1, keys); }, {"v (not given)", "layer 1"});
  expect_error([&] { paged.append(0, id, keys, values); }, {"v (given)", "layer 0"});
  expect_error([&] { paged.append(1, id, keys); }, {"v (not given)", "layer 1"});
  const Rope all(24), part(24, {.rotary_dim = 8}), behind(24, {.rotary_begin = 16});
  expect_error([&] { cache.append(0, keys, all); }, {"rotary_begin (0)", "value_dim (16)"});
  expect_error([&] { paged.append(0, id, keys, part); }, {"rotary_begin (0)", "value_dim (16)"});
  EXPECT_EQ(cache.num_tokens(0), 0);
  cache.append(0, keys, behind);
  cache.append(1, keys, values, all);
  paged.append(0, id, keys, behind);
  paged.append(1, id, keys, values, all);
  const std::vector<Rope> ropes{all, all};
  expect_error([&] { cache.evict(0, 0, 1, ropes); }, {"rotary_begin (0)", "value_dim (16)"});
  expect_error([&] { paged.evict(id, 0, 1, ropes); }, {"rotary_begin (0)", "value_dim (16)"});

  expect_error([&] { KvCache<float>(layers, 10, {.hadamard_keys = true}); }, {"hadamard_keys (true)", "layers[0]"});
  expect_error([&] { PagedCache<float>(layers, 10, {.hadamard_keys = true}); }, {"hadamard_keys (true)", "layers[0]"});
  const std::vector<std::vector<float>> scales{std::vector<float>(48, 2.0f), {}};
  expect_error([&] { KvCache<float>(layers, 10, {.key_channel_scales = scales}); },
               {"key_channel_scales[0]", "values_in_keys"});
  const LayerShape wide{.num_kv_heads = 1, .head_dim = 8, .value_dim = 9, .values_in_keys = true};
  expect_error([&] { KvCache<float>(std::span(&wide, 1), 10); }, {"layers[0].value_dim (9)", "head_dim (8)"});
}

}  // namespace
}  // namespace headwise
