// SPDX-License-Identifier: MIT
#include "headwise/reference.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace headwise::reference {
namespace {

// Cases worked out by hand. With D = 1, q = 1 and scale = 1 the score of a key is its only number, so keys that are
// logarithms make weights that are small fractions.

using Numbers = std::vector<double>;
constexpr double kInfinity = std::numeric_limits<double>::infinity(), kNan = std::numeric_limits<double>::quiet_NaN();
const double ln2 = std::log(2.0), ln3 = std::log(3.0), ln4 = std::log(4.0);

void expect_near(const Numbers& actual, const Numbers& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i)
    if (std::isinf(expected[i])) {
      EXPECT_EQ(actual[i], expected[i]) << i;
    } else {
      EXPECT_NEAR(actual[i], expected[i], 1e-14) << i;
    }
}

Shape one_head(Index queries, Index keys) { return {queries, keys, 1, 1, 1, 1}; }

TEST(Reference, OneKeyGivesItsValueAndItsScore) {
  const Result r = attend({1, 1, 1, 1, 2, 3}, Numbers{3, 4}, Numbers{1, 0.5}, Numbers{7, -8, 9}, {.scale = 2.0});
  expect_near(r.output, {7, -8, 9});
  expect_near(r.lse, {10});
}

TEST(Reference, TwoKeysAreWeightedByTheExponentialOfTheirScores) {
  const Result r = attend(one_head(1, 2), Numbers{1}, Numbers{0, ln3}, Numbers{0, 4}, {.scale = 1.0});
  expect_near(r.output, {3});  // 0·1/4 + 4·3/4
  expect_near(r.lse, {ln4});
}

TEST(Reference, TheDefaultScaleIsOneOverTheRootOfHeadDim) {
  const Result r = attend({1, 1, 1, 1, 4, 1}, Numbers{1, 2, 3, 4}, Numbers{1, 1, 1, 1}, Numbers{5});
  expect_near(r.lse, {5});  // 10 / sqrt(4)
}

TEST(Reference, TheNewestQueryStandsAtTheNewestKey) {
  // three keys, two queries: the first sees two keys, the second all three
  const Result r = attend(one_head(2, 3), Numbers{1, 1}, Numbers{0, 0, ln2}, Numbers{4, 8, 1}, {.scale = 1.0});
  expect_near(r.output, {6, 3.5});  // (4 + 8)/2 and (4 + 8 + 2·1)/4
  expect_near(r.lse, {ln2, ln4});
}

TEST(Reference, WithoutCausalEveryQuerySeesEveryKey) {
  const Result r =
      attend(one_head(2, 3), Numbers{1, 1}, Numbers{0, 0, ln2}, Numbers{4, 8, 1}, {.scale = 1.0, .causal = false});
  expect_near(r.output, {3.5, 3.5});
}

TEST(Reference, AWindowCountsTheKeysWithTheQuerysOwn) {
  const Numbers q{1, 1, 1}, k{0, 0, 0}, v{1, 10, 100};
  expect_near(attend(one_head(3, 3), q, k, v, {.window = 1}).output, {1, 10, 100});
  expect_near(attend(one_head(3, 3), q, k, v, {.window = 2}).output, {1, 5.5, 55});
  expect_near(attend(one_head(3, 3), q, k, v, {.window = 0}).output, {0, 0, 0});
}

TEST(Reference, ARightWindowCountsTheKeysBehindTheQuerysOwn) {
  const Numbers q{1, 1, 1}, k{0, 0, 0}, v{1, 10, 100};
  expect_near(attend(one_head(3, 3), q, k, v, {.causal = false, .window = 1, .window_right = 1}).output,
              {5.5, 55, 100});
  expect_near(attend(one_head(3, 3), q, k, v, {.causal = true, .window = 1, .window_right = 1}).output, {1, 10, 100});
}

TEST(Reference, SoftcapBendsTheScaledScore) {
  const Result r = attend(one_head(1, 1), Numbers{3}, Numbers{2}, Numbers{1}, {.scale = 0.5, .softcap = 2});
  expect_near(r.lse, {2 * std::tanh(1.5)});
}

TEST(Reference, AlibiTakesTheDistanceTimesTheSlopeAfterSoftcap) {
  const std::vector<float> slopes{0.5f, 2.0f};
  // one query at position 1; both keys have score 0 before ALiBi
  const Result r = attend({1, 2, 2, 1, 1, 1}, Numbers{1, 1}, Numbers{0, 0}, Numbers{0, 1},
                          {.scale = 1.0, .softcap = 7, .alibi_slopes = slopes});
  expect_near(r.lse, {std::log(1 + std::exp(-0.5)), std::log(1 + std::exp(-2.0))});
  expect_near(r.output, {1 / (1 + std::exp(-0.5)), 1 / (1 + std::exp(-2.0))});
}

TEST(Reference, AlibiCountsTheDistanceToLaterKeysToo) {
  const std::vector<float> slopes{1.0f};
  const Result r =
      attend(one_head(2, 2), Numbers{1, 1}, Numbers{0, 0}, Numbers{0, 1}, {.causal = false, .alibi_slopes = slopes});
  expect_near(r.lse, {std::log(1 + std::exp(-1.0)), std::log(1 + std::exp(-1.0))});
}

TEST(Reference, ABiasOfHeadAndDistanceIsAddedAfterSoftcap) {
  // one query at position 1, keys at distances −1 and 0; both have score 0 before the bias
  const auto bias = [](Index head, Index distance) { return static_cast<double>(10 * head + distance); };
  const Result r = attend({1, 2, 2, 1, 1, 1}, Numbers{1, 1}, Numbers{0, 0}, Numbers{0, 1},
                          {.scale = 1.0, .softcap = 7, .bias = bias});
  expect_near(r.lse, {std::log(1 + std::exp(-1)), 10 + std::log(1 + std::exp(-1))});
  expect_near(r.output, {1 / (1 + std::exp(-1)), 1 / (1 + std::exp(-1))});
}

TEST(Reference, ConsecutiveQueryHeadsShareAKvHeadUnlessAMapSaysOtherwise) {
  const Numbers q(4, 1.0), k{0, 0}, v{10, 20};
  expect_near(attend({1, 1, 4, 2, 1, 1}, q, k, v).output, {10, 10, 20, 20});
  const std::vector<Index> map{1, 0, 1, 1};
  expect_near(attend({1, 1, 4, 2, 1, 1}, q, k, v, {.kv_head_of = map}).output, {20, 10, 20, 20});
}

TEST(Reference, LengthsHideKeysAndQueriesThatDoNotExist) {
  // 2 of 3 keys, 1 of 2 queries: the query stands at key 1
  const Result r = attend(one_head(2, 3), Numbers{1, kNan}, Numbers{0, ln3, kNan}, Numbers{0, 4, kNan},
                          {.scale = 1.0, .key_length = 2, .query_length = 1});
  expect_near(r.output, {3, 0});
  expect_near(r.lse, {ln4, -kInfinity});
}

TEST(Reference, AQueryThatSeesNothingGivesZeroAndMinusInfinity) {
  const Result more_queries = attend(one_head(3, 1), Numbers{kNan, 1, 1}, Numbers{0}, Numbers{5}, {.scale = 1.0});
  expect_near(more_queries.output, {0, 0, 5});
  expect_near(more_queries.lse, {-kInfinity, -kInfinity, 0});
  const Result no_keys = attend(one_head(1, 0), Numbers{1}, Numbers{}, Numbers{}, {.causal = false});
  expect_near(no_keys.output, {0});
  expect_near(no_keys.lse, {-kInfinity});
}

TEST(Reference, AKeyWhoseScoreIsMinusInfinityIsNotThere) {
  const Result r =
      attend(one_head(1, 3), Numbers{1}, Numbers{0, -kInfinity, ln3}, Numbers{0, 1e300, 4}, {.scale = 1.0});
  expect_near(r.output, {3});
  expect_near(r.lse, {ln4});
  const Result none = attend(one_head(1, 1), Numbers{1}, Numbers{-kInfinity}, Numbers{5}, {.scale = 1.0});
  expect_near(none.output, {0});
  expect_near(none.lse, {-kInfinity});
}

TEST(Reference, HiddenNansAreNotReadAndVisibleOnesPropagate) {
  const Numbers q{1, 1}, k{0, kNan}, v{1, kNan};
  const Result r = attend(one_head(2, 2), q, k, v);
  EXPECT_EQ(r.output[0], 1);
  EXPECT_TRUE(std::isnan(r.output[1]));
  EXPECT_TRUE(std::isnan(r.lse[1]));
  const Result value_only = attend({1, 1, 1, 1, 1, 2}, Numbers{1}, Numbers{2}, Numbers{kNan, 3}, {.scale = 1.0});
  EXPECT_TRUE(std::isnan(value_only.output[0]));
  EXPECT_EQ(value_only.output[1], 3);
  EXPECT_EQ(value_only.lse[0], 2);
}

TEST(Reference, AScoreOfPlusInfinityMakesTheRowNan) {
  const Result r = attend(one_head(1, 2), Numbers{1}, Numbers{0, kInfinity}, Numbers{1, 2}, {.scale = 1.0});
  EXPECT_TRUE(std::isnan(r.output[0]));
}

TEST(Reference, LargeScoresDoNotOverflow) {
  const Result r = attend(one_head(1, 2), Numbers{1}, Numbers{1e6, 1e6}, Numbers{1, 3}, {.scale = 1.0});
  expect_near(r.output, {2});
  EXPECT_NEAR(r.lse[0], 1e6 + ln2, 1e-9);
}

TEST(Reference, KeepsScoresOfEveryStageWhereAsked) {
  // two queries over three keys, the first of which sees two; a softcap of 1 and a slope of ln 2
  const std::vector<float> slopes{static_cast<float>(ln2)};
  const Parameters parameters{.scale = 2.0, .softcap = 1, .alibi_slopes = slopes, .keep_scores = true};
  const Result r = attend(one_head(2, 3), Numbers{1, 0}, Numbers{0, 0.5, 1}, Numbers{1, 2, 3}, parameters);
  const double slope = static_cast<double>(slopes[0]), cap1 = std::tanh(1.0), cap2 = std::tanh(2.0);
  expect_near(r.scaled, {0, 1, 2, 0, 0, 0});
  expect_near(r.softcapped, {0, cap1, cap2, 0, 0, 0});
  expect_near(r.scores, {-slope, cap1, -kInfinity, -2 * slope, -slope, 0});
  const double first = std::exp(-slope), second = std::exp(cap1), far = std::exp(-2 * slope);
  expect_near(r.weights, {first / (first + second), second / (first + second), 0, far / (far + first + 1),
                          first / (far + first + 1), 1 / (far + first + 1)});
  EXPECT_TRUE(attend(one_head(1, 1), Numbers{1}, Numbers{1}, Numbers{1}).weights.empty());
}

TEST(Reference, KeepsNothingOfKeysAndQueriesThatDoNotExist) {
  const Result r = attend(one_head(2, 3), Numbers{1, kNan}, Numbers{kNan, ln3, kNan}, Numbers{1, 2, 3},
                          {.scale = 1.0, .key_length = 2, .query_length = 1, .key_start = 1, .keep_scores = true});
  const Numbers scores{-kInfinity, ln3, -kInfinity, -kInfinity, -kInfinity, -kInfinity};
  expect_near(r.scaled, scores);
  expect_near(r.scores, scores);
  expect_near(r.weights, {0, 1, 0, 0, 0, 0});
}

}  // namespace
}  // namespace headwise::reference
