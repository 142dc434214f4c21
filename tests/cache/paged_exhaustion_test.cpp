// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <string>

#include "headwise/cache/paged_cache.hpp"
#include "tests/cache/paged_fixture.hpp"

namespace headwise {
namespace {

using testing::append_tokens;
using testing::contents_of;
using testing::keys_of;
using testing::PackedTokens;
using testing::PagedSnapshot;
using testing::tokens_like;
using testing::values_of;

const LayerShape kLayers[] = {{2, 6, 3}, {1, 4, 2}, {1, 3, 3}};

/// f() throws OutOfPages with these numbers and changes nothing.
template <class F>
void expect_out_of_pages(const AnyPagedCache& cache, Index wanted, Index available, F f) {
  const PagedSnapshot before(cache);
  try {
    f();
    ADD_FAILURE() << "expected OutOfPages";
  } catch (const OutOfPages& error) {
    EXPECT_EQ(error.wanted(), wanted) << error.what();
    EXPECT_EQ(error.available(), available) << error.what();
  }
  EXPECT_TRUE(PagedSnapshot(cache) == before);
}

TEST(PagedExhaustion, TheErrorNamesPagesWantedFreeEvictableAndInTotal) {
  PagedCache<float> cache(kLayers, 5);
  const SequenceId cached = cache.create(), id = cache.create();
  append_tokens(cache, cached, 64, 1);
  cache.register_prefix(cached, std::vector<std::int32_t>(64, 1));
  cache.release(cached);
  append_tokens(cache, id, 128, 1);
  try {
    append_tokens(cache, id, 250, 2);
    FAIL();
  } catch (const OutOfPages& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("pages wanted (4)"), std::string::npos) << text;
    EXPECT_NE(text.find("free (2)"), std::string::npos) << text;
    EXPECT_NE(text.find("evictable ones (1)"), std::string::npos) << text;
    EXPECT_NE(text.find("5 pages"), std::string::npos) << text;
  }
}

// A step appends to one layer after another. Whichever append is the one that wants more than there is, it alone fails.
TEST(PagedExhaustion, AtEveryPointOfAStepNothingChangesAndTheStepCanGoOnWhenThereIsRoom) {
  for (Index first = 0; first < 3; ++first)
    for (Index stored : {0, 1, 63, 64, 65, 100, 128}) {
      PagedCache<float> cache(kLayers, 4);
      const SequenceId id = cache.create(), other = cache.create();
      if (stored > 0) append_tokens(cache, id, stored, 1);
      append_tokens(cache, other, 64, 2);
      const Index have = ceil_div(stored, 64), free = 3 - have;
      // layers before `first` stay within the page they are in, `first` is the one that crosses
      const Index small = ceil_div(stored, 64) * 64 - stored, large = (have + free) * 64 + 1 - stored;
      for (Index layer = 0; layer < first; ++layer)
        if (small > 0) append_tokens(cache, layer, id, tokens_like(kLayers[layer], small, 3));
      for (Index layer = first; layer < 3; ++layer)
        expect_out_of_pages(cache, free + 1, free,
                            [&] { append_tokens(cache, layer, id, tokens_like(kLayers[layer], large, 4)); });
      const auto before = contents_of(cache, other);
      append_tokens(cache, first, id, tokens_like(kLayers[first], large - 1, 4));
      EXPECT_EQ(cache.pages().free, 0);
      EXPECT_EQ(contents_of(cache, other), before);
      cache.release(other);
      append_tokens(cache, first, id, tokens_like(kLayers[first], 1, 5));
      EXPECT_EQ(cache.num_tokens(first, id), stored + large);
    }
}

TEST(PagedExhaustion, ARaggedAppendIsAllOrNothing) {
  PagedCache<float> cache(std::span(kLayers, 1), 4);
  const SequenceId ids[] = {cache.create(), cache.create(), cache.create()};
  for (unsigned b = 0; b < 3; ++b) append_tokens(cache, ids[b], 60, b + 1);
  const PackedTokens tokens = tokens_like(kLayers[0], 12, 9);
  const Index too_much[] = {0, 5, 7, 12}, fits[] = {0, 4, 6, 12};  // one page is left
  expect_out_of_pages(cache, 2, 1, [&] {
    cache.append_ragged(0, ids, too_much, keys_of(tokens, kLayers[0]), values_of(tokens, kLayers[0]));
  });
  cache.append_ragged(0, ids, fits, keys_of(tokens, kLayers[0]), values_of(tokens, kLayers[0]));
  EXPECT_EQ(cache.num_tokens(0, ids[0]), 64);
  EXPECT_EQ(cache.num_tokens(0, ids[1]), 62);
  EXPECT_EQ(cache.num_tokens(0, ids[2]), 66);
}

TEST(PagedExhaustion, TheLastToWriteASharedPageNeedsNoCopy) {
  PagedCache<float> cache(std::span(kLayers, 1), 3);
  const SequenceId a = cache.create();
  append_tokens(cache, a, 10, 1);
  const SequenceId ids[] = {a, cache.fork(a), cache.fork(a)};
  const auto before = contents_of(cache, a);
  const PackedTokens tokens = tokens_like(kLayers[0], 3, 9);
  const Index offsets[] = {0, 1, 2, 3};
  cache.append_ragged(0, ids, offsets, keys_of(tokens, kLayers[0]), values_of(tokens, kLayers[0]));
  EXPECT_EQ(cache.pages().used, 3);
  EXPECT_EQ(cache.pages().shared, 0);
  for (const SequenceId& id : ids) {
    cache.truncate(id, 10);
    EXPECT_EQ(contents_of(cache, id), before);
  }
}

TEST(PagedExhaustion, APageThatOnlyThePrefixCacheSharesIsWrittenInPlaceWhereNoneIsLeft) {
  PagedCache<float> cache(std::span(kLayers, 1), 2);
  const SequenceId id = cache.create();
  append_tokens(cache, id, 128, 1);
  const std::vector<std::int32_t> text(128, 5);
  EXPECT_EQ(cache.register_prefix(id, text), 128);
  cache.truncate(id, 100);
  append_tokens(cache, id, 1, 2);
  EXPECT_EQ(cache.pages().used, 2);
  cache.release(id);
  EXPECT_EQ(cache.pages().cached, 1);  // the page that was not written
  EXPECT_EQ(cache.num_tokens(0, cache.match_prefix(text)), 64);
}

TEST(PagedExhaustion, AfterAReservationAStepWantsNoPage) {
  PagedCache<float> cache(kLayers, 7);
  const SequenceId a = cache.create();
  append_tokens(cache, a, 100, 1);
  const SequenceId ids[] = {a, cache.fork(a)};
  const Index more[] = {40, 100}, too_many[] = {40, 350};
  expect_out_of_pages(cache, 1 + 1 + 6, 5, [&] { cache.reserve(ids, too_many); });
  cache.reserve(ids, more);
  EXPECT_EQ(cache.pages().free, 7 - (1 + 1 + 1) - 1 - 2);
  const SequenceId greedy = cache.create();
  append_tokens(cache, greedy, 64 * cache.pages().free, 2);
  append_tokens(cache, ids[0], 40, 3);
  append_tokens(cache, ids[1], 100, 4);
  EXPECT_EQ(cache.pages().free, 0);
  cache.reserve(ids[1], 20);
  EXPECT_EQ(cache.num_tokens(2, ids[1]), 200);
}

TEST(PagedExhaustion, ReservedPagesAreGivenBackByTruncate) {
  PagedCache<float> cache(kLayers, 8);
  const SequenceId id = cache.create();
  append_tokens(cache, id, 10, 1);
  cache.reserve(id, 300);
  EXPECT_EQ(cache.num_pages(id), 5);
  cache.truncate(id, 10);
  EXPECT_EQ(cache.num_pages(id), 1);
  EXPECT_EQ(cache.pages().free, 7);
}

TEST(PagedExhaustion, EvictAndCopyRangeChangeNothingWithoutPages) {
  PagedCache<float> cache(kLayers, 3);
  const SequenceId a = cache.create();
  append_tokens(cache, a, 180, 1);
  const SequenceId b = cache.fork(a);
  expect_out_of_pages(cache, 3, 0, [&] { cache.evict(a, 3, 8); });
  expect_out_of_pages(cache, 1, 0, [&] { cache.copy_range(a, 3, 8, b); });  // its last page is shared
  const SequenceId c = cache.create();
  expect_out_of_pages(cache, 1, 0, [&] { cache.copy_range(a, 3, 8, c); });
  cache.evict(a, 0, 64);  // whole pages
  EXPECT_EQ(cache.num_tokens(0, a), 116);
  EXPECT_EQ(cache.num_tokens(0, b), 180);
}

TEST(PagedExhaustion, AllSequencesInUseIsAnErrorThatChangesNothing) {
  PagedCache<float> cache(kLayers, 4, {.max_sequences = 2});
  const SequenceId a = cache.create(), b = cache.create();
  append_tokens(cache, a, 10, 1);
  const PagedSnapshot before(cache);
  EXPECT_THROW(cache.create(), OutOfSequences);
  EXPECT_THROW(cache.fork(a), OutOfSequences);
  EXPECT_THROW(cache.match_prefix(std::vector<std::int32_t>(100, 1)), OutOfSequences);
  EXPECT_TRUE(PagedSnapshot(cache) == before);
  cache.release(b);
  EXPECT_TRUE(cache.contains(cache.fork(a)));
}

}  // namespace
}  // namespace headwise
