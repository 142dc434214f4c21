// SPDX-License-Identifier: MIT
#include "headwise/regroup/key_driven/allocation.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "tests/support/errors.hpp"

namespace headwise::regroup {
namespace {

using headwise::testing::expect_error;
using Norms = std::vector<double>;
using Sizes = std::vector<Index>;

/// Sizes of the groups; the boundaries must be well formed.
Sizes allocated(const Norms& norms, Index num_heads, KeyDrivenMode mode) {
  std::vector<Index> boundaries(norms.size() + 1, -7);
  allocate(norms, num_heads, mode, boundaries);
  EXPECT_EQ(boundaries.front(), 0);
  EXPECT_EQ(boundaries.back(), num_heads);
  Sizes sizes;
  for (std::size_t g = 1; g < boundaries.size(); ++g) sizes.push_back(boundaries[g] - boundaries[g - 1]);
  return sizes;
}
Sizes by_ratio(const Norms& norms, Index num_heads) { return allocated(norms, num_heads, KeyDrivenMode::ratio); }
Sizes by_minmax(const Norms& norms, Index num_heads) {
  return allocated(norms, num_heads, KeyDrivenMode::authors_minmax);
}

constexpr KeyDrivenMode kModes[] = {KeyDrivenMode::ratio, KeyDrivenMode::authors_minmax};

TEST(KeyDrivenAllocation, RatioGivesSharesOfTheNorms) {
  EXPECT_EQ(by_ratio({1, 2, 3}, 12), (Sizes{2, 4, 6}));
  EXPECT_EQ(by_ratio({0, 1}, 4), (Sizes{0, 4}));
  EXPECT_EQ(by_ratio({7}, 5), (Sizes{5}));
  EXPECT_EQ(by_ratio({0.3, 0.1, 0.2}, 6), (Sizes{3, 1, 2}));
}

TEST(KeyDrivenAllocation, RatioGivesWhatIsLeftToTheLargestRemainders) {
  EXPECT_EQ(by_ratio({1, 2, 3}, 4), (Sizes{1, 1, 2}));  // .667, 1.333, 2
  EXPECT_EQ(by_ratio({1, 1, 2}, 3), (Sizes{1, 1, 1}));  // .75, .75, 1.5
  EXPECT_EQ(by_ratio({9, 2, 2}, 4), (Sizes{3, 1, 0}));  // 2.769, .615, .615
}

TEST(KeyDrivenAllocation, RatioBreaksTiesTowardsTheLowestIndex) {
  EXPECT_EQ(by_ratio({4, 1, 1}, 2), (Sizes{2, 0, 0}));  // 1 + 1/3, 1/3, 1/3
  EXPECT_EQ(by_ratio({1, 4, 1}, 2), (Sizes{1, 1, 0}));
  EXPECT_EQ(by_ratio({1, 1, 4}, 2), (Sizes{1, 0, 1}));
  EXPECT_EQ(by_ratio({5, 1}, 3), (Sizes{3, 0}));  // 2.5, .5
  EXPECT_EQ(by_ratio({1, 5}, 3), (Sizes{1, 2}));
}

/// Largest remainder in whole numbers, by sorting.
Sizes largest_remainder(const std::vector<Index>& norms, Index num_heads) {
  const Index sum = std::accumulate(norms.begin(), norms.end(), Index{0});
  Sizes sizes;
  std::vector<std::size_t> order(norms.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  for (const Index norm : norms) sizes.push_back(num_heads * norm / sum);
  std::ranges::stable_sort(order, std::greater<>(), [&](std::size_t g) { return num_heads * norms[g] % sum; });
  const Index left = num_heads - std::accumulate(sizes.begin(), sizes.end(), Index{0});
  for (Index i = 0; i < left; ++i) ++sizes[order[static_cast<std::size_t>(i)]];
  return sizes;
}

TEST(KeyDrivenAllocation, RatioOfWholeNormsIsExact) {
  std::mt19937 generator(1);
  for (int trial = 0; trial < 3000; ++trial) {
    const Index groups = 1 + static_cast<Index>(generator() % 9),
                num_heads = groups + static_cast<Index>(generator() % 60);
    std::vector<Index> whole;
    for (Index g = 0; g < groups; ++g) whole.push_back(static_cast<Index>(generator() % 7));  // few: many ties
    if (std::ranges::all_of(whole, [](Index n) { return n == 0; })) whole[0] = 1;
    ASSERT_EQ(by_ratio(Norms(whole.begin(), whole.end()), num_heads), largest_remainder(whole, num_heads));
  }
}

TEST(KeyDrivenAllocation, MinmaxRoundsSharesOfTheSpreadNormsTiesToEven) {
  EXPECT_EQ(by_minmax({1, 2, 3}, 12), (Sizes{0, 4, 8}));
  EXPECT_EQ(by_minmax({1, 2, 4}, 2), (Sizes{0, 0, 2}));   // 0, .5, 1.5
  EXPECT_EQ(by_minmax({1, 2, 4}, 6), (Sizes{0, 2, 4}));   // 0, 1.5, 4.5
  EXPECT_EQ(by_minmax({1, 2, 4}, 10), (Sizes{0, 2, 8}));  // 0, 2.5, 7.5
}

TEST(KeyDrivenAllocation, MinmaxTakesFromTheLargestAndGivesToTheSmallest) {
  EXPECT_EQ(by_minmax({1, 2, 2, 2}, 5), (Sizes{0, 1, 2, 2}));  // 0, 1.67 … → 0, 2, 2, 2: one too many
  EXPECT_EQ(by_minmax({1, 2, 2, 2}, 4), (Sizes{1, 1, 1, 1}));  // 0, 1.33 … → 0, 1, 1, 1: one missing
  EXPECT_EQ(by_minmax({0, 1, 1, 1}, 1), (Sizes{1, 0, 0, 0}));  // 0, .33 …: none given
  EXPECT_EQ(by_minmax({3, 1}, 5), (Sizes{5, 0}));
}

TEST(KeyDrivenAllocation, EqualNormsGiveEqualGroups) {
  for (const KeyDrivenMode mode : kModes)
    for (const double norm : {0.0, 1.0, 0.1, 1e-300, 1e300}) {
      EXPECT_EQ(allocated(Norms(8, norm), 32, mode), Sizes(8, 4)) << norm;
      EXPECT_EQ(allocated(Norms(3, norm), 8, mode), (Sizes{3, 3, 2})) << norm;
      EXPECT_EQ(allocated(Norms(5, norm), 5, mode), Sizes(5, 1)) << norm;
    }
}

Norms random_norms(Index groups, std::mt19937& generator) {
  Norms norms;
  for (Index g = 0; g < groups; ++g) norms.push_back(std::ldexp(static_cast<double>(generator() % 1000003 + 1), -10));
  return norms;
}

TEST(KeyDrivenAllocation, EveryHeadIsAllocatedOnce) {
  std::mt19937 generator(2);
  for (const KeyDrivenMode mode : kModes)
    for (int trial = 0; trial < 2000; ++trial) {
      const Index groups = 1 + static_cast<Index>(generator() % 20);
      const Index num_heads = groups + static_cast<Index>(generator() % 100);
      const Sizes sizes = allocated(random_norms(groups, generator), num_heads, mode);
      ASSERT_EQ(std::accumulate(sizes.begin(), sizes.end(), Index{0}), num_heads);
      for (const Index size : sizes) ASSERT_GE(size, 0);
    }
}

TEST(KeyDrivenAllocation, RatioStaysWithinOneHeadOfTheShare) {
  std::mt19937 generator(3);
  for (int trial = 0; trial < 1000; ++trial) {
    const Norms norms = random_norms(8, generator);
    const double sum = std::accumulate(norms.begin(), norms.end(), 0.0);
    const Sizes sizes = by_ratio(norms, 64);
    for (std::size_t g = 0; g < 8; ++g)
      ASSERT_LT(std::abs(static_cast<double>(sizes[g]) - 64 * norms[g] / sum), 1 + 1e-9);
  }
}

TEST(KeyDrivenAllocation, KvHeadsInAnotherOrderGetTheSameSizes) {
  std::mt19937 generator(4);
  for (const KeyDrivenMode mode : kModes)
    for (int trial = 0; trial < 500; ++trial) {
      // ties of the norms would go by index, and so would ties that minmax makes of sizes when it levels them
      const Norms norms = random_norms(8, generator);
      const Sizes sizes = allocated(norms, 40, mode);
      std::vector<std::size_t> order{3, 0, 7, 1, 6, 2, 5, 4};
      Norms moved;
      Sizes expected;
      for (const std::size_t g : order) moved.push_back(norms[g]), expected.push_back(sizes[g]);
      Sizes actual = allocated(moved, 40, mode);
      if (mode == KeyDrivenMode::authors_minmax) {
        std::ranges::sort(actual);
        std::ranges::sort(expected);
      }
      ASSERT_EQ(actual, expected);
    }
}

TEST(KeyDrivenAllocation, TheScaleOfTheNormsDoesNotMatter) {
  std::mt19937 generator(5);
  for (const KeyDrivenMode mode : kModes)
    for (int trial = 0; trial < 200; ++trial) {
      const Norms norms = random_norms(6, generator);
      Norms huge, tiny;
      for (const double n : norms) huge.push_back(std::ldexp(n, 1010)), tiny.push_back(std::ldexp(n, -900));
      ASSERT_EQ(allocated(huge, 48, mode), allocated(norms, 48, mode));
      ASSERT_EQ(allocated(tiny, 48, mode), allocated(norms, 48, mode));
    }
}

TEST(KeyDrivenAllocation, ImpossibleNormsAreNamedAndNothingIsWritten) {
  const double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
  std::vector<Index> out(4, -7);
  for (const KeyDrivenMode mode : kModes) {
    const auto with = [&](Norms norms, Index num_heads = 6) {
      return [&out, norms, num_heads, mode] { allocate(norms, num_heads, mode, out); };
    };
    expect_error(with({1, nan, 1}), {"norms[1] (nan)", "finite"});
    expect_error(with({1, 1, infinity}), {"norms[2] (inf)", "finite"});
    expect_error(with({-1, 1, 1}), {"norms[0] (-1)", "at least 0"});
    expect_error(with({1, 1}), {"boundaries (4 numbers)", "2 norms"});
    expect_error(with({}), {"norms (0)"});
    expect_error(with({1, 1, 1}, 0), {"num_heads (0)", "at least 1"});
  }
  EXPECT_EQ(out, std::vector<Index>(4, -7));
}

}  // namespace
}  // namespace headwise::regroup
