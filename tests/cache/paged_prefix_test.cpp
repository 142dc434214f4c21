// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include "headwise/cache/paged_cache.hpp"
#include "tests/cache/paged_fixture.hpp"
#include "tests/support/errors.hpp"

namespace headwise {
namespace {

using testing::append_tokens;
using testing::contents_of;
using testing::expect_error;
using testing::pages_of;

const LayerShape kLayers[] = {{2, 6, 3}, {1, 4, 2}};
using Text = std::vector<std::int32_t>;

/// Tokens first, first + 1, …
Text text(Index count, std::int32_t first = 0) {
  Text result;
  for (Index i = 0; i < count; ++i) result.push_back(first + static_cast<std::int32_t>(i));
  return result;
}
Text join(Text a, const Text& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}
/// A sequence that was appended the text, in the prefix cache. Appends of a seed are those of a text.
SequenceId entered(AnyPagedCache& cache, const Text& tokens, unsigned seed) {
  const SequenceId id = cache.create();
  append_tokens(cache, id, std::ssize(tokens), seed);
  cache.register_prefix(id, tokens);
  return id;
}
Index found(AnyPagedCache& cache, const Text& tokens) {
  const SequenceId id = cache.match_prefix(tokens);
  const Index result = cache.num_tokens(0, id);
  cache.release(id);
  return result;
}

TEST(PagedPrefix, APrefixIsFoundInWholePagesAndSharesThem) {
  PagedCache<float> cache(kLayers, 20);
  const SequenceId a = entered(cache, text(200), 1);
  const SequenceId b = cache.match_prefix(join(text(150), text(100, 5000)));
  EXPECT_EQ(cache.num_tokens(0, b), 128);
  EXPECT_EQ(cache.num_tokens(1, b), 128);
  EXPECT_EQ(pages_of(cache, b)[1], pages_of(cache, a)[1]);
  EXPECT_EQ(cache.pages().used, 4);
  EXPECT_EQ(cache.prefixes().hit_tokens, 128);
  EXPECT_EQ(cache.prefixes().missed_tokens, 250 - 128);
  cache.truncate(a, 128);
  EXPECT_EQ(contents_of(cache, b), contents_of(cache, a));
  EXPECT_EQ(found(cache, text(64, 1)), 0);
}

TEST(PagedPrefix, WhatIsLeftToComputeIsForTheCallerToSay) {
  PagedCache<float> cache(kLayers, 20);
  entered(cache, text(192), 1);
  EXPECT_EQ(found(cache, text(192)), 128);  // the last token is left, and so its page
  EXPECT_EQ(found(cache, text(193)), 192);
  EXPECT_EQ(cache.num_tokens(0, cache.match_prefix(text(192), 0, 0)), 192);
  EXPECT_EQ(cache.num_tokens(0, cache.match_prefix(text(192), 0, 65)), 64);
  EXPECT_EQ(cache.num_tokens(0, cache.match_prefix(text(192), 0, 500)), 0);
  EXPECT_EQ(found(cache, {}), 0);
}

TEST(PagedPrefix, PagesOutliveTheirSequencesUntilOthersAreWanted) {
  PagedCache<float> cache(kLayers, 4);
  const SequenceId a = entered(cache, text(128), 1);
  const auto contents = contents_of(cache, a);
  cache.release(a);
  EXPECT_EQ(cache.pages().cached, 2);
  EXPECT_EQ(cache.pages().used, 0);
  const SequenceId again = cache.match_prefix(text(129));
  EXPECT_EQ(contents_of(cache, again), contents);
  EXPECT_EQ(cache.pages().cached, 0);
  cache.release(again);

  const SequenceId b = cache.create();
  append_tokens(cache, b, 190, 2);  // three pages: one of the two is given up, the last of the text
  EXPECT_EQ(cache.pages().cached, 1);
  EXPECT_EQ(found(cache, text(129)), 64);
  append_tokens(cache, b, 60, 3);
  EXPECT_EQ(cache.pages().cached, 0);
  EXPECT_EQ(found(cache, text(129)), 0);
}

TEST(PagedPrefix, TheLeastRecentlyUsedPagesGoFirst) {
  PagedCache<float> cache(kLayers, 6);
  const Text one = text(128), two = text(128, 1000), three = text(128, 2000);
  unsigned seed = 1;
  for (const Text& t : {one, two, three}) cache.release(entered(cache, t, seed++));
  EXPECT_EQ(found(cache, join(one, {1})), 128);  // used again
  const SequenceId wanting = cache.create();
  append_tokens(cache, wanting, 64, 9);
  EXPECT_EQ(found(cache, join(two, {1})), 64);  // which makes it the youngest
  append_tokens(cache, wanting, 128, 10);
  EXPECT_EQ(found(cache, join(three, {1})), 0);
  EXPECT_EQ(found(cache, join(one, {1})), 128);
  EXPECT_EQ(found(cache, join(two, {1})), 64);
}

TEST(PagedPrefix, SequencesWithTheSamePagesComeToShareThem) {
  PagedCache<float> cache(kLayers, 20);
  const SequenceId a = entered(cache, text(200), 1), b = cache.create();
  append_tokens(cache, b, 200, 1);
  const auto before = contents_of(cache, b);
  EXPECT_EQ(cache.pages().used, 8);
  EXPECT_EQ(cache.register_prefix(b, text(200)), 192);
  EXPECT_EQ(cache.pages().used, 5);
  EXPECT_EQ(contents_of(cache, b), before);
  const SequenceId ids[] = {a, b};
  EXPECT_EQ(cache.layer(0, ids).shared_tokens(0, 1), 192);
}

TEST(PagedPrefix, PagesWithOtherBitsAreNeverTakenForTheSame) {
  PagedCache<float> cache(kLayers, 20);
  entered(cache, text(200), 1);
  const SequenceId b = cache.create();
  append_tokens(cache, b, 200, 2);  // other keys and values for the same text
  const auto before = contents_of(cache, b);
  EXPECT_EQ(cache.register_prefix(b, text(200)), 0);
  EXPECT_EQ(contents_of(cache, b), before);
  EXPECT_EQ(cache.pages().shared, 0);
  EXPECT_EQ(cache.register_prefix(b, text(200), 17), 192);  // under a salt of its own
  EXPECT_EQ(cache.num_tokens(0, cache.match_prefix(text(200), 17)), 192);
}

TEST(PagedPrefix, ATextThatGoesOnIsEnteredBehindWhatIsThere) {
  PagedCache<float> cache(kLayers, 20);
  const SequenceId a = entered(cache, text(64), 1);
  append_tokens(cache, a, 100, 2);
  EXPECT_EQ(cache.register_prefix(a, text(164)), 128);
  const SequenceId b = cache.match_prefix(join(text(64), text(64, 900)));
  EXPECT_EQ(cache.num_tokens(0, b), 64);
  append_tokens(cache, b, 64, 3);
  EXPECT_EQ(cache.register_prefix(b, join(text(64), text(64, 900))), 128);
  EXPECT_EQ(found(cache, text(200)), 128);
  EXPECT_EQ(found(cache, join(join(text(64), text(64, 900)), {1})), 128);
}

TEST(PagedPrefix, WritingBehindACutLeavesWhatIsInThePrefixCache) {
  PagedCache<float> cache(kLayers, 20);
  const SequenceId a = entered(cache, text(128), 1);
  const auto contents = contents_of(cache, a);
  cache.truncate(a, 100);
  append_tokens(cache, a, 28, 7);
  EXPECT_NE(contents_of(cache, a), contents);
  EXPECT_EQ(contents_of(cache, cache.match_prefix(text(129))), contents);
}

TEST(PagedPrefix, TokensBehindAnEvictionAreNotEntered) {
  PagedCache<float> cache(kLayers, 20);
  const SequenceId a = cache.create();
  append_tokens(cache, a, 200, 1);
  cache.evict(a, 70, 80);
  expect_error([&] { cache.register_prefix(a, text(128)); }, {"tokens (128)", "at most 70", "evicted"});
  EXPECT_EQ(cache.register_prefix(a, text(70)), 64);
  cache.truncate(a, 65);
  append_tokens(cache, a, 100, 2);
  EXPECT_EQ(cache.register_prefix(a, text(165)), 128);
}

TEST(PagedPrefix, AnEmptiedPrefixCacheFindsNothingAndSequencesKeepTheirPages) {
  PagedCache<float> cache(kLayers, 20);
  const SequenceId a = entered(cache, text(128), 1);
  cache.release(entered(cache, text(64, 500), 2));
  const auto contents = contents_of(cache, a);
  cache.clear_prefixes();
  EXPECT_EQ(cache.pages().cached, 0);
  EXPECT_EQ(found(cache, text(129)), 0);
  EXPECT_EQ(contents_of(cache, a), contents);
  cache.release(a);
  EXPECT_EQ(cache.pages().free, 20);
}

TEST(PagedPrefix, PrefixesAreFoundAfterDefragmentation) {
  PagedCache<float> cache(kLayers, 20);
  const SequenceId filler = cache.create();
  append_tokens(cache, filler, 100, 5);
  cache.release(entered(cache, text(128), 1));
  const SequenceId b = entered(cache, text(128, 700), 2);
  const auto contents = contents_of(cache, b);
  cache.release(filler);
  EXPECT_GT(cache.defragment(), 0);
  EXPECT_EQ(contents_of(cache, cache.match_prefix(text(129, 700))), contents);
  EXPECT_EQ(found(cache, text(129)), 128);
}

}  // namespace
}  // namespace headwise
