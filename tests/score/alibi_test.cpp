// SPDX-License-Identifier: MIT
#include "headwise/score/alibi.hpp"

#include <gtest/gtest.h>

#include "tests/support/errors.hpp"

namespace headwise {
namespace {

using testing::expect_error;

TEST(AlibiSlopes, OfAPowerOfTwoAreAGeometricSequenceThatEndsAt2ToTheMinus8) {
  EXPECT_EQ(alibi_slopes(1), (std::vector<float>{0x1p-8f}));
  EXPECT_EQ(alibi_slopes(8),
            (std::vector<float>{0x1p-1f, 0x1p-2f, 0x1p-3f, 0x1p-4f, 0x1p-5f, 0x1p-6f, 0x1p-7f, 0x1p-8f}));
  const std::vector<float> of_16 = alibi_slopes(16);
  ASSERT_EQ(of_16.size(), 16u);
  for (std::size_t i = 0; i < 16; ++i)
    EXPECT_FLOAT_EQ(of_16[i], static_cast<float>(std::pow(2.0, -0.5 * static_cast<double>(i + 1))));
}

TEST(AlibiSlopes, BetweenPowersOfTwoEveryOtherSlopeOfTheHigherOneComesBehindThoseOfTheLower) {
  // as the paper's code gives them for 12 heads
  const double expected[] = {0.5,       0.25,       0.125,      0.0625,           0.03125,           0.015625,
                             0.0078125, 0.00390625, 0.70710678, 0.35355339059327, 0.176776695296637, 0.088388347648318};
  const std::vector<float> slopes = alibi_slopes(12);
  ASSERT_EQ(slopes.size(), 12u);
  for (std::size_t i = 0; i < 12; ++i) EXPECT_NEAR(slopes[i], expected[i], 0x1p-24) << i;
  EXPECT_EQ(alibi_slopes(3), (std::vector<float>{0x1p-4f, 0x1p-8f, 0x1p-2f}));
}

TEST(AlibiSlopes, AreOnePositiveNumberPerHead) {
  for (const Index heads : {1, 2, 5, 31, 32, 33, 71, 112}) {
    const std::vector<float> slopes = alibi_slopes(heads);
    EXPECT_EQ(std::ssize(slopes), heads);
    for (const float slope : slopes) EXPECT_TRUE(slope > 0 && slope < 1);
  }
}

TEST(AlibiSlopes, NeedAHead) {
  expect_error([] { alibi_slopes(0); }, {"num_heads (0)", "alibi_slopes"});
  expect_error([] { alibi_slopes(-4); }, {"num_heads (-4)"});
}

}  // namespace
}  // namespace headwise
