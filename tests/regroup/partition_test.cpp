// SPDX-License-Identifier: MIT
#include "headwise/regroup/partition.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "tests/support/errors.hpp"

namespace headwise::regroup {
namespace {

using headwise::testing::expect_error;
using List = std::vector<Index>;
using Groups = std::vector<List>;

List list(std::span<const Index> numbers) { return {numbers.begin(), numbers.end()}; }
Partition labelled(const List& labels) { return Partition::from_labels(labels); }

TEST(Partition, ContiguousPutsNeighboursInGroupsOfEqualSize) {
  EXPECT_EQ(list(Partition::contiguous(6, 2).labels()), (List{0, 0, 0, 1, 1, 1}));
  EXPECT_EQ(list(Partition::contiguous(3, 3).labels()), (List{0, 1, 2}));
  EXPECT_EQ(list(Partition::contiguous(3, 1).labels()), (List{0, 0, 0}));
}

TEST(Partition, NeighboursHaveSizesThatDifferByAtMostOne) {
  EXPECT_EQ(Partition::neighbours(8, 3).sizes(), (List{3, 3, 2}));
  for (Index heads = 1; heads <= 40; ++heads)
    for (Index groups = 1; groups <= heads; ++groups) {
      const Partition p = Partition::neighbours(heads, groups);
      ASSERT_EQ(p.num_groups(), groups);
      ASSERT_TRUE(p.is_contiguous());
      const List sizes = p.sizes();
      const auto [least, most] = std::ranges::minmax_element(sizes);
      ASSERT_LE(*most - *least, 1) << heads << " heads, " << groups << " groups";
    }
}

TEST(Partition, BlocksAreNeighboursInTheGivenSizes) {
  const Partition p = Partition::blocks(List{2, 1, 3});
  EXPECT_EQ(list(p.labels()), (List{0, 0, 1, 2, 2, 2}));
  EXPECT_EQ(p.sizes(), (List{2, 1, 3}));
  EXPECT_FALSE(p.has_equal_sizes());
  EXPECT_TRUE(Partition::blocks(List{2, 2}).has_equal_sizes());
}

TEST(Partition, LabelsBecomeARestrictedGrowthString) {
  const Partition p = labelled({7, 3, 7, 0, 3, 7});
  EXPECT_EQ(list(p.labels()), (List{0, 1, 0, 2, 1, 0}));
  EXPECT_EQ(p.num_heads(), 6);
  EXPECT_EQ(p.num_groups(), 3);
}

TEST(Partition, IsEqualWhateverItsGroupsWereCalled) {
  EXPECT_EQ(labelled({5, 5, 2, 9}), labelled({0, 0, 1, 2}));
  EXPECT_EQ(labelled({5, 5, 2, 9}), Partition::from_groups(4, Groups{{3}, {1, 0}, {2}}));
  EXPECT_NE(labelled({0, 0, 1, 2}), labelled({0, 1, 1, 2}));
}

TEST(Partition, AllLabelsOfFourHeadsGiveTheFifteenPartitions) {
  std::set<Partition> all;  // Bell(4) = 15
  for (Index code = 0; code < 256; ++code) all.insert(labelled({code % 4, code / 4 % 4, code / 16 % 4, code / 64}));
  EXPECT_EQ(all.size(), 15u);
}

TEST(Partition, GroupsListTheirHeadsAscending) {
  const Partition p = Partition::from_groups(6, Groups{{5, 3}, {4}, {2, 0, 1}});
  EXPECT_EQ(list(p.heads_of(0)), (List{0, 1, 2}));
  EXPECT_EQ(list(p.heads_of(1)), (List{3, 5}));
  EXPECT_EQ(list(p.heads_of(2)), (List{4}));
  EXPECT_EQ(p.text(), "0 1 2 | 3 5 | 4");
}

TEST(Partition, OrderMakesEveryGroupContiguous) {
  const Partition p = labelled({0, 1, 0, 2, 1, 0});
  EXPECT_EQ(list(p.order()), (List{0, 2, 5, 1, 4, 3}));
  EXPECT_FALSE(p.is_contiguous());
  List moved;
  for (const Index h : p.order()) moved.push_back(p.group_of(h));
  EXPECT_EQ(moved, list(Partition::blocks(p.sizes()).labels()));
}

TEST(Partition, TheHeadMapSendsEveryHeadToItsGroup) {
  const Partition p = labelled({3, 1, 3, 0});
  const HeadMap map = p.head_map();
  ASSERT_EQ(map.num_heads(), 4);
  ASSERT_EQ(map.num_kv_heads(), 3);
  for (Index h = 0; h < 4; ++h) EXPECT_EQ(map.kv_head_of(h), p.group_of(h));
  for (Index g = 0; g < 3; ++g) EXPECT_EQ(list(map.query_heads_of(g)), list(p.heads_of(g)));
}

TEST(Partition, RefusesMoreGroupsThanHeads) {
  expect_error([] { Partition::contiguous(4, 5); }, {"num_groups (5)", "1 to num_heads (4)"});
  expect_error([] { Partition::neighbours(4, 5); }, {"num_groups (5)", "1 to num_heads (4)"});
  expect_error([] { Partition::from_groups(2, Groups{{0}, {1}, {}}); }, {"groups (3)", "at most num_heads (2)"});
}

TEST(Partition, RefusesGroupsThatMissOrRepeatAHead) {
  expect_error([] { Partition::from_groups(3, Groups{{0}, {2}}); }, {"head 1", "in no group"});
  expect_error([] { Partition::from_groups(3, Groups{{0, 1}, {1, 2}}); }, {"head 1", "groups[0]", "groups[1]"});
  expect_error(
      [] {
        Partition::from_groups(3, Groups{{0, 1, 1}, {2}});
      },
      {"head 1", "groups[0]", "and must stand in one"});
  expect_error([] { Partition::from_groups(3, Groups{{0, 1}, {3}}); }, {"head 3", "groups[1]", "num_heads - 1 (2)"});
  expect_error([] { Partition::from_groups(3, Groups{{0, -1}, {2}}); }, {"head -1", "groups[0]"});
  expect_error([] { Partition::from_groups(3, Groups{{0, 1, 2}, {}}); }, {"groups[1] (0 heads)", "at least 1"});
}

TEST(Partition, RefusesImpossibleCounts) {
  expect_error([] { Partition::contiguous(0, 1); }, {"num_heads (0)", "1 to 1048576"});
  expect_error([] { Partition::contiguous(Index{1} << 21, 1); }, {"num_heads (2097152)", "1 to 1048576"});
  expect_error([] { Partition::neighbours(4, 0); }, {"num_groups (0)", "1 to num_heads (4)"});
  expect_error([] { Partition::contiguous(8, 3); }, {"num_heads (8)", "multiple of num_groups (3)", "neighbours"});
  expect_error([] { Partition::from_groups(0, Groups{}); }, {"num_heads (0)"});
  expect_error([] { Partition::from_groups(2, Groups{}); }, {"num_groups (0)"});
}

TEST(Partition, RefusesBadSizesAndLabels) {
  expect_error([] { Partition::blocks(List{2, 0}); }, {"sizes[1] (0)", "1 to 1048576"});
  expect_error([] { Partition::blocks(List{-1}); }, {"sizes[0] (-1)"});
  expect_error([] { Partition::blocks(List{Index{1} << 20, 1}); }, {"sum to at most 1048576", "1048577 at sizes[1]"});
  expect_error([] { Partition::blocks(List{}); }, {"num_heads (0)"});
  expect_error([] { labelled({0, -1}); }, {"labels[1] (-1)", "0 to 1048576"});
  expect_error([] { labelled({Index{1} << 40}); }, {"labels[0] (1099511627776)", "0 to 1048576"});
  expect_error([] { labelled({}); }, {"num_heads (0)"});
}

}  // namespace
}  // namespace headwise::regroup
