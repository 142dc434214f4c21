// SPDX-License-Identifier: MIT
#pragma once

#include <limits>

#include "headwise/core/index.hpp"

namespace headwise::detail {

/// What makes softmax weights of a row's scores, in units of log2: 2^(score − max)·factor. The differences are small where
/// weights count, so their errors do not grow with the log-sum-exp, as those of 2^(score − lse) would.
struct RowScale {
  float max, factor;

  /// Not so of a row that is NaN, or has met an infinite score: it has no weights but NaN.
  bool is_finite() const {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    return max < kInfinity && factor < kInfinity;
  }
};

/// Those of all rows of a call, [sequence][token][head] as its outputs are. Refers to memory that holds them.
class RowScales {
 public:
  RowScales(RowScale* memory, Index tokens, Index heads) : memory_(memory), tokens_(tokens), heads_(heads) {}

  RowScale& at(Index sequence, Index token, Index head) const {
    return memory_[(sequence * tokens_ + token) * heads_ + head];
  }

 private:
  RowScale* memory_;
  Index tokens_, heads_;
};

}  // namespace headwise::detail
