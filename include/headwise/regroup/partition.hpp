// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "headwise/core/error.hpp"
#include "headwise/core/head_map.hpp"
#include "headwise/core/index.hpp"

namespace headwise::regroup {

/// A division of heads 0 … num_heads-1 into groups that are never empty: which heads will share one K and V.
///
/// Canonical: groups are numbered by their first head (a restricted growth string), and a group's heads ascend. So two
/// partitions are equal exactly when they put the same heads together, whatever their groups were called.
class Partition {
 public:
  /// Neighbouring heads in groups of equal size; num_heads must be a multiple of num_groups.
  static Partition contiguous(Index num_heads, Index num_groups) {
    check_counts(num_heads, num_groups);
    require(num_heads % num_groups == 0, "num_heads (", num_heads, ") must be a multiple of num_groups (", num_groups,
            "); use Partition::neighbours for sizes that differ by one");
    return neighbours(num_heads, num_groups);
  }

  /// Neighbouring heads in groups whose sizes differ by at most one.
  static Partition neighbours(Index num_heads, Index num_groups) {
    check_counts(num_heads, num_groups);
    std::vector<Index> labels(static_cast<std::size_t>(num_heads));
    for (Index h = 0; h < num_heads; ++h) labels[static_cast<std::size_t>(h)] = h * num_groups / num_heads;
    return Partition(std::move(labels));
  }

  /// Neighbouring heads in groups of the given sizes, each at least 1.
  static Partition blocks(std::span<const Index> sizes) {
    std::vector<Index> labels;
    for (std::size_t g = 0; g < sizes.size(); ++g) {
      require(sizes[g] >= 1 && sizes[g] <= kMaxHeads, "sizes[", g, "] (", sizes[g], ") of a Partition must be 1 to ",
              kMaxHeads);
      require(std::ssize(labels) + sizes[g] <= kMaxHeads, "sizes of a Partition must sum to at most ", kMaxHeads,
              ", and sum to ", std::ssize(labels) + sizes[g], " at sizes[", g, "]");
      labels.insert(labels.end(), static_cast<std::size_t>(sizes[g]), static_cast<Index>(g));
    }
    return Partition(std::move(labels));
  }

  /// Heads with equal labels share a group; a label is any number from 0 up to 2^20.
  static Partition from_labels(std::span<const Index> labels) {
    return Partition(std::vector<Index>(labels.begin(), labels.end()));
  }

  /// The groups as lists of heads, in any order. Throws std::invalid_argument where a head is missing, stands in two
  /// places or does not exist, and where a group is empty.
  static Partition from_groups(Index num_heads, std::span<const std::vector<Index>> groups) {
    require(std::ssize(groups) <= num_heads, "groups (", groups.size(), ") of a Partition must be at most num_heads (",
            num_heads, ")");
    check_counts(num_heads, std::ssize(groups));
    constexpr Index missing = -1;
    std::vector<Index> labels(static_cast<std::size_t>(num_heads), missing);
    for (std::size_t g = 0; g < groups.size(); ++g) {
      require(!groups[g].empty(), "groups[", g, "] (0 heads) of a Partition must hold at least 1");
      for (const Index h : groups[g]) {
        require(h >= 0 && h < num_heads, "head ", h, " in groups[", g, "] of a Partition must be 0 to num_heads - 1 (",
                num_heads - 1, ")");
        Index& label = labels[static_cast<std::size_t>(h)];
        require(label == missing, "head ", h, " of a Partition stands in groups[", label, "] and in groups[", g,
                "] and must stand in one");
        label = static_cast<Index>(g);
      }
    }
    for (Index h = 0; h < num_heads; ++h)
      require(labels[static_cast<std::size_t>(h)] != missing, "head ", h,
              " of a Partition is in no group and must be in one");
    return Partition(std::move(labels));
  }

  Index num_heads() const { return std::ssize(group_of_); }
  Index num_groups() const { return std::ssize(offsets_) - 1; }

  /// The group of head h.
  Index group_of(Index h) const { return group_of_[static_cast<std::size_t>(h)]; }
  /// The group of every head: the restricted growth string.
  std::span<const Index> labels() const { return group_of_; }
  /// The heads of group g, ascending.
  std::span<const Index> heads_of(Index g) const {
    const auto begin = static_cast<std::size_t>(offsets_[static_cast<std::size_t>(g)]);
    const auto end = static_cast<std::size_t>(offsets_[static_cast<std::size_t>(g) + 1]);
    return std::span(order_).subspan(begin, end - begin);
  }
  /// All heads group by group: the order that makes every group contiguous.
  std::span<const Index> order() const { return order_; }
  /// Heads of each group.
  std::vector<Index> sizes() const {
    std::vector<Index> result;
    for (Index g = 0; g < num_groups(); ++g) result.push_back(std::ssize(heads_of(g)));
    return result;
  }

  bool has_equal_sizes() const {
    const std::vector<Index> all = sizes();
    return std::ranges::all_of(all, [&](Index size) { return size == all.front(); });
  }
  /// Whether every group holds neighbours only, so that its order is 0, 1, 2, …
  bool is_contiguous() const { return std::ranges::is_sorted(order_); }

  /// The same as a map from query heads to KV heads: KV head g serves group g.
  HeadMap head_map() const { return HeadMap::arbitrary(group_of_, num_groups()); }

  /// "0 1 2 | 3 5 | 4"
  std::string text() const {
    std::string out;
    for (Index g = 0; g < num_groups(); ++g) {
      if (g > 0) out += " |";
      for (const Index h : heads_of(g)) {
        if (!out.empty()) out += ' ';
        out += std::to_string(h);
      }
    }
    return out;
  }

  friend bool operator==(const Partition& a, const Partition& b) { return a.group_of_ == b.group_of_; }
  /// Lexicographic by labels: an order for containers.
  friend bool operator<(const Partition& a, const Partition& b) { return a.group_of_ < b.group_of_; }

 private:
  static constexpr Index kMaxHeads = 1 << 20;

  static void check_counts(Index num_heads, Index num_groups) {
    require(num_heads >= 1 && num_heads <= kMaxHeads, "num_heads (", num_heads, ") of a Partition must be 1 to ",
            kMaxHeads);
    require(num_groups >= 1 && num_groups <= num_heads, "num_groups (", num_groups,
            ") of a Partition must be 1 to num_heads (", num_heads, ")");
  }

  explicit Partition(std::vector<Index> labels) : group_of_(std::move(labels)) {
    require(!group_of_.empty() && num_heads() <= kMaxHeads, "num_heads (", num_heads(),
            ") of a Partition must be 1 to ", kMaxHeads);
    std::vector<Index> renamed;  // [label] → group, −1: not met
    Index groups = 0;
    for (std::size_t h = 0; h < group_of_.size(); ++h) {
      const Index label = group_of_[h];
      require(label >= 0 && label <= kMaxHeads, "labels[", h, "] (", label, ") of a Partition must be 0 to ",
              kMaxHeads);
      if (label >= std::ssize(renamed)) renamed.resize(static_cast<std::size_t>(label) + 1, -1);
      Index& name = renamed[static_cast<std::size_t>(label)];
      if (name < 0) name = groups++;
      group_of_[h] = name;
    }
    order_.resize(group_of_.size());
    std::iota(order_.begin(), order_.end(), Index{0});
    std::ranges::stable_sort(order_, {}, [&](Index h) { return group_of(h); });
    offsets_.assign(static_cast<std::size_t>(groups) + 1, 0);
    for (const Index g : group_of_) ++offsets_[static_cast<std::size_t>(g) + 1];
    std::partial_sum(offsets_.begin(), offsets_.end(), offsets_.begin());
  }

  std::vector<Index> group_of_;  // [head]
  std::vector<Index> order_;     // heads, group by group
  std::vector<Index> offsets_;   // [group] → where it starts in order_
};

}  // namespace headwise::regroup
