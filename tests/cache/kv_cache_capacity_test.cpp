// SPDX-License-Identifier: MIT
// A KvCache's limits: full caches, growing ones, and sizes that no memory has.
#include <limits>
#include <vector>

#include "headwise/cache/kv_cache.hpp"
#include "tests/cache/cache_contents.hpp"
#include "tests/support/sanitizers.hpp"
#include "tests/support/errors.hpp"

namespace headwise {
namespace {

using testing::expect_error;
using testing::random_numbers;
using testing::Snapshot;
using testing::tile_bytes_of;

TEST(KvCache, IsFullAtExactlyMaxTokens) {
  KvCache<float> cache(Heads<>{1, 1, 4}, 10);
  const std::vector<float> k(11 * 4, 1.0f);
  const View<const float> nine(k.data(), 9, 1, 4), one(k.data(), 1, 1, 4), two(k.data(), 2, 1, 4),
      none(k.data(), 0, 1, 4);
  cache.append(nine, nine);
  const Snapshot before(cache);
  expect_error([&] { cache.append(two, two); }, {"tokens (2)", "9 stored", "max_tokens is 10"});
  EXPECT_EQ(Snapshot(cache), before);
  cache.append(one, one);
  expect_error([&] { cache.append(one, one); }, {"tokens (1)", "10 stored", "max_tokens is 10"});
  EXPECT_NO_THROW(cache.append(none, none));
  EXPECT_EQ(cache.num_tokens(), 10);
}

TEST(KvCache, OneFullSequenceStopsAnAppendToAll) {
  KvCache<float> cache(Heads<>{1, 1, 4}, 10, {.num_sequences = 2});
  const std::vector<float> k(20 * 4, 1.0f);
  cache.append(0, 1, View<const float>(k.data(), 8, 1, 4), View<const float>(k.data(), 8, 1, 4));
  const Snapshot before(cache);
  const View<const float> three(k.data(), 2, 3, 1, 4);
  expect_error([&] { cache.append(three, three); }, {"tokens (3)", "8 stored", "max_tokens is 10"});
  EXPECT_EQ(Snapshot(cache), before);
}

TEST(KvCache, GrowsWhenAskedToAndKeepsEverySequence) {
  const Heads<> heads{2, 2, 20};
  const auto k = random_numbers(2 * 300 * 40, 14);
  KvCache<f16> growing(heads, 3, {.num_sequences = 2, .growing = true}), roomy(heads, 300, {.num_sequences = 2});
  Index largest = 3;
  for (Index t = 0; t < 300; t += 30) {
    for (auto* cache : {&growing, &roomy})
      cache->append(View<const float>(k.data() + t * 40, 2, 30, 2, 20, {300 * 40, 40, 20, 1}),
                    View<const float>(k.data() + t * 40, 2, 30, 2, 20, {300 * 40, 40, 20, 1}));
    if (growing.max_tokens() != largest) {
      EXPECT_GE(growing.max_tokens(), 2 * largest);
      largest = growing.max_tokens();
    }
    EXPECT_GE(largest, t + 30);
    EXPECT_EQ(tile_bytes_of(growing), tile_bytes_of(roomy));
  }
  EXPECT_EQ(growing.bytes(), 2 * 2 * ceil_div(largest, kTileTokens) * tile_bytes(Storage::f16, 20, 20));
}

TEST(KvCache, GrowthThatFindsNoMemoryChangesNothing) {
#if defined(HEADWISE_TEST_ASAN) || defined(HEADWISE_TEST_TSAN)
  GTEST_SKIP() << "skipped: a sanitizer ends the program where operator new would throw";
#endif
  KvCache<float> cache(Heads<>{1, 1, 512}, 4, {.growing = true});
  const std::vector<float> k(4 * 512, 1.0f);
  cache.append(View<const float>(k.data(), 4, 1, 512), View<const float>(k.data(), 4, 1, 512));
  const Snapshot before(cache);
  // one row, repeated 2^47 times: 2^59 bytes of tiles
  const View<const float> endless(k.data(), 1, Index{1} << 47, 1, 512, {0, 0, 0, 1});
  EXPECT_THROW(cache.append(endless, endless), std::bad_alloc);
  EXPECT_EQ(Snapshot(cache), before);
}

TEST(KvCache, SizesThatOverflowAreNamedWithoutAnAllocation) {
  expect_error(
      [] {
        KvCache<float>(Heads<>{1, 1, 512}, Index{1} << 48, {.num_sequences = 1 << 20});
      },
      {"max_tokens (281474976710656)", "1048576 sequences", "less than 2^63 bytes"});
  expect_error(
      [] {
        KvCache<float>(Heads<>{1, 1, 1}, std::numeric_limits<Index>::max());
      },
      {"max_tokens (9223372036854775807)", "must be 1 to"});
  expect_error(
      [] {
        KvCache<float>(Heads<>{1, 1, 1}, 1, {.num_sequences = std::numeric_limits<Index>::max()});
      },
      {"9223372036854775807 sequences", "less than 2^63 bytes"});
  KvCache<float> cache(Heads<>{1, 1, 1}, 1, {.growing = true});
  const float x = 1;
  const View<const float> endless(&x, 1, Index{1} << 60, 1, 1, {0, 0, 0, 1});
  expect_error([&] { cache.append(endless, endless); }, {"tokens (1152921504606846976)", "at most"});
}

}  // namespace
}  // namespace headwise
