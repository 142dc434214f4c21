// SPDX-License-Identifier: MIT
// The kernels that sum weights over rows: exact integers, whatever the table.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "tests/kernel/tables.hpp"

namespace headwise {
namespace {

class MassKernels : public testing::EveryTable {};

TEST_P(MassKernels, DifferencesBecomePowersOfTwo) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::vector<float> a, b, out(64, std::numeric_limits<float>::quiet_NaN());
  for (int i = 0; i < 64; ++i) {
    a.push_back(static_cast<float>(i) * 1.37f - 20);
    b.push_back(i == 5 ? kInfinity : static_cast<float>(i % 7) * 3 + 10);
  }
  a[9] = -kInfinity;
  kernels->exp2_difference(a.data(), b.data(), 64, out.data());
  for (std::size_t i = 0; i < 64; ++i) {
    const double want = std::exp2(static_cast<double>(a[i] - b[i]));
    EXPECT_NEAR(static_cast<double>(out[i]), want, want * 4 * 0x1p-24) << i;
  }
  EXPECT_EQ(out[5], 0.0f);
  EXPECT_EQ(out[9], 0.0f);
}

TEST_P(MassKernels, SumsOfRoundedWeightsAreThoseOfPlainLoops) {
  std::mt19937 random(3);
  std::uniform_real_distribution<float> uniform;
  for (const Operand operand : {Operand::f32, Operand::bf16_pair})
    for (const Index rows : {1, 2, 5, 96, 288})
      for (const Index step : {1, 3}) {
        const Storage storage = operand == Operand::f32 ? Storage::f32 : Storage::bf16;
        std::vector<float> memory(static_cast<std::size_t>(rows * step * kTileTokens)), factors;
        for (Index i = 0; i < std::ssize(memory); ++i)
          store_element(memory.data(), storage, i, i % 5 == 0 ? 0.0f : i % 11 == 0 ? 1.0f : uniform(random) * 0x1p-6f);
        // a factor of 2^23 makes a weight of 1 the largest there is
        for (Index r = 0; r < rows * step; ++r) factors.push_back(r % 4 == 0 ? 0x1p23f : 0x1p22f * uniform(random));
        std::vector<std::uint32_t> sums(kTileTokens, 77);
        kernels->add_mass({memory.data(), operand, factors.data(), rows, step, sums.data()});
        for (Index t = 0; t < kTileTokens; ++t) {
          double want = 0;
          for (Index r = 0; r < rows; ++r)
            want +=
                std::nearbyint(static_cast<double>(load_element(memory.data(), storage, r * step * kTileTokens + t)) *
                               static_cast<double>(factors[static_cast<std::size_t>(r * step)]));
          // without fma a product is rounded before, which may take it over a half: one unit, of few rows
          const double slack = kernels->isa == Isa::baseline ? static_cast<double>(rows) : 0;
          EXPECT_NEAR(static_cast<double>(sums[static_cast<std::size_t>(t)]), want, slack)
              << rows << " rows, token " << t;
        }
      }
}

HEADWISE_FOR_EVERY_TABLE(MassKernels);

}  // namespace
}  // namespace headwise
