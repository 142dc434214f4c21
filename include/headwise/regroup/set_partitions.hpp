// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <vector>

#include "headwise/core/index.hpp"
#include "headwise/regroup/partition.hpp"

namespace headwise::regroup::detail {

/// visit(partition) for every partition of the heads into at most max_groups groups, in the order of their labels. There
/// are Bell(num_heads) of them where max_groups = num_heads: 21,147 of 9 heads, 4,213,597 of 12.
template <class Visit>
void for_each_partition(Index num_heads, Index max_groups, Visit&& visit) {
  std::vector<Index> labels(static_cast<std::size_t>(num_heads), 0);
  while (true) {
    visit(Partition::from_labels(labels));
    // The next restricted growth string: raise the last label that may be raised, to at most one above those before it.
    std::size_t h = labels.size() - 1;
    for (; h > 0; --h) {
      const Index used = 1 + *std::max_element(labels.begin(), labels.begin() + static_cast<Index>(h));
      if (labels[h] < std::min(used, max_groups - 1)) break;
    }
    if (h == 0) return;
    ++labels[h];
    std::fill(labels.begin() + static_cast<Index>(h) + 1, labels.end(), 0);
  }
}

}  // namespace headwise::regroup::detail
