// SPDX-License-Identifier: MIT
#include "headwise/regroup/search/activations.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "headwise/position/rope.hpp"
#include "headwise/parallel/thread_pool.hpp"
#include "tests/regroup/random_weights.hpp"
#include "tests/support/errors.hpp"

namespace headwise::regroup {
namespace {

using headwise::testing::expect_error;
using headwise::testing::random_matrix;
using headwise::testing::random_weights;

constexpr Index kHeads = 3, kKeyDim = 4, kValueDim = 5;

/// Sum over tokens of the products, and of the cosines, of heads a and b; plain loops.
struct Naive {
  double product = 0, cosine = 0;
  Naive(const nn::Matrix& x, Index dim, Index a, Index b) {
    for (Index t = 0; t < x.rows(); ++t) {
      double ab = 0, aa = 0, bb = 0;
      for (Index i = 0; i < dim; ++i) {
        const auto p = static_cast<double>(x(t, a * dim + i)), q = static_cast<double>(x(t, b * dim + i));
        ab += p * q, aa += p * p, bb += q * q;
      }
      product += ab;
      if (aa > 0 && bb > 0) cosine += ab / std::sqrt(aa * bb);
    }
  }
};

// Products of floats are exact in double; a few thousand roundings of 2^-53 remain.
constexpr double kTolerance = 1e-11;

TEST(ActivationStatistics, AreTheSumsOverAllTokens) {
  for (const Index tokens : {1, 63, 64, 65, 200}) {
    const nn::Matrix keys = random_matrix(tokens, kHeads * kKeyDim, 1),
                     values = random_matrix(tokens, kHeads * kValueDim, 2);
    ActivationStatistics statistics(kHeads, kKeyDim, kValueDim);
    statistics.add(keys, values);
    EXPECT_EQ(statistics.num_tokens(), tokens);
    for (Index a = 0; a < kHeads; ++a)
      for (Index b = 0; b < kHeads; ++b) {
        const Naive key(keys, kKeyDim, a, b), value(values, kValueDim, a, b);
        const auto n = static_cast<double>(tokens);
        ASSERT_NEAR(statistics.gram().key(a, b), key.product, kTolerance);
        ASSERT_NEAR(statistics.gram().value(a, b), value.product, kTolerance);
        ASSERT_NEAR(statistics.cosines().key(a, b), key.cosine / n, kTolerance);
        ASSERT_NEAR(statistics.similarity()(a, b), 0.5 * (key.cosine + value.cosine) / n, kTolerance);
      }
  }
}

TEST(ActivationStatistics, AHeadIsLikeItselfAndAZeroVectorLikeNone) {
  nn::Matrix keys = random_matrix(10, kHeads * kKeyDim, 1), values = random_matrix(10, kHeads * kValueDim, 2);
  keys.block(0, kKeyDim, 5, kKeyDim).setZero();  // head 1 is zero in half of the tokens
  ActivationStatistics statistics(kHeads, kKeyDim, kValueDim);
  statistics.add(keys, values);
  EXPECT_NEAR(statistics.similarity()(0, 0), 1, kTolerance);
  EXPECT_NEAR(statistics.cosines().key(1, 1), 0.5, kTolerance);
  EXPECT_TRUE(statistics.similarity().allFinite());
}

TEST(ActivationStatistics, OfPiecesAndMergedOnesAreThoseOfTheWhole) {
  const nn::Matrix keys = random_matrix(150, kHeads * kKeyDim, 1), values = random_matrix(150, kHeads * kValueDim, 2);
  ActivationStatistics whole(kHeads, kKeyDim, kValueDim), pieces(kHeads, kKeyDim, kValueDim),
      rest(kHeads, kKeyDim, kValueDim);
  whole.add(keys, values);
  pieces.add(keys.topRows(1), values.topRows(1));
  pieces.add(keys.middleRows(1, 0), values.middleRows(1, 0));
  pieces.add(keys.middleRows(1, 70), values.middleRows(1, 70));
  rest.add(keys.bottomRows(79), values.bottomRows(79));
  pieces.merge(rest);
  EXPECT_EQ(pieces.num_tokens(), 150);
  EXPECT_TRUE(pieces.gram().key.isApprox(whole.gram().key, kTolerance));
  EXPECT_TRUE(pieces.gram().value.isApprox(whole.gram().value, kTolerance));
  EXPECT_TRUE(pieces.similarity().isApprox(whole.similarity(), kTolerance));
}

TEST(ActivationStatistics, OfInputsAreThoseOfTheKeysAndValuesTheyMake) {
  for (const bool biases : {false, true}) {
    const AttentionWeights w = random_weights(6, kHeads, kKeyDim, kValueDim, 16, biases);
    const nn::Matrix x = random_matrix(130, 16, 3);
    ActivationStatistics of_inputs(w), of_keys(w), threaded(w);
    of_inputs.add_inputs(x, w);
    nn::Matrix keys = x * w.key.transpose(), values = x * w.value.transpose();
    if (biases) {
      keys.rowwise() += w.key_bias.transpose();
      values.rowwise() += w.value_bias.transpose();
    }
    of_keys.add(keys, values);
    EXPECT_EQ(of_inputs.num_tokens(), 130);
    // two float products of 16 terms, added in different orders
    EXPECT_TRUE(of_inputs.gram().sum().isApprox(of_keys.gram().sum(), 16 * 0x1p-24));
    EXPECT_TRUE(of_inputs.similarity().isApprox(of_keys.similarity(), 16 * 0x1p-24));
    ThreadPool pool(2);
    threaded.add_inputs(x, w, pool);
    EXPECT_EQ(threaded.gram().key, of_inputs.gram().key);
  }
}

TEST(ActivationStatistics, KeysAfterRopeGiveTheSameProducts) {
  const Index tokens = 40;
  nn::Matrix keys = random_matrix(tokens, kHeads * kKeyDim, 1);
  const nn::Matrix values = random_matrix(tokens, kHeads * kValueDim, 2);
  ActivationStatistics before(kHeads, kKeyDim, kValueDim), after(kHeads, kKeyDim, kValueDim);
  before.add(keys, values);
  Rope(kKeyDim).apply(View<float>(keys.data(), tokens, kHeads, kKeyDim), 7);
  after.add(keys, values);
  EXPECT_TRUE(after.gram().key.isApprox(before.gram().key, 8 * 0x1p-24));
}

TEST(ActivationStatistics, RefuseNumbersThatAreNotFiniteAndAddNothing) {
  const float bad_numbers[] = {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()};
  for (const float bad : bad_numbers) {
    nn::Matrix keys = random_matrix(100, kHeads * kKeyDim, 1), values = random_matrix(100, kHeads * kValueDim, 2);
    ActivationStatistics statistics(kHeads, kKeyDim, kValueDim);
    values(99, 2 * kValueDim + 3) = bad;
    expect_error([&] { statistics.add(keys, values); }, {"values", "at token 99, head 2, dimension 3", "finite"});
    keys(70, 1) = bad;
    expect_error([&] { statistics.add(keys, values); }, {"keys", "at token 70, head 0, dimension 1", "finite"});
    EXPECT_EQ(statistics.num_tokens(), 0);

    const AttentionWeights w = random_weights(6, kHeads, kKeyDim, kValueDim, 16, false);
    nn::Matrix x = random_matrix(100, 16, 3);
    x(80, 4) = bad;
    expect_error([&] { statistics.add_inputs(x, w); }, {"x (", "at token 80", "dimension 4"});
    x = random_matrix(100, 16, 3);
    x.row(90).setConstant(std::numeric_limits<float>::max());  // finite, but its keys are not
    AttentionWeights large = w;
    large.key.setConstant(2.0f);
    expect_error([&] { statistics.add_inputs(x, large); }, {"keys (inf"});
    EXPECT_EQ(statistics.num_tokens(), 0) << "the blocks before it are not added either";
  }
}

TEST(ActivationStatistics, HaveNoResultsWithoutTokens) {
  ActivationStatistics statistics(kHeads, kKeyDim, kValueDim);
  statistics.add(nn::Matrix(0, kHeads * kKeyDim), nn::Matrix(0, kHeads * kValueDim));
  expect_error([&] { statistics.gram(); }, {"num_tokens (0)", "at least 1", "calibration"});
  expect_error([&] { statistics.cosines(); }, {"num_tokens (0)"});
  expect_error([&] { statistics.similarity(); }, {"num_tokens (0)"});
}

TEST(ActivationStatistics, RefuseShapesThatDisagree) {
  ActivationStatistics statistics(kHeads, kKeyDim, kValueDim);
  expect_error([&] { statistics.add(nn::Matrix(2, 11), nn::Matrix(2, 15)); }, {"keys (2 x 11)", "12 columns"});
  expect_error([&] { statistics.add(nn::Matrix::Zero(2, 12), nn::Matrix(2, 12)); }, {"values (2 x 12)", "15 columns"});
  expect_error([&] { statistics.add(nn::Matrix::Zero(2, 12), nn::Matrix::Zero(3, 15)); },
               {"keys (2 tokens)", "values (3 tokens)"});
  const AttentionWeights w = random_weights(6, kHeads, kKeyDim, kValueDim, 16, false);
  expect_error([&] { statistics.add_inputs(nn::Matrix::Zero(2, 15), w); }, {"x (2 x 15)", "16 columns"});
  expect_error([&] { ActivationStatistics(2, 4, 5).add_inputs(nn::Matrix::Zero(2, 16), w); },
               {"weights (num_kv_heads 3", "must have num_kv_heads 2"});
  expect_error([&] { statistics.merge(ActivationStatistics(3, 4, 4)); }, {"value_dim 4", "value_dim 5"});
  expect_error([] { ActivationStatistics(0, 4, 4); }, {"num_kv_heads (0)"});
  expect_error([] { ActivationStatistics(1, 0, 4); }, {"head_dim (0)"});
  expect_error([] { ActivationStatistics(1, 4, -1); }, {"value_dim (-1)"});
}

}  // namespace
}  // namespace headwise::regroup
