// SPDX-License-Identifier: MIT
#pragma once

#include <limits>
#include <span>
#include <vector>

#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"

namespace headwise::regroup {

/// Which partitions to enumerate: all of num_heads heads into exactly num_groups groups, or those into equal sizes.
struct PartitionSpace {
  Index num_heads = 0;
  Index num_groups = 0;
  bool equal_sizes = false;

  /// Throws std::invalid_argument unless 1 ≤ num_groups ≤ num_heads, and, for equal sizes, num_groups divides num_heads.
  void check() const {
    require(num_heads >= 1, "num_heads (", num_heads, ") must be at least 1");
    require(num_groups >= 1 && num_groups <= num_heads, "num_groups (", num_groups, ") must be 1 to num_heads (",
            num_heads, ")");
    require(!equal_sizes || num_heads % num_groups == 0, "num_heads (", num_heads,
            ") must be a multiple of num_groups (", num_groups, ") for equal sizes");
  }
};

namespace detail {

/// Saturating arithmetic on counts; the largest Index stands for all larger numbers.
inline Index saturating_add(Index a, Index b) {
  constexpr Index most = std::numeric_limits<Index>::max();
  return a > most - b ? most : a + b;
}
inline Index saturating_multiply(Index a, Index b) {
  constexpr Index most = std::numeric_limits<Index>::max();
  return b != 0 && a > most / b ? most : a * b;
}

}  // namespace detail

/// How many partitions there are: a Stirling number of the second kind, or H! / ((H/G)!^G · G!) for equal sizes. The
/// largest Index stands for all larger numbers. Throws std::invalid_argument as PartitionSpace::check does.
inline Index count_partitions(const PartitionSpace& space) {
  space.check();
  const auto heads = static_cast<std::size_t>(space.num_heads), groups = static_cast<std::size_t>(space.num_groups);
  if (!space.equal_sizes) {  // S(n, k) = k·S(n−1, k) + S(n−1, k−1), row by row
    std::vector<Index> row(groups + 1, 0);
    row[0] = 1;
    for (std::size_t n = 1; n <= heads; ++n) {
      for (std::size_t k = groups; k >= 1; --k)
        row[k] = detail::saturating_add(detail::saturating_multiply(static_cast<Index>(k), row[k]), row[k - 1]);
      row[0] = 0;
    }
    return row[groups];
  }
  // The first head that is left chooses its s−1 companions: Π over the groups of C(left − 1, s − 1), by Pascal's triangle
  const std::size_t size = heads / groups;
  std::vector<Index> choose(size, 0);  // choose[k] = C(n, k)
  choose[0] = 1;
  Index count = 1;
  for (std::size_t n = 0; n < heads; ++n) {
    if (n % size == size - 1) count = detail::saturating_multiply(count, choose[size - 1]);
    for (std::size_t k = size - 1; k >= 1; --k) choose[k] = detail::saturating_add(choose[k], choose[k - 1]);
  }
  return count;
}

/// Calls visit(labels) for every partition, once each, in lexicographic order of its labels: a restricted growth string,
/// group of every head, as std::span<const Index> that is valid during the call (Partition::from_labels keeps it).
/// Throws std::invalid_argument as PartitionSpace::check does.
template <class Visit>
void for_each_partition(const PartitionSpace& space, Visit&& visit) {
  space.check();
  const Index heads = space.num_heads, groups = space.num_groups;
  const Index largest = space.equal_sizes ? heads / groups : heads;
  std::vector<Index> labels(static_cast<std::size_t>(heads), -1), sizes(static_cast<std::size_t>(groups), 0),
      used(static_cast<std::size_t>(heads) + 1, 0);  // used[h]: groups among the heads before h
  // Depth first without recursion: head h takes the next label that can still lead to exactly `groups` groups.
  Index h = 0;
  while (h >= 0) {
    Index& label = labels[static_cast<std::size_t>(h)];
    const Index before = used[static_cast<std::size_t>(h)];
    if (label >= 0) --sizes[static_cast<std::size_t>(label)];
    const auto fits = [&](Index g) {
      const Index after = g == before ? before + 1 : before;
      return sizes[static_cast<std::size_t>(g)] < largest && groups - after <= heads - h - 1;
    };
    for (++label; label <= before && label < groups && !fits(label);) ++label;
    if (label > before || label >= groups) {
      label = -1;
      --h;
      continue;
    }
    ++sizes[static_cast<std::size_t>(label)];
    used[static_cast<std::size_t>(h) + 1] = label == before ? before + 1 : before;
    if (h + 1 == heads)
      visit(std::span<const Index>(labels));
    else
      ++h;
  }
}

}  // namespace headwise::regroup
