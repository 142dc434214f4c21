// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <limits>

#include "headwise/cache/paged_cache.hpp"
#include "tests/cache/paged_fixture.hpp"
#include "tests/support/allocation_counts.hpp"
#include "tests/support/sanitizers.hpp"

namespace headwise {
namespace {

using testing::append_tokens;
using testing::contents_of;
using testing::expect_counts;
using testing::pages_of;
using testing::tokens_like;

const LayerShape kLayers[] = {{2, 6, 3}, {1, 4, 2}};

TEST(PagedSharing, AForkHoldsTheSamePagesAndTheFirstToWriteCopiesOnlyTheLast) {
  for (const bool child_writes : {true, false}) {
    PagedCache<float> cache(kLayers, 10);
    const SequenceId parent = cache.create();
    append_tokens(cache, parent, 150, 1);
    const SequenceId child = cache.fork(parent);
    EXPECT_EQ(pages_of(cache, child), pages_of(cache, parent));
    EXPECT_EQ(cache.pages().used, 3);
    EXPECT_EQ(cache.pages().shared, 3);
    const auto before = contents_of(cache, parent);

    const SequenceId writer = child_writes ? child : parent, other = child_writes ? parent : child;
    append_tokens(cache, writer, 1, 2);
    EXPECT_EQ(contents_of(cache, other), before);
    EXPECT_EQ(cache.pages().used, 4);
    EXPECT_EQ(cache.pages().shared, 2);
    append_tokens(cache, other, 5, 3);  // has the page alone now
    EXPECT_EQ(cache.pages().used, 4);
    EXPECT_EQ(cache.num_tokens(0, writer), 151);
    EXPECT_EQ(cache.num_tokens(0, other), 155);
    expect_counts(cache);
    const SequenceId ids[] = {parent, child};
    EXPECT_EQ(cache.layer(1, ids).shared_tokens(0, 1), 128);
  }
}

TEST(PagedSharing, AForkOfFullPagesCopiesNothingEver) {
  PagedCache<float> cache(kLayers, 10);
  const SequenceId parent = cache.create();
  append_tokens(cache, parent, 128, 1);
  const SequenceId child = cache.fork(parent);
  append_tokens(cache, parent, 1, 2);
  append_tokens(cache, child, 1, 3);
  EXPECT_EQ(cache.pages().used, 4);
  EXPECT_EQ(cache.pages().shared, 2);
}

TEST(PagedSharing, WhoeverIsAloneWithAPageWritesItInPlace) {
  PagedCache<float> cache(kLayers, 10);
  const SequenceId parent = cache.create();
  append_tokens(cache, parent, 70, 1);
  const SequenceId child = cache.fork(parent);
  const auto pages = pages_of(cache, parent);
  cache.release(parent);
  append_tokens(cache, child, 1, 2);
  EXPECT_EQ(pages_of(cache, child), pages);
}

TEST(PagedSharing, ALayerThatLagsBehindCopiesEveryPageThatItWrites) {
  PagedCache<float> cache(kLayers, 10);
  const SequenceId parent = cache.create();
  append_tokens(cache, 0, parent, tokens_like(kLayers[0], 200, 1));
  const SequenceId child = cache.fork(parent);
  const auto before = contents_of(cache, parent);
  append_tokens(cache, 1, child, tokens_like(kLayers[1], 100, 2));
  EXPECT_EQ(contents_of(cache, parent), before);
  EXPECT_EQ(cache.pages().used, 4 + 2);
  EXPECT_EQ(cache.pages().shared, 2);
}

TEST(PagedSharing, PagesAreFreeAgainWhenTheLastOfAFamilyIsReleased) {
  PagedCache<float> cache(kLayers, 40, {.max_sequences = 20});
  std::vector<SequenceId> family{cache.create()};
  append_tokens(cache, family[0], 100, 1);
  for (unsigned i = 1; i < 20; ++i) {
    family.push_back(cache.fork(family[(i - 1) / 2]));
    append_tokens(cache, family.back(), i, i + 1);
  }
  for (std::size_t i = 0; i < family.size(); ++i) cache.release(family[(i * 7) % family.size()]);
  EXPECT_EQ(cache.pages().used, 0);
  EXPECT_EQ(cache.pages().free, 40);
  EXPECT_EQ(cache.num_sequences(), 0);
}

TEST(PagedSharing, RollbackOfOneLeavesTheOtherAndTakesNoPage) {
  PagedCache<float> cache(kLayers, 10);
  const SequenceId parent = cache.create();
  append_tokens(cache, parent, 150, 1);
  const SequenceId child = cache.fork(parent);
  const auto before = contents_of(cache, parent);
  cache.truncate(child, 140);
  EXPECT_EQ(cache.pages().used, 3);
  EXPECT_EQ(cache.num_tokens(0, child), 140);
  cache.truncate(child, 64);
  EXPECT_EQ(cache.num_pages(child), 1);
  EXPECT_EQ(cache.pages().shared, 1);
  append_tokens(cache, child, 64, 2);
  EXPECT_EQ(contents_of(cache, parent), before);
}

TEST(PagedSharing, WhatIsCutFromASharedPageStaysFiniteThere) {
  PagedCache<float> cache(kLayers, 10);
  const SequenceId parent = cache.create();
  append_tokens(cache, parent, 100, 1);
  auto tokens = tokens_like(kLayers[1], 1, 2);
  tokens.values[1] = std::numeric_limits<float>::infinity();
  append_tokens(cache, 0, parent, tokens_like(kLayers[0], 1, 2));
  append_tokens(cache, 1, parent, tokens);
  const SequenceId child = cache.fork(parent);
  cache.truncate(child, 100);
  EXPECT_EQ(cache.pages().shared, 1) << "the page with an infinity behind the cut is the child's own now";
  for (Index layer = 0; layer < 2; ++layer) testing::expect_finite_rest(cache, layer, child);
  std::vector<float> value(2);
  cache.read_value(1, parent, 100, 0, value);
  EXPECT_EQ(value[1], std::numeric_limits<float>::infinity());
}

TEST(PagedSharing, BeamsShareTheirHistory) {
  PagedCache<float> cache(kLayers, 30);
  std::vector<SequenceId> beams;
  std::vector<std::vector<float>> before;
  for (unsigned b = 0; b < 5; ++b) {
    beams.push_back(cache.create());
    append_tokens(cache, beams[b], 60 + 10 * static_cast<Index>(b), b + 1);
    before.push_back(contents_of(cache, beams[b]));
  }
  const Index parents[] = {3, 1, 3, 0, 3};
  cache.reorder(beams, parents);
  for (std::size_t b = 0; b < 5; ++b)
    EXPECT_EQ(contents_of(cache, beams[b]), before[static_cast<std::size_t>(parents[b])]) << b;
  EXPECT_EQ(pages_of(cache, beams[0]), pages_of(cache, beams[4]));
  EXPECT_EQ(cache.pages().used, 1 + 2 + 2);  // of beams 0, 1 and 3; those of 2 and 4 are given back
  expect_counts(cache);
  for (unsigned b = 0; b < 5; ++b) append_tokens(cache, beams[b], 1, 10 + b);
  for (std::size_t b = 0; b < 5; ++b) {
    cache.truncate(beams[b], cache.num_tokens(0, beams[b]) - 1);
    EXPECT_EQ(contents_of(cache, beams[b]), before[static_cast<std::size_t>(parents[b])]) << b;
  }
}

TEST(PagedSharing, DefragmentationMakesPagesFollowOneAnother) {
  PagedCache<float> cache(kLayers, 16);
  const SequenceId a = cache.create(), b = cache.create(), c = cache.create();
  for (unsigned i = 0; i < 4; ++i)
    for (const SequenceId& id : {a, b, c}) append_tokens(cache, id, 64, i + 1);
  cache.release(b);
  const SequenceId d = cache.fork(c);
  append_tokens(cache, d, 70, 9);
  std::vector<std::vector<float>> before;
  for (const SequenceId& id : {a, c, d}) before.push_back(contents_of(cache, id));
  const PageCounts counts = cache.pages();

  EXPECT_GT(cache.defragment(), 0);
  EXPECT_EQ(cache.pages(), counts);
  std::size_t i = 0;
  for (const SequenceId& id : {a, c, d}) EXPECT_EQ(contents_of(cache, id), before[i++]);
  for (const SequenceId& id : {a, c}) {
    const auto pages = pages_of(cache, id);
    const Index bytes = cache.layer(0, std::span(&id, 1)).format().bytes() * kLayers[0].num_kv_heads;
    for (std::size_t p = 1; p < pages.size(); ++p)
      EXPECT_EQ(static_cast<const std::byte*>(pages[p]) - static_cast<const std::byte*>(pages[p - 1]), bytes);
  }
  EXPECT_EQ(cache.defragment(), 0);
  const SequenceId e = cache.create();  // pages that are free are no one's
  append_tokens(cache, e, 64 * cache.pages().free, 20);
  i = 0;
  for (const SequenceId& id : {a, c, d}) EXPECT_EQ(contents_of(cache, id), before[i++]);
}

// The counting operator new is that of reorder_test.cpp.
TEST(PagedSharing, AStepAllocatesNothingOnceTablesAreAsLongAsTheyGet) {
#if defined(HEADWISE_TEST_ASAN) || defined(HEADWISE_TEST_TSAN)
  GTEST_SKIP() << "skipped: a sanitizer brings its own operator new";
#else
  PagedCache<float> cache(kLayers, 40, {.max_sequences = 4});
  const auto prompt = tokens_like(kLayers[0], 300, 1), one = tokens_like(kLayers[0], 1, 2);
  const auto prompt1 = tokens_like(kLayers[1], 300, 1), one1 = tokens_like(kLayers[1], 1, 2);
  const std::vector<std::int32_t> text(300, 1);
  std::vector<SequenceId> beams(4);
  const Index parents[] = {2, 2, 0, 1};
  const auto round = [&] {
    beams[0] = cache.match_prefix(text);
    cache.clear(beams[0]);
    append_tokens(cache, 0, beams[0], prompt);
    append_tokens(cache, 1, beams[0], prompt1);
    cache.register_prefix(beams[0], text);
    for (std::size_t b = 1; b < 4; ++b) beams[b] = cache.fork(beams[0]);
    for (const SequenceId& beam : beams) {
      cache.reserve(beam, 70);
      append_tokens(cache, 0, beam, one);
      append_tokens(cache, 1, beam, one1);
    }
    cache.reorder(beams, parents);
    for (const SequenceId& beam : beams) {
      cache.truncate(beam, 250);
      cache.evict(beam, 3, 9);
      (void)cache.layer(1, beams).shared_tokens(0, 1);
    }
    for (const SequenceId& beam : beams) cache.release(beam);
  };
  for (int i = 0; i < 4; ++i) round();
  const long before = allocations;
  round();
  EXPECT_EQ(allocations, before);
#endif
}

}  // namespace
}  // namespace headwise
