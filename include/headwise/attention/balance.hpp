// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <functional>
#include <vector>

#include "headwise/attention/work_item.hpp"

namespace headwise::detail {

/// Into how many parts work items must be split so that threads that claim them, the longest first, end together.
/// Reuses its memory.
class Balance {
 public:
  /// The most that a part may cost. Halves of a thread's share, quarters and so on, down to a sixteenth: as few and as
  /// long parts as end within a twentieth of each other; 0: nothing needs to be split.
  Index part_cost(const std::vector<WorkItem>& items, Index threads) {
    if (threads == 1) return 0;
    Index total = 0, longest = 0, most_parts = 1;
    for (const WorkItem& item : items) {
      total += item.cost();
      longest = std::max(longest, item.cost());
      most_parts = std::max(most_parts, item.segments.count());
    }
    const Index share = ceil_div(total, threads);
    // greedy assignment ends at most one item later than the mean
    if (most_parts == 1 || longest <= share / kTolerance) return 0;
    Index best = 0, best_load = largest_load(items, threads, 0);
    for (const Index parts : {1, 2, 3, 4, 6, 8, 12, 16}) {
      if (best_load <= share + share / kTolerance) break;
      const Index cost = ceil_div(share, parts), load = largest_load(items, threads, cost);
      if (load >= best_load) continue;
      best_load = load;
      best = cost;
    }
    return best;
  }

  /// Into how many segments each part of an item goes.
  static Index part_segments(const WorkItem& item, Index part_cost) {
    const Index count = item.segments.count();
    if (part_cost == 0 || count == 0) return std::max<Index>(1, count);
    return ceil_div(count, std::clamp<Index>(ceil_div(item.cost(), part_cost), 1, count));
  }

  /// The most parts, beyond one for each item, that a split makes.
  static Index most_parts(Index threads) { return 16 * threads; }

 private:
  static constexpr Index kTolerance = 20;

  /// What the last thread to end has done.
  Index largest_load(const std::vector<WorkItem>& items, Index threads, Index part_cost) {
    costs_.clear();
    for (const WorkItem& item : items) {
      const Index step = part_segments(item, part_cost);
      item.segments.for_each_part(step, [&](Index begin, Index end) {
        WorkItem part = item;
        part.segments = {begin, end};
        costs_.push_back(part.cost());
      });
    }
    std::sort(costs_.begin(), costs_.end(), std::greater<>());
    loads_.assign(static_cast<std::size_t>(threads), 0);  // a heap, the least on top
    for (const Index cost : costs_) {
      std::pop_heap(loads_.begin(), loads_.end(), std::greater<>());
      loads_.back() += cost;
      std::push_heap(loads_.begin(), loads_.end(), std::greater<>());
    }
    return *std::max_element(loads_.begin(), loads_.end());
  }

  std::vector<Index> costs_, loads_;
};

}  // namespace headwise::detail
