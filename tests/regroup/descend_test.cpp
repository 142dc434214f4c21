// SPDX-License-Identifier: MIT
#include "headwise/regroup/search/asym_gqa.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "headwise/regroup/qcqa/weight_sharing_error.hpp"
#include "tests/regroup/layer_weights.hpp"
#include "tests/support/errors.hpp"

namespace headwise::regroup {
namespace {

using testing::LayerWeights;

WeightDistances distances_of(const LayerWeights& layer) {
  return WeightDistances(layer.key, layer.value, {.head_dim = layer.head_dim, .value_dim = layer.value_dim});
}

// Gains below 1e-12 of the error of a single group are rounding to descend(); the errors here are above a hundredth of it.
constexpr double kRelative = 1e-10;

TEST(Descend, ends_where_no_move_and_no_exchange_lowers_the_error) {
  for (unsigned seed = 0; seed < 8; ++seed) {
    const LayerWeights layer = testing::random_layer(11, seed);
    const WeightDistances distances = distances_of(layer);
    const Partition start = Partition::neighbours(11, 4), end = descend(distances.gram(), start).partition;
    EXPECT_LE(distances.error(end), distances.error(start));
    ASSERT_EQ(end.num_groups(), 4);
    const double least =
        testing::naive_sharing_error(layer, {end.labels().begin(), end.labels().end()}) * (1 - kRelative);
    std::vector<Index> labels(end.labels().begin(), end.labels().end());
    for (Index& label : labels) {
      const Index own = label;
      for (label = 0; label < 4; ++label)
        if (end.heads_of(own).size() > 1) {
          EXPECT_GE(testing::naive_sharing_error(layer, labels), least);
        }
      label = own;
      for (Index& other : labels) {
        std::swap(label, other);
        EXPECT_GE(testing::naive_sharing_error(layer, labels), least);
        std::swap(label, other);
      }
    }
  }
}

TEST(Descend, finds_planted_groups_of_unequal_sizes) {
  const std::vector<Index> planted{0, 1, 1, 2, 1, 0, 1, 2, 1, 1, 0, 1};
  const WeightDistances distances = distances_of(testing::planted_layer(planted, 0.1f, 3));
  EXPECT_EQ(descend(distances.gram(), Partition::neighbours(12, 3)).partition, Partition::from_labels(planted));
}

TEST(Descend, keeps_sizes_where_told_to) {
  const std::vector<Index> planted{0, 1, 1, 2, 1, 0, 1, 2, 1, 1, 0, 1};
  const WeightDistances distances = distances_of(testing::planted_layer(planted, 0.1f, 3));
  const Partition start = Partition::neighbours(12, 3),
                  kept = descend(distances.gram(), start, GroupSizes::kept).partition;
  EXPECT_TRUE(kept.has_equal_sizes());
  EXPECT_LT(distances.error(kept), distances.error(start));
  EXPECT_GT(distances.error(kept), distances.error(descend(distances.gram(), start).partition));
}

TEST(Descend, ends_where_all_heads_are_equal_and_where_all_are_apart) {
  const WeightDistances equal = WeightDistances::from_matrix(Eigen::MatrixXd::Zero(6, 6));
  EXPECT_EQ(descend(equal.gram(), Partition::neighbours(6, 3)).partition, Partition::neighbours(6, 3));
  const WeightDistances distances = distances_of(testing::random_layer(6, 1));
  EXPECT_EQ(descend(distances.gram(), Partition::contiguous(6, 6)).partition, Partition::contiguous(6, 6));
  EXPECT_EQ(descend(distances.gram(), Partition::contiguous(6, 1)).partition, Partition::contiguous(6, 1));
}

TEST(Descend, refuses_a_partition_of_other_heads) {
  const WeightDistances equal = WeightDistances::from_matrix(Eigen::MatrixXd::Zero(6, 6));
  testing::expect_error([&] { descend(equal.gram(), Partition::contiguous(4, 2)).partition; },
                        {"partition (4 heads)", "(6)"});
}

}  // namespace
}  // namespace headwise::regroup
