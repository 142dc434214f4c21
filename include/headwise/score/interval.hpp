// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <limits>

#include "headwise/core/checked.hpp"
#include "headwise/core/index.hpp"
#include "headwise/score/options.hpp"

namespace headwise {

/// The keys [begin, end) that a query sees; empty where begin >= end.
struct Interval {
  Index begin = 0;
  Index end = 0;
  friend bool operator==(const Interval&, const Interval&) = default;
};

/// Every interval mask as integer arithmetic: for the query at position p of sequence `sequence`, which has `keys` keys, the
/// visible ones. These are an interval, and where that has left the first key behind, the sink tokens [first(), sinks())
/// before it; where the two touch they are one interval. Both ends grow with p, so the union and the intersection over a
/// range of queries are at its two ends.
class VisibleKeys {
 public:
  VisibleKeys(const Options& options, Index keys, Index sequence = 0)
      : keys_(keys),
        first_(of(options.key_starts, sequence)),
        prefix_(of(options.prefix_lengths, sequence)),
        window_(options.window.value_or(kUnlimited)),
        right_(options.causal ? 0 : options.window_right.value_or(kUnlimited)),
        chunk_(options.chunk_size.value_or(kUnlimited)),
        sinks_(first_ + std::min(options.num_sink_tokens, keys - first_)) {}

  /// The first key there is.
  Index first() const { return first_; }
  /// The end of those that a query sees besides its interval, where that begins behind the first: behind them all then.
  Index sinks() const { return sinks_; }
  bool has_sinks() const { return sinks_ > first_; }

  Interval operator()(Index p) const {
    // no sum below overflows: p lies within ± 2^61, and "unlimited" is handled apart
    const Index right = right_ == kUnlimited || right_ > keys_ - 1 - p ? keys_ : p + right_ + 1;
    const Index end = std::clamp(std::max(right, prefix_), first_, keys_);
    // no key but sinks, so that the hull of several queries holds no other
    if (window_ == 0 && right_ == 0 && prefix_ == 0) return {first_, std::min(end, sinks_)};
    const Index window = window_ == kUnlimited || window_ > p ? 0 : p - window_ + 1;
    const Index chunk = chunk_ == kUnlimited || p < first_ ? 0 : p - (p - first_) % chunk_;
    const Index begin = std::clamp(std::max(window, chunk), first_, keys_);
    return {begin <= sinks_ ? first_ : begin, std::max(begin, end)};
  }

 private:
  static constexpr Index kUnlimited = std::numeric_limits<Index>::max();

  static Index of(std::span<const Index> all, Index sequence) {
    return all.empty() ? 0 : detail::checked_at(all, sequence, "sequence of key_starts or prefix_lengths");
  }

  Index keys_, first_, prefix_, window_, right_, chunk_, sinks_;
};

}  // namespace headwise
