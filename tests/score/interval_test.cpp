// SPDX-License-Identifier: MIT
#include "headwise/score/interval.hpp"

#include <gtest/gtest.h>

#include <optional>

namespace headwise {
namespace {

constexpr Index kLargest = std::numeric_limits<Index>::max();

TEST(VisibleKeys, AreTheKeysThatEachRuleAllowsForEverySmallCase) {
  const Index kMost = 7;
  for (Index keys = 0; keys <= kMost; ++keys)
    for (int causal = 0; causal < 2; ++causal)
      for (Index window = -1; window <= kMost + 2; ++window)
        for (Index right = -1; right <= kMost + 2; ++right)
          for (Index sinks = 0; sinks <= kMost + 1; ++sinks) {
            Options options;
            options.causal = causal != 0;
            if (window >= 0) options.window = window;
            if (right >= 0) options.window_right = right;
            options.num_sink_tokens = sinks;
            const VisibleKeys visible(options, keys);
            for (Index p = -kMost; p <= kMost + 3; ++p) {
              const Interval interval = visible(p);
              ASSERT_GE(interval.begin, 0);
              ASSERT_LE(interval.begin, interval.end);
              ASSERT_LE(interval.end, keys);
              ASSERT_TRUE(interval.begin == 0 || interval.begin > visible.sinks());
              for (Index key = 0; key < keys; ++key) {
                bool expected = true;
                if (causal && key > p) expected = false;
                if (window >= 0 && key < p - window + 1 && key >= sinks) expected = false;
                if (right >= 0 && key > p + right) expected = false;
                const bool is_sink = interval.begin > 0 && key < visible.sinks();
                ASSERT_EQ(is_sink || (key >= interval.begin && key < interval.end), expected)
                    << "key " << key << " from " << p << " of " << keys << " keys, causal " << causal << ", window "
                    << window << ", window_right " << right << ", sinks " << sinks;
              }
            }
          }
}

TEST(VisibleKeys, GrowWithThePositionAtBothEnds) {
  for (Index window : {Index{0}, Index{1}, Index{5}, kLargest})
    for (Index right : {Index{0}, Index{3}, kLargest})
      for (Index sinks : {Index{0}, Index{4}, Index{19}, kLargest}) {
        Options options;
        options.causal = false;
        options.window = window;
        options.window_right = right;
        options.num_sink_tokens = sinks;
        const VisibleKeys visible(options, 20);
        for (Index p = -25; p < 25; ++p) {
          EXPECT_LE(visible(p).begin, visible(p + 1).begin);
          EXPECT_LE(visible(p).end, visible(p + 1).end);
        }
      }
}

TEST(VisibleKeys, TheLargestWindowsAreNoWindows) {
  Options options;
  options.causal = false;
  options.window = kLargest;
  options.window_right = kLargest;
  for (const Index p : {Index{-3}, Index{0}, Index{50}, Index{1} << 60})
    EXPECT_EQ(VisibleKeys(options, 100)(p), (Interval{0, 100})) << p;
  options.window = kLargest - 1;
  options.window_right = kLargest - 1;
  for (const Index p : {Index{-3}, Index{0}, Index{50}, Index{1} << 60})
    EXPECT_EQ(VisibleKeys(options, 100)(p), (Interval{0, 100})) << p;
}

TEST(VisibleKeys, PositionsBeyond32BitsAreCounted) {
  Options options;
  options.window = 10;
  const Index keys = Index{1} << 40;
  EXPECT_EQ(VisibleKeys(options, keys)(keys - 1), (Interval{keys - 10, keys}));
}

}  // namespace
}  // namespace headwise
