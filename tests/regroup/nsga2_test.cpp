// SPDX-License-Identifier: MIT
#include "headwise/regroup/qcqa/nsga2.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "tests/support/errors.hpp"

namespace headwise::regroup {
namespace {

using testing::expect_error;

/// Numbers 0 … count-1 whose objectives are (x − a)² for each of the targets: the front lies between the targets.
struct Targets {
  using Chromosome = Index;
  Index count;
  std::vector<Index> targets;
  std::map<Index, int>* evaluations = nullptr;

  Index random(Random& random) const { return random.below(count); }
  std::pair<Index, Index> cross(Index a, Index b, Random& random) const {
    const Index step = random.below(3);
    return {(2 * a + b + step) / 3, (a + 2 * b + step) / 3};
  }
  void mutate(Index& x, Random& random) const { x = (x + count + random.below(5) - 2) % count; }
  Objectives evaluate(Index x) const {
    if (evaluations) ++(*evaluations)[x];
    Objectives result;
    for (const Index t : targets) result.push_back(static_cast<double>((x - t) * (x - t)));
    return result;
  }
  Index key(Index x) const { return x; }
};
static_assert(EvolutionProblem<Targets>);

std::vector<Index> solutions(const ParetoFront<Index>& front) {
  std::vector<Index> result;
  for (const auto& point : front) result.push_back(point.solution);
  return result;
}

TEST(Nsga2, finds_the_whole_front_of_two_and_of_three_objectives) {
  const Targets two{.count = 4000, .targets = {2000, 2040}}, three{.count = 4000, .targets = {3000, 3010, 3030}};
  for (std::uint64_t seed = 0; seed < 5; ++seed) {
    const EvolutionOptions options{.population = 60, .generations = 60, .seed = seed};
    const auto front = evolve(two, options);
    ASSERT_EQ(front.size(), 41);
    for (Index i = 0; i < 41; ++i) EXPECT_EQ(front[i].solution, 2000 + i);
    EXPECT_EQ(evolve(three, options).size(), 31);
  }
}

TEST(Nsga2, minimises_a_single_objective) {
  const auto front = evolve(Targets{.count = 100000, .targets = {77777}}, {.population = 40, .generations = 200});
  EXPECT_EQ(solutions(front), std::vector<Index>{77777});
}

TEST(Nsga2, keeps_a_front_larger_than_the_population) {
  const auto front = evolve(Targets{.count = 1000, .targets = {100, 300}}, {.population = 10, .generations = 400});
  EXPECT_GT(front.size(), 100);
}

TEST(Nsga2, repeats_itself_for_a_seed_and_not_for_another) {
  const Targets problem{.count = 100000, .targets = {100, 90000}};
  const auto run = [&](std::uint64_t seed) {
    return solutions(evolve(problem, {.population = 20, .generations = 10, .seed = seed}));
  };
  EXPECT_EQ(run(1), run(1));
  EXPECT_NE(run(1), run(2));
}

TEST(Nsga2, draws_the_same_numbers_on_every_platform) {
  // mt19937_64's 10000th number of seed 5489 is fixed by the C++ standard; the mappings are integer or exact.
  Random random(5489);
  for (int i = 0; i < 9999; ++i) random.uniform();
  EXPECT_EQ(random.uniform(), static_cast<double>(9981545732273789042u >> 11) / 9007199254740992.0);
  Random again(5489);
  for (int i = 0; i < 9999; ++i) again.below(2);
  EXPECT_EQ(again.below(1000), 42);
}

TEST(Nsga2, random_numbers_cover_their_range_evenly) {
  Random random(1);
  std::vector<int> drawn(7, 0);
  for (int i = 0; i < 70000; ++i) ++drawn[static_cast<std::size_t>(random.below(7))];
  for (const int count : drawn) EXPECT_NEAR(count, 10000, 600);  // 6 standard deviations of 93
  std::map<std::vector<int>, int> orders;
  for (int i = 0; i < 24000; ++i) {
    std::vector<int> order{0, 1, 2, 3};
    random.shuffle(order);
    ++orders[order];
  }
  EXPECT_EQ(orders.size(), 24u);
  for (const auto& [order, count] : orders) EXPECT_NEAR(count, 1000, 190);  // 6 standard deviations of 31
  int heads = 0;
  for (int i = 0; i < 10000; ++i) heads += random.chance(0.25);
  EXPECT_NEAR(heads, 2500, 260);  // 6 standard deviations of 43
  EXPECT_EQ(random.below(1), 0);
}

TEST(Nsga2, evaluates_no_chromosome_twice_while_it_lives) {
  std::map<Index, int> evaluations;
  const Targets problem{.count = 30, .targets = {3, 25}, .evaluations = &evaluations};
  evolve(problem, {.population = 30, .generations = 20});  // all 30 live from some generation on, and never die
  EXPECT_EQ(evaluations.size(), 30u);
  for (const auto& [x, count] : evaluations) EXPECT_EQ(count, 1) << x;
}

TEST(Nsga2, ends_where_the_problem_has_fewer_solutions_than_the_population) {
  const auto front = evolve(Targets{.count = 3, .targets = {0, 2}}, {.population = 100, .generations = 50});
  EXPECT_EQ(solutions(front), (std::vector<Index>{0, 1, 2}));
}

TEST(Nsga2, starts_from_the_given_chromosomes) {
  const std::vector<Index> initial{500, 503, 500};
  const Targets problem{.count = 1000000, .targets = {500, 503}};
  const auto front = evolve(problem, {.population = 4, .generations = 0}, std::span<const Index>(initial));
  EXPECT_EQ(front[0].solution, 500);
  EXPECT_EQ(front[front.size() - 1].solution, 503);
}

TEST(Nsga2, reports_every_generation_with_the_size_of_the_front) {
  std::vector<std::pair<Index, Index>> calls;
  const Targets problem{.count = 500, .targets = {100, 130}};
  const auto front =
      evolve(problem, {.population = 80, .generations = 30, .progress = [&](Index generation, Index size) {
                         calls.emplace_back(generation, size);
                       }});
  ASSERT_EQ(calls.size(), 30u);
  for (std::size_t i = 0; i < calls.size(); ++i) EXPECT_EQ(calls[i].first, static_cast<Index>(i) + 1);
  EXPECT_EQ(calls.back().second, front.size());
}

TEST(Nsga2, refuses_options_out_of_range_and_nan_objectives) {
  const Targets problem{.count = 10, .targets = {3}};
  expect_error([&] { evolve(problem, {.population = 0}); }, {"population (0)", "at least 1"});
  expect_error([&] { evolve(problem, {.generations = -1}); }, {"generations (-1)", "at least 0"});
  expect_error([&] { evolve(problem, {.crossover_probability = 1.5}); }, {"crossover_probability (1.5)", "0 to 1"});
  expect_error([&] { evolve(problem, {.crossover_probability = std::numeric_limits<double>::quiet_NaN()}); },
               {"crossover_probability (nan)"});
  struct NotANumber : Targets {
    Objectives evaluate(Index) const { return {std::numeric_limits<double>::quiet_NaN()}; }
  };
  expect_error([&] { evolve(NotANumber{problem}); }, {"objectives[0] (NaN)"});
}

}  // namespace
}  // namespace headwise::regroup
