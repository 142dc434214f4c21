// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <functional>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"
#include "headwise/regroup/qcqa/pareto.hpp"
#include "headwise/regroup/random.hpp"

namespace headwise::regroup {

/// What evolve() needs to know of a problem: its chromosomes, their objectives (all minimised) and how they breed.
template <class P>
concept EvolutionProblem =
    requires(const P& problem, const typename P::Chromosome& parent, typename P::Chromosome& child, Random& random) {
      requires std::copyable<typename P::Chromosome>;
      { problem.random(random) } -> std::same_as<typename P::Chromosome>;
      {
        problem.cross(parent, parent, random)
      } -> std::same_as<std::pair<typename P::Chromosome, typename P::Chromosome>>;
      problem.mutate(child, random);
      { problem.evaluate(parent) } -> std::same_as<Objectives>;
      // Chromosomes with equal keys are the same solution. Ordered by <.
      { problem.key(parent) < problem.key(parent) } -> std::convertible_to<bool>;
    };

struct EvolutionOptions {
  /// Chromosomes of a generation, at least 1; fewer where the problem has fewer.
  Index population = 100;
  /// Generations bred after the first, at least 0.
  Index generations = 100;
  /// How often two parents are crossed and not merely copied, 0 to 1.
  double crossover_probability = 0.9;
  /// The same seed gives the same result, on every platform.
  std::uint64_t seed = 0;
  /// Called after every generation (1, 2, …) with the size of the front so far.
  std::function<void(Index generation, Index front_size)> progress{};
};

namespace detail {

/// The population of one run of evolve().
template <EvolutionProblem Problem>
class Evolution {
 public:
  using Chromosome = typename Problem::Chromosome;

  Evolution(const Problem& problem, const EvolutionOptions& options)
      : problem_(problem), options_(options), random_(options.seed) {}

  ParetoFront<Chromosome> run(std::span<const Chromosome> initial) {
    for (const Chromosome& chromosome : initial) admit(chromosome);
    // Braces, not parentheses: they fix which is drawn first.
    admit_new(options_.population, [&] {
      return std::pair<Chromosome, Chromosome>{problem_.random(random_), problem_.random(random_)};
    });
    select();
    for (Index generation = 1; generation <= options_.generations; ++generation) {
      admit_new(std::ssize(living_) + options_.population, [&] { return children(); });
      select();
      if (options_.progress) options_.progress(generation, front_.size());
    }
    return std::move(front_);
  }

 private:
  struct Individual {
    Chromosome chromosome;
    Objectives objectives;
    Index rank = 0;       // 0: dominated by nobody
    double crowding = 0;  // room around it in its rank
  };
  using Key = std::remove_cvref_t<decltype(std::declval<const Problem&>().key(std::declval<const Chromosome&>()))>;

  // Two tournament winners, crossed or copied, and mutated.
  std::pair<Chromosome, Chromosome> children() {
    const Chromosome& mother = parents_[tournament()].chromosome;
    const Chromosome& father = parents_[tournament()].chromosome;
    std::pair pair = random_.chance(options_.crossover_probability) ? problem_.cross(mother, father, random_)
                                                                    : std::pair(mother, father);
    problem_.mutate(pair.first, random_);
    problem_.mutate(pair.second, random_);
    return pair;
  }

  // The better of two random parents: the lower rank, then more room, then the first drawn.
  std::size_t tournament() {
    const auto a = static_cast<std::size_t>(random_.below(std::ssize(parents_)));
    const auto b = static_cast<std::size_t>(random_.below(std::ssize(parents_)));
    const Individual &first = parents_[a], &second = parents_[b];
    if (first.rank != second.rank) return first.rank < second.rank ? a : b;
    return second.crowding > first.crowding ? b : a;
  }

  // Makes pairs until `wanted` are alive. One that lives already is mutated until it is new; where that fails again and
  // again the problem has hardly more solutions than live, and the generation stays smaller.
  template <class MakePair>
  void admit_new(Index wanted, MakePair&& make_pair) {
    Index failures = 0;
    while (std::ssize(living_) < wanted && failures < kFailures) {
      auto [first, second] = make_pair();
      for (Chromosome* child : {&first, &second}) {
        if (std::ssize(living_) == wanted) break;
        bool is_new = admit(*child);
        for (Index attempt = 0; !is_new && attempt < kMutants; ++attempt) {
          problem_.mutate(*child, random_);
          is_new = admit(*child);
        }
        failures = is_new ? 0 : failures + 1;
      }
    }
  }

  // Adds the chromosome unless it lives already; whether it was added.
  bool admit(const Chromosome& chromosome) {
    if (!keys_.insert(problem_.key(chromosome)).second) return false;
    Objectives objectives = problem_.evaluate(chromosome);
    front_.add(objectives, chromosome);
    living_.push_back({chromosome, std::move(objectives)});
    return true;
  }

  // Survivors become parents: parents and children compete alike (elitism), rank by rank, those with the most room
  // first in the rank that does not fit whole.
  void select() {
    std::vector<Objectives> points;
    for (const Individual& individual : living_) points.push_back(individual.objectives);
    std::vector<Individual> survivors;
    Index rank = 0;
    for (const std::vector<Index>& front : non_dominated_sort(points)) {
      const std::vector<double> crowding = crowding_distance(points, front);
      std::vector<std::size_t> order(front.size());
      for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
      std::ranges::stable_sort(order, std::greater<>{}, [&](std::size_t i) { return crowding[i]; });
      for (const std::size_t i : order) {
        if (std::ssize(survivors) == options_.population) break;
        Individual& survivor = survivors.emplace_back(std::move(living_[static_cast<std::size_t>(front[i])]));
        survivor.rank = rank;
        survivor.crowding = crowding[i];
      }
      ++rank;
    }
    parents_ = std::move(survivors);
    living_ = parents_;
    keys_.clear();
    for (const Individual& individual : living_) keys_.insert(problem_.key(individual.chromosome));
  }

  static constexpr Index kMutants = 8, kFailures = 64;

  const Problem& problem_;
  const EvolutionOptions& options_;
  Random random_;
  std::vector<Individual> parents_, living_;  // living: the parents, then their children so far
  std::set<Key> keys_;                        // of the living
  ParetoFront<Chromosome> front_;             // of all that ever lived
};

}  // namespace detail

/// NSGA-II (Deb, Pratap, Agarwal, Meyarivan, "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", 2002):
/// binary tournaments on rank, then crowding; crossover and mutation of the problem; parents and children compete alike.
/// No chromosome lives twice in a generation: a duplicate is replaced by a mutant of it. Returns the front of everything
/// ever evaluated, so that a trade-off once found is not lost where the front outgrows the population.
///
/// `initial` chromosomes start in the first generation, random ones fill it up. Throws std::invalid_argument on an empty
/// population, negative generations, a crossover_probability outside 0 … 1, and NaN objectives.
template <EvolutionProblem Problem>
ParetoFront<typename Problem::Chromosome> evolve(const Problem& problem, const EvolutionOptions& options = {},
                                                 std::span<const typename Problem::Chromosome> initial = {}) {
  require(options.population >= 1, "population (", options.population, ") must be at least 1");
  require(options.generations >= 0, "generations (", options.generations, ") must be at least 0");
  require(options.crossover_probability >= 0 && options.crossover_probability <= 1, "crossover_probability (",
          options.crossover_probability, ") must be 0 to 1");
  return detail::Evolution<Problem>(problem, options).run(initial);
}

}  // namespace headwise::regroup
