// SPDX-License-Identifier: MIT
// Attention over pages gives the bits of attention over a KvCache.
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <random>

#include "headwise/headwise.hpp"
#include "tests/cache/paged_fixture.hpp"

namespace headwise {
namespace {

using testing::append_tokens;
using testing::keys_of;
using testing::PackedTokens;
using testing::random_numbers;
using testing::tokens_like;
using testing::values_of;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

/// One query token per sequence; outputs and then log-sum-exps.
template <class Source>
std::vector<float> attend(const Heads<>& heads, const Source& source, Index query_tokens = 1) {
  const Index rows = source.num_sequences() * query_tokens * heads.num_heads();
  const auto q = random_numbers(rows * heads.head_dim(), 77);
  std::vector<float> out(static_cast<std::size_t>(rows * heads.value_dim()), kNan),
      lse(static_cast<std::size_t>(rows), kNan);
  const Attention<> attention(heads);
  attention(View<const float>(q.data(), source.num_sequences(), query_tokens, heads.num_heads(), heads.head_dim()),
            source,
            {View<float>(out.data(), source.num_sequences(), query_tokens, heads.num_heads(), heads.value_dim()),
             View<float>(lse.data(), source.num_sequences(), query_tokens, heads.num_heads(), 1)});
  out.insert(out.end(), lse.begin(), lse.end());
  return out;
}
bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

LayerShape shape_of(const Heads<>& heads) { return {heads.num_kv_heads(), heads.head_dim(), heads.value_dim()}; }

/// Tokens [first, last) of some.
PackedTokens part(const PackedTokens& all, const LayerShape& shape, Index first, Index last) {
  const Index k = shape.num_kv_heads * shape.head_dim, v = shape.num_kv_heads * shape.value_dim;
  return {{all.keys.begin() + first * k, all.keys.begin() + last * k},
          {all.values.begin() + first * v, all.values.begin() + last * v}};
}

/// Sequences of these lengths, of which each is appended to a little at a time while others are and come and go, so that
/// their pages lie in no order.
std::vector<SequenceId> scattered(AnyPagedCache& cache, const LayerShape& shape, const std::vector<Index>& lengths) {
  std::mt19937 random(3);
  std::vector<PackedTokens> tokens;
  std::vector<SequenceId> ids;
  std::vector<Index> done(lengths.size(), 0);
  for (std::size_t b = 0; b < lengths.size(); ++b) {
    tokens.push_back(tokens_like(shape, lengths[b], static_cast<unsigned>(b)));
    ids.push_back(cache.create());
  }
  std::vector<SequenceId> fillers;
  for (bool all_done = false; !all_done;) {
    all_done = true;
    for (std::size_t b = 0; b < lengths.size(); ++b) {
      const Index last = std::min(lengths[b], done[b] + 1 + static_cast<Index>(random() % 90));
      if (done[b] == lengths[b]) continue;
      append_tokens(cache, 0, ids[b], part(tokens[b], shape, done[b], last));
      done[b] = last;
      all_done = false;
    }
    fillers.push_back(cache.create());
    append_tokens(cache, fillers.back(), 1, 99);
    if (fillers.size() > 3) {
      std::swap(fillers[random() % fillers.size()], fillers.back());
      cache.release(fillers.back());
      fillers.pop_back();
    }
  }
  for (const SequenceId& id : fillers) cache.release(id);
  return ids;
}

/// The same in a KvCache.
KvCache<> contiguous(const Heads<>& heads, Storage keys, Storage values, const std::vector<Index>& lengths) {
  const LayerShape shape = shape_of(heads);
  KvCache<> cache(heads, *std::max_element(lengths.begin(), lengths.end()),
                  {.num_sequences = std::ssize(lengths), .key_storage = keys, .value_storage = values});
  for (std::size_t b = 0; b < lengths.size(); ++b) {
    const PackedTokens tokens = tokens_like(shape, lengths[b], static_cast<unsigned>(b));
    cache.append(0, static_cast<Index>(b), keys_of(tokens, shape), values_of(tokens, shape));
  }
  return cache;
}

const std::vector<Index> kLengths{1, 63, 64, 65, 127, 128, 129, 255, 256, 257, 1025};

TEST(PagedAttention, GivesTheBitsOfAKvCacheForEveryStorageAndSizeOfPages) {
  const std::pair<Storage, Storage> storages[] = {{Storage::f32, Storage::f32},   {Storage::f16, Storage::f16},
                                                  {Storage::bf16, Storage::bf16}, {Storage::int8, Storage::int8},
                                                  {Storage::int4, Storage::f16},  {Storage::e4m3, Storage::e5m2}};
  for (const Heads<>& heads : {Heads<>{4, 4, 32}, Heads<>{6, 2, 40, 24}, Heads<>{4, 1, 64}})
    for (const auto& [keys, values] : storages) {
      const auto expected = attend(heads, contiguous(heads, keys, values, kLengths).layer());
      for (const Index page_tokens : {64, 128, 256}) {
        PagedCache<> cache(heads, 100, {.page_tokens = page_tokens, .key_storage = keys, .value_storage = values});
        const auto ids = scattered(cache, shape_of(heads), kLengths);
        EXPECT_TRUE(same(attend(heads, cache.layer(0, ids)), expected))
            << heads.num_kv_heads() << " KV heads, keys " << name_of(keys) << ", pages of " << page_tokens;
        cache.defragment();
        EXPECT_TRUE(same(attend(heads, cache.layer(0, ids)), expected)) << "defragmented";
      }
    }
}

TEST(PagedAttention, RotatedKeysGiveTheBitsOfAKvCacheWithRotatedKeys) {
  const Heads<> heads{6, 2, 48};
  const LayerShape shape = shape_of(heads);
  std::vector<float> scales;
  for (int i = 0; i < 96; ++i) scales.push_back(0.5f + static_cast<float>(i % 7) / 4);
  KvCache<int8> flat(heads, 300, {.hadamard_keys = true, .key_channel_scales = {scales}});
  PagedCache<int8> paged(heads, 10, {.hadamard_keys = true, .key_channel_scales = {scales}});
  const PackedTokens tokens = tokens_like(shape, 300, 4);
  const Rope rope(48);
  flat.append(keys_of(tokens, shape), values_of(tokens, shape), rope);
  const SequenceId id = paged.create();
  paged.append(0, id, keys_of(tokens, shape), values_of(tokens, shape), rope);
  EXPECT_TRUE(same(attend(heads, paged.layer(0, std::span(&id, 1)), 2), attend(heads, flat.layer(), 2)));

  flat.evict(0, 4, 104, rope);
  paged.evict(id, 4, 104, rope);
  EXPECT_TRUE(same(attend(heads, paged.layer(0, std::span(&id, 1)), 2), attend(heads, flat.layer(), 2)));
}

TEST(PagedAttention, ForksThatWentTheirOwnWaysGiveTheBitsOfNeverHavingShared) {
  const Heads<> heads{4, 2, 32};
  const LayerShape shape = shape_of(heads);
  PagedCache<bf16> cache(heads, 40);
  const SequenceId a = cache.create();
  const PackedTokens prompt = tokens_like(shape, 150, 1);
  append_tokens(cache, 0, a, prompt);
  std::vector<SequenceId> ids{a, cache.fork(a), cache.fork(a)};
  cache.truncate(ids[2], 100);
  for (unsigned b = 0; b < 3; ++b) append_tokens(cache, 0, ids[b], tokens_like(shape, 40, 10 + b));
  for (unsigned b = 0; b < 3; ++b) {
    KvCache<bf16> alone(heads, 400);
    const PackedTokens first = part(prompt, shape, 0, b == 2 ? 100 : 150), rest = tokens_like(shape, 40, 10 + b);
    alone.append(keys_of(first, shape), values_of(first, shape));
    alone.append(keys_of(rest, shape), values_of(rest, shape));
    EXPECT_TRUE(same(attend(heads, cache.layer(0, std::span(&ids[b], 1))), attend(heads, alone.layer()))) << b;
  }
  const PagedLayer layer = cache.layer(0, ids);
  EXPECT_EQ(layer.shared_tokens(0, 1), 128);
  EXPECT_EQ(layer.shared_tokens(0, 2), 64);
  for (Index g = 0; g < 2; ++g) EXPECT_EQ(layer.tile(0, g, 1).keys, layer.tile(1, g, 1).keys);
}

// Every slot of every page held a NaN before, and the pages are begun, cut and filled in every way.
TEST(PagedAttention, WhatAPageHeldBeforeNeverReachesAnOutput) {
  const Heads<> heads{4, 2, 24, 40};
  const LayerShape shape = shape_of(heads);
  const Storage storages[] = {Storage::f32, Storage::f16, Storage::bf16, Storage::int8, Storage::int4, Storage::e5m2};
  for (const Storage storage : storages) {
    PagedCache<> cache(heads, 12, {.page_tokens = 128, .key_storage = storage});
    const auto poison = [&] {
      const SequenceId all = cache.create();
      const Index tokens = 128 * cache.pages().free;
      append_tokens(cache, 0, all,
                    {std::vector<float>(static_cast<std::size_t>(tokens * 48), kNan),
                     std::vector<float>(static_cast<std::size_t>(tokens * 80), kNan)});
      cache.release(all);
    };
    for (const Index tokens : {1, 15, 16, 17, 63, 64, 65, 127, 128, 129, 200}) {
      const PackedTokens rows = tokens_like(shape, tokens, 5);
      const auto expect_clean = [&](const SequenceId& id, const char* how) {
        const auto out = attend(heads, cache.layer(0, std::span(&id, 1)));
        for (const float x : out) ASSERT_FALSE(std::isnan(x)) << name_of(storage) << ", " << tokens << " " << how;
      };
      poison();
      const SequenceId a = cache.create();
      append_tokens(cache, 0, a, rows);
      expect_clean(a, "appended");
      const SequenceId b = cache.fork(a);
      append_tokens(cache, 0, b, part(rows, shape, 0, 1));
      expect_clean(b, "appended to a fork");
      const PackedTokens nan{std::vector<float>(30 * 48, kNan), std::vector<float>(30 * 80, kNan)};
      append_tokens(cache, 0, b, nan);
      const SequenceId c = cache.fork(b);
      cache.truncate(c, tokens);  // cuts NaN off a shared page
      expect_clean(c, "cut from a shared page");
      cache.truncate(b, tokens);
      expect_clean(b, "cut");
      append_tokens(cache, 0, b, nan);
      cache.evict(b, tokens / 2, tokens + 30);
      if (tokens > 1) expect_clean(b, "evicted");
      const SequenceId d = cache.create();
      cache.copy_range(a, 0, tokens, d);
      expect_clean(d, "copied");
      for (const SequenceId& id : {a, b, c, d}) cache.release(id);
    }
  }
}

}  // namespace
}  // namespace headwise
