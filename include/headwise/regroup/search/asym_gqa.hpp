// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "headwise/regroup/search/enumerate.hpp"
#include "headwise/regroup/partition.hpp"
#include "headwise/regroup/search/pooling_error.hpp"
#include "headwise/regroup/random.hpp"

namespace headwise::regroup {

/// A partition and its pooling error.
struct Grouping {
  Partition partition;
  double error;
};

struct SearchOptions {
  std::uint64_t seed = 0;
  /// Descents from random groups besides those from the starts that a search names; at least 0.
  Index restarts = 16;
};

// Searches for the groups of least pooling error on a gram [head][head], of activations (ActivationStatistics) or of
// weights (weight_gram); every one throws std::invalid_argument on a gram that is not square, finite and symmetric, and
// unless num_groups is 1 … heads. Symmetric and asymmetric groups are those of Chen, Zhang, Gao, Mullins, Constantinides,
// Zhao: "Optimised Grouped-Query Attention Mechanism for Transformers" (2024), by this objective.

/// What GQA takes without looking: neighbours, in groups whose sizes differ by at most one.
inline Grouping neighbour_groups(const Eigen::MatrixXd& gram, Index num_groups) {
  detail::check_gram(gram);
  Partition partition = Partition::neighbours(gram.rows(), num_groups);
  const double error = pooling_error(gram, partition);
  return {std::move(partition), error};
}

/// Whether a search may change the sizes of groups.
enum class GroupSizes { free, kept };

namespace detail {

inline void check_options(const SearchOptions& options) {
  require(options.restarts >= 0, "restarts (", options.restarts, ") must be at least 0");
}

/// Changes smaller than this are rounding; taking them could go on for ever.
inline double smallest_gain(const Eigen::MatrixXd& gram) {
  return 1e-12 * gram.cwiseAbs().maxCoeff() * static_cast<double>(gram.rows());
}

inline void keep_better(Grouping& best, Grouping other) {
  if (other.error < best.error) best = std::move(other);
}

/// The labels of `shape` dealt to the heads anew.
inline Partition shuffled(const Partition& shape, Random& random) {
  std::vector<Index> labels(shape.labels().begin(), shape.labels().end());
  random.shuffle(labels);
  return Partition::from_labels(labels);
}

/// num_groups groups of any sizes: the first heads of a random order one each, the others wherever they fall.
inline Partition random_groups(Index num_heads, Index num_groups, Random& random) {
  std::vector<Index> labels(static_cast<std::size_t>(num_heads));
  for (Index h = 0; h < num_heads; ++h)
    labels[static_cast<std::size_t>(h)] = h < num_groups ? h : random.below(num_groups);
  random.shuffle(labels);
  return Partition::from_labels(labels);
}

}  // namespace detail

/// From `start`, takes every exchange of two heads, and where sizes are free every move of a head that empties no group,
/// that lowers the error, until none does: a local optimum. Throws std::invalid_argument where start has other heads.
inline Grouping descend(const Eigen::MatrixXd& gram, const Partition& start, GroupSizes sizes = GroupSizes::free) {
  PoolingError state(gram, start);
  const double gain = detail::smallest_gain(gram);
  for (bool moved = true; moved;) {
    moved = false;
    for (Index a = 0; a < state.num_heads(); ++a) {
      for (Index g = 0; sizes == GroupSizes::free && g < state.num_groups(); ++g)
        if (state.size(state.group_of(a)) > 1 && state.relocation_change(a, g) < -gain) {
          state.relocate(a, g);
          moved = true;
        }
      for (Index b = 0; b < a; ++b)
        if (state.swap_change(a, b) < -gain) {
          state.swap(a, b);
          moved = true;
        }
    }
  }
  Partition partition = state.partition();
  const double error = pooling_error(gram, partition);  // afresh: without the rounding of the moves
  return {std::move(partition), error};
}

/// Groups of equal size (of sizes that differ by at most one where num_groups does not divide the heads). From
/// neighbours, and from `restarts` random groups, heads of different groups are swapped as long as that lowers the error;
/// the best end is kept, so the error is at most that of neighbours.
inline Grouping symmetric_search(const Eigen::MatrixXd& gram, Index num_groups, const SearchOptions& options = {}) {
  detail::check_options(options);
  const Partition neighbours = neighbour_groups(gram, num_groups).partition;
  Grouping best = descend(gram, neighbours, GroupSizes::kept);
  Random random(options.seed);
  for (Index i = 0; i < options.restarts; ++i)
    detail::keep_better(best, descend(gram, detail::shuffled(neighbours, random), GroupSizes::kept));
  return best;
}

/// Groups of any sizes by merging: every head alone, then again and again the two groups whose union costs least, until
/// num_groups are left. Joe H. Ward: "Hierarchical Grouping to Optimize an Objective Function" (1963), whose objective J
/// is. No seed, no search; a good start.
inline Grouping merged_groups(const Eigen::MatrixXd& gram, Index num_groups) {
  detail::check_gram(gram);
  const Index heads = gram.rows();
  require(num_groups >= 1 && num_groups <= heads, "num_groups (", num_groups, ") must be 1 to the heads of gram (",
          heads, ")");
  std::vector<std::vector<Index>> groups;
  for (Index h = 0; h < heads; ++h) groups.push_back({h});
  Eigen::MatrixXd sums = gram;  // [group][group]: Σ of the products between their heads
  // Uniting a and b adds |a||b| / (|a| + |b|) times the squared distance of their means.
  const auto cost = [&](std::size_t a, std::size_t b) {
    const auto i = static_cast<Index>(a), j = static_cast<Index>(b);
    const double m = static_cast<double>(groups[a].size()), n = static_cast<double>(groups[b].size());
    return m * n / (m + n) * (sums(i, i) / (m * m) + sums(j, j) / (n * n) - 2 * sums(i, j) / (m * n));
  };
  while (std::ssize(groups) > num_groups) {
    std::size_t into = 0, from = 1;
    double least = cost(into, from);
    for (std::size_t b = 1; b < groups.size(); ++b)
      for (std::size_t a = 0; a < b; ++a)
        if (const double c = cost(a, b); c < least) {
          least = c;
          into = a;
          from = b;
        }
    groups[into].insert(groups[into].end(), groups[from].begin(), groups[from].end());
    const auto i = static_cast<Index>(into), j = static_cast<Index>(from), last = std::ssize(groups) - 1;
    sums.row(i) += sums.row(j);
    sums.col(i) += sums.col(j);
    groups[from] = groups.back();
    sums.row(j) = sums.row(last);
    sums.col(j) = sums.col(last);
    groups.pop_back();
  }
  Partition partition = Partition::from_groups(heads, groups);
  const double error = pooling_error(gram, partition);
  return {std::move(partition), error};
}

/// Exactly num_groups groups of any sizes. From the symmetric search's groups, from merged_groups and from `restarts`
/// random groups, heads are relocated and swapped as long as that lowers the error; the best end is kept, so the error is
/// at most the symmetric search's with the same options.
inline Grouping asymmetric_search(const Eigen::MatrixXd& gram, Index num_groups, const SearchOptions& options = {}) {
  Grouping best = symmetric_search(gram, num_groups, options);
  detail::keep_better(best, descend(gram, best.partition));
  detail::keep_better(best, descend(gram, merged_groups(gram, num_groups).partition));
  Random random(options.seed);
  for (Index i = 0; i < options.restarts; ++i)
    detail::keep_better(best, descend(gram, detail::random_groups(gram.rows(), num_groups, random)));
  return best;
}

struct ExactOptions {
  /// Only groups of equal size.
  bool equal_sizes = false;
  /// Partitions looked at, at most.
  Index max_partitions = 10'000'000;
};

/// The least error of all partitions into exactly num_groups groups, by trying each; of equal ones the first in
/// lexicographic order. Throws std::invalid_argument where there are more than max_partitions.
inline Grouping exact_search(const Eigen::MatrixXd& gram, Index num_groups, const ExactOptions& options = {}) {
  detail::check_gram(gram);
  const PartitionSpace space{gram.rows(), num_groups, options.equal_sizes};
  const Index count = count_partitions(space);
  require(count <= options.max_partitions, "partitions (", count,
          count == std::numeric_limits<Index>::max() ? " or more" : "", ") of ", gram.rows(), " heads into ",
          num_groups, " groups must be at most max_partitions (", options.max_partitions,
          "); use asymmetric_search or symmetric_search");
  std::vector<Index> best_labels;
  double best = std::numeric_limits<double>::infinity();
  std::vector<double> pairs(static_cast<std::size_t>(num_groups));
  std::vector<double> sizes(static_cast<std::size_t>(num_groups));
  for_each_partition(space, [&](std::span<const Index> labels) {
    std::fill(pairs.begin(), pairs.end(), 0.0);
    std::fill(sizes.begin(), sizes.end(), 0.0);
    for (std::size_t a = 0; a < labels.size(); ++a) {
      const auto g = static_cast<std::size_t>(labels[a]);
      sizes[g] += 1;
      for (std::size_t b = 0; b < a; ++b)
        if (labels[b] == labels[a]) pairs[g] += 2 * gram(static_cast<Index>(a), static_cast<Index>(b));
      pairs[g] += gram(static_cast<Index>(a), static_cast<Index>(a));
    }
    double error = gram.trace();
    for (std::size_t g = 0; g < pairs.size(); ++g) error -= pairs[g] / sizes[g];
    if (error < best) {
      best = error;
      best_labels.assign(labels.begin(), labels.end());
    }
  });
  Partition partition = Partition::from_labels(best_labels);
  const double error = pooling_error(gram, partition);
  return {std::move(partition), error};
}

}  // namespace headwise::regroup
