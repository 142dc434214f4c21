// SPDX-License-Identifier: MIT
#include "headwise/regroup/convert/alignment.hpp"

#include <gtest/gtest.h>

#include <Eigen/QR>
#include <cmath>
#include <numbers>
#include <string>
#include <vector>

#include "headwise/regroup/module.hpp"
#include "headwise/regroup/search/pooling_error.hpp"
#include "tests/regroup/random_weights.hpp"
#include "tests/support/errors.hpp"

namespace headwise::regroup {
namespace {

using namespace headwise::testing;
using List = std::vector<Index>;

constexpr Index kKeyDim = 16, kValueDim = 6, kHidden = 48;

Eigen::MatrixXd random_orthogonal(Index dim, unsigned seed) {
  const Eigen::MatrixXd any = random_matrix(dim, dim, seed).cast<double>();
  return Eigen::HouseholderQR<Eigen::MatrixXd>(any).householderQ();
}

/// A rotation in every plane of RoPE, by angles up to `most`, and any rotation of the other dimensions.
Eigen::MatrixXd random_rope_rotation(const std::optional<nn::RopeOptions>& options, double most, unsigned seed) {
  if (!options) return random_orthogonal(kKeyDim, seed);
  const Index rotary = options->rotary_dim > 0 ? options->rotary_dim : kKeyDim, pairs = rotary / 2;
  Eigen::MatrixXd r = Eigen::MatrixXd::Identity(kKeyDim, kKeyDim);
  const nn::Matrix angles = random_matrix(1, pairs, seed);
  for (Index i = 0; i < pairs; ++i) {
    const bool interleaved = options->style == nn::RopeStyle::interleaved;
    const Index a = interleaved ? 2 * i : i, b = interleaved ? 2 * i + 1 : i + pairs;
    const double angle = most * static_cast<double>(angles(0, i));
    r(a, a) = r(b, b) = std::cos(angle);
    r(b, a) = std::sin(angle);
    r(a, b) = -std::sin(angle);
  }
  const Index rest = kKeyDim - rotary;
  if (rest > 0) r.bottomRightCorner(rest, rest) = random_orthogonal(rest, seed + 1);
  return r;
}

struct Case {
  const char* name;
  std::optional<nn::RopeOptions> rope;
};

class Alignment : public ::testing::TestWithParam<Case> {
 protected:
  AlignmentOptions options() const { return {.rope = GetParam().rope}; }
  nn::Matrix run(const AttentionWeights& w) const {
    return to_module(w, {.rope = GetParam().rope}).forward(random_matrix(60, kHidden, 8));
  }
  /// Multi-head attention whose heads of a group are one head in bases of their own.
  AttentionWeights rotated_copies(const Partition& partition) const {
    AttentionWeights w =
        random_weights(partition.num_heads(), partition.num_heads(), kKeyDim, kValueDim, kHidden, true);
    for (Index h = 0; h < partition.num_heads(); ++h) {
      const Index first = partition.heads_of(partition.group_of(h)).front();
      if (h == first) continue;
      const auto seed = static_cast<unsigned>(50 + h);
      const Eigen::MatrixXf turn_key = random_rope_rotation(GetParam().rope, std::numbers::pi, seed).cast<float>();
      const Eigen::MatrixXf turn_value = random_orthogonal(kValueDim, seed + 40).cast<float>();
      w.key_block(h) = turn_key * w.key_block(first);
      w.key_bias.segment(h * kKeyDim, kKeyDim) = turn_key * w.key_bias.segment(first * kKeyDim, kKeyDim);
      w.value_block(h) = turn_value * w.value_block(first);
      w.value_bias.segment(h * kValueDim, kValueDim) = turn_value * w.value_bias.segment(first * kValueDim, kValueDim);
    }
    return w;
  }
};

double weight_error(const AttentionWeights& w, const Partition& partition) {
  return pooling_error(weight_gram(w).sum(), partition);
}

TEST_P(Alignment, LeavesWhatTheLayerComputes) {
  for (const auto& [heads, kv_heads] : {std::pair<Index, Index>{6, 6}, {12, 6}})
    for (const List& labels : {List{0, 0, 0, 1, 1, 1}, {0, 1, 0, 2, 1, 0}, {0, 0, 0, 0, 0, 0}}) {
      const AttentionWeights w = random_weights(heads, kv_heads, kKeyDim, kValueDim, kHidden, true);
      const AttentionWeights aligned = align(w, partition_of(labels), options());
      EXPECT_NE(aligned.key, w.key);
      EXPECT_NE(aligned.value, w.value);
      EXPECT_LE(distance(run(aligned), run(w)), kForwardTolerance);
    }
}

TEST_P(Alignment, LeavesALayerWithAnyMapAndNoBiases) {
  AttentionWeights w = random_weights(9, 3, kKeyDim, kValueDim, kHidden, false);
  w.head_map = HeadMap::arbitrary(List{2, 0, 2, 1, 2, 2, 2, 1, 2}, 3);
  const AttentionWeights aligned = align(w, Partition::contiguous(3, 1), options());
  EXPECT_NE(aligned.query, w.query);
  EXPECT_LE(distance(run(aligned), run(w)), kForwardTolerance);
}

TEST_P(Alignment, NeverRaisesTheErrorOfPooling) {
  for (unsigned seed = 1; seed <= 12; ++seed) {
    const AttentionWeights w = random_weights(6, 6, kKeyDim, kValueDim, kHidden, seed % 2 == 0, seed);
    for (const List& labels : {List{0, 0, 0, 1, 1, 1}, {0, 1, 0, 2, 1, 0}, {0, 0, 0, 0, 0, 0}, {0, 1, 2, 3, 4, 5}}) {
      const Partition partition = partition_of(labels);
      const AttentionWeights aligned = align(w, partition, options());
      const HeadGram before = weight_gram(w), after = weight_gram(aligned);
      EXPECT_LE(pooling_error(after.key, partition), pooling_error(before.key, partition));
      EXPECT_LE(pooling_error(after.value, partition), pooling_error(before.value, partition));
    }
  }
}

TEST_P(Alignment, HeadsThatDifferInTheirBasisPoolWithoutLoss) {
  const Partition partition = partition_of({0, 1, 0, 1, 1, 0});
  const AttentionWeights w = rotated_copies(partition);
  const double plain = weight_error(w, partition), aligned = weight_error(align(w, partition, options()), partition);
  const double energy = weight_gram(w).sum().trace();
  EXPECT_GT(plain, 0.3 * energy);
  EXPECT_LT(aligned, 1e-6 * energy);
  EXPECT_LE(distance(run(pool_aligned(w, partition, options())), run(w)), 1e-3);
  EXPECT_GT(distance(run(pool(w, partition)), run(w)), 1e-2);
}

TEST_P(Alignment, TwoHeadsMeetAtTheBestRotationThereIs) {
  // No rotation out of many tried, near and far, does better.
  const AttentionWeights w = random_weights(2, 2, kKeyDim, kValueDim, kHidden, true);
  const Partition partition = Partition::contiguous(2, 1);
  const HeadGram best = weight_gram(align(w, partition, options()));
  const AttentionWeights aligned = align(w, partition, options());
  for (unsigned seed = 1; seed <= 200; ++seed) {
    AttentionWeights other = aligned;
    const double most = seed % 2 == 0 ? 0.02 : std::numbers::pi;
    const Eigen::MatrixXf key = random_rope_rotation(GetParam().rope, most, seed).cast<float>();
    const Eigen::MatrixXf value = random_orthogonal(kValueDim, seed).cast<float>();
    other.key_block(1) = key * aligned.key_block(1);
    other.key_bias.tail(kKeyDim) = key * aligned.key_bias.tail(kKeyDim);
    other.value_block(1) = value * aligned.value_block(1);
    other.value_bias.tail(kValueDim) = value * aligned.value_bias.tail(kValueDim);
    const HeadGram gram = weight_gram(other);
    ASSERT_GE(pooling_error(gram.key, partition), pooling_error(best.key, partition) * (1 - 1e-6));
    ASSERT_GE(pooling_error(gram.value, partition), pooling_error(best.value, partition) * (1 - 1e-6));
  }
}

TEST_P(Alignment, TurnsOnlyWhatItIsAskedTo) {
  const AttentionWeights w = random_weights(6, 6, kKeyDim, kValueDim, kHidden, true);
  const Partition partition = Partition::contiguous(6, 2);
  AlignmentOptions keys = options(), values = options();
  keys.values = false;
  values.keys = false;
  const AttentionWeights turned_keys = align(w, partition, keys), turned_values = align(w, partition, values);
  EXPECT_EQ(turned_keys.value, w.value);
  EXPECT_EQ(turned_keys.output, w.output);
  EXPECT_NE(turned_keys.key, w.key);
  EXPECT_EQ(turned_values.key, w.key);
  EXPECT_EQ(turned_values.query, w.query);
  EXPECT_NE(turned_values.value, w.value);
}

INSTANTIATE_TEST_SUITE_P(Rope, Alignment,
                         ::testing::Values(Case{"half_split", nn::RopeOptions{}},
                                           Case{"interleaved",
                                                nn::RopeOptions{.style = nn::RopeStyle::interleaved, .base = 500.0}},
                                           Case{"half_split_partial", nn::RopeOptions{.rotary_dim = 10}},
                                           Case{"interleaved_partial",
                                                nn::RopeOptions{.style = nn::RopeStyle::interleaved, .rotary_dim = 4}},
                                           Case{"none", std::nullopt}),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(AlignmentOfHeads, LeavesHeadsThatAreAloneOrAlikeBitForBit) {
  const AttentionWeights w = random_weights(4, 4, kKeyDim, kValueDim, kHidden, true);
  const AttentionWeights same = align(w, Partition::contiguous(4, 4), {.rope = nn::RopeOptions{}});
  EXPECT_EQ(same.key, w.key);
  EXPECT_EQ(same.value, w.value);
  EXPECT_EQ(same.query, w.query);
  EXPECT_EQ(same.output, w.output);

  AttentionWeights copies = w;
  for (Index h = 1; h < 4; ++h) {
    copies.key_block(h) = w.key_block(0);
    copies.value_block(h) = w.value_block(0);
    copies.key_bias.segment(h * kKeyDim, kKeyDim) = w.key_bias.head(kKeyDim);
    copies.value_bias.segment(h * kValueDim, kValueDim) = w.value_bias.head(kValueDim);
  }
  EXPECT_EQ(align(copies, Partition::contiguous(4, 1)).query, copies.query);
  EXPECT_EQ(align(copies, Partition::contiguous(4, 1)).output, copies.output);
}

TEST(AlignmentOfHeads, SurvivesHeadsOfZeros) {
  AttentionWeights w = random_weights(3, 3, kKeyDim, kValueDim, kHidden, false);
  w.key_block(0).setZero();
  w.value_block(1).setZero();
  const AttentionWeights aligned = align(w, Partition::contiguous(3, 1), {.rope = nn::RopeOptions{}});
  aligned.check();
  EXPECT_LE(weight_error(aligned, Partition::contiguous(3, 1)), weight_error(w, Partition::contiguous(3, 1)));
}

TEST(AlignmentOfHeads, RefusesWhatDoesNotFit) {
  const AttentionWeights w = random_weights(4, 4, kKeyDim, kValueDim, kHidden, false);
  expect_error([&] { align(w, Partition::contiguous(6, 3)); }, {"partition (6 heads)", "num_kv_heads (4)"});
  expect_error([&] { align(w, Partition::contiguous(4, 2), {.rope = nn::RopeOptions{.rotary_dim = 18}}); },
               {"rotary_dim (18)"});
  expect_error([&] { align(w, Partition::contiguous(4, 2), {.rounds = 0}); }, {"rounds (0)"});
}

}  // namespace
}  // namespace headwise::regroup
