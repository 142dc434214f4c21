// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <atomic>
#include <vector>

#include "headwise/core/index.hpp"

namespace headwise {

/// How often each index of a parallel_for was run.
class RunCounts {
 public:
  explicit RunCounts(Index n) : counts_(static_cast<std::size_t>(n)) {}

  void add(Index i) { ++counts_.at(static_cast<std::size_t>(i)); }

  /// The number of indices that were not run exactly once.
  Index wrong() const {
    return std::count_if(counts_.begin(), counts_.end(), [](const std::atomic<int>& count) { return count != 1; });
  }

 private:
  std::vector<std::atomic<int>> counts_;
};

}  // namespace headwise
