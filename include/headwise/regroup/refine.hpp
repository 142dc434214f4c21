// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"
#include "headwise/regroup/partition.hpp"
#include "headwise/regroup/weight_sharing_error.hpp"

namespace headwise::regroup {
namespace detail {

/// A grouping that keeps, for every head and group, the sum of distances between them, so that the gain of a move costs
/// O(1) and a move O(num_heads).
class Refinement {
 public:
  Refinement(const WeightDistances& distances, const Partition& start)
      : distances_(distances),
        labels_(start.labels().begin(), start.labels().end()),
        num_groups_(start.num_groups()),
        sizes_(start.sizes()),
        within_(sizes_.size(), 0.0),
        to_group_(labels_.size() * sizes_.size(), 0.0) {
    for (Index h = 0; h < num_heads(); ++h)
      for (Index other = 0; other < num_heads(); ++other) to_group(h, label(other)) += distance(h, other);
    for (Index h = 0; h < num_heads(); ++h) within(label(h)) += to_group(h, label(h)) / 2;
    rounding_ = kRounding * distances.error(Partition::contiguous(num_heads(), 1));
  }

  /// Moves head h to the group where the error falls most; false where it falls in none by more than rounding.
  bool relocate(Index h) {
    const Index from = label(h);
    if (size(from) == 1) return false;
    Index best = from;
    double most = 0;
    for (Index to = 0; to < num_groups_; ++to) {
      if (to == from) continue;
      const double before = share(within(from), size(from)) + share(within(to), size(to));
      const double after =
          share(within(from) - to_group(h, from), size(from) - 1) + share(within(to) + to_group(h, to), size(to) + 1);
      if (before - after > std::max(most, rounding_)) {
        most = before - after;
        best = to;
      }
    }
    if (best == from) return false;
    move(h, best);
    return true;
  }

  /// Exchanges the groups of two heads; false where the error does not fall by more than rounding.
  bool exchange(Index h, Index other) {
    const Index a = label(h), b = label(other);
    if (a == b) return false;
    const double before = share(within(a), size(a)) + share(within(b), size(b));
    const double after = share(within(a) - to_group(h, a) + to_group(other, a) - distance(h, other), size(a)) +
                         share(within(b) - to_group(other, b) + to_group(h, b) - distance(h, other), size(b));
    if (before - after <= rounding_) return false;
    move(h, b);
    move(other, a);
    return true;
  }

  Index num_heads() const { return std::ssize(labels_); }
  Partition partition() const { return Partition::from_labels(labels_); }

 private:
  // Gains below this share of the error of a single group may be rounding of the sums, and could go in circles.
  static constexpr double kRounding = 1e-12;

  void move(Index h, Index to) {
    const Index from = label(h);
    within(from) -= to_group(h, from);
    within(to) += to_group(h, to);
    --size(from);
    ++size(to);
    for (Index other = 0; other < num_heads(); ++other) {
      to_group(other, from) -= distance(other, h);
      to_group(other, to) += distance(other, h);
    }
    label(h) = to;
  }

  static double share(double pairs, Index size) { return pairs / static_cast<double>(size); }
  double distance(Index a, Index b) const { return distances_.squared_distance(a, b); }
  Index& label(Index h) { return labels_[static_cast<std::size_t>(h)]; }
  Index& size(Index g) { return sizes_[static_cast<std::size_t>(g)]; }
  double& within(Index g) { return within_[static_cast<std::size_t>(g)]; }
  double& to_group(Index h, Index g) { return to_group_[static_cast<std::size_t>(h * num_groups_ + g)]; }

  const WeightDistances& distances_;
  double rounding_ = 0;
  std::vector<Index> labels_;  // [head] → group
  Index num_groups_;
  std::vector<Index> sizes_;      // [group]
  std::vector<double> within_;    // [group]: Σ of distances of its pairs
  std::vector<double> to_group_;  // [head][group]: Σ of distances from the head to the group's heads
};

}  // namespace detail

/// Whether refine() may change the sizes of groups.
enum class GroupSizes { free, kept };

/// The grouping after moves that lower its weight-sharing error until none does: a head to another group (free sizes),
/// two heads exchanged. Keeps the number of groups. A local optimum: often the best grouping where the start is good.
inline Partition refine(const WeightDistances& distances, const Partition& start, GroupSizes sizes = GroupSizes::free) {
  require(start.num_heads() == distances.num_heads(), "start (", start.num_heads(),
          " heads) must have as many heads as the weights (", distances.num_heads(), ")");
  detail::Refinement grouping(distances, start);
  for (bool better = true; better;) {
    better = false;
    for (Index h = 0; h < grouping.num_heads(); ++h) {
      if (sizes == GroupSizes::free) better |= grouping.relocate(h);
      for (Index other = 0; other < h; ++other) better |= grouping.exchange(h, other);
    }
  }
  return grouping.partition();
}

}  // namespace headwise::regroup
