// SPDX-License-Identifier: MIT
#include "headwise/core/head_map.hpp"

#include <algorithm>

#include "tests/support/errors.hpp"

namespace headwise {
namespace {

using testing::expect_error;

std::vector<Index> kv_heads(const HeadMap& map) {
  std::vector<Index> result;
  for (Index i = 0; i < map.num_heads(); ++i) result.push_back(map.kv_head_of(i));
  return result;
}

std::vector<Index> group(const HeadMap& map, Index g) {
  const auto heads = map.query_heads_of(g);
  return {heads.begin(), heads.end()};
}

using List = std::vector<Index>;

TEST(HeadMap, ContiguousGivesConsecutiveQueryHeadsOneKvHead) {
  EXPECT_EQ(kv_heads(HeadMap::contiguous(6, 2)), (List{0, 0, 0, 1, 1, 1}));
  EXPECT_EQ(kv_heads(HeadMap::contiguous(3, 3)), (List{0, 1, 2}));
  EXPECT_EQ(kv_heads(HeadMap::contiguous(3, 1)), (List{0, 0, 0}));
}

TEST(HeadMap, CyclicDealsQueryHeadsOut) { EXPECT_EQ(kv_heads(HeadMap::cyclic(5, 2)), (List{0, 1, 0, 1, 0})); }

TEST(HeadMap, BalancedSizesDifferByAtMostOne) {
  EXPECT_EQ(kv_heads(HeadMap::balanced(5, 2)), (List{0, 0, 0, 1, 1}));
  for (Index heads = 1; heads <= 40; ++heads)
    for (Index groups = 1; groups <= heads; ++groups) {
      const HeadMap map = HeadMap::balanced(heads, groups);
      Index smallest = heads, largest = 0;
      for (Index g = 0; g < groups; ++g) {
        smallest = std::min<Index>(smallest, std::ssize(map.query_heads_of(g)));
        largest = std::max<Index>(largest, std::ssize(map.query_heads_of(g)));
      }
      ASSERT_LE(largest - smallest, 1) << heads << ":" << groups;
      ASSERT_GE(smallest, 1) << heads << ":" << groups;
      const List list = kv_heads(map);
      ASSERT_TRUE(std::is_sorted(list.begin(), list.end()));
    }
}

TEST(HeadMap, BlocksTakesUnequalSizesAndEmptyGroups) {
  const HeadMap map = HeadMap::blocks(List{3, 0, 1, 2});
  EXPECT_EQ(map.num_heads(), 6);
  EXPECT_EQ(map.num_kv_heads(), 4);
  EXPECT_EQ(kv_heads(map), (List{0, 0, 0, 2, 3, 3}));
  EXPECT_TRUE(map.query_heads_of(1).empty());
}

TEST(HeadMap, ArbitraryKeepsWhatItIsGiven) {
  const List list{2, 0, 2, 1, 0};
  EXPECT_EQ(kv_heads(HeadMap::arbitrary(list, 4)), list);
  EXPECT_EQ(HeadMap::arbitrary(list, 4).num_kv_heads(), 4);
}

TEST(HeadMap, TheInverseListsEachGroupAscending) {
  const HeadMap map = HeadMap::arbitrary(List{2, 0, 2, 1, 0}, 4);
  EXPECT_EQ(group(map, 0), (List{1, 4}));
  EXPECT_EQ(group(map, 1), (List{3}));
  EXPECT_EQ(group(map, 2), (List{0, 2}));
  EXPECT_EQ(group(map, 3), (List{}));
}

TEST(HeadMap, TheInverseIsOneForEveryKindOfMap) {
  const HeadMap maps[] = {HeadMap::contiguous(32, 8), HeadMap::cyclic(71, 4), HeadMap::balanced(9, 4),
                          HeadMap::blocks(List{5, 0, 7}), HeadMap::arbitrary(List{4, 1, 1, 0}, 5)};
  for (const HeadMap& map : maps) {
    Index heads = 0;
    for (Index g = 0; g < map.num_kv_heads(); ++g)
      for (const Index head : map.query_heads_of(g)) {
        EXPECT_EQ(map.kv_head_of(head), g);
        ++heads;
      }
    EXPECT_EQ(heads, map.num_heads());
  }
}

TEST(HeadMap, BadMapsAreNamed) {
  expect_error([] { HeadMap::contiguous(30, 8); }, {"num_heads (30)", "multiple of num_kv_heads (8)", "HeadMap"});
  expect_error([] { HeadMap::contiguous(0, 1); }, {"num_heads (0)", "must be 1 to"});
  expect_error([] { HeadMap::cyclic(4, 0); }, {"num_kv_heads (0)", "1 to num_heads (4)"});
  expect_error([] { HeadMap::balanced(4, 5); }, {"num_kv_heads (5)", "1 to num_heads (4)"});
  expect_error([] { HeadMap::balanced(Index{1} << 40, 5); }, {"num_heads (1099511627776)", "must be 1 to"});
  expect_error([] { HeadMap::blocks(List{3, -1}); }, {"sizes[1] (-1)", "must be 0 to"});
  expect_error([] { HeadMap::blocks(List{Index{1} << 40}); }, {"sizes[0] (1099511627776)", "must be 0 to"});
  expect_error([] { HeadMap::blocks(List{}); }, {"num_heads (0)", "at least 1"});
  expect_error([] { HeadMap::arbitrary(List{0, 2}, 2); }, {"kv_head_of[1] (2)", "0 to num_kv_heads - 1 (1)"});
  expect_error([] { HeadMap::arbitrary(List{0, -1}, 2); }, {"kv_head_of[1] (-1)", "0 to num_kv_heads - 1 (1)"});
  expect_error([] { HeadMap::arbitrary(List{}, 2); }, {"num_heads (0)", "at least 1"});
  expect_error([] { HeadMap::arbitrary(List{0}, 0); }, {"num_kv_heads (0)", "must be 1 to"});
  expect_error([] { HeadMap::arbitrary(List{0}, -3); }, {"num_kv_heads (-3)", "must be 1 to"});
}

}  // namespace
}  // namespace headwise
