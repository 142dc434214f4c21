// SPDX-License-Identifier: MIT
#include "headwise/regroup/qcqa/weight_sharing_error.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "tests/regroup/layer_weights.hpp"
#include "tests/support/errors.hpp"

namespace headwise::regroup {
namespace {

using testing::expect_error;
using testing::LayerWeights;
using testing::random_layer;

WeightDistances distances_of(const LayerWeights& layer) {
  return WeightDistances(layer.key, layer.value, {.head_dim = layer.head_dim, .value_dim = layer.value_dim});
}

// Both sides sum some hundred squares in double: relative errors of 1e-13 at most.
constexpr double kRelative = 1e-12;

TEST(WeightSharingError, is_the_squared_distance_of_keys_and_values_from_their_groups_means) {
  for (unsigned seed = 0; seed < 4; ++seed) {
    const LayerWeights layer = random_layer(6, seed);
    const WeightDistances distances = distances_of(layer);
    std::vector<Index> labels(6);
    int partitions = 0;
    auto visit = [&](const std::vector<Index>& of, Index) {
      ++partitions;
      const double expected = testing::naive_sharing_error(layer, of);
      EXPECT_NEAR(distances.error(Partition::from_labels(of)), expected, kRelative * expected);
    };
    testing::naive_partitions(labels, 0, 0, visit);
    EXPECT_EQ(partitions, 203);  // Bell(6)
  }
}

TEST(WeightSharingError, of_two_heads_is_half_their_squared_distance) {
  nn::Matrix key(2, 2), value(4, 2);
  key << 1, 2, 4, 6;                  // 3, 4 apart: 25
  value << 0, 0, 1, 1, 0, 2, 1, -11;  // 2 and 12 apart: 148
  const WeightDistances distances(key, value, {.head_dim = 1, .value_dim = 2});
  EXPECT_EQ(distances.num_heads(), 2);
  EXPECT_EQ(distances.squared_distance(0, 1), 173.0);
  EXPECT_EQ(distances.error(Partition::contiguous(2, 1)), 86.5);
}

TEST(WeightSharingError, is_exactly_zero_where_nothing_is_shared_and_where_equal_heads_share) {
  LayerWeights layer = random_layer(5, 7);
  layer.key.middleRows(4 * layer.head_dim, layer.head_dim) =
      layer.key.middleRows(layer.head_dim, layer.head_dim).eval();
  layer.value.middleRows(4 * layer.value_dim, layer.value_dim) =
      layer.value.middleRows(layer.value_dim, layer.value_dim).eval();
  const WeightDistances distances = distances_of(layer);
  EXPECT_EQ(distances.error(Partition::contiguous(5, 5)), 0.0);
  EXPECT_EQ(distances.error(Partition::from_labels(std::vector<Index>{0, 1, 2, 3, 1})), 0.0);
  EXPECT_GT(distances.error(Partition::from_labels(std::vector<Index>{0, 1, 2, 3, 0})), 0.0);
}

TEST(WeightSharingError, reads_rows_longer_than_a_stretch_and_blocks_of_larger_matrices) {
  const nn::Matrix all = testing::random_matrix(8, 1400, 3);
  const auto block = all.block(0, 100, 8, 1100);
  const WeightDistances distances(block, block, {.head_dim = 2});
  double expected = 0;
  for (Index i = 0; i < 2; ++i)
    for (Index j = 100; j < 1200; ++j) {
      const double difference = static_cast<double>(all(2 + i, j)) - static_cast<double>(all(6 + i, j));
      expected += 2 * difference * difference;
    }
  EXPECT_NEAR(distances.squared_distance(1, 3), expected, kRelative * expected);
}

TEST(WeightSharingError, refuses_shapes_that_disagree) {
  const nn::Matrix empty(0, 8);
  const nn::Matrix weight = nn::Matrix::Zero(12, 8);
  expect_error([&] { WeightDistances(weight, weight, {.head_dim = 3, .value_dim = 4}); },
               {"key (4 heads of 3)", "value (3 heads of 4)", "same number of heads"});
  expect_error([&] { WeightDistances(weight, nn::Matrix::Zero(12, 9), {.head_dim = 3}); },
               {"key (8 columns)", "value (9 columns)"});
  expect_error([&] { WeightDistances(weight, weight, {.head_dim = 5}); }, {"key (12 rows)", "head_dim (5)"});
  expect_error([&] { WeightDistances(weight, weight, {.head_dim = 3, .value_dim = 8}); },
               {"value (12 rows)", "value_dim (8)"});
  expect_error([&] { WeightDistances(weight, weight, {.head_dim = 0}); }, {"head_dim (0)", "at least 1"});
  expect_error([&] { WeightDistances(empty, weight, {.head_dim = 3}); }, {"key (0 x 8)", "at least 1 head"});
  expect_error([&] { WeightDistances(weight, weight, {.head_dim = 3}).error(Partition::contiguous(5, 1)); },
               {"partition (5 heads)", "(4)"});
}

TEST(WeightSharingError, refuses_weights_that_are_not_finite) {
  const nn::Matrix good = nn::Matrix::Zero(4, 3);
  for (const float value : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    nn::Matrix bad = good;
    bad(2, 1) = value;
    expect_error([&] { WeightDistances(bad, good, {.head_dim = 2}); }, {"key[2][1]", "must be finite"});
    expect_error([&] { WeightDistances(good, bad, {.head_dim = 2}); }, {"value[2][1]", "must be finite"});
  }
}

TEST(WeightSharingError, takes_distances_of_any_kind_and_refuses_what_is_none) {
  Eigen::MatrixXd squared = Eigen::MatrixXd::Zero(3, 3);
  squared << 0, 4, 6, 4, 0, 2, 6, 2, 0;
  EXPECT_EQ(WeightDistances::from_matrix(squared).error(Partition::contiguous(3, 1)), 4.0);  // (4 + 6 + 2) / 3
  const auto refuse = [&](Index row, Index column, double value, std::initializer_list<std::string_view> parts) {
    Eigen::MatrixXd bad = squared;
    bad(row, column) = value;
    expect_error([&] { WeightDistances::from_matrix(bad); }, parts);
  };
  refuse(0, 1, 5, {"[0][1] (5)", "symmetric"});
  refuse(1, 1, 1, {"[1][1] (1)", "0 between a head and itself"});
  refuse(1, 2, -2, {"[1][2] (-2)", "at least 0"});
  refuse(0, 2, std::numeric_limits<double>::quiet_NaN(), {"[0][2]", "finite"});
  expect_error([&] { WeightDistances::from_matrix(Eigen::MatrixXd::Zero(2, 3)); }, {"(2 x 3)", "square"});
  expect_error([&] { WeightDistances::from_matrix(Eigen::MatrixXd::Zero(0, 0)); }, {"(0 x 0)", "at least 1 head"});
}

}  // namespace
}  // namespace headwise::regroup
