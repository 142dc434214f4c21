// SPDX-License-Identifier: MIT
#include "headwise/cache/prefix_index.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace headwise::detail {
namespace {

using Tokens = std::vector<std::int32_t>;
constexpr PrefixIndex::Entry kNone = PrefixIndex::kNone;

std::uint64_t one_hash(std::uint64_t, std::span<const std::int32_t>) { return 42; }

std::vector<PageId> remove_oldest(PrefixIndex& index) {
  std::vector<PageId> removed;
  index.remove(index.oldest_idle(), [&](PageId page) { removed.push_back(page); });
  return removed;
}

TEST(PrefixIndex, FindsTokensOnlyBehindTheParentAndUnderTheSaltTheyWereEnteredWith) {
  PrefixIndex index(8, 2);
  const auto a = index.add(kNone, 7, Tokens{1, 2}, 3);
  const auto b = index.add(a, 7, Tokens{1, 2}, 5);
  EXPECT_EQ(index.find(kNone, 7, Tokens{1, 2}), a);
  EXPECT_EQ(index.find(kNone, 8, Tokens{1, 2}), kNone);
  EXPECT_EQ(index.find(a, 7, Tokens{1, 2}), b);
  EXPECT_EQ(index.find(b, 7, Tokens{1, 2}), kNone);
  EXPECT_EQ(index.find(kNone, 7, Tokens{2, 1}), kNone);
  EXPECT_EQ(index.page(b), 5);
  EXPECT_EQ(index.entry_of(3), a);
  EXPECT_EQ(index.entry_of(4), kNone);
}

TEST(PrefixIndex, WhenAllHashesAreEqualEachTextStillFindsItsOwnPage) {
  PrefixIndex index(16, 2, one_hash);
  std::vector<PrefixIndex::Entry> entries;
  for (std::int32_t t = 0; t < 8; ++t) entries.push_back(index.add(kNone, 0, Tokens{t, 1}, t));
  for (std::int32_t t = 0; t < 8; ++t)
    index.add(entries[static_cast<std::size_t>(t)], 0, Tokens{0, 1}, 8 + t);  // the same text behind another
  for (std::int32_t t = 0; t < 8; ++t) {
    const auto entry = index.find(kNone, 0, Tokens{t, 1});
    EXPECT_EQ(index.page(entry), t);
    EXPECT_EQ(index.page(index.find(entry, 0, Tokens{0, 1})), 8 + t);
    EXPECT_EQ(index.find(kNone, 1, Tokens{t, 1}), kNone);
  }
  EXPECT_EQ(index.find(kNone, 0, Tokens{8, 1}), kNone);
  index.remove(entries[3], [](PageId) {});
  for (std::int32_t t = 0; t < 8; ++t)
    EXPECT_EQ(index.find(kNone, 0, Tokens{t, 1}), t == 3 ? kNone : entries[static_cast<std::size_t>(t)]);
}

TEST(PrefixIndex, GivesUpTheLeastRecentlyUsedFirst) {
  PrefixIndex index(8, 1);
  const auto a = index.add(kNone, 0, Tokens{1}, 1), b = index.add(kNone, 0, Tokens{2}, 2),
             c = index.add(kNone, 0, Tokens{3}, 3);
  for (const auto entry : {a, b, c}) index.set_idle(entry);
  index.set_used(a);
  index.set_idle(a);
  EXPECT_EQ(remove_oldest(index), std::vector<PageId>{2});
  EXPECT_EQ(remove_oldest(index), std::vector<PageId>{3});
  EXPECT_EQ(remove_oldest(index), std::vector<PageId>{1});
  EXPECT_EQ(index.find(kNone, 0, Tokens{1}), kNone);
}

TEST(PrefixIndex, GivesUpNoParentBeforeItsIdleChildren) {
  PrefixIndex index(8, 1);
  const auto a = index.add(kNone, 0, Tokens{1}, 1), b = index.add(a, 0, Tokens{2}, 2),
             c = index.add(a, 0, Tokens{3}, 3), d = index.add(c, 0, Tokens{4}, 4);
  for (const auto entry : {a, b, c, d}) index.set_idle(entry);
  std::vector<PageId> order;
  for (int i = 0; i < 4; ++i) {
    const auto removed = remove_oldest(index);
    ASSERT_EQ(removed.size(), 1u);
    order.push_back(removed[0]);
  }
  EXPECT_EQ(order.back(), 1);
  EXPECT_LT(std::find(order.begin(), order.end(), 4), std::find(order.begin(), order.end(), 3));
}

TEST(PrefixIndex, WhatIsBehindARemovedEntryGoesWithIt) {
  PrefixIndex index(8, 1);
  const auto a = index.add(kNone, 0, Tokens{1}, 1), b = index.add(a, 0, Tokens{2}, 2);
  index.add(b, 0, Tokens{3}, 3);
  index.add(a, 0, Tokens{4}, 4);
  index.set_idle(a);  // those behind it are in use
  std::vector<PageId> removed = remove_oldest(index);
  std::sort(removed.begin(), removed.end());
  EXPECT_EQ(removed, (std::vector<PageId>{1, 2, 3, 4}));
  for (PageId page = 1; page < 5; ++page) EXPECT_EQ(index.entry_of(page), kNone);
  EXPECT_NE(index.add(kNone, 0, Tokens{1}, 4), kNone);
  EXPECT_EQ(index.find(index.find(kNone, 0, Tokens{1}), 0, Tokens{2}), kNone);
}

TEST(PrefixIndex, HasRoomForEveryPageAgainAndAgain) {
  PrefixIndex index(5, 3);
  for (std::int32_t round = 0; round < 20; ++round) {
    for (PageId page = 0; page < 5; ++page) index.set_idle(index.add(kNone, 0, Tokens{round, page, 0}, page));
    for (PageId page = 0; page < 5; ++page) EXPECT_EQ(index.page(index.find(kNone, 0, Tokens{round, page, 0})), page);
    for (PageId page = 0; page < 5; ++page) EXPECT_EQ(remove_oldest(index), std::vector<PageId>{page});
  }
}

}  // namespace
}  // namespace headwise::detail
