// SPDX-License-Identifier: MIT
#pragma once

#include <limits>

#include "headwise/attention/work_item.hpp"
#include "headwise/kernel/table.hpp"

namespace headwise::detail {

/// Rows whose weighted values of a segment add up to more than may be added to those of other segments, or than a float
/// holds: their weights are made smaller, and those of no other rows.
class LiftedRows {
 public:
  /// Sums within it can be added up: those of 2^31 segments are finite.
  static constexpr float kLargestSum = 0x1p80f;

  /// sums  [rows][dim], as they are at each question
  LiftedRows(const TileKernels& kernels, const float* sums, Index rows, Index dim)
      : kernels_(kernels), sums_(sums), rows_(rows), dim_(dim) {}

  /// Lifts the rows whose sums are too large; returns whether there are any.
  bool lift() {
    bool any = false;
    for (Index r = 0; r < rows_; ++r) {
      const bool large = !within(r, kLargestSum);
      lifts_[r] = large ? kLift : 0.0f;
      any |= large;
    }
    return any;
  }
  /// Lets go of the rows that are no numbers all the same: they see an infinity or NaN. Returns whether there are any.
  bool let_go() {
    bool any = false;
    for (Index r = 0; r < rows_; ++r) {
      if (lifts_[r] == 0.0f || within(r, std::numeric_limits<float>::max())) continue;
      lifts_[r] = 0.0f;
      any = true;
    }
    return any;
  }
  /// By how much the weights of each row are made smaller, in powers of two.
  const float* lifts() const { return lifts_; }

 private:
  bool within(Index row, float bound) const { return kernels_.all_within(sums_ + row * dim_, dim_, bound); }

  const TileKernels& kernels_;
  const float* sums_;
  Index rows_, dim_;
  float lifts_[kMostRows];
};

}  // namespace headwise::detail
