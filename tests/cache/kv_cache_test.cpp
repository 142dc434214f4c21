// SPDX-License-Identifier: MIT
#include "headwise/cache/kv_cache.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "tests/cache/cache_contents.hpp"
#include "tests/support/errors.hpp"

namespace headwise {
namespace {

using testing::expect_error;
using testing::random_numbers;
using testing::Snapshot;
using testing::tile_bytes_of;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

template <class T>
class KvCacheOf : public ::testing::Test {};
struct Name {
  template <class T>
  static std::string GetName(int) {
    return std::string(name_of(storage_of<T>));
  }
};
using Types = ::testing::Types<float, f16, bf16>;
TYPED_TEST_SUITE(KvCacheOf, Types, Name);

// Appends `tokens` tokens in chunks of the given sizes, cycling through them.
template <class T, class S>
KvCache<T> filled(const Heads<>& heads, const std::vector<S>& k, const std::vector<S>& v, Index tokens,
                  const std::vector<Index>& chunks) {
  KvCache<T> cache(heads, tokens);
  const Index key_row = heads.num_kv_heads() * heads.head_dim(), value_row = heads.num_kv_heads() * heads.value_dim();
  for (Index t = 0, i = 0; t < tokens; ++i) {
    const Index n = std::min(chunks[static_cast<std::size_t>(i % std::ssize(chunks))], tokens - t);
    cache.append(View<const S>(k.data() + t * key_row, n, heads.num_kv_heads(), heads.head_dim()),
                 View<const S>(v.data() + t * value_row, n, heads.num_kv_heads(), heads.value_dim()));
    t += n;
  }
  return cache;
}

template <class T>
float stored(float x) {
  return static_cast<float>(T(x));
}

TYPED_TEST(KvCacheOf, AnyWayOfAppendingWritesTheSameBytesAsOneByOne) {
  for (const Heads<>& heads : {Heads<>{4, 2, 128}, Heads<>{2, 2, 46, 80}, Heads<>{1, 1, 1}, Heads<>{3, 3, 7, 33}}) {
    const Index tokens = 64 * 3 + 21;
    const auto k = random_numbers(tokens * heads.num_kv_heads() * heads.head_dim(), 1);
    const auto v = random_numbers(tokens * heads.num_kv_heads() * heads.value_dim(), 2);
    const std::string expected = tile_bytes_of(filled<TypeParam>(heads, k, v, tokens, {1}));
    for (const std::vector<Index>& chunks :
         {std::vector<Index>{tokens}, {2}, {16}, {17}, {64}, {63, 1}, {65}, {5, 40, 100, 3}, {1, 128, 0, 9}})
      EXPECT_EQ(tile_bytes_of(filled<TypeParam>(heads, k, v, tokens, chunks)), expected)
          << "head_dim " << heads.head_dim() << ", chunks of " << chunks[0];
  }
}

TYPED_TEST(KvCacheOf, ReadBackGivesWhatWentInRoundedOnce) {
  for (const Heads<>& heads : {Heads<>{4, 2, 64}, Heads<>{2, 2, 46, 80}, Heads<>{3, 3, 7, 33}, Heads<>{1, 1, 512}}) {
    const Index tokens = 131, G = heads.num_kv_heads(), D = heads.head_dim(), DV = heads.value_dim();
    const auto k = random_numbers(tokens * G * D, 3), v = random_numbers(tokens * G * DV, 4);
    const auto cache = filled<TypeParam>(heads, k, v, tokens, {3, 64, 40});
    std::vector<float> key(static_cast<std::size_t>(D)), value(static_cast<std::size_t>(DV));
    for (Index t = 0; t < tokens; ++t)
      for (Index g = 0; g < G; ++g) {
        cache.read_key(0, 0, t, g, key);
        cache.read_value(0, 0, t, g, value);
        for (Index d = 0; d < D; ++d)
          ASSERT_EQ(key[static_cast<std::size_t>(d)],
                    stored<TypeParam>(k[static_cast<std::size_t>((t * G + g) * D + d)]));
        for (Index d = 0; d < DV; ++d)
          ASSERT_EQ(value[static_cast<std::size_t>(d)],
                    stored<TypeParam>(v[static_cast<std::size_t>((t * G + g) * DV + d)]));
      }
  }
}

// K and V of source type S, spread in memory with strides and at an odd address, must arrive as from packed floats.
template <class T, class S>
void expect_same_from_strided_source() {
  const Index tokens = 90, G = 3, D = 20, DV = 12;
  const auto k = random_numbers<S>(tokens * G * D, 5), v = random_numbers<S>(tokens * G * DV, 6);
  std::vector<float> packed_k, packed_v;
  for (const S x : k) packed_k.push_back(static_cast<float>(x));
  for (const S x : v) packed_v.push_back(static_cast<float>(x));
  const auto expected = filled<T>(Heads<>{G, G, D, DV}, packed_k, packed_v, tokens, {tokens});

  // [head][token][dim] with a gap of 5 behind each row for K, every second element backwards for V
  const Index k_token = D + 5, k_head = tokens * k_token, v_token = 2 * DV, v_head = tokens * v_token;
  std::vector<char> k_bytes(static_cast<std::size_t>(G * k_head) * sizeof(S) + 1);
  std::vector<char> v_bytes(static_cast<std::size_t>(G * v_head) * sizeof(S) + 1);
  const auto put = [](std::vector<char>& to, Index i, S x) {
    std::memcpy(to.data() + 1 + static_cast<std::size_t>(i) * sizeof(S), &x, sizeof(S));
  };
  for (Index t = 0; t < tokens; ++t)
    for (Index g = 0; g < G; ++g) {
      for (Index d = 0; d < D; ++d)
        put(k_bytes, g * k_head + t * k_token + d, k[static_cast<std::size_t>((t * G + g) * D + d)]);
      for (Index d = 0; d < DV; ++d)
        put(v_bytes, g * v_head + t * v_token + 2 * (DV - 1 - d), v[static_cast<std::size_t>((t * G + g) * DV + d)]);
    }
  KvCache<T> cache(Heads<>{G, G, D, DV}, tokens);
  const auto* k_data = reinterpret_cast<const S*>(k_bytes.data() + 1);
  const auto* v_data =
      reinterpret_cast<const S*>(v_bytes.data() + 1 + 2 * static_cast<std::size_t>(DV - 1) * sizeof(S));
  cache.append(View<const S>(k_data, 1, tokens, G, D, {0, k_token, k_head, 1}),
               View<const S>(v_data, 1, tokens, G, DV, {0, v_token, v_head, -2}));
  EXPECT_EQ(tile_bytes_of(cache), tile_bytes_of(expected));
}

TYPED_TEST(KvCacheOf, TakesEveryStorageTypeAtAnyStrideAndAddress) {
  expect_same_from_strided_source<TypeParam, float>();
  expect_same_from_strided_source<TypeParam, f16>();
  expect_same_from_strided_source<TypeParam, bf16>();
}

TYPED_TEST(KvCacheOf, PaddingAndUnwrittenSlotsOfAStartedTileAreZero) {
  // more than one token into recycled memory that held NaN everywhere
  const Heads<> heads{2, 2, 13, 21};
  KvCache<TypeParam> cache(heads, 200);
  const std::vector<float> bad(200 * 2 * 21, kNan), one(200 * 2 * 21, 1.0f);
  const auto append = [&](const std::vector<float>& from, Index tokens) {
    cache.append(View<const float>(from.data(), tokens, 2, 13), View<const float>(from.data(), tokens, 2, 21));
  };
  append(bad, 200);
  cache.clear();
  for (const Index tokens : {Index{1}, Index{20}, Index{43}, Index{64}, Index{5}}) {
    append(one, tokens);
    const Index count = cache.num_tokens();
    const auto tiles = cache.layer();
    for (Index g = 0; g < 2; ++g)
      for (Index tile = 0; tile * kTileTokens < count; ++tile) {
        const TilePointers at = tiles.tile(0, g, tile);
        double key_sum = 0, value_sum = 0;  // every stored element is 1, everything else must be 0
        for (Index i = 0; i < key_tile_bytes(storage_of<TypeParam>, 13) / static_cast<Index>(sizeof(TypeParam)); ++i)
          key_sum += std::abs(static_cast<double>(load_element(at.keys, storage_of<TypeParam>, i)));
        for (Index i = 0; i < value_tile_bytes(storage_of<TypeParam>, 21) / static_cast<Index>(sizeof(TypeParam)); ++i)
          value_sum += std::abs(static_cast<double>(load_element(at.values, storage_of<TypeParam>, i)));
        const Index in_tile = std::min(kTileTokens, count - tile * kTileTokens);
        EXPECT_EQ(key_sum, static_cast<double>(in_tile * 13));
        EXPECT_EQ(value_sum, static_cast<double>(in_tile * 21));
      }
  }
}

TYPED_TEST(KvCacheOf, TruncateLeavesNoTraceOfWhatItTookEvenOfNan) {
  const Heads<> heads{2, 2, 24, 40};
  const Index tokens = 150;
  const auto k = random_numbers(tokens * 2 * 24, 7), v = random_numbers(tokens * 2 * 40, 8);
  for (const Index keep : {Index{0}, Index{1}, Index{17}, Index{63}, Index{64}, Index{65}, Index{100}}) {
    KvCache<TypeParam> cache(heads, 2 * tokens);
    cache.append(View<const float>(k.data(), keep, 2, 24), View<const float>(v.data(), keep, 2, 40));
    const std::vector<float> bad(150 * 2 * 40, kNan);
    cache.append(View<const float>(bad.data(), tokens, 2, 24), View<const float>(bad.data(), tokens, 2, 40));
    cache.truncate(keep);
    EXPECT_EQ(cache.num_tokens(), keep);
    const auto fresh = filled<TypeParam>(heads, k, v, keep == 0 ? 1 : keep, {64});
    if (keep > 0) {
      EXPECT_EQ(tile_bytes_of(cache), tile_bytes_of(fresh)) << keep;
    }

    // and what comes next is as if the truncated tokens had never been
    cache.append(View<const float>(k.data() + keep * 48, tokens - keep, 2, 24),
                 View<const float>(v.data() + keep * 80, tokens - keep, 2, 40));
    EXPECT_EQ(tile_bytes_of(cache), tile_bytes_of(filled<TypeParam>(heads, k, v, tokens, {tokens}))) << keep;
  }
}

// --- sequences ---

TEST(KvCache, SequencesAreFilledTogetherOrOneAtATime) {
  const Heads<> heads{4, 2, 32};
  const auto k = random_numbers(3 * 70 * 64, 9), v = random_numbers(3 * 70 * 64, 10);
  KvCache<bf16> together(heads, 100, {.num_sequences = 3}), apart(heads, 100, {.num_sequences = 3});
  together.append(View<const float>(k.data(), 3, 70, 2, 32), View<const float>(v.data(), 3, 70, 2, 32));
  for (const Index b : {Index{2}, Index{0}, Index{1}})
    apart.append(0, b, View<const float>(k.data() + b * 70 * 64, 70, 2, 32),
                 View<const float>(v.data() + b * 70 * 64, 70, 2, 32));
  EXPECT_EQ(tile_bytes_of(together), tile_bytes_of(apart));
}

TEST(KvCache, SequencesMayHoldDifferentCounts) {
  KvCache<float> cache(Heads<>{2, 1, 8}, 100, {.num_sequences = 2});
  const auto k = random_numbers(100 * 8, 11);
  cache.append(0, 1, View<const float>(k.data(), 30, 1, 8), View<const float>(k.data(), 30, 1, 8));
  EXPECT_EQ(cache.num_tokens(0, 0), 0);
  EXPECT_EQ(cache.num_tokens(0, 1), 30);
  cache.append(View<const float>(k.data(), 2, 5, 1, 8), View<const float>(k.data(), 2, 5, 1, 8));
  EXPECT_EQ(cache.num_tokens(0, 0), 5);
  EXPECT_EQ(cache.num_tokens(0, 1), 35);
  cache.truncate(10);  // of those that hold more
  EXPECT_EQ(cache.num_tokens(0, 0), 5);
  EXPECT_EQ(cache.num_tokens(0, 1), 10);
  cache.truncate(0, 2);
  EXPECT_EQ(cache.num_tokens(0, 0), 2);
  EXPECT_EQ(cache.num_tokens(0, 1), 10);
  cache.clear();
  EXPECT_EQ(cache.num_tokens(0, 1), 0);
}

// --- layers ---

TEST(KvCache, LayersKeepTheirOwnHeadsAndDimensions) {
  const std::vector<LayerShape> layers{{4, 64}, {1, 16, 48}, {2, 80}};
  KvCache<float> cache(layers, 20);
  EXPECT_EQ(cache.num_layers(), 3);
  EXPECT_EQ(cache.layer_shape(0), (LayerShape{4, 64, 64}));
  EXPECT_EQ(cache.layer_shape(1), (LayerShape{1, 16, 48}));
  const auto k = random_numbers(20 * 256, 12), v = random_numbers(20 * 256, 13);
  cache.append(1, View<const float>(k.data(), 3, 1, 16), View<const float>(v.data(), 3, 1, 48));
  EXPECT_EQ(cache.num_tokens(0), 0);
  EXPECT_EQ(cache.num_tokens(1), 3);
  std::vector<float> value(48);
  cache.read_value(1, 0, 2, 0, value);
  EXPECT_EQ(value, std::vector<float>(v.begin() + 96, v.begin() + 144));
  cache.truncate(2);
  EXPECT_EQ(cache.num_tokens(0), 0);
  EXPECT_EQ(cache.num_tokens(1), 2);
}

TEST(KvCache, OneSequenceOfOneLayerIsTruncatedAlone) {
  const std::vector<LayerShape> layers{{2, 8}, {1, 16}};
  KvCache<float> cache(layers, 100, {.num_sequences = 2});
  const auto k = random_numbers(2 * 70 * 16, 20);
  for (Index layer = 0; layer < 2; ++layer) {
    const View<const float> rows(k.data(), 2, 70, layers[static_cast<std::size_t>(layer)].num_kv_heads,
                                 layers[static_cast<std::size_t>(layer)].head_dim);
    cache.append(layer, rows, rows);
  }
  cache.truncate(1, 0, 65);
  EXPECT_EQ(cache.num_tokens(1, 0), 65);
  EXPECT_EQ(cache.num_tokens(1, 1), 70);
  EXPECT_EQ(cache.num_tokens(0, 0), 70);
  expect_error([&] { cache.truncate(1, 0, 66); }, {"tokens (66) to keep", "0 to the tokens stored (65)"});
  expect_error([&] { cache.truncate(1, 0, -1); }, {"tokens (-1) to keep", "0 to the tokens stored (65)"});
  expect_error([&] { cache.truncate(2, 0, 1); }, {"layer (2)", "num_layers - 1 (1)"});
  expect_error([&] { cache.truncate(1, 2, 1); }, {"sequence (2)", "num_sequences - 1 (1)"});
}

TEST(KvCache, BytesAreWholeTilesOfEverySequence) {
  const KvCache<f16> cache(Heads<>{32, 8, 128}, 65, {.num_sequences = 3});
  EXPECT_EQ(cache.bytes(), Index{3} * 8 * 2 * 64 * (128 + 128) * 2);
  EXPECT_EQ(cache.bytes_per_token(), 8 * (128 + 128) * 2);
  EXPECT_EQ(KvCache<float>(Heads<>{5, 5, 46}, 1).bytes_per_token(), 5 * (48 + 48) * 4);  // padded to 8 and 16
}

TEST(KvCache, TilesAreAligned) {
  for (Index dim : {Index{1}, Index{17}, Index{46}, Index{128}}) {
    KvCache<bf16> cache(Heads<>{3, 3, dim}, 200, {.num_sequences = 2});
    const std::vector<float> zeros(static_cast<std::size_t>(2 * 200 * 3 * dim));
    const View<const float> rows(zeros.data(), 2, 200, 3, dim);
    cache.append(rows, rows);
    const auto tiles = cache.layer();
    for (Index b = 0; b < 2; ++b)
      for (Index g = 0; g < 3; ++g)
        for (Index i = 0; i < 4; ++i) {
          const TilePointers at = tiles.tile(b, g, i);
          EXPECT_EQ(reinterpret_cast<std::uintptr_t>(at.keys) % kTileAlignment, 0u);
          EXPECT_EQ(reinterpret_cast<std::uintptr_t>(at.values) % kTileAlignment, 0u);
          EXPECT_EQ(static_cast<const char*>(at.values) - static_cast<const char*>(at.keys),
                    key_tile_bytes(Storage::bf16, dim));
        }
  }
}

TEST(KvCache, ALayerShowsLaterAppendsGrowthAndMoves) {
  KvCache<float> cache(Heads<>{1, 1, 8}, 1, {.growing = true});
  const auto tiles = cache.layer();
  EXPECT_EQ(tiles.num_tokens(0), 0);
  const std::vector<float> k(100 * 8, 2.0f);
  cache.append(View<const float>(k.data(), 100, 1, 8), View<const float>(k.data(), 100, 1, 8));
  EXPECT_EQ(tiles.num_tokens(0), 100);
  const KvCache<float> moved = std::move(cache);
  EXPECT_EQ(*static_cast<const float*>(tiles.tile(0, 0, 1).values), 2.0f);
  EXPECT_EQ(tiles.tile(0, 0, 1).keys, moved.layer().tile(0, 0, 1).keys);
}

// --- moving and copying ---

TEST(KvCache, CopyIsASecondCache) {
  static_assert(!std::is_copy_constructible_v<KvCache<float>> && !std::is_copy_assignable_v<KvCache<float>>);
  static_assert(std::is_nothrow_move_constructible_v<KvCache<float>>);
  KvCache<float> cache(Heads<>{2, 2, 16}, 100);
  const auto k = random_numbers(80 * 32, 15);
  cache.append(View<const float>(k.data(), 70, 2, 16), View<const float>(k.data(), 70, 2, 16));
  KvCache<float> copy = cache.copy();
  EXPECT_EQ(Snapshot(copy), Snapshot(cache));
  const Snapshot before(cache);
  copy.append(View<const float>(k.data(), 10, 2, 16), View<const float>(k.data(), 10, 2, 16));
  EXPECT_EQ(Snapshot(cache), before);
  EXPECT_EQ(copy.num_tokens(), 80);
}

}  // namespace
}  // namespace headwise
