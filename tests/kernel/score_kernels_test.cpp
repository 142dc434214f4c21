// SPDX-License-Identifier: MIT
// What is done with a tile of scores: transforms, scale, softmax, the rescaling of outputs.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "tests/kernel/grouped_rows.hpp"
#include "tests/kernel/tables.hpp"

namespace headwise {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();

class ScoreKernels : public testing::EveryTable {};

TEST_P(ScoreKernels, SoftcapIsTanhWithinItsStatedError) {
  alignas(64) float scores[128];
  for (const float cap : {0.5f, 30.0f, 50.0f}) {
    std::vector<float> in;
    for (int i = 0; i < 128; ++i) in.push_back(static_cast<float>(i - 64) * cap / 12);
    in[0] = -kInf;
    in[1] = kInf;
    in[2] = kNan;
    in[3] = -1e30f;
    std::copy(in.begin(), in.end(), scores);
    ScoreTransform softcap{};
    softcap.inverse_cap = 1 / cap;
    softcap.cap = cap;
    kernels->softcap(softcap, scores, 2, 64);
    EXPECT_EQ(scores[0], -cap);
    EXPECT_EQ(scores[1], cap);
    EXPECT_TRUE(std::isnan(scores[2]));
    for (std::size_t i = 3; i < 128; ++i)
      EXPECT_NEAR(scores[i], cap * std::tanh(static_cast<double>(in[i]) / cap), cap * 0x1p-21) << in[i];
  }
}

/// Scores of f32 rows of 8 dimensions and a tile of keys, transformed.
std::vector<float> transformed(const TileKernels& kernels, const std::vector<float>& plain_queries,
                               const std::vector<float>& keys, const ScoreTransform& how) {
  const Index rows = std::ssize(plain_queries) / 8;
  const std::vector<float> queries = testing::grouped(kernels, plain_queries, rows);
  std::vector<float> scores(static_cast<std::size_t>(rows * 64));
  kernels.scores[static_cast<int>(Storage::f32)](
      {queries.data(), keys.data(), scores.data(), rows, 8, 64, nullptr, {}, &how}, nullptr);
  return scores;
}

TEST_P(ScoreKernels, AlibiSubtractsSlopeTimesDistance) {
  const std::vector<float> query(8), keys(64 * 8);  // scores 0
  for (const Index first : {-70, -20, 0, 5}) {
    ScoreRowInfo row{};
    row.position = 1000;
    row.slope = 0.25f;
    ScoreTransform alibi{};
    alibi.rows = &row;
    alibi.alibi = true;
    alibi.first = 1000 + first;
    const std::vector<float> scores = transformed(*kernels, query, keys, alibi);
    for (Index j = 0; j < 64; ++j)
      EXPECT_EQ(scores[static_cast<std::size_t>(j)], -0.25f * std::abs(static_cast<float>(first + j)));
  }
}

TEST_P(ScoreKernels, ABiasIsTheOneOfEachDistanceUpToItsEnds) {
  const std::vector<float> query(8), keys(64 * 8);
  std::vector<float> bias;  // of distances −10 … 10 + 63
  for (int d = -10; d <= 73; ++d) bias.push_back(static_cast<float>(d * d));
  ScoreRowInfo row{};
  row.position = 500;
  row.bias = bias.data() + 10;
  ScoreTransform how{};
  how.rows = &row;
  how.bias = true;
  how.bias_begin = -10;
  how.bias_end = 10;
  how.bias_factor = 0.5f;
  for (const Index distance : {-200, -10, 0, 3, 10, 11, 100}) {
    how.first = 500 + distance;
    const std::vector<float> scores = transformed(*kernels, query, keys, how);
    for (Index j = 0; j < 64; ++j) {
      const Index d = std::clamp<Index>(distance, -10, 10) + j;
      EXPECT_EQ(scores[static_cast<std::size_t>(j)], 0.5f * static_cast<float>(d * d)) << distance << " " << j;
    }
  }
}

TEST_P(ScoreKernels, ATransformedRowHasTheSameBitsWhateverRowsAreBesideIt) {
  std::mt19937 generator(8);
  std::normal_distribution<float> normal;
  std::vector<float> queries(20 * 8), keys(64 * 8), bias(200);
  for (std::vector<float>* numbers : {&queries, &keys, &bias})
    for (float& x : *numbers) x = normal(generator);
  std::vector<ScoreRowInfo> rows;  // far enough for distances that f32 does not hold
  for (Index r = 0; r < 20; ++r)
    rows.push_back({0, r, 20'000'003 + r, 1e-7f * static_cast<float>(r + 1), bias.data() + 100});
  ScoreTransform how{kernels->softcap, rows.data(), 0.5f, 2.0f, true, true, -100, 36, 1.0f, 64};
  std::vector<std::vector<float>> alone;
  for (Index r = 0; r < 20; ++r) {
    how.rows = rows.data() + r;
    alone.push_back(transformed(*kernels, {queries.begin() + r * 8, queries.begin() + (r + 1) * 8}, keys, how));
  }
  how.rows = rows.data();
  for (Index count = 2; count <= 20; ++count) {
    const std::vector<float> together =
        transformed(*kernels, {queries.begin(), queries.begin() + count * 8}, keys, how);
    for (Index r = 0; r < count; ++r)
      EXPECT_TRUE(std::equal(alone[static_cast<std::size_t>(r)].begin(), alone[static_cast<std::size_t>(r)].end(),
                             together.begin() + r * 64))
          << r << " of " << count;
  }
}

TEST_P(ScoreKernels, ScaledScoresTellOfHiddenOnes) {
  alignas(64) float scores[128];
  for (const Index hidden : {-1, 0, 77, 127}) {
    for (int i = 0; i < 128; ++i) scores[i] = static_cast<float>(i);
    if (hidden >= 0) scores[hidden] = -kInf;
    EXPECT_EQ(kernels->scale_scores(scores, 128, 1.5f), hidden >= 0);
    for (Index i = 0; i < 128; ++i) EXPECT_EQ(scores[i], i == hidden ? -kInf : 1.5f * static_cast<float>(i));
  }
}

TEST_P(ScoreKernels, WeightsArePowersOfTwoWithinOneUlpAndHiddenOnesAreZero) {
  // one row per range of x = score − max; max is 0
  alignas(64) float scores[64], max[1] = {0}, sum[kMaxLanes] = {}, tile_sum[kMaxLanes], weights[64];
  for (const Operand operand : {Operand::f32, Operand::bf16_pair}) {
    if (!kernels->fuses(Storage::bf16, operand)) continue;
    const double error = operand == Operand::f32 ? 0x1p-23 : 0x1p-8 + 0x1p-23;
    for (int range = 0; range < 130; ++range) {
      for (int j = 0; j < 63; ++j) scores[j] = -static_cast<float>(range) + static_cast<float>(j) / 63 + 11;
      scores[63] = -kInf;
      ASSERT_FALSE(kernels->softmax(scores, 1, {max, sum, tile_sum, weights, operand}));
      for (int j = 0; j < 64; ++j) {
        const double want = std::exp2(static_cast<double>(scores[j]));
        const float got = load_element(weights, operand == Operand::f32 ? Storage::f32 : Storage::bf16, j);
        if (scores[j] > -125)
          ASSERT_NEAR(got, want, want * error) << scores[j];
        else
          ASSERT_LE(got, 0x1p-124) << scores[j];
        if (scores[j] < -150) {
          ASSERT_EQ(got, 0.0f);
        }
      }
    }
  }
}

TEST_P(ScoreKernels, ARowIsRescaledOnlyWhenItsOwnScoresExceedTheLazyRange) {
  constexpr Index kRows = 4, kDim = 16;
  alignas(64) float scores[kRows * 64], max[kRows] = {0, 0, -kInf, 0}, sum[kRows * kMaxLanes] = {},
                                        tile_sum[kRows * kMaxLanes];
  alignas(64) float output[kRows * kDim];
  alignas(64) float weights[kRows * 64];
  std::fill_n(scores, kRows * 64, 1.0f);
  std::fill_n(output, kRows * kDim, 8.0f);
  scores[0 * 64 + 5] = 12.0f;               // at the end of the range: stays
  scores[1 * 64 + 5] = 13.0f;               // beyond: rescaled by 2^-13
  std::fill_n(scores + 2 * 64, 64, -kInf);  // sees no key yet
  scores[3 * 64 + 9] = kNan;
  for (Index r = 0; r < kRows; ++r) sum[r * kMaxLanes] = r == 2 ? 0.0f : 4.0f;
  const SoftmaxState state{max, sum, tile_sum, weights, Operand::f32};
  ASSERT_TRUE(kernels->softmax(scores, kRows, state));
  kernels->rescale(scores, kRows, state, output, kDim);
  const auto total = [&](Index r) {
    double s = 0;
    for (Index i = 0; i < kMaxLanes; ++i) s += sum[r * kMaxLanes + i];
    return s;
  };
  EXPECT_EQ(max[0], 0.0f);
  EXPECT_EQ(output[0], 8.0f);
  EXPECT_NEAR(total(0), 4 + 63 * 2 + 4096, 1e-2);
  EXPECT_EQ(max[1], 13.0f);
  EXPECT_EQ(output[kDim], 8.0f * 0x1p-13f);
  EXPECT_NEAR(total(1), (4 + 63 * 2) * 0x1p-13 + 1, 1e-6);
  EXPECT_EQ(max[2], -kInf);
  EXPECT_EQ(output[2 * kDim], 8.0f);
  EXPECT_EQ(total(2), 0.0);
  for (int j = 0; j < 64; ++j) EXPECT_EQ(weights[2 * 64 + j], 0.0f);
  EXPECT_TRUE(std::isnan(total(3)));
}

HEADWISE_FOR_EVERY_TABLE(ScoreKernels);

}  // namespace
}  // namespace headwise
