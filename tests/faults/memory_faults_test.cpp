// SPDX-License-Identifier: MIT
// Faults of what is read, copied and allocated. counted_new.hpp counts for the whole program.
#include "tests/attention/oracle.hpp"
#include "tests/support/errors.hpp"
#include "tests/support/sanitizers.hpp"
#include "tests/support/tile_sources.hpp"
#if !defined(HEADWISE_TEST_ASAN) && !defined(HEADWISE_TEST_TSAN)
#include "tests/support/counted_new.hpp"
#else
#include "tests/support/allocation_counts.hpp"
#endif

namespace headwise {
namespace {

using namespace testing;

/// A call over a cache with these lengths.
void attend_with(std::vector<Index> keys, std::vector<Index> queries) {
  const Inputs in({2, 1, 8}, 2, 3, 10);
  run(in, {}, {.key_lengths = keys, .query_lengths = queries});
}

// onnxruntime 28031: sequence lengths that are negative or beyond the cache were used as they came, to read out of bounds
TEST(MemoryFaults, LengthsBeyondTheCacheAreRefused) {
  expect_error([] { attend_with({10, -1}, {}); }, {"key_lengths[1]", "-1"});
  expect_error([] { attend_with({11, 3}, {}); }, {"key_lengths[0]", "11"});
  expect_error([] { attend_with({5}, {}); }, {"key_lengths", "1 lengths"});
  attend_with({10, 0}, {});
}

// onnxruntime 27170: lengths that did not fit together gave negative positions to look up, and a crash
TEST(MemoryFaults, MoreQueriesThanKeysSeeNothingBeforeTheFirstKey) {
  expect_error([] { attend_with({}, {4, 0}); }, {"query_lengths[0]", "4"});
  const Inputs in({2, 1, 8}, 1, 5, 10);
  const Index lengths[] = {2};
  expect_defined(in, {}, {.key_lengths = lengths});
}

// onnxruntime 26262: a call without a past could not give its keys and values back for the next one
TEST(MemoryFaults, ACacheThatBeganEmptyGoesOn) {
  const Inputs all({4, 2, 16}, 1, 9, 9);
  KvCache<float> cache(all.heads, 9, {});
  std::vector<float> out(all.q.size());
  for (const auto& [first, tokens] : {std::pair<Index, Index>{0, 6}, {6, 3}}) {
    cache.append(View<const float>(all.k.data() + first * 32, tokens, 2, 16),
                 View<const float>(all.v.data() + first * 32, tokens, 2, 16));
    Attention<>{all.heads}(View<const float>(all.q.data() + first * 64, tokens, 4, 16), cache,
                           View<float>(out.data() + first * 64, tokens, 4, 16));
  }
  EXPECT_EQ(out, run(all).output);
}

/// How often the tiles of a call were asked for, and how many there are.
template <class Heads>
void expect_each_tile_once(const Heads& heads, Index queries, Index keys) {
  const Inputs in(heads, 1, queries, keys);
  const KvCache<float> cache = cache_of<float>(in);
  const auto layer = cache.layer();
  const CountingSource counting(layer);
  run_over(counting, in);
  EXPECT_EQ(counting.distinct(), heads.num_kv_heads() * ceil_div(keys, kTileTokens));
  EXPECT_EQ(counting.calls(), counting.distinct());
}

// vllm 1880: keys and values of a group were read once for each of its query heads
TEST(MemoryFaults, DecodingAsksForEachTileOnceForTheWholeGroup) {
  for (const Index group : {1, 2, 8, 64}) expect_each_tile_once(Heads<>(2 * group, 2, 16), 1, 1500);
}

// vllm 15351: 64 query heads over 8 KV heads loaded the same keys 8 times
TEST(MemoryFaults, SixtyFourHeadsOverEightReadEightHeadsOfKeys) {
  expect_each_tile_once(Heads<>(64, 8, 32), 1, 700);
  expect_each_tile_once(Heads<>(64, 8, 32), 3, 700);
}

#if !defined(HEADWISE_TEST_ASAN) && !defined(HEADWISE_TEST_TSAN)
/// Bytes that a first call allocates.
long bytes_of_a_call(const KvRows& rows, const Inputs& in) {
  std::vector<float> out(in.q.size());
  const View<const float> q(in.q.data(), in.query_tokens, in.heads.num_heads(), in.heads.head_dim());
  const Attention<> attend(in.heads);
  const long before = allocated_bytes;
  attend(q, rows, View<float>(out.data(), in.query_tokens, in.heads.num_heads(), in.heads.head_dim()));
  return allocated_bytes - before;
}

KvRows rows_of(const Inputs& in) {
  return {View<const float>(in.k.data(), in.key_tokens, in.heads.num_kv_heads(), in.heads.head_dim()),
          View<const float>(in.v.data(), in.key_tokens, in.heads.num_kv_heads(), in.heads.value_dim())};
}

// pytorch 190523: grouped heads were served by repeating keys and values for every query head
TEST(MemoryFaults, NoCopyOfKeysAndValuesIsMade) {
  const Inputs in({32, 8, 64}, 1, 1, 4096);
  EXPECT_LT(bytes_of_a_call(rows_of(in), in), static_cast<long>(in.k.size() * sizeof(float) / 4));
}

// onnxruntime 28695: the scores of all heads, queries and keys were held at once, a gigabyte for 16 heads and 4096 tokens
TEST(MemoryFaults, ScoresOfAllQueriesAreNeverHeldAtOnce) {
  const Inputs in({16, 4, 8}, 1, 512, 4096);
  EXPECT_LT(bytes_of_a_call(rows_of(in), in), 4L << 20);  // the scores would be 128 MiB
}
#endif

}  // namespace
}  // namespace headwise
