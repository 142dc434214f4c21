// SPDX-License-Identifier: MIT
#include "headwise/regroup/search/pooling_error.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "headwise/regroup/search/activations.hpp"
#include "headwise/regroup/convert/pooling.hpp"
#include "headwise/regroup/random.hpp"
#include "tests/regroup/random_weights.hpp"
#include "tests/support/errors.hpp"

namespace headwise::regroup {
namespace {

using headwise::testing::expect_error;
using headwise::testing::partition_of;
using headwise::testing::random_matrix;
using headwise::testing::random_weights;
using List = std::vector<Index>;

/// Σ_g Σ_{h in g} ‖x_h − mean of g‖²; row h of `vectors` is x_h.
double naive_error(const Eigen::MatrixXd& vectors, const Partition& partition, Index only = -1) {
  double sum = 0;
  for (Index g = 0; g < partition.num_groups(); ++g) {
    if (only >= 0 && g != only) continue;
    Eigen::RowVectorXd mean = Eigen::RowVectorXd::Zero(vectors.cols());
    for (const Index h : partition.heads_of(g)) mean += vectors.row(h);
    mean /= static_cast<double>(partition.heads_of(g).size());
    for (const Index h : partition.heads_of(g)) sum += (vectors.row(h) - mean).squaredNorm();
  }
  return sum;
}

Eigen::MatrixXd random_vectors(Index heads, Index length, unsigned seed) {
  return random_matrix(heads, length, seed).cast<double>();
}

// J is a difference of sums near 50 in double.
constexpr double kTolerance = 1e-11;

TEST(PoolingError, IsTheSquaredDistanceToTheMeanOfTheGroup) {
  const Eigen::MatrixXd x = random_vectors(7, 20, 1), gram = x * x.transpose();
  for (const List& labels : {List{0, 0, 0, 0, 0, 0, 0}, {0, 1, 2, 3, 4, 5, 6}, {0, 1, 0, 2, 1, 0, 0}}) {
    const Partition p = partition_of(labels);
    EXPECT_NEAR(pooling_error(gram, p), naive_error(x, p), kTolerance);
    const PoolingError state(gram, p);
    for (Index g = 0; g < p.num_groups(); ++g) EXPECT_NEAR(state.group_error(g), naive_error(x, p, g), kTolerance);
  }
}

TEST(PoolingError, OfHeadsThatStayAloneIsZero) {
  const Eigen::MatrixXd x = random_vectors(5, 9, 1);
  EXPECT_EQ(pooling_error(x * x.transpose(), Partition::contiguous(5, 5)), 0);
}

TEST(PoolingError, FollowsRandomMoves) {
  const Eigen::MatrixXd x = random_vectors(9, 20, 2), gram = x * x.transpose();
  PoolingError state(gram, Partition::contiguous(9, 3));
  Random random(1);
  for (int move = 0; move < 500; ++move) {
    const double before = state.total();
    double change = 0;
    if (random.below(2) == 0) {
      const Index h = random.below(9), to = random.below(3);
      change = state.relocation_change(h, to);
      state.relocate(h, to);
      ASSERT_EQ(state.group_of(h), to);
    } else {
      const Index a = random.below(9), b = random.below(9), of_a = state.group_of(a), of_b = state.group_of(b);
      change = state.swap_change(a, b);
      state.swap(a, b);
      ASSERT_EQ(state.group_of(a), of_b);
      ASSERT_EQ(state.group_of(b), of_a);
    }
    Index heads = 0;
    for (Index g = 0; g < 3; ++g) heads += state.size(g);
    ASSERT_EQ(heads, 9);
    ASSERT_NEAR(state.total() - before, change, kTolerance);
    ASSERT_NEAR(state.total(), naive_error(x, state.partition()), 500 * kTolerance) << "after " << move;
  }
}

TEST(PoolingError, OfWeightsIsWhatMeanPoolingLoses) {
  for (const bool biases : {false, true}) {
    const AttentionWeights w = random_weights(6, 6, 4, 3, 8, biases);
    const Partition p = partition_of({0, 1, 0, 2, 1, 0});
    const AttentionWeights pooled = pool(w, p);
    double keys = 0, values = 0;
    for (Index h = 0; h < 6; ++h) {
      const Index g = p.group_of(h);
      keys += (w.key_block(h) - pooled.key_block(g)).cast<double>().squaredNorm();
      values += (w.value_block(h) - pooled.value_block(g)).cast<double>().squaredNorm();
      if (!biases) continue;
      keys += (w.key_bias.segment(h * 4, 4) - pooled.key_bias.segment(g * 4, 4)).cast<double>().squaredNorm();
      values += (w.value_bias.segment(h * 3, 3) - pooled.value_bias.segment(g * 3, 3)).cast<double>().squaredNorm();
    }
    const HeadGram gram = weight_gram(w);
    // float differences of numbers near 1
    EXPECT_NEAR(pooling_error(gram.key, p), keys, 0x1p-20 * keys);
    EXPECT_NEAR(pooling_error(gram.value, p), values, 0x1p-20 * values);
    EXPECT_NEAR(pooling_error(gram.sum(), p), keys + values, 0x1p-20 * (keys + values));
  }
}

TEST(PoolingError, OfActivationsIsWhatTheKeysAndValuesOfThePooledLayerLose) {
  const AttentionWeights w = random_weights(6, 6, 4, 3, 16, true);
  const nn::Matrix x = random_matrix(100, 16, 4);
  ActivationStatistics statistics(w);
  statistics.add_inputs(x, w);
  const Partition p = partition_of({0, 1, 0, 2, 1, 0});
  const AttentionWeights pooled = pool(w, p);
  const auto activations = [&](const nn::Matrix& weight, const nn::Vector& bias) {
    Eigen::MatrixXd y = x.cast<double>() * weight.transpose().cast<double>();
    y.rowwise() += bias.transpose().cast<double>();
    return y;
  };
  const Eigen::MatrixXd k = activations(w.key, w.key_bias), v = activations(w.value, w.value_bias);
  const Eigen::MatrixXd mean_k = activations(pooled.key, pooled.key_bias),
                        mean_v = activations(pooled.value, pooled.value_bias);
  double keys = 0, values = 0;
  for (Index h = 0; h < 6; ++h) {
    const Index g = p.group_of(h);
    keys += (k.middleCols(h * 4, 4) - mean_k.middleCols(g * 4, 4)).squaredNorm();
    values += (v.middleCols(h * 3, 3) - mean_v.middleCols(g * 3, 3)).squaredNorm();
  }
  // keys and values in float, their products in double
  EXPECT_NEAR(pooling_error(statistics.gram().key, p), keys, 0x1p-19 * keys);
  EXPECT_NEAR(pooling_error(statistics.gram().value, p), values, 0x1p-19 * values);
}

TEST(HeadGram, BalancedWeighsKeysAndValuesAlike) {
  const Eigen::MatrixXd k = random_vectors(4, 9, 1) * 30, v = random_vectors(4, 5, 2);
  const HeadGram gram{k * k.transpose(), v * v.transpose()};
  EXPECT_NEAR(gram.balanced().trace(), 2, kTolerance);
  const Partition p = Partition::contiguous(4, 2);
  EXPECT_NEAR(pooling_error(gram.balanced(), p),
              naive_error(k, p) / k.squaredNorm() + naive_error(v, p) / v.squaredNorm(), kTolerance);
  const HeadGram without_keys{Eigen::MatrixXd::Zero(4, 4), v * v.transpose()};
  EXPECT_NEAR(without_keys.balanced().trace(), 1, kTolerance);
}

TEST(PoolingError, RefusesGramsThatAreNone) {
  const Partition p = Partition::contiguous(3, 1);
  const Eigen::MatrixXd x = random_vectors(3, 5, 1), good = x * x.transpose();
  Eigen::MatrixXd gram = good;
  gram(1, 2) = std::numeric_limits<double>::quiet_NaN();
  expect_error([&] { pooling_error(gram, p); }, {"gram(1, 2) (nan)", "finite"});
  gram(1, 2) = std::numeric_limits<double>::infinity();
  expect_error([&] { pooling_error(gram, p); }, {"gram(1, 2) (inf)", "finite"});
  gram(1, 2) = good(1, 2) + 1;
  expect_error([&] { pooling_error(gram, p); }, {"gram(2, 1)", "must equal gram(1, 2)"});
  expect_error([&] { pooling_error(good.topRows(2), p); }, {"gram (2 x 3)"});
  expect_error([&] { pooling_error(Eigen::MatrixXd(0, 0), p); }, {"gram (0 x 0)"});
  expect_error([&] { pooling_error(good, Partition::contiguous(4, 2)); }, {"partition (4 heads)", "(3)"});
}

}  // namespace
}  // namespace headwise::regroup
