// SPDX-License-Identifier: MIT
#include "generate/sampler.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "generate/progress.hpp"

namespace generate {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<std::size_t> draw(const SamplerOptions& options, const std::vector<float>& logits, int count) {
  Sampler sampler(options);
  std::vector<std::size_t> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back(sampler(logits));
  return tokens;
}

TEST(Greedy, TakesTheLargestLogit) {
  EXPECT_EQ(largest_logit(std::vector<float>{-3, 2, 5, 1}), 2u);
  EXPECT_EQ(largest_logit(std::vector<float>{-kInfinity, -7}), 1u);
}

TEST(Greedy, TakesTheFirstOfEquals) { EXPECT_EQ(largest_logit(std::vector<float>{1, 4, 4, 4}), 1u); }

TEST(Greedy, RefusesNan) {
  EXPECT_THROW(largest_logit(std::vector<float>{1, kNan}), std::runtime_error);
  EXPECT_THROW(largest_logit(std::vector<float>{kNan, 1}), std::runtime_error);
}

TEST(Sampler, TheSameSeedDrawsTheSameTokens) {
  const std::vector<float> logits = {0, 0.5f, 1, -1, 0.25f};
  EXPECT_EQ(draw({1, 1, 7}, logits, 200), draw({1, 1, 7}, logits, 200));
  EXPECT_NE(draw({1, 1, 7}, logits, 200), draw({1, 1, 8}, logits, 200));
}

TEST(Sampler, ASeedDrawsTheseTokensOnEveryPlatform) {
  EXPECT_THAT(draw({1, 1, 42}, {0, 0, 0, 0}, 12), testing::ElementsAre(3u, 2u, 3u, 0u, 3u, 0u, 2u, 1u, 1u, 1u, 0u, 2u));
}

TEST(Sampler, DrawsInProportionToTheSoftmax) {
  const std::vector<float> logits = {std::log(1.0f), std::log(2.0f), std::log(5.0f)};
  const int count = 40000;
  std::vector<int> drawn(3);
  for (const std::size_t token : draw({1, 1, 1}, logits, count)) ++drawn[token];
  // five standard deviations of a binomial are below 0.0125
  EXPECT_NEAR(drawn[0] / double{count}, 0.125, 0.0125);
  EXPECT_NEAR(drawn[1] / double{count}, 0.25, 0.0125);
  EXPECT_NEAR(drawn[2] / double{count}, 0.625, 0.0125);
}

TEST(Sampler, TemperatureDividesTheLogits) {
  const std::vector<float> logits = {0, std::log(3.0f)};
  const int count = 40000;
  int first = 0;
  for (const std::size_t token : draw({0.5, 1, 1}, logits, count)) first += token == 0;
  EXPECT_NEAR(first / double{count}, 0.1, 0.0125);  // 1 : 3² = 1 : 9
}

TEST(Sampler, TemperatureZeroIsGreedy) { EXPECT_THAT(draw({0, 1, 3}, {1, 3, 2}, 50), testing::Each(1u)); }

TEST(Sampler, TopPDrawsFromTheFewestTokensThatReachIt) {
  // 0.5, 0.3, 0.15, 0.05
  const std::vector<float> logits = {std::log(0.15f), std::log(0.5f), std::log(0.05f), std::log(0.3f)};
  const auto drawn = draw({1, 0.75, 9}, logits, 2000);
  EXPECT_THAT(drawn, testing::Each(testing::AnyOf(1u, 3u)));
  EXPECT_THAT(drawn, testing::IsSupersetOf({std::size_t{1}, std::size_t{3}}));
  EXPECT_THAT(draw({1, 0.4, 9}, logits, 500), testing::Each(1u));
}

TEST(Sampler, InfiniteLogitsGiveNoNan) {
  EXPECT_THAT(draw({1, 1, 2}, {-kInfinity, 0, -kInfinity}, 100), testing::Each(1u));
  EXPECT_THAT(draw({1, 1, 2}, {0, kInfinity, 1}, 100), testing::Each(1u));
  EXPECT_THAT(draw({1, 1, 2}, {-kInfinity, -kInfinity}, 10), testing::Each(0u));
}

TEST(Sampler, RefusesNanLogits) {
  Sampler sampler({1, 1, 0});
  EXPECT_THROW(sampler(std::vector<float>{0, kNan}), std::runtime_error);
}

TEST(Sampler, RefusesOptionsOutOfRange) {
  EXPECT_THROW(Sampler({-1, 1, 0}), std::invalid_argument);
  EXPECT_THROW(Sampler({std::numeric_limits<double>::quiet_NaN(), 1, 0}), std::invalid_argument);
  EXPECT_THROW(Sampler({kInfinity, 1, 0}), std::invalid_argument);
  EXPECT_THROW(Sampler({1, 0, 0}), std::invalid_argument);
  EXPECT_THROW(Sampler({1, 1.5, 0}), std::invalid_argument);
  EXPECT_THROW(Sampler({1, std::numeric_limits<double>::quiet_NaN(), 0}), std::invalid_argument);
}

TEST(Progress, IsSilentForAShortPrompt) {
  Progress progress(100, 3, 0.5);
  for (int i = 0; i < 300; ++i) EXPECT_EQ(progress.step(1, 0.003 * i), std::nullopt);
}

TEST(Progress, TellsTheShareReadAtIntervals) {
  Progress progress(1000, 2, 0.5);
  EXPECT_EQ(progress.step(500, 0.9), std::nullopt);
  EXPECT_EQ(progress.step(500, 1.0), "reading the prompt: 50 % (500 of 1000 tokens)");
  EXPECT_EQ(progress.step(500, 1.4), std::nullopt);
  EXPECT_EQ(progress.step(500, 1.6), "reading the prompt: 100 % (1000 of 1000 tokens)");
}

}  // namespace
}  // namespace generate
