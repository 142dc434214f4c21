// SPDX-License-Identifier: MIT
#include "headwise/regroup/qcqa/layers.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <random>
#include <sstream>
#include <vector>

#include "headwise/regroup/qcqa/output.hpp"
#include "tests/regroup/layer_weights.hpp"
#include "tests/support/errors.hpp"

namespace headwise::regroup {
namespace {

using testing::expect_error;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Errors are whole numbers, so that sums are exact in any order.
std::vector<LayerChoice> random_choices(Index layers, unsigned seed) {
  std::minstd_rand generator(seed);
  std::vector<LayerChoice> choices;
  for (Index l = 0; l < layers; ++l) {
    const Index groups = 1 + static_cast<Index>(generator() % 5);
    choices.push_back({Partition::neighbours(8, groups), static_cast<double>(generator() % 1000)});
  }
  return choices;
}

// KV heads left → the smallest error, over all 2^L masks.
std::map<Index, double> naive_best(const std::vector<LayerChoice>& layers, double max_error) {
  std::map<Index, double> best;
  for (unsigned mask = 0; mask < 1u << layers.size(); ++mask) {
    Index groups = 0;
    double error = 0;
    bool allowed = true;
    for (std::size_t l = 0; l < layers.size(); ++l) {
      const bool grouped = mask >> l & 1;
      groups += grouped ? layers[l].partition.num_groups() : layers[l].partition.num_heads();
      error += grouped ? layers[l].error : 0;
      allowed = allowed && !(grouped && layers[l].error > max_error);
    }
    if (!allowed) continue;
    const auto [entry, is_new] = best.emplace(groups, error);
    if (!is_new) entry->second = std::min(entry->second, error);
  }
  return best;
}

template <class Front>
void expect_whole_front(const Front& front, const std::map<Index, double>& best, Index num_heads) {
  double least = kInfinity;
  Index place = 0;
  for (const auto& [groups, error] : best) {
    if (!(error < least)) continue;
    least = error;
    ASSERT_LT(place, front.size());
    EXPECT_EQ(front[place].objectives[kCapacity], static_cast<double>(groups) / static_cast<double>(num_heads));
    EXPECT_EQ(front[place].objectives[kSharingError], error);
    ++place;
  }
  EXPECT_EQ(place, front.size());
}

TEST(QcqaLayers, the_exact_front_is_the_best_of_all_masks) {
  for (unsigned seed = 1; seed <= 10; ++seed)
    for (const double max_error : {kInfinity, 500.0, -1.0}) {
      const std::vector<LayerChoice> layers = random_choices(12, seed);
      expect_whole_front(exact_layers_front(layers, {.max_error = max_error}), naive_best(layers, max_error), 96);
    }
}

TEST(QcqaLayers, evolution_finds_every_point_of_the_exact_front_of_a_few_layers) {
  for (unsigned seed = 1; seed <= 6; ++seed)
    for (const double max_error : {kInfinity, 500.0}) {
      const std::vector<LayerChoice> layers = random_choices(10, seed);
      expect_whole_front(qcqa_layers_front(layers, {.max_error = max_error, .evolution = {.seed = seed}}),
                         naive_best(layers, max_error), 80);
    }
}

TEST(QcqaLayers, a_mask_says_what_its_point_costs) {
  const std::vector<LayerChoice> layers = random_choices(9, 4);
  for (const ModelFront& front : {qcqa_layers_front(layers), exact_layers_front(layers)})
    for (const ModelFront::Point& point : front) {
      double error = 0, capacity = 0;
      const std::vector<Partition> partitions = partitions_of(point.solution, layers);
      for (std::size_t l = 0; l < layers.size(); ++l) {
        error += point.solution[l] ? layers[l].error : 0;
        capacity += static_cast<double>(partitions[l].num_groups()) / 8;
        EXPECT_EQ(partitions[l], point.solution[l] ? layers[l].partition : Partition::contiguous(8, 8));
      }
      EXPECT_EQ(point.objectives[kSharingError], error);
      EXPECT_DOUBLE_EQ(point.objectives[kCapacity], capacity / 9);  // the mean: all layers have 8 heads
    }
}

TEST(QcqaLayers, a_layer_above_the_threshold_stays_as_it_is) {
  std::vector<LayerChoice> layers = random_choices(10, 3);
  layers[6].error = 1001;
  layers[2].error = 1000;
  const QcqaLayersOptions options{.max_error = 1000};
  bool third_grouped = false;
  for (const ModelFront& front : {qcqa_layers_front(layers, options), exact_layers_front(layers, options)})
    for (const ModelFront::Point& point : front) {
      EXPECT_FALSE(point.solution[6]);
      third_grouped = third_grouped || point.solution[2];
    }
  EXPECT_TRUE(third_grouped);  // at the threshold is not above it
}

TEST(QcqaLayers, layers_may_have_different_numbers_of_heads) {
  const std::vector<LayerChoice> layers{{Partition::contiguous(32, 4), 5}, {Partition::contiguous(8, 1), 2}};
  const ModelFront front = exact_layers_front(layers);
  ASSERT_EQ(front.size(), 4);
  EXPECT_EQ(front[0].objectives, (Objectives{5.0 / 40, 7}));
  EXPECT_EQ(front[1].objectives, (Objectives{12.0 / 40, 5}));
  EXPECT_EQ(front[2].objectives, (Objectives{33.0 / 40, 2}));
  EXPECT_EQ(front[3].objectives, (Objectives{1, 0}));
  EXPECT_EQ(front[1].solution, (LayerMask{true, false}));
}

TEST(QcqaLayers, evolution_repeats_itself_for_a_seed) {
  const std::vector<LayerChoice> layers = random_choices(40, 2);
  std::ostringstream first, second;
  write_csv(first, qcqa_layers_front(layers, {.evolution = {.generations = 20, .seed = 9}}), layers);
  write_csv(second, qcqa_layers_front(layers, {.evolution = {.generations = 20, .seed = 9}}), layers);
  EXPECT_EQ(first.str(), second.str());
}

TEST(QcqaLayers, a_mixed_front_is_the_best_choice_of_one_point_per_layer) {
  std::vector<LayerFront> layers;
  for (unsigned seed = 0; seed < 4; ++seed) {
    const auto weights = testing::random_layer(4 + seed % 2, seed);
    layers.push_back(exhaustive_front(WeightDistances(weights.key, weights.value, {.head_dim = 3, .value_dim = 2})));
  }
  for (const double max_error : {kInfinity, layers[1][2].objectives[kSharingError]}) {
    const auto allowed = [&](Index l, Index p) {
      return layers[static_cast<std::size_t>(l)][p].objectives[kSharingError] <= max_error;
    };
    std::map<Index, double> best;
    for (Index a = 0; a < layers[0].size(); ++a)
      for (Index b = 0; b < layers[1].size(); ++b)
        for (Index c = 0; c < layers[2].size(); ++c)
          for (Index d = 0; d < layers[3].size(); ++d) {
            if (!(allowed(0, a) && allowed(1, b) && allowed(2, c) && allowed(3, d))) continue;
            Index groups = 0;
            double error = 0;
            const std::vector<Index> picks{a, b, c, d};
            for (std::size_t l = 0; l < 4; ++l) {
              groups += layers[l][picks[l]].solution.num_groups();
              error += layers[l][picks[l]].objectives[kSharingError];
            }
            const auto [entry, is_new] = best.emplace(groups, error);
            if (!is_new) entry->second = std::min(entry->second, error);
          }
    const MixedFront front = mixed_layers_front(layers, max_error);
    expect_whole_front(front, best, 18);
    for (const MixedFront::Point& point : front) {
      Index groups = 0;
      double error = 0;
      for (std::size_t l = 0; l < 4; ++l) {
        groups += layers[l][point.solution[l]].solution.num_groups();
        error += layers[l][point.solution[l]].objectives[kSharingError];
      }
      EXPECT_EQ(point.objectives, (Objectives{static_cast<double>(groups) / 18, error}));
    }
  }
}

TEST(QcqaLayers, writes_a_front_as_a_table_and_as_csv) {
  const std::vector<LayerChoice> layers{{Partition::contiguous(8, 2), 0.1}, {Partition::contiguous(8, 4), 12.5}};
  const ModelFront front = exact_layers_front(layers);
  std::ostringstream table, csv;
  write_table(table, front, layers);
  write_csv(csv, front, layers);
  EXPECT_EQ(table.str(),
            "capacity  error  groups  groups of each layer\n"
            "   0.375   12.6       6  2 4\n"
            "   0.625    0.1      10  2 8\n"
            "       1      0      16  8 8\n");
  EXPECT_EQ(csv.str(),
            "capacity,error,groups,groups of each layer\n"
            "0.375,12.6,6,2 4\n"
            "0.625,0.1,10,2 8\n"
            "1,0,16,8 8\n");
  expect_error([&] { write_csv(csv, front, std::span(layers).first(1)); }, {"mask (2 layers)", "(1)"});
}

TEST(QcqaLayers, refuses_no_layers_bad_errors_and_thresholds) {
  std::vector<LayerChoice> layers = random_choices(3, 1);
  for (const auto solve : {qcqa_layers_front, exact_layers_front}) {
    expect_error([&] { solve({}, {}); }, {"layers (0)", "at least 1"});
    expect_error([&] { solve(layers, {.max_error = kNaN}); }, {"max_error (NaN)"});
    for (const double bad : {kNaN, kInfinity, -1.0}) {
      std::vector<LayerChoice> bad_layers = layers;
      bad_layers[1].error = bad;
      expect_error([&] { solve(bad_layers, {}); }, {"layers[1].error", "finite and at least 0"});
    }
  }
  expect_error([&] { qcqa_layers_front(layers, {.evolution = {.population = 0}}); }, {"population (0)"});

  std::vector<LayerFront> fronts(2);
  expect_error([] { mixed_layers_front({}); }, {"layers (0)"});
  expect_error([&] { mixed_layers_front(fronts); }, {"layers[0] (0 points)"});
  for (LayerFront& front : fronts) front.add({0.5, 3}, Partition::contiguous(4, 2));
  expect_error([&] { mixed_layers_front(fronts, kNaN); }, {"max_error (NaN)"});
  expect_error([&] { mixed_layers_front(fronts, 2.0); }, {"layers[0] (1 points)", "max_error (2)"});
  fronts[1].add({0.4, 4}, Partition::neighbours(5, 2));
  expect_error([&] { mixed_layers_front(fronts); }, {"of 5 and of 4 heads"});
}

}  // namespace
}  // namespace headwise::regroup
