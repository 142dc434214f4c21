// SPDX-License-Identifier: MIT
#include "headwise/score/score_function.hpp"

#include <gtest/gtest.h>

#include <array>
#include <numeric>
#include <type_traits>
#include <vector>

namespace headwise {
namespace {

constexpr int kAllLanes[] = {4, 8, 16};

/// Whether this CPU runs what is compiled for so many lanes.
bool runs(int lanes) {
#if defined(__x86_64__)
  if (lanes == 8) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (lanes == 16)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#endif
  return lanes > 0;
}

std::array<float, kTileTokens> counted() {
  std::array<float, kTileTokens> row;
  std::iota(row.begin(), row.end(), 1.0f);
  return row;
}

TEST(ScoreFunction, OfOneScoreIsCalledForEachKeyOfTheTile) {
  const auto function = [](float score, Index sequence, Index head, Index query, Index key) {
    return score + static_cast<float>(1000 * sequence + 100 * head + 10 * query + key);
  };
  for (const int lanes : kAllLanes) {
    if (!runs(lanes)) continue;
    auto row = counted();
    ScoreFunction{function}(lanes, row.data(), 3, 2, 7, 128);
    for (Index j = 0; j < kTileTokens; ++j)
      EXPECT_EQ(row[static_cast<std::size_t>(j)], static_cast<float>(1 + j + 3000 + 200 + 70 + 128 + j)) << lanes;
  }
}

TEST(ScoreFunction, OfARowIsCalledOnceForATile) {
  struct Seen {
    Index sequence, head, query, first_key;
  };
  std::vector<Seen> calls;
  const auto function = [&](std::span<float> scores, Index sequence, Index head, Index query, Index first_key) {
    calls.push_back({sequence, head, query, first_key});
    for (float& score : scores) score = -score;
  };
  auto row = counted();
  ScoreFunction{function}(4, row.data(), 1, 5, 70, 64);
  ASSERT_EQ(calls.size(), 1u);
  EXPECT_TRUE(calls[0].sequence == 1 && calls[0].head == 5 && calls[0].query == 70 && calls[0].first_key == 64);
  for (Index j = 0; j < kTileTokens; ++j) EXPECT_EQ(row[static_cast<std::size_t>(j)], -static_cast<float>(1 + j));
}

TEST(ScoreFunction, RefersToAnObjectWithState) {
  struct Factor {
    float value;
    float operator()(float score, Index, Index, Index, Index) const { return value * score; }
  } factor{2};
  const ScoreFunction function(factor);
  factor.value = 5;
  auto row = counted();
  function(4, row.data(), 0, 0, 0, 0);
  EXPECT_EQ(row[1], 10.0f);
}

TEST(ScoreFunction, WithoutStateMayBeATemporary) {
  const ScoreFunction function = [](float score, Index, Index, Index, Index) { return score + 1; };
  auto row = counted();
  function(4, row.data(), 0, 0, 0, 0);
  EXPECT_EQ(row[0], 2.0f);
}

TEST(ScoreFunction, IsNoneByDefault) {
  EXPECT_FALSE(ScoreFunction());
  EXPECT_TRUE(ScoreFunction([](float score, Index, Index, Index, Index) { return score; }));
}

TEST(ScoreFunction, IsMadeOfNothingElse) {
  struct Other {
    float operator()(float) const { return 0; }
  };
  struct Mutable {
    float operator()(float score, Index, Index, Index, Index) { return score; }
  };
  static_assert(!std::is_constructible_v<ScoreFunction, Other&>);
  static_assert(!std::is_constructible_v<ScoreFunction, Mutable&>);
  static_assert(!std::is_constructible_v<ScoreFunction, int>);
  static_assert(std::is_trivially_copyable_v<ScoreFunction>);
}

}  // namespace
}  // namespace headwise
