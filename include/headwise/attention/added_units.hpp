// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "headwise/attention/mask_row.hpp"
#include "headwise/core/log2_units.hpp"

// Scores are kept in units of log2, in which the lowest numbers of an additive mask would be infinite. Where there is one,
// units are stretched beyond ±2^126: every finite number stays finite, and the larger of two stays the larger.

namespace headwise::detail {

struct AddedUnits {
  static constexpr float kStretched = 0x1p126f, kFrom = kStretched * kLog2e;
  /// So that the largest float is, but for a rounding, the largest again.
  static constexpr float kStretch =
      (std::numeric_limits<float>::max() - kFrom) / (std::numeric_limits<float>::max() - kStretched) * (1 - 0x1p-22f);

  static float to_log2(float x) {
    const float size = std::fabs(x), stretched = kFrom + (size - kStretched) * kStretch;
    return size <= kStretched ? x * kLog2e : std::copysign(stretched, x);  // NaN: either is
  }
  /// The other way, of a log-sum-exp.
  static float to_natural(float x) {
    const double size = std::fabs(static_cast<double>(x));
    if (!(size > kFrom) || std::isinf(x)) return x * kLn2;
    const double natural = kStretched + (size - static_cast<double>(kFrom)) / static_cast<double>(kStretch);
    constexpr double kMost = std::numeric_limits<float>::max();
    return static_cast<float>(std::copysign(std::min(natural, kMost), static_cast<double>(x)));
  }
};

/// The units of a call's scores, and of what is made of them.
struct ScoreUnits {
  bool stretched;  // where a mask adds

  explicit ScoreUnits(const Options& options) : stretched(adds_mask(options)) {}

  float to_log2(float natural) const { return stretched ? AddedUnits::to_log2(natural) : natural * kLog2e; }
  float to_natural(float log2) const { return stretched ? AddedUnits::to_natural(log2) : log2 * kLn2; }
};

}  // namespace headwise::detail
