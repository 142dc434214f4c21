// SPDX-License-Identifier: MIT
#include "headwise/regroup/random.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace headwise::regroup {
namespace {

TEST(Random, NormalIsThePolarMethodOfTheStandardEngine) {
  Random random(7);
  std::mt19937_64 engine(7);
  const auto uniform = [&] { return static_cast<double>(engine() >> 11) / 9007199254740992.0; };
  for (int pair = 0; pair < 2000; ++pair) {
    double u, v, s;
    do {
      u = 2 * uniform() - 1;
      v = 2 * uniform() - 1;
      s = u * u + v * v;
    } while (s >= 1 || s == 0);
    const double factor = std::sqrt(-2 * std::log(s) / s);
    // log s loses digits only near s = 1, where it is as small as the rounding of s: 2^-52 against 1 - s
    const double tolerance = 8 * 0x1p-52 * (1 + 1 / (1 - s));
    ASSERT_NEAR(random.normal(), u * factor, tolerance * std::abs(u * factor)) << pair;
    ASSERT_NEAR(random.normal(), v * factor, tolerance * std::abs(v * factor)) << pair;
  }
}

TEST(Random, NormalHasTheMomentsOfANormal) {
  Random random(1);
  constexpr int n = 100000;
  double first = 0, second = 0, fourth = 0;
  for (int i = 0; i < n; ++i) {
    const double x = random.normal();
    first += x / n;
    second += x * x / n;
    fourth += x * x * x * x / n;
  }
  // five standard errors: 1, √2 and √96 over √n
  const double error = 5 / std::sqrt(n);
  EXPECT_NEAR(first, 0, error);
  EXPECT_NEAR(second, 1, std::sqrt(2) * error);
  EXPECT_NEAR(fourth, 3, std::sqrt(96) * error);
}

TEST(Random, BelowReachesEveryNumberEquallyOften) {
  Random random(2);
  std::vector<int> counts(7, 0);
  for (int i = 0; i < 70000; ++i) {
    const Index x = random.below(7);
    ASSERT_GE(x, 0);
    ASSERT_LT(x, 7);
    ++counts[static_cast<std::size_t>(x)];
  }
  for (const int count : counts) EXPECT_NEAR(count, 10000, 5 * std::sqrt(10000));
  EXPECT_EQ(random.below(1), 0);
}

TEST(Random, ShufflesIntoEveryOrder) {
  Random random(3);
  std::vector<int> counts(6, 0);
  for (int i = 0; i < 60000; ++i) {
    std::vector<Index> items{0, 1, 2};
    random.shuffle(items);
    std::vector<Index> sorted = items;
    std::ranges::sort(sorted);
    ASSERT_EQ(sorted, (std::vector<Index>{0, 1, 2}));
    ++counts[static_cast<std::size_t>(2 * items[0] + (items[1] > items[2] ? 1 : 0))];
  }
  for (const int count : counts) EXPECT_NEAR(count, 10000, 5 * std::sqrt(10000));
}

TEST(Random, ASeedGivesTheSameBitsOnEveryMachine) {
  Random random(42);
  EXPECT_EQ(random.normal(), 0x1.4b37d0b4daa8fp+0);
  EXPECT_EQ(random.normal(), 0x1.68f438d8aec29p-1);
  double sum = 0;
  for (int i = 0; i < 1000; ++i) sum += random.normal();
  EXPECT_EQ(sum, 0x1.bca8e9980bcfp+2);
  EXPECT_EQ(random.below(1000000), 816735);
}

}  // namespace
}  // namespace headwise::regroup
