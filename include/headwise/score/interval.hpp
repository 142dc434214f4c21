// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <limits>

#include "headwise/core/index.hpp"
#include "headwise/score/options.hpp"

namespace headwise {

/// The keys [begin, end) that a query sees; empty where begin >= end.
struct Interval {
  Index begin = 0;
  Index end = 0;
  friend bool operator==(const Interval&, const Interval&) = default;
};

/// Every interval mask as integer arithmetic: for the query at position p of a sequence of `keys` keys, the visible
/// keys. These are an interval, and where that has left key 0 behind, the sink tokens [0, sinks()) before it; where the
/// two touch they are one interval. Both ends grow with p, so the union and the intersection over a range of queries are
/// at its two ends.
class VisibleKeys {
 public:
  VisibleKeys(const Options& options, Index keys)
      : keys_(keys),
        window_(options.window.value_or(kUnlimited)),
        right_(options.causal ? 0 : options.window_right.value_or(kUnlimited)),
        sinks_(std::min(options.num_sink_tokens, keys)) {}

  /// Those from 0 on that a query sees besides its interval, where that begins behind key 0: behind them all then.
  Index sinks() const { return sinks_; }

  Interval operator()(Index p) const {
    // no sum below overflows: p lies within ± 2^61, and "unlimited" is handled apart
    const Index end =
        std::clamp<Index>(right_ == kUnlimited || right_ > keys_ - 1 - p ? keys_ : p + right_ + 1, 0, keys_);
    // no key but sinks, so that the hull of several queries holds no other
    if (window_ == 0 && right_ == 0) return {0, std::min(end, sinks_)};
    const Index begin = std::clamp<Index>(window_ == kUnlimited || window_ > p ? 0 : p - window_ + 1, 0, keys_);
    return {begin <= sinks_ ? 0 : begin, end};
  }

 private:
  static constexpr Index kUnlimited = std::numeric_limits<Index>::max();

  Index keys_, window_, right_, sinks_;
};

}  // namespace headwise
