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

// chunks, prefixes and padding, beside the rules above
TEST(VisibleKeys, AreTheKeysThatChunksPrefixesAndPaddingAllow) {
  const Index kMost = 7;
  for (Index keys = 0; keys <= kMost; ++keys)
    for (Index start = 0; start <= keys; ++start)
      for (Index prefix = 0; prefix <= keys; ++prefix)
        for (const Index chunk : {Index{0}, Index{1}, Index{2}, Index{3}, kMost, kLargest})
          for (Index window = -1; window <= 4; ++window)
            for (const Index right : {-1, 0, 1})
              for (const Index sinks : {0, 1, 3, 8}) {
                const Index starts[] = {99, start}, prefixes[] = {99, prefix};  // of sequence 1
                Options options;
                options.causal = right == 0;
                if (right > 0) options.window_right = right;
                if (window >= 0) options.window = window;
                if (chunk > 0) options.chunk_size = chunk;
                options.num_sink_tokens = sinks;
                options.key_starts = starts;
                options.prefix_lengths = prefixes;
                const VisibleKeys visible(options, keys, 1);
                Interval before{0, 0};
                for (Index p = -3; p <= kMost + 3; ++p) {
                  const Interval interval = visible(p);
                  ASSERT_GE(interval.begin, std::max(start, before.begin));
                  ASSERT_GE(interval.end, std::max(interval.begin, before.end));
                  ASSERT_LE(interval.end, keys);
                  ASSERT_TRUE(interval.begin == start || interval.begin > visible.sinks());
                  before = interval;
                  for (Index key = 0; key < keys; ++key) {
                    bool expected = key >= start;
                    if (right >= 0 && key > p + right && key >= prefix) expected = false;
                    if (key >= start + sinks) {
                      if (window >= 0 && key < p - window + 1) expected = false;
                      // in an earlier chunk of those that begin at `start`
                      if (chunk > 0 && p >= start && key >= start && (key - start) / chunk < (p - start) / chunk)
                        expected = false;
                    }
                    const bool is_sink = interval.begin > start && key >= start && key < visible.sinks();
                    ASSERT_EQ(is_sink || (key >= interval.begin && key < interval.end), expected)
                        << "key " << key << " from " << p << " of " << keys << " keys from " << start << ", prefix "
                        << prefix << ", chunk " << chunk << ", window " << window << ", right " << right << ", sinks "
                        << sinks;
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
