// SPDX-License-Identifier: MIT
// How a plan shares the work of a step out among threads.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "headwise/attention/plan.hpp"
#include "headwise/headwise.hpp"

namespace headwise {
namespace {

/// Sequences of any lengths without keys: a plan reads none.
struct Lengths {
  std::vector<Index> queries, keys;
  Index kv_heads = 1;

  TileFormat format() const { return {Storage::f32, Storage::f32, kv_heads, 8, 8}; }
  Index num_sequences() const { return std::ssize(keys); }
  Index num_tokens(Index b) const { return keys[static_cast<std::size_t>(b)]; }
  TilePointers tile(Index, Index, Index) const { return {}; }
};

class Planned {
 public:
  Planned(const Lengths& lengths, Index threads) : map_(HeadMap::contiguous(8, lengths.kv_heads)) {
    for (const Index n : lengths.queries) offsets_.push_back(offsets_.back() + n);
    options_.query_offsets = offsets_;
    plan.make({offsets_.back(), detail::source_ref(lengths), {map_, {}}, &options_}, threads);
  }
  detail::Plan plan;

 private:
  HeadMap map_;
  std::vector<Index> offsets_{0};
  Options options_;
};

/// What the last thread to end does, over the mean, where each claims the next item when it is done.
double imbalance(const detail::Plan& plan, Index threads) {
  std::vector<double> loads(static_cast<std::size_t>(threads));
  double total = 0;
  for (const auto& item : plan.items()) {
    const auto cost = static_cast<double>(item.cost());
    total += cost;
    *std::min_element(loads.begin(), loads.end()) += cost;
  }
  return *std::max_element(loads.begin(), loads.end()) / total * static_cast<double>(threads);
}

const Lengths kMixes[] = {{std::vector<Index>(31, 1),
                           [] {
                             std::vector<Index> keys(31, 500);
                             keys[7] = 32768;
                             return keys;
                           }()},
                          {{1, 2048, 1, 1, 0, 1}, {9000, 2048, 3000, 20000, 70, 100}, 2},
                          {{300, 1, 1}, {20000, 9000, 9000}},
                          {{1}, {32768}, 2}};

TEST(Balance, ThreadsEndWithinATwentiethOfEachOther) {
  for (const Lengths& mix : kMixes)
    for (const Index threads : {1, 2, 3, 8, 16}) {
      const Planned planned(mix, threads);
      EXPECT_LE(imbalance(planned.plan, threads), 1.05 + 1e-9) << threads << " threads";
    }
}

TEST(Balance, EveryRowMeetsEverySegmentOfItsOnce) {
  for (const Lengths& mix : kMixes)
    for (const Index threads : {1, 3, 16}) {
      const Planned planned(mix, threads);
      // [sequence][row][segment], of the rows of all KV heads
      std::vector<std::vector<Index>> met(mix.keys.size());
      for (const auto& item : planned.plan.items()) {
        const auto b = static_cast<std::size_t>(item.sequence);
        const Index segments = ceil_div(mix.keys[b], 1024);
        met[b].resize(static_cast<std::size_t>(mix.queries[b] * 8 * segments));
        for (Index r = 0; r < item.rows; ++r)
          for (Index s = item.segments.begin; s < item.segments.end; ++s)
            ++met[b][static_cast<std::size_t>(
                (item.kv_head * (8 / mix.kv_heads) * mix.queries[b] + item.first_row + r) * segments + s)];
      }
      for (std::size_t b = 0; b < met.size(); ++b) {
        const Index rows = mix.queries[b] * 8, segments = ceil_div(mix.keys[b], 1024);
        if (rows > 0) {
          ASSERT_EQ(std::ssize(met[b]), rows * segments);
        }
        for (Index i = 0; i < std::ssize(met[b]); ++i) {
          const Index group = 8 / mix.kv_heads, token = i / segments % (group * mix.queries[b]) / group;
          const bool sees = i % segments * 1024 <= mix.keys[b] - mix.queries[b] + token;
          const Index times = met[b][static_cast<std::size_t>(i)];
          EXPECT_LE(times, 1);
          if (sees) {
            EXPECT_EQ(times, 1);
          }
        }
      }
    }
}

TEST(Balance, WhatIsBalancedAnywayIsNotSplit) {
  for (const Index threads : {1, 2, 4, 8}) {
    const Planned planned({{1}, {32768}, 8}, threads);
    EXPECT_EQ(planned.plan.items().size(), 8u);
    EXPECT_TRUE(planned.plan.finishes().empty());
  }
}

}  // namespace
}  // namespace headwise
