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
/// keys. Both ends grow with p, so the union and the intersection over a range of queries are at its two ends.
class VisibleKeys {
 public:
  VisibleKeys(const Options& options, Index keys)
      : keys_(keys),
        window_(options.window.value_or(kUnlimited)),
        right_(options.causal ? 0 : options.window_right.value_or(kUnlimited)) {}

  Interval operator()(Index p) const {
    if (window_ == 0 && right_ == 0) return {};  // no key, so that the hull of several queries is empty as well
    // no sum below overflows: p lies within ± 2^61, and "unlimited" is handled apart
    const Index begin = window_ == kUnlimited || window_ > p ? 0 : p - window_ + 1;
    const Index end = right_ == kUnlimited || right_ > keys_ - 1 - p ? keys_ : p + right_ + 1;
    return clamp({begin, end});
  }

 private:
  static constexpr Index kUnlimited = std::numeric_limits<Index>::max();

  Interval clamp(Interval x) const {
    x.begin = std::clamp<Index>(x.begin, 0, keys_);
    x.end = std::clamp<Index>(x.end, x.begin, keys_);
    return x;
  }

  Index keys_, window_, right_;
};

}  // namespace headwise
