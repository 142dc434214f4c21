// SPDX-License-Identifier: MIT
#include "headwise/position/qk_norm.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "headwise/parallel/thread_pool.hpp"
#include "tests/support/errors.hpp"

namespace headwise {
namespace {

using testing::expect_error;

std::vector<float> random_numbers(Index count, unsigned seed = 1) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> result(static_cast<std::size_t>(count));
  for (float& x : result) x = normal(generator);
  return result;
}

/// By the definition, in double.
std::vector<double> normed(std::span<const float> x, std::span<const float> weight, float epsilon) {
  double sum = 0;
  for (const float value : x) sum += static_cast<double>(value) * static_cast<double>(value);
  const double root = std::sqrt(sum / static_cast<double>(x.size()) + static_cast<double>(epsilon));
  std::vector<double> result;
  for (std::size_t d = 0; d < x.size(); ++d)
    result.push_back(static_cast<double>(x[d]) / root * (weight.empty() ? 1.0 : static_cast<double>(weight[d])));
  return result;
}

TEST(QkNorm, IsTheDefinitionOfEveryHead) {
  for (const Index dim : {1, 2, 7, 8, 9, 64, 80, 127, 128, 512})
    for (const bool weighted : {false, true})
      for (const float epsilon : {1e-6f, 1e-5f, 0.5f}) {
        const auto weight = weighted ? random_numbers(dim, 2) : std::vector<float>();
        const auto x = random_numbers(3 * 2 * dim);
        auto y = x;
        QkNorm(dim, weight, epsilon).apply(View<float>(y.data(), 3, 2, dim));
        for (Index row = 0; row < 6; ++row) {
          const auto at = static_cast<std::size_t>(row * dim);
          const auto want = normed(std::span(x).subspan(at, static_cast<std::size_t>(dim)), weight, epsilon);
          // rounded to float once; what double loses is far below
          for (std::size_t d = 0; d < want.size(); ++d)
            ASSERT_NEAR(y[at + d], want[d], 0x1.0001p-24 * std::abs(want[d])) << "dim " << dim << " row " << row;
        }
      }
}

TEST(QkNorm, NeverOverflowsForFiniteNumbersAndLeavesZerosZero) {
  const float largest = std::numeric_limits<float>::max(), least = std::numeric_limits<float>::denorm_min();
  std::vector<float> x(16, largest), zeros(16, 0.0f), tiny(16, least);
  QkNorm(16).apply(x.data());
  QkNorm(16).apply(zeros.data());
  QkNorm(16, {}, least).apply(tiny.data());
  EXPECT_EQ(x, std::vector<float>(16, 1.0f));
  EXPECT_EQ(zeros, std::vector<float>(16, 0.0f));
  for (const float value : tiny) EXPECT_TRUE(std::isfinite(value));
}

TEST(QkNorm, SpreadsNanOverItsOwnHeadOnly) {
  const auto before = random_numbers(3 * 8);
  auto clean = before, poisoned = before;
  poisoned[11] = std::numeric_limits<float>::quiet_NaN();
  QkNorm(8).apply(View<float>(clean.data(), 1, 3, 8));
  QkNorm(8).apply(View<float>(poisoned.data(), 1, 3, 8));
  for (std::size_t i = 0; i < 24; ++i)
    if (i / 8 == 1)
      EXPECT_TRUE(std::isnan(poisoned[i]));
    else
      EXPECT_EQ(poisoned[i], clean[i]);
}

TEST(QkNorm, GivesTheSameBitsInAnyStridesAndOnAnyThreads) {
  const Index dim = 20, tokens = 40, heads = 3;
  const auto weight = random_numbers(dim, 5);
  const QkNorm norm(dim, weight);
  auto packed = random_numbers(2 * tokens * heads * dim), threaded = packed;
  std::vector<float> spread(packed.size() * 3, 9.0f);
  for (std::size_t i = 0; i < packed.size(); ++i) spread[3 * i] = packed[i];
  norm.apply(View<float>(packed.data(), 2, tokens, heads, dim));
  ThreadPool pool(3);
  norm.apply(View<float>(threaded.data(), 2, tokens, heads, dim), pool);
  EXPECT_EQ(threaded, packed);
  norm.apply(
      View<float>(spread.data(), 2, tokens, heads, dim, {3 * tokens * heads * dim, 3 * heads * dim, 3 * dim, 3}));
  for (std::size_t i = 0; i < spread.size(); ++i) EXPECT_EQ(spread[i], i % 3 == 0 ? packed[i / 3] : 9.0f);
}

TEST(QkNorm, RefusesImpossibleSettings) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  expect_error([] { QkNorm(0); }, {"head_dim (0)", "1 to 576"});
  expect_error([] { QkNorm(8, std::vector<float>(7)); }, {"weight (7", "head_dim (8)"});
  expect_error([&] { QkNorm(2, std::vector<float>{1, nan}); }, {"weight[1] (nan)", "finite"});
  expect_error([] { QkNorm(8, {}, 0.0f); }, {"epsilon (0)", "above 0"});
  expect_error([&] { QkNorm(8, {}, nan); }, {"epsilon (nan)"});
  std::vector<float> x(16);
  expect_error([&] { QkNorm(8).apply(View<float>(x.data(), 1, 1, 16)); }, {"dim (16) of x", "head_dim (8)"});
}

}  // namespace
}  // namespace headwise
