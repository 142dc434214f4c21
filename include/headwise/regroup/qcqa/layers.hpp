// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"
#include "headwise/regroup/qcqa/nsga2.hpp"
#include "headwise/regroup/qcqa/pareto.hpp"
#include "headwise/regroup/partition.hpp"
#include "headwise/regroup/qcqa/layer.hpp"
#include "headwise/regroup/random.hpp"

// QCQA, step 2: which layers to group, and exact solutions of the same question.

namespace headwise::regroup {

/// How a layer is grouped where it is grouped, and what that costs.
struct LayerChoice {
  Partition partition;
  /// Weight-sharing error, at least 0.
  double error = 0;
};

struct QcqaLayersOptions {
  /// A layer whose error is above this stays as it is.
  double max_error = std::numeric_limits<double>::infinity();
  EvolutionOptions evolution{};
};

/// [layer]: whether it is grouped.
using LayerMask = std::vector<bool>;

/// A model's trade-offs between {capacity, summed error}. Capacity is the KV heads that are left over all KV heads: the
/// mean of the layers' capacities where they have as many heads, and the share of the KV cache in any case.
using ModelFront = ParetoFront<LayerMask>;
/// The same where every layer takes one of the points of its own front: [layer] → point.
using MixedFront = ParetoFront<std::vector<Index>>;

namespace detail {

// What a layer may become.
struct LayerOption {
  Index groups;
  double error;
};

inline std::vector<std::vector<LayerOption>> mask_options(std::span<const LayerChoice> layers, double max_error) {
  require(!layers.empty(), "layers (0) must be at least 1");
  require(!std::isnan(max_error), "max_error (NaN) must be a number");
  std::vector<std::vector<LayerOption>> options;
  for (std::size_t l = 0; l < layers.size(); ++l) {
    require(std::isfinite(layers[l].error) && layers[l].error >= 0, "layers[", l, "].error (", layers[l].error,
            ") must be finite and at least 0");
    options.push_back({{layers[l].partition.num_heads(), 0.0}});
    if (layers[l].error <= max_error) options.back().push_back({layers[l].partition.num_groups(), layers[l].error});
  }
  return options;
}

inline Index heads_of_all(std::span<const LayerChoice> layers) {
  Index heads = 0;
  for (const LayerChoice& layer : layers) heads += layer.partition.num_heads();
  return heads;
}

/// Masks over the layers that have a choice.
class LayerMasks {
 public:
  using Chromosome = LayerMask;

  LayerMasks(std::vector<std::vector<LayerOption>> options, Index num_heads)
      : options_(std::move(options)), num_heads_(num_heads) {}

  LayerMask random(Random& random) const {
    LayerMask mask(options_.size());
    for (std::size_t l = 0; l < mask.size(); ++l) mask[l] = random.chance(0.5) && has_choice(l);
    return mask;
  }

  // Two-point crossover: the layers between two random cuts change places.
  std::pair<LayerMask, LayerMask> cross(LayerMask a, LayerMask b, Random& random) const {
    const Index cuts = std::ssize(options_) + 1;
    auto [begin, end] = std::minmax({random.below(cuts), random.below(cuts)});
    for (Index l = begin; l < end; ++l) {
      const bool of_a = a[static_cast<std::size_t>(l)];
      a[static_cast<std::size_t>(l)] = b[static_cast<std::size_t>(l)];
      b[static_cast<std::size_t>(l)] = of_a;
    }
    return {std::move(a), std::move(b)};
  }

  // Every bit flips with probability 1 / layers.
  void mutate(LayerMask& mask, Random& random) const {
    for (std::size_t l = 0; l < mask.size(); ++l)
      if (random.below(std::ssize(options_)) == 0 && has_choice(l)) mask[l] = !mask[l];
  }

  Objectives evaluate(const LayerMask& mask) const {
    Index groups = 0;
    double error = 0;
    for (std::size_t l = 0; l < mask.size(); ++l) {
      const LayerOption& option = options_[l][mask[l] ? 1 : 0];
      groups += option.groups;
      error += option.error;
    }
    return {static_cast<double>(groups) / static_cast<double>(num_heads_), error};
  }

  const LayerMask& key(const LayerMask& mask) const { return mask; }

 private:
  bool has_choice(std::size_t l) const { return options_[l].size() > 1; }

  std::vector<std::vector<LayerOption>> options_;
  Index num_heads_;
};

/// A multiple-choice knapsack by dynamic programming: for every total of groups, one option of each layer with the
/// smallest summed error. O(layers · heads of all layers · options of a layer).
inline MixedFront best_options(const std::vector<std::vector<LayerOption>>& layers, Index num_heads) {
  constexpr double unreachable = std::numeric_limits<double>::infinity();
  const auto totals = static_cast<std::size_t>(num_heads) + 1;
  std::vector<double> error(totals, unreachable);  // [groups so far]
  error[0] = 0;
  std::vector<std::vector<Index>> picks;  // [layer][groups so far] → option
  for (const std::vector<LayerOption>& options : layers) {
    std::vector<double> next(totals, unreachable);
    std::vector<Index>& pick = picks.emplace_back(totals, 0);
    for (std::size_t before = 0; before < totals; ++before) {
      if (error[before] == unreachable) continue;
      for (std::size_t o = 0; o < options.size(); ++o) {
        const std::size_t after = before + static_cast<std::size_t>(options[o].groups);
        if (error[before] + options[o].error < next[after]) {
          next[after] = error[before] + options[o].error;
          pick[after] = static_cast<Index>(o);
        }
      }
    }
    error = std::move(next);
  }

  MixedFront front;
  for (std::size_t total = 0; total < totals; ++total) {
    if (error[total] == unreachable) continue;
    std::vector<Index> solution(layers.size());
    std::size_t left = total;
    for (std::size_t l = layers.size(); l-- > 0;) {
      const Index o = picks[l][left];
      left -= static_cast<std::size_t>(layers[l][static_cast<std::size_t>(o)].groups);
      solution[l] = o;
    }
    front.add({static_cast<double>(total) / static_cast<double>(num_heads), error[total]}, std::move(solution));
  }
  return front;
}

}  // namespace detail

/// Evolves the layers to group, one LayerChoice per layer: two-point crossover, bit flips with probability 1 / layers.
/// The first generation holds the mask of no layer and, for every k, that of the k cheapest. Throws
/// std::invalid_argument on no layers, errors that are negative or not finite, max_error NaN, and bad options of the
/// evolution.
inline ModelFront qcqa_layers_front(std::span<const LayerChoice> layers, const QcqaLayersOptions& options = {}) {
  const detail::LayerMasks problem(detail::mask_options(layers, options.max_error), detail::heads_of_all(layers));
  std::vector<std::size_t> cheapest;
  for (std::size_t l = 0; l < layers.size(); ++l)
    if (layers[l].error <= options.max_error) cheapest.push_back(l);
  std::ranges::stable_sort(cheapest, {}, [&](std::size_t l) { return layers[l].error; });
  std::vector<LayerMask> initial{LayerMask(layers.size(), false)};
  for (const std::size_t l : cheapest) {
    initial.push_back(initial.back());
    initial.back()[l] = true;
  }
  return evolve(problem, options.evolution, std::span<const LayerMask>(initial));
}

/// The exact front of the same question, by dynamic programming in O(layers · KV heads of all layers); evolution is for
/// comparison with the paper. Throws std::invalid_argument as qcqa_layers_front() does. Its evolution options are unused.
inline ModelFront exact_layers_front(std::span<const LayerChoice> layers, const QcqaLayersOptions& options = {}) {
  ModelFront front;
  for (const auto& point :
       detail::best_options(detail::mask_options(layers, options.max_error), detail::heads_of_all(layers)))
    front.add(point.objectives, LayerMask(point.solution.begin(), point.solution.end()));
  return front;
}

/// Beyond the paper's mask: every layer takes any point of its own front, and all totals are solved exactly. Throws
/// std::invalid_argument on no layers, an empty front, max_error NaN, and a layer without a point of at most that error.
inline MixedFront mixed_layers_front(std::span<const LayerFront> layers,
                                     double max_error = std::numeric_limits<double>::infinity()) {
  require(!layers.empty(), "layers (0) must be at least 1");
  require(!std::isnan(max_error), "max_error (NaN) must be a number");
  std::vector<std::vector<detail::LayerOption>> options;
  std::vector<Index> first;  // [layer]: errors fall along a front, so the points within max_error are its last
  Index num_heads = 0;
  for (std::size_t l = 0; l < layers.size(); ++l) {
    detail::check_layer_front(layers[l]);
    first.push_back(0);
    options.emplace_back();
    for (const LayerFront::Point& point : layers[l]) {
      if (point.objectives[kSharingError] <= max_error)
        options.back().push_back({point.solution.num_groups(), point.objectives[kSharingError]});
      else
        ++first.back();
    }
    require(!options.back().empty(), "layers[", l, "] (", layers[l].size(),
            " points) must hold a point with an error of at most max_error (", max_error, ")");
    num_heads += layers[l][0].solution.num_heads();
  }
  MixedFront front;
  for (const auto& point : detail::best_options(options, num_heads)) {
    std::vector<Index> solution = point.solution;
    for (std::size_t l = 0; l < solution.size(); ++l) solution[l] += first[l];
    front.add(point.objectives, std::move(solution));
  }
  return front;
}

/// [layer]: the grouping each layer has under a mask, its choice or all heads apart. Throws std::invalid_argument when
/// the mask has another number of layers.
inline std::vector<Partition> partitions_of(const LayerMask& mask, std::span<const LayerChoice> layers) {
  require(mask.size() == layers.size(), "mask (", mask.size(),
          " layers) must have as many layers as there are choices (", layers.size(), ")");
  std::vector<Partition> result;
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const Index heads = layers[l].partition.num_heads();
    result.push_back(mask[l] ? layers[l].partition : Partition::contiguous(heads, heads));
  }
  return result;
}

}  // namespace headwise::regroup
