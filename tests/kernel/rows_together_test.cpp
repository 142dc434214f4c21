// SPDX-License-Identifier: MIT
// Rows that meet a tile together have the bits that each has alone.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "tests/kernel/grouped_rows.hpp"
#include "tests/kernel/tables.hpp"

namespace headwise {
namespace {

using testing::grouped;

class RowsTogether : public testing::EveryTable {};

TEST_P(RowsTogether, AScoreHasTheSameBitsWhateverRowsAreBesideIt) {
  std::mt19937 random(9);
  std::normal_distribution<float> normal;
  for (const Index dim : {8, 16, 24, 128, 136, 576}) {
    constexpr Index kMost = 40;
    std::vector<float> queries(static_cast<std::size_t>(kMost * dim)), keys(static_cast<std::size_t>(64 * dim));
    for (std::vector<float>* numbers : {&queries, &keys})
      for (float& x : *numbers) x = normal(random);
    const auto of_rows = [&](Index first, Index rows) {
      const std::vector<float> some(queries.begin() + first * dim, queries.begin() + (first + rows) * dim);
      const std::vector<float> as_met = grouped(*kernels, some, rows);
      std::vector<float> scores(static_cast<std::size_t>(rows * 64));
      kernels->scores[static_cast<int>(Storage::f32)](
          {as_met.data(), keys.data(), scores.data(), rows, dim, 64, nullptr, {keys.data(), 64 * dim * 4}}, nullptr);
      return scores;
    };
    std::vector<float> alone;
    for (Index r = 0; r < kMost; ++r)
      for (const float score : of_rows(r, 1)) alone.push_back(score);
    for (Index t = 0; t < 64; ++t) {
      double sum = 0, magnitude = 0;
      for (Index d = 0; d < dim; ++d) {
        const double term = static_cast<double>(queries[static_cast<std::size_t>(d)]) *
                            keys[static_cast<std::size_t>(key_index(Storage::f32, dim, t, d))];
        sum += term;
        magnitude += std::abs(term);
      }
      // each addition rounds by half a unit of at most the magnitude
      ASSERT_NEAR(alone[static_cast<std::size_t>(t)], sum, magnitude * static_cast<double>(dim) * 0x1p-24) << dim;
    }
    for (Index rows = 1; rows <= kMost; ++rows) {
      const std::vector<float> together = of_rows(0, rows);
      ASSERT_EQ(0, std::memcmp(together.data(), alone.data(), together.size() * 4)) << rows << " rows, dim " << dim;
    }
  }
}

TEST_P(RowsTogether, ASumHasTheSameBitsWhateverRowsAreBesideItAndWhereverItLies) {
  std::mt19937 random(10);
  std::normal_distribution<float> normal;
  for (const Index dim : {16, 32, 48, 512}) {
    constexpr Index kMost = 40;
    std::vector<float> weights(kMost * 64), values(static_cast<std::size_t>(64 * dim));
    for (std::vector<float>* numbers : {&weights, &values})
      for (float& x : *numbers) x = normal(random);
    // rows `stride` floats apart, with 7 between them
    const auto of_rows = [&](Index first, Index rows, Index stride) {
      std::vector<float> output(static_cast<std::size_t>(rows * stride), 7.0f);
      for (Index r = 0; r < rows; ++r) std::fill_n(output.begin() + r * stride, dim, 0.25f);
      kernels->weighted_sum[static_cast<int>(Storage::f32)]({weights.data() + first * 64,
                                                             values.data(),
                                                             output.data(),
                                                             rows,
                                                             dim,
                                                             64,
                                                             nullptr,
                                                             {values.data(), 64 * dim * 4},
                                                             stride == dim ? 0 : stride});
      return output;
    };
    std::vector<float> alone;
    for (Index r = 0; r < kMost; ++r)
      for (const float sum : of_rows(r, 1, dim)) alone.push_back(sum);
    for (Index rows = 1; rows <= kMost; ++rows)
      for (const Index stride : {dim, dim + 16}) {
        const std::vector<float> together = of_rows(0, rows, stride);
        for (Index r = 0; r < rows; ++r)
          for (Index d = 0; d < stride; ++d)
            ASSERT_EQ(together[static_cast<std::size_t>(r * stride + d)],
                      d < dim ? alone[static_cast<std::size_t>(r * dim + d)] : 7.0f)
                << rows << " rows, dim " << dim << ", stride " << stride << " at " << r << ", " << d;
      }
  }
}

HEADWISE_FOR_EVERY_TABLE(RowsTogether);

}  // namespace
}  // namespace headwise
