// SPDX-License-Identifier: MIT
#include "headwise/cost/shazeer.hpp"

#include "headwise/cost/model.hpp"
#include "tests/support/errors.hpp"

namespace headwise::cost::shazeer {
namespace {

using headwise::testing::expect_error;

Setting setting(Index tokens, Index hidden, Index heads, Index batch, Index kv_heads) {
  return {.batch = batch, .tokens = tokens, .hidden_size = hidden, .num_heads = heads, .num_kv_heads = kv_heads};
}
double ratio(const Setting& s) { return decoding(s).elements_per_multiply_add(); }

TEST(Shazeer, EveryRowOfTheTableHasTheSameParameters) {
  const Index rows[][4] = {{8, 8, 128, 4096}, {8, 1, 128, 5440}, {1, 1, 128, 6784},
                           {2, 2, 64, 6784},  {4, 4, 32, 6784},  {8, 8, 16, 6784}};
  for (const auto& [heads, kv_heads, head_dim, feed_forward] : rows)
    EXPECT_EQ(Model(translation_model(heads, kv_heads, head_dim, feed_forward)).parameters(), 176'160'768)
        << heads << ":" << kv_heads << ":" << head_dim;
}

TEST(Shazeer, MemoryPerMultiplyAddOfDecodingIsExact) {
  const double precision = 0.5e-5;  // half of the last digit stated
  EXPECT_NEAR(ratio(setting(128, 1024, 8, 128, 8)), .03953, precision);
  EXPECT_NEAR(ratio(setting(128, 1024, 8, 128, 1)), .01577, precision);
  EXPECT_NEAR(ratio(setting(1024, 1024, 8, 128, 8)), .20758, precision);
  EXPECT_NEAR(ratio(setting(1024, 1024, 8, 128, 1)), .04517, precision);
  EXPECT_NEAR(ratio(setting(4096, 4096, 32, 64, 32)), .21283, precision);
  EXPECT_NEAR(ratio(setting(4096, 4096, 32, 64, 1)), .02105, precision);
}

// the oracle walks through the paper's incremental decoding, tensor by tensor
TEST(Shazeer, DecodingIsTheSumOverItsSteps) {
  for (const Index kv_heads : {1, 2, 4})
    for (const Index n : {1, 2, 13}) {
      const Index b = 3, d = 24, h = 4, k = d / h;
      Index elements = 0, multiply_adds = 0;
      for (Index step = 1; step <= n; ++step) {
        const Index weights = d * h * k + 2 * d * kv_heads * k + h * k * d;  // P_q, P_k, P_v, P_o
        elements += weights + 4 * b * d;                                     // x, q, o, y
        elements += 2 * b * kv_heads * k;                                    // the new key and value, written
        elements += 2 * b * kv_heads * k * step;                             // all keys and values, read
        multiply_adds += b * weights + 2 * b * h * k * step;
      }
      const Traffic traffic = decoding(setting(n, d, h, b, kv_heads));
      EXPECT_EQ(traffic.elements, static_cast<double>(elements));
      EXPECT_EQ(traffic.multiply_adds, static_cast<double>(multiply_adds));
    }
}

TEST(Shazeer, DecodingSaturatesAtTheShareOfKvHeads) {
  for (const Index kv_heads : {8, 4, 2, 1})
    EXPECT_NEAR(ratio(setting(Index{1} << 32, 1024, 8, 128, kv_heads)), static_cast<double>(kv_heads) / 8, 1e-5);
}

TEST(Shazeer, TrainingAccessesLittleMemoryPerMultiplyAdd) {
  for (const Index kv_heads : {8, 1}) {
    const Setting s = setting(256, 1024, 8, 128, kv_heads);
    EXPECT_LT(training(s).elements_per_multiply_add(), 0.01);
    EXPECT_GT(ratio(s), 0.015);  // decoding the same
  }
}

TEST(Shazeer, TrainingAccessesEachTensorOnce) {
  const Index b = 3, n = 5, d = 24, h = 4, k = 6, g = 2;
  const Index weights = d * h * k + 2 * d * g * k + h * k * d;
  const Index elements = weights + b * n * (d + h * k + 2 * g * k + h * k + d) + 2 * b * h * n * n;
  const Index multiply_adds = b * n * weights + 2 * b * h * n * n * k;
  const Traffic traffic = training(setting(n, d, h, b, g));
  EXPECT_EQ(traffic.elements, static_cast<double>(elements));
  EXPECT_EQ(traffic.multiply_adds, static_cast<double>(multiply_adds));
}

TEST(Shazeer, AsymptoticsAreThePublishedTerms) {
  EXPECT_DOUBLE_EQ(decoding_asymptotic(setting(256, 1024, 8, 128, 8)), 256.0 / 1024 + 1.0 / 128);
  EXPECT_DOUBLE_EQ(decoding_asymptotic(setting(256, 1024, 8, 128, 1)), 256.0 / (1024 * 8) + 1.0 / 128);
  EXPECT_DOUBLE_EQ(training_asymptotic(setting(256, 1024, 8, 128, 8)), 1.0 / 128 + 1.0 / (128 * 256));
}

// In units of b·n·d², n ≤ d and b ≤ d: decoding makes 2 to 6 multiply-adds and accesses 1 to 8 times what the published
// order names; training makes at least 2 and accesses at most 8 times it.
TEST(Shazeer, AsymptoticsHoldUpToAConstantWhileTokensAreAtMostTheHiddenSize) {
  for (const Index d : {64, 1024, 4096})
    for (const Index h : {1, 8, 32})
      for (const Index kv_heads : {Index{1}, h})
        for (Index n = 1; n <= d; n *= 4)
          for (Index b = 1; b <= d; b *= 8) {
            const Setting s = setting(n, d, h, b, kv_heads);
            const double over_order = ratio(s) / decoding_asymptotic(s);
            ASSERT_GE(over_order, 1.0 / 6) << n << " " << d << " " << h << " " << b << " " << kv_heads;
            ASSERT_LE(over_order, 4.0) << n << " " << d << " " << h << " " << b << " " << kv_heads;
            ASSERT_LE(training(s).elements_per_multiply_add() / training_asymptotic(s), 4.0)
                << n << " " << d << " " << h << " " << b << " " << kv_heads;
          }
}

TEST(Shazeer, AsymptoticsAreRefusedBeyondTheHiddenSize) {
  expect_error([] { decoding_asymptotic(setting(1025, 1024, 8, 1, 8)); }, {"tokens (1025)", "hidden_size (1024)"});
  expect_error([] { training_asymptotic(setting(1025, 1024, 8, 1, 8)); }, {"tokens (1025)", "hidden_size (1024)"});
}

TEST(Shazeer, RefusesSettingsThatCannotBe) {
  expect_error([] { decoding(setting(0, 1024, 8, 1, 8)); }, {"tokens (0)"});
  expect_error([] { decoding(setting(1, 1024, 8, 0, 8)); }, {"batch (0)"});
  expect_error([] { training(setting(1, 1024, 7, 1, 1)); }, {"hidden_size (1024)", "num_heads (7)"});
  expect_error([] { training(setting(1, 1024, 8, 1, 9)); }, {"num_kv_heads (9)"});
  expect_error([] { decoding(setting(1, 0, 1, 1, 1)); }, {"hidden_size (0)"});
}

}  // namespace
}  // namespace headwise::cost::shazeer
