// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <optional>
#include <string_view>
#include <vector>

#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"
#include "headwise/regroup/qcqa/group_chromosomes.hpp"
#include "headwise/regroup/qcqa/nsga2.hpp"
#include "headwise/regroup/qcqa/pareto.hpp"
#include "headwise/regroup/partition.hpp"
#include "headwise/regroup/search/asym_gqa.hpp"
#include "headwise/regroup/search/enumerate.hpp"
#include "headwise/regroup/qcqa/weight_sharing_error.hpp"

// QCQA, step 1: the best groupings of one layer's heads. Joshi, Laddha, Sinha, Omer, Subramoney, "QCQA: Quality and
// Capacity-aware grouped Query Attention", arXiv 2406.10247. Step 2, over layers, is in layers.hpp.

namespace headwise::regroup {

/// Which objective of a QCQA front is which.
inline constexpr std::size_t kCapacity = 0, kSharingError = 1;

/// Whether groups may have different sizes.
enum class Cardinality { arbitrary, equal };

struct QcqaOptions {
  Cardinality cardinality = Cardinality::arbitrary;
  /// At most so many groups, 1 to num_heads; unset: num_heads.
  std::optional<Index> max_groups{};
  /// Heads per group to try where cardinality is equal, each a divisor of num_heads; empty: every divisor.
  std::vector<Index> group_sizes{};
  /// How groupings of arbitrary cardinality are crossed.
  GroupCrossover crossover = GroupCrossover::whole_groups;
  /// Start from groups of neighbours too, so that no result is worse than they are.
  bool start_from_neighbours = true;
  /// Improve the front's groupings by descend() at the end. This goes beyond the paper: from 32 heads on, 100 generations
  /// leave most groupings some per cent above a local optimum (and clusters unfound), and it costs next to nothing.
  bool refine = true;
  /// One run where cardinality is arbitrary, one per group size where it is equal.
  EvolutionOptions evolution{};
};

/// A layer's trade-offs between {capacity, weight-sharing error}, by rising capacity and so by falling error. Capacity is
/// groups / heads, the share of the layer's KV cache that is left.
using LayerFront = ParetoFront<Partition>;

namespace detail {

inline Index checked_max_groups(const WeightDistances& distances, const QcqaOptions& options) {
  const Index max_groups = options.max_groups.value_or(distances.num_heads());
  require(max_groups >= 1 && max_groups <= distances.num_heads(), "max_groups (", max_groups,
          ") must be 1 to num_heads (", distances.num_heads(), ")");
  return max_groups;
}

// The sizes to try, ascending, without those that make more than max_groups groups.
inline std::vector<Index> checked_group_sizes(const WeightDistances& distances, const QcqaOptions& options) {
  const Index num_heads = distances.num_heads(), max_groups = checked_max_groups(distances, options);
  std::vector<Index> sizes;
  for (std::size_t i = 0; i < options.group_sizes.size(); ++i) {
    const Index size = options.group_sizes[i];
    require(size >= 1 && num_heads % size == 0, "group_sizes[", i, "] (", size, ") must divide num_heads (", num_heads,
            ")");
    require(num_heads / size <= max_groups, "group_sizes[", i, "] (", size, ") makes ", num_heads / size,
            " groups and must make at most max_groups (", max_groups, ")");
    sizes.push_back(size);
  }
  if (sizes.empty())
    for (Index size = 1; size <= num_heads; ++size)
      if (num_heads % size == 0 && num_heads / size <= max_groups) sizes.push_back(size);
  return sizes;
}

// A front may come from anywhere: both objectives must be there, and its points must be groupings of one layer.
inline void check_layer_front(const LayerFront& front) {
  for (const LayerFront::Point& point : front) {
    require(point.objectives.size() == 2, "front (", point.objectives.size(),
            " objectives) of a layer must have 2, capacity and error");
    require(point.solution.num_heads() == front[0].solution.num_heads(), "front (points of ",
            front[0].solution.num_heads(), " and of ", point.solution.num_heads(),
            " heads) of a layer must hold groupings of the same heads");
  }
}

inline LayerFront refined(const WeightDistances& distances, const LayerFront& front, GroupSizes sizes) {
  const Eigen::MatrixXd gram = distances.gram();
  LayerFront result;
  for (const LayerFront::Point& point : front) {
    Partition better = descend(gram, point.solution, sizes).partition;
    Objectives objectives = grouping_objectives(distances, better);
    result.add(std::move(objectives), std::move(better));
  }
  result.merge(front);
  return result;
}

inline LayerFront arbitrary_front(const WeightDistances& distances, const QcqaOptions& options) {
  const Index max_groups = checked_max_groups(distances, options);
  std::vector<Partition> initial;
  for (Index groups = 1; options.start_from_neighbours && groups <= max_groups; ++groups)
    initial.push_back(Partition::neighbours(distances.num_heads(), groups));
  const LayerFront front = evolve(AnyGroups(distances, max_groups, options.crossover), options.evolution,
                                  std::span<const Partition>(initial));
  return options.refine ? refined(distances, front, GroupSizes::free) : front;
}

inline LayerFront equal_front(const WeightDistances& distances, const QcqaOptions& options) {
  LayerFront result;
  for (const Index size : checked_group_sizes(distances, options)) {
    std::vector<Partition> initial;
    if (options.start_from_neighbours)
      initial.push_back(Partition::contiguous(distances.num_heads(), distances.num_heads() / size));
    const LayerFront front =
        evolve(EqualGroups(distances, size), options.evolution, std::span<const Partition>(initial));
    result.merge(options.refine ? refined(distances, front, GroupSizes::kept) : front);
  }
  return result;
}

}  // namespace detail

/// Evolves the groupings of one layer: at every capacity, those with the smallest weight-sharing error that were found.
/// Throws std::invalid_argument on max_groups outside 1 … num_heads, a group size that does not divide num_heads or makes
/// more groups than max_groups, and bad options of the evolution.
inline LayerFront qcqa_front(const WeightDistances& distances, const QcqaOptions& options = {}) {
  return options.cardinality == Cardinality::equal ? detail::equal_front(distances, options)
                                                   : detail::arbitrary_front(distances, options);
}

/// The most heads exhaustive_front() takes: 4,213,597 groupings, some seconds.
inline constexpr Index kMaxExhaustiveHeads = 12;

/// The true front: every grouping that the options allow, compared. Throws std::invalid_argument as qcqa_front() does and
/// beyond kMaxExhaustiveHeads heads.
inline LayerFront exhaustive_front(const WeightDistances& distances, const QcqaOptions& options = {}) {
  const Index num_heads = distances.num_heads(), max_groups = detail::checked_max_groups(distances, options);
  require(num_heads <= kMaxExhaustiveHeads, "num_heads (", num_heads, ") of exhaustive_front must be at most ",
          kMaxExhaustiveHeads, "; use qcqa_front");
  const bool equal = options.cardinality == Cardinality::equal;
  const std::vector<Index> sizes = equal ? detail::checked_group_sizes(distances, options) : std::vector<Index>{};
  LayerFront front;
  for (Index groups = 1; groups <= max_groups; ++groups) {
    if (equal && (num_heads % groups != 0 || std::ranges::count(sizes, num_heads / groups) == 0)) continue;
    for_each_partition({num_heads, groups, equal}, [&](std::span<const Index> labels) {
      const Partition partition = Partition::from_labels(labels);
      front.add(detail::grouping_objectives(distances, partition), partition);
    });
  }
  return front;
}

/// The front's grouping with the smallest error among those of at most max_groups groups. Throws std::invalid_argument
/// where there is none.
inline const LayerFront::Point& best_within(const LayerFront& front, Index max_groups) {
  const LayerFront::Point* best = nullptr;
  for (const LayerFront::Point& point : front)
    if (point.solution.num_groups() <= max_groups) best = &point;
  if (best == nullptr)
    fail("max_groups (", max_groups, ") must leave a point of the front, which holds ", front.size());
  return *best;
}

}  // namespace headwise::regroup
