// SPDX-License-Identifier: MIT
#include "headwise/regroup/qcqa/layer.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include "headwise/regroup/qcqa/output.hpp"
#include "tests/regroup/layer_weights.hpp"
#include "tests/support/errors.hpp"

namespace headwise::regroup {
namespace {

using testing::expect_error;
using testing::LayerWeights;
using testing::planted_layer;
using testing::random_layer;

WeightDistances distances_of(const LayerWeights& layer) {
  return WeightDistances(layer.key, layer.value, {.head_dim = layer.head_dim, .value_dim = layer.value_dim});
}

std::vector<LayerWeights> layers_of(Index num_heads) {
  std::vector<LayerWeights> layers;
  for (unsigned seed = 0; seed < 3; ++seed) layers.push_back(random_layer(num_heads, seed));
  for (unsigned seed = 10; seed < 12; ++seed) {
    std::vector<Index> clusters{0, 1, 2};  // of sizes 1, 1 and the rest, in an order that no cut of neighbours makes
    for (Index h = 3; h < num_heads; ++h) clusters.push_back(h % 4 == 3 ? 0 : 2);
    layers.push_back(planted_layer(clusters, 0.2f, seed));
  }
  return layers;
}

// Every point of the naive front is in `front` and nothing else is. Errors are sums of some hundred squares in double.
void expect_whole_front(const LayerFront& front, const std::vector<double>& best_errors) {
  const Index num_heads = std::ssize(best_errors) - 1;
  double least = std::numeric_limits<double>::infinity();
  Index place = 0;
  for (Index groups = 1; groups <= num_heads; ++groups) {
    const double error = best_errors[static_cast<std::size_t>(groups)];
    if (!(error < least)) continue;
    least = error;
    ASSERT_LT(place, front.size()) << "no point of " << groups << " groups";
    EXPECT_EQ(front[place].solution.num_groups(), groups);
    EXPECT_EQ(front[place].objectives[kCapacity], static_cast<double>(groups) / static_cast<double>(num_heads));
    EXPECT_NEAR(front[place].objectives[kSharingError], error, 1e-12 * error) << groups << " groups";
    ++place;
  }
  EXPECT_EQ(place, front.size());
}

const auto any = [](const std::vector<Index>&, Index) { return true; };

class SmallLayers : public ::testing::TestWithParam<Index> {};
INSTANTIATE_TEST_SUITE_P(Heads, SmallLayers, ::testing::Values(1, 2, 6, 7, 8, 9), ::testing::PrintToStringParamName());

TEST_P(SmallLayers, evolution_alone_finds_every_point_of_the_true_front) {
  for (const LayerWeights& layer : layers_of(GetParam())) {
    const std::vector<double> best = naive_best_errors(layer, any);
    for (std::uint64_t seed = 1; seed <= 2; ++seed)
      expect_whole_front(qcqa_front(distances_of(layer),
                                    {.start_from_neighbours = false, .refine = false, .evolution = {.seed = seed}}),
                         best);
  }
}

TEST_P(SmallLayers, exhaustion_and_default_options_give_the_true_front) {
  for (const LayerWeights& layer : layers_of(GetParam())) {
    const std::vector<double> best = naive_best_errors(layer, any);
    expect_whole_front(exhaustive_front(distances_of(layer)), best);
    expect_whole_front(qcqa_front(distances_of(layer)), best);
  }
}

TEST_P(SmallLayers, simulated_binary_crossover_finds_the_true_front_too) {
  const LayerWeights layer = layers_of(GetParam())[4];
  expect_whole_front(qcqa_front(distances_of(layer), {.crossover = GroupCrossover::simulated_binary}),
                     naive_best_errors(layer, any));
}

TEST_P(SmallLayers, equal_cardinality_finds_the_best_groups_of_every_size) {
  const auto equal = [](const std::vector<Index>& labels, Index groups) {
    std::vector<Index> sizes(static_cast<std::size_t>(groups), 0);
    for (const Index label : labels) ++sizes[static_cast<std::size_t>(label)];
    return std::ranges::count(sizes, sizes[0]) == groups;
  };
  const QcqaOptions evolved{.cardinality = Cardinality::equal, .start_from_neighbours = false, .refine = false};
  for (const LayerWeights& layer : layers_of(GetParam())) {
    const std::vector<double> best = naive_best_errors(layer, equal);
    expect_whole_front(qcqa_front(distances_of(layer), evolved), best);
    expect_whole_front(qcqa_front(distances_of(layer), {.cardinality = Cardinality::equal}), best);
    expect_whole_front(exhaustive_front(distances_of(layer), {.cardinality = Cardinality::equal}), best);
  }
}

TEST(Qcqa, makes_at_most_max_groups) {
  const LayerWeights layer = random_layer(8, 5);
  const auto few = [](const std::vector<Index>&, Index groups) { return groups <= 3; };
  const std::vector<double> best = naive_best_errors(layer, few);
  for (const GroupCrossover crossover : {GroupCrossover::whole_groups, GroupCrossover::simulated_binary})
    expect_whole_front(qcqa_front(distances_of(layer), {.max_groups = 3, .crossover = crossover}), best);
  expect_whole_front(exhaustive_front(distances_of(layer), {.max_groups = 3}), best);
}

TEST(Qcqa, recovers_planted_groups_of_unequal_sizes_among_32_heads) {
  std::vector<Index> planted(32, 3);
  for (const std::size_t h : {1u, 9u, 30u}) planted[h] = 0;
  for (const std::size_t h : {2u, 3u, 4u, 17u, 20u, 25u, 28u}) planted[h] = 1;
  planted[13] = 2;
  const WeightDistances distances = distances_of(planted_layer(planted, 0.1f, 21));
  const LayerFront front = qcqa_front(distances, {.evolution = {.population = 60, .generations = 60}});
  EXPECT_EQ(best_within(front, 4).solution, Partition::from_labels(planted));
  const LayerFront equal = qcqa_front(
      distances,
      {.cardinality = Cardinality::equal, .group_sizes = {8}, .evolution = {.population = 60, .generations = 60}});
  ASSERT_EQ(equal.size(), 1);
  EXPECT_TRUE(equal[0].solution.has_equal_sizes());
  EXPECT_EQ(equal[0].solution.num_groups(), 4);
  EXPECT_GT(equal[0].objectives[kSharingError], best_within(front, 4).objectives[kSharingError]);
}

TEST(Qcqa, is_never_worse_than_groups_of_neighbours) {
  const WeightDistances distances = distances_of(random_layer(24, 2));
  const QcqaOptions short_run{.refine = false, .evolution = {.population = 10, .generations = 1}};
  const LayerFront front = qcqa_front(distances, short_run);
  for (Index groups = 1; groups <= 24; ++groups)
    EXPECT_LE(best_within(front, groups).objectives[kSharingError], distances.error(Partition::neighbours(24, groups)));
}

TEST(Qcqa, takes_fewer_groups_where_heads_are_equal) {
  const WeightDistances distances = distances_of(planted_layer({0, 1, 0, 2, 1, 0}, 0.0f, 4));
  const LayerFront front = qcqa_front(distances);
  ASSERT_EQ(front.size(), 3);
  EXPECT_EQ(front[2].solution.text(), "0 2 5 | 1 4 | 3");
  EXPECT_EQ(front[2].objectives[kSharingError], 0.0);
}

TEST(Qcqa, a_front_gives_the_best_grouping_within_a_number_of_groups) {
  const LayerFront front = exhaustive_front(distances_of(random_layer(6, 8)), {.cardinality = Cardinality::equal});
  EXPECT_EQ(best_within(front, 6).solution.num_groups(), 6);
  EXPECT_EQ(best_within(front, 5).solution.num_groups(), 3);  // of 1, 2, 3 and 6
  expect_error([&] { best_within(front, 0); }, {"max_groups (0)", "front"});
}

TEST(Qcqa, refuses_options_that_fit_no_layer) {
  const WeightDistances distances = distances_of(random_layer(6, 1));
  for (const Cardinality cardinality : {Cardinality::arbitrary, Cardinality::equal}) {
    expect_error([&] { qcqa_front(distances, {.cardinality = cardinality, .max_groups = 7}); },
                 {"max_groups (7)", "1 to num_heads (6)"});
    expect_error([&] { qcqa_front(distances, {.cardinality = cardinality, .max_groups = 0}); }, {"max_groups (0)"});
    expect_error([&] { qcqa_front(distances, {.cardinality = cardinality, .evolution = {.population = 0}}); },
                 {"population (0)"});
    expect_error([&] { exhaustive_front(distances, {.cardinality = cardinality, .max_groups = 7}); },
                 {"max_groups (7)"});
  }
  expect_error(
      [&] {
        qcqa_front(distances, {.cardinality = Cardinality::equal, .group_sizes = {2, 4}});
      },
      {"group_sizes[1] (4)", "divide num_heads (6)"});
  expect_error([&] { qcqa_front(distances, {.cardinality = Cardinality::equal, .group_sizes = {0}}); },
               {"group_sizes[0] (0)"});
  expect_error([&] { qcqa_front(distances, {.cardinality = Cardinality::equal, .max_groups = 2, .group_sizes = {2}}); },
               {"group_sizes[0] (2) makes 3 groups", "max_groups (2)"});
  expect_error([&] { exhaustive_front(WeightDistances::from_matrix(Eigen::MatrixXd::Zero(13, 13))); },
               {"num_heads (13)", "at most 12", "qcqa_front"});
}

TEST(Qcqa, writes_a_front_as_a_table_and_as_csv) {
  Eigen::MatrixXd squared(3, 3);
  squared << 0, 0.2, 6, 0.2, 0, 2, 6, 2, 0;
  const LayerFront front = qcqa_front(WeightDistances::from_matrix(squared));
  std::ostringstream table, csv;
  write_table(table, front);
  write_csv(csv, front);
  EXPECT_EQ(table.str(),
            "capacity    error  groups  partition\n"
            "0.333333  2.73333       1  0 1 2\n"
            "0.666667      0.1       2  0 1 | 2\n"
            "       1        0       3  0 | 1 | 2\n");
  EXPECT_EQ(csv.str(),
            "capacity,error,groups,partition\n"
            "0.3333333333333333,2.733333333333333,1,0 1 2\n"
            "0.6666666666666666,0.1,2,0 1 | 2\n"
            "1,0,3,0 | 1 | 2\n");
}

}  // namespace
}  // namespace headwise::regroup
