// SPDX-License-Identifier: MIT
// Tiles of a sequence out of one KvCache and into another (cache/token_store.hpp).
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "headwise/cache/kv_cache.hpp"
#include "tests/cache/cache_contents.hpp"
#include "tests/support/errors.hpp"

namespace headwise {
namespace {

using testing::expect_error;
using testing::random_numbers;
using testing::Snapshot;

static_assert(TokenStore<KvCache<>> && TokenStore<KvCache<int8, bf16>>);

const std::vector<LayerShape> kShapes{{2, 8, 12}, {2, 8, 12}, {1, 20}};
const KvSharing kSharing = KvSharing::from_sources(std::vector<Index>{0, 0, 2});

std::vector<LayerShape> rings(Index window, Index sinks) {
  auto shapes = kShapes;
  for (LayerShape& shape : shapes) {
    shape.window = window;
    shape.num_sink_tokens = sinks;
  }
  return shapes;
}
KvCache<> cache_of(const std::vector<LayerShape>& shapes, Index max_tokens, CacheOptions options = {}) {
  options.num_sequences = 2;
  options.max_append = 30;
  options.key_storage = Storage::int8;
  options.value_storage = Storage::e4m3;
  return KvCache<>(shapes, kSharing, max_tokens, options);
}
void fill(KvCache<>& cache, Index sequence, Index tokens, unsigned seed) {
  for (const Index layer : {0, 2}) {
    const LayerShape s = cache.layer_shape(layer);
    const auto k = random_numbers(tokens * s.num_kv_heads * s.head_dim, seed);
    const auto v = random_numbers(tokens * s.num_kv_heads * s.value_dim, seed + 1);
    for (Index t = 0, n; t < tokens; t += n) {
      n = std::min<Index>(30, tokens - t);
      cache.append(layer, sequence,
                   View<const float>(k.data() + t * s.num_kv_heads * s.head_dim, n, s.num_kv_heads, s.head_dim),
                   View<const float>(v.data() + t * s.num_kv_heads * s.value_dim, n, s.num_kv_heads, s.value_dim));
    }
  }
}
std::vector<TokenRange> kept(const KvCache<>& cache, Index sequence) {
  std::vector<TokenRange> result;
  for (Index s = 0; s < cache.num_storages(); ++s) result.push_back(cache.kept(s, sequence));
  return result;
}
/// Sequence `from` of one cache becomes sequence `to` of another.
void transfer(const KvCache<>& source, Index from, KvCache<>& target, Index to) {
  const auto ranges = kept(source, from);
  target.restore_sequence(to, ranges, [&](Index storage, Index kv_head, Index index, std::byte* tile) {
    std::memcpy(tile, source.stored_tile(storage, from, kv_head, index),
                static_cast<std::size_t>(source.storage_format(storage).bytes()));
  });
}
/// Every token that both hold is the same, and what the second is to hold it does.
void expect_same_tokens(const KvCache<>& a, Index from, const KvCache<>& b, Index to) {
  for (const Index layer : {0, 1, 2}) {
    const LayerShape s = a.layer_shape(layer);
    const TokenRange mine = a.layer(layer).kept(from), theirs = b.layer(layer).kept(to);
    ASSERT_EQ(mine.end, theirs.end);
    std::vector<float> x(static_cast<std::size_t>(s.head_dim)), y(x);
    for (Index t = 0; t < mine.end; ++t) {
      if (!(t < theirs.sinks || t >= theirs.begin)) continue;
      for (Index g = 0; g < s.num_kv_heads; ++g) {
        a.read_key(layer, from, t, g, x);
        b.read_key(layer, to, t, g, y);
        ASSERT_EQ(x, y) << t;
      }
    }
  }
}

TEST(Restore, GivesTheSequenceInAnotherCacheAndOfAnotherKind) {
  for (const Index tokens : {0, 1, 63, 64, 65, 300, 555}) {
    auto source = cache_of(kShapes, 600);
    fill(source, 1, tokens, 1);
    auto contiguous = cache_of(kShapes, 600), growing = cache_of(kShapes, 1, {.growing = true}),
         ring = cache_of(rings(100, 3), 1);
    for (KvCache<>* target : {&contiguous, &growing, &ring}) {
      fill(*target, 0, 90, 7);
      fill(*target, 1, 21, 9);
      const Snapshot other(target->copy());
      transfer(source, 1, *target, 0);
      expect_same_tokens(source, 1, *target, 0);
      EXPECT_EQ(target->num_tokens(0, 1), 21);
      // and it goes on as the source does
      fill(*target, 0, 40, 11);
    }
    EXPECT_EQ(kept(growing, 0), kept(contiguous, 0));
    const TokenRange range = ring.kept(0, 0);
    EXPECT_LE(range.begin, std::max<Index>(0, tokens + 40 - 100));
    EXPECT_EQ(range.begin > 0, tokens > 200);
    fill(source, 1, 40, 11);
    for (KvCache<>* target : {&contiguous, &growing, &ring}) expect_same_tokens(source, 1, *target, 0);
  }
}

TEST(Restore, OfARingGoesOnAsTheRing) {
  for (const Index tokens : {50, 250, 1001}) {
    auto source = cache_of(rings(100, 70), 1), same = cache_of(rings(100, 70), 1), smaller = cache_of(rings(40, 1), 1),
         contiguous = cache_of(kShapes, 1200);
    fill(source, 0, tokens, 1);
    for (KvCache<>* target : {&same, &smaller, &contiguous}) {
      transfer(source, 0, *target, 1);
      expect_same_tokens(source, 0, *target, 1);
    }
    EXPECT_EQ(kept(same, 1), kept(source, 0));
    EXPECT_EQ(kept(contiguous, 1), kept(source, 0));  // what was forgotten stays so
    for (int i = 0; i < 5; ++i) {
      for (KvCache<>* target : {&same, &smaller, &contiguous}) fill(*target, 1, 29, 20 + static_cast<unsigned>(i));
      fill(source, 0, 29, 20 + static_cast<unsigned>(i));
    }
    for (KvCache<>* target : {&same, &smaller}) expect_same_tokens(source, 0, *target, 1);
    EXPECT_EQ(kept(same, 1), kept(source, 0));
    expect_same_tokens(contiguous, 1, source, 0);
  }
}

TEST(Restore, ClearsSlotsThatHoldNoTokens) {
  // a tile that is full of NaN where the range says nothing
  KvCache<float> cache(Heads<>(1, 1, 8), 300);
  const std::vector<TokenRange> ranges{{3, 70, 75}};
  cache.restore_sequence(0, ranges, [&](Index, Index, Index index, std::byte* tile) {
    std::memset(tile, 0xff, static_cast<std::size_t>(cache.storage_format(0).bytes()));
    const std::vector<float> rows(10 * 8, 1.0f);
    const View<const float> view(rows.data(), index == 0 ? 3 : 5, 1, 8);
    detail::write_tokens(
        cache.storage_format(0), [&](Index, Index) { return tile; }, index == 0 ? 0 : 6, view.array(), view.array(), 0,
        {}, {}, [](Index, const std::byte*, Index, Index) {});
    if (index == 1) std::memset(tile, 0xff, 4);
  });
  const auto layer = cache.layer();
  for (const Index i : {0, 1})
    for (Index slot = 0; slot < 64; ++slot) {
      const Index t = i * 64 + slot;
      std::vector<float> key(8);
      detail::read_stored_key(layer.format(), static_cast<const std::byte*>(layer.tile(0, 0, i).keys), slot,
                              key.data());
      EXPECT_EQ(key, std::vector<float>(8, t < 3 || (t >= 70 && t < 75) ? 1.0f : 0.0f)) << t;
    }
  EXPECT_EQ(cache.num_tiles(), 2);
}

TEST(Restore, MakesKeyNormsAnew) {
  auto source = cache_of(kShapes, 300, {.key_norms = true}),
       target = cache_of(kShapes, 1, {.growing = true, .key_norms = true});
  fill(source, 0, 200, 1);
  fill(target, 1, 30, 3);
  transfer(source, 0, target, 1);
  for (KvCache<>* cache : {&source, &target}) fill(*cache, cache == &target, 30, 5);
  for (const Index layer : {0, 1, 2})
    for (Index g = 0; g < kShapes[static_cast<std::size_t>(layer)].num_kv_heads; ++g)
      EXPECT_EQ(target.key_norm_squares(layer, 1, g), source.key_norm_squares(layer, 0, g));
  target.truncate(1, 101);
  source.truncate(0, 101);
  EXPECT_EQ(target.key_norm_squares(2, 1, 0), source.key_norm_squares(2, 0, 0));
}

TEST(Restore, MistakesAreNamedAndChangeNothing) {
  auto cache = cache_of(kShapes, 100), ring = cache_of(rings(50, 5), 1),
       norms = cache_of(kShapes, 100, {.key_norms = true}), growing = cache_of(kShapes, 100, {.growing = true});
  for (KvCache<>* c : {&cache, &ring, &norms, &growing}) fill(*c, 0, 40, 1);
  const auto restore = [](KvCache<>& into, std::vector<TokenRange> ranges, Index sequence = 0) {
    return [&into, ranges = std::move(ranges), sequence] {
      into.restore_sequence(sequence, ranges, [](Index, Index, Index, std::byte*) { FAIL() << "filled"; });
    };
  };
  for (KvCache<>* c : {&cache, &ring, &norms, &growing}) {
    const Snapshot before(*c);
    expect_error(restore(*c, {{0, 0, 1}}), {"ranges (1)", "one per storage (2)"});
    expect_error(restore(*c, {{0, 0, 1}, {0, 0, 1}}, 2), {"sequence (2)"});
    expect_error(restore(*c, {{0, 0, 1}, {0, 2, 1}}), {"ranges[1] (sinks 0, begin 2, end 1)"});
    expect_error(restore(*c, {{-1, 0, 1}, {0, 0, 1}}), {"ranges[0] (sinks -1"});
    EXPECT_EQ(Snapshot(*c), before);
  }
  const Snapshot a(cache), b(ring), c(norms), d(growing);
  expect_error(restore(cache, {{0, 0, 100}, {0, 0, 101}}), {"tokens (101)", "max_tokens is 100"});
  expect_error(restore(ring, {{4, 60, 200}, {5, 60, 200}}), {"sinks 4", "first 5 tokens", "last 50"});
  expect_error(restore(ring, {{5, 151, 200}, {5, 60, 200}}), {"begin 151", "last 50"});
  expect_error(restore(norms, {{0, 0, 60}, {5, 30, 60}}), {"key_norms", "not at 30"});
  // a saved sequence may claim any number of tokens that it does not hold
  expect_error(restore(growing, {{0, 0, 1}, {2, 65539, 65600}}), {"tokens 2 to 65538", "at most 65536", "is 100"});
  expect_error(restore(growing, {{0, Index{1} << 47, Index{1} << 47}, {0, 0, 1}}), {"forgotten", "at most 65536"});
  EXPECT_EQ(Snapshot(cache), a);
  EXPECT_EQ(Snapshot(ring), b);
  EXPECT_EQ(Snapshot(norms), c);
  EXPECT_EQ(Snapshot(growing), d);
  expect_error([&] { cache.stored_tile(2, 0, 0, 0); }, {"storage (2)", "num_storages - 1 (1)"});
  expect_error([&] { cache.stored_tile(0, 0, 0, 1); }, {"index (1)"});
}

}  // namespace
}  // namespace headwise
