// SPDX-License-Identifier: MIT
#include "headwise/regroup/search/enumerate.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "headwise/regroup/partition.hpp"
#include "tests/support/errors.hpp"

namespace headwise::regroup {
namespace {

using headwise::testing::expect_error;
using List = std::vector<Index>;

struct Count {
  PartitionSpace space;
  Index partitions;
};

// Known numbers: Stirling numbers S(9, 3), …, and 9! / (3!^3 · 3!), ….
const Count kCounts[] = {{{9, 3, false}, 3025}, {{9, 3, true}, 280},    {{12, 6, true}, 10395}, {{12, 4, true}, 15400},
                         {{12, 3, true}, 5775}, {{1, 1, false}, 1},     {{5, 5, true}, 1},      {{5, 1, true}, 1},
                         {{8, 4, false}, 1701}, {{10, 5, false}, 42525}};

TEST(Enumerate, VisitsEveryPartitionOnceInOrder) {
  for (const Count& c : kCounts) {
    List last;
    Index count = 0;
    for_each_partition(c.space, [&](std::span<const Index> labels) {
      const List now(labels.begin(), labels.end());
      ASSERT_LT(last, now);
      const Partition p = Partition::from_labels(labels);
      ASSERT_TRUE(std::ranges::equal(p.labels(), labels)) << "canonical";
      ASSERT_EQ(p.num_heads(), c.space.num_heads);
      ASSERT_EQ(p.num_groups(), c.space.num_groups);
      ASSERT_TRUE(!c.space.equal_sizes || p.has_equal_sizes());
      last = now;
      ++count;
    });
    EXPECT_EQ(count, c.partitions) << c.space.num_heads << " heads, " << c.space.num_groups << " groups";
  }
}

TEST(Enumerate, VisitsWhatTryingAllLabelsFinds) {
  for (const Index groups : {1, 2, 3, 4, 5, 6})
    for (const bool equal : {false, true}) {
      if (equal && 6 % groups != 0) continue;
      std::set<Partition> tried, visited;
      for (Index code = 0; code < 46656; ++code) {  // 6^6
        List labels;
        for (Index rest = code, h = 0; h < 6; ++h, rest /= 6) labels.push_back(rest % 6);
        const Partition p = Partition::from_labels(labels);
        if (p.num_groups() == groups && (!equal || p.has_equal_sizes())) tried.insert(p);
      }
      for_each_partition({6, groups, equal},
                         [&](std::span<const Index> labels) { visited.insert(Partition::from_labels(labels)); });
      EXPECT_EQ(visited, tried) << groups << " groups";
    }
}

TEST(Enumerate, CountsWithoutVisiting) {
  for (const Count& c : kCounts) EXPECT_EQ(count_partitions(c.space), c.partitions);
  EXPECT_EQ(count_partitions({16, 4, false}), 171798901);
  EXPECT_EQ(count_partitions({16, 4, true}), 2627625);
  EXPECT_EQ(count_partitions({32, 32, false}), 1);
  EXPECT_EQ(count_partitions({32, 1, true}), 1);
}

TEST(Enumerate, CountsBeyondAllNumbersAreTheLargest) {
  constexpr Index most = std::numeric_limits<Index>::max();
  EXPECT_EQ(count_partitions({64, 8, false}), most);
  EXPECT_EQ(count_partitions({64, 8, true}), most);
  EXPECT_EQ(count_partitions({200, 100, false}), most);
}

TEST(Enumerate, RefusesImpossibleCounts) {
  expect_error([] { count_partitions({4, 5, false}); }, {"num_groups (5)", "1 to num_heads (4)"});
  expect_error([] { count_partitions({4, 0, false}); }, {"num_groups (0)"});
  expect_error([] { count_partitions({0, 0, false}); }, {"num_heads (0)"});
  expect_error([] { count_partitions({8, 3, true}); }, {"num_heads (8)", "multiple of num_groups (3)", "equal sizes"});
  expect_error([] { for_each_partition({4, 5, false}, [](auto) { FAIL(); }); }, {"num_groups (5)"});
}

}  // namespace
}  // namespace headwise::regroup
