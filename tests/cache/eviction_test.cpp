// SPDX-License-Identifier: MIT
// Tokens are chosen by their masses as H2O and SnapKV do, and a cache of the chosen ones attends to these.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "headwise/headwise.hpp"
#include "tests/support/errors.hpp"

namespace headwise {
namespace {

using testing::expect_error;
using Positions = std::vector<Index>;

std::vector<float> some_masses(Index count, unsigned seed) {
  std::mt19937 generator(seed);
  std::vector<float> masses;
  for (Index i = 0; i < count; ++i) masses.push_back(static_cast<float>(generator() % 16) / 8);  // with equals
  return masses;
}

/// The choice by hand: takes the heaviest left, the first of equals, until there are enough.
Positions taken_one_by_one(std::vector<float> masses, Index candidates, Index count, Index tokens) {
  Positions taken;
  for (Index i = 0; i < std::min(count, candidates); ++i) {
    Index best = -1;
    for (Index t = 0; t < candidates; ++t) {
      if (std::find(taken.begin(), taken.end(), t) != taken.end()) continue;
      if (best < 0 || masses[static_cast<std::size_t>(t)] > masses[static_cast<std::size_t>(best)]) best = t;
    }
    taken.push_back(best);
  }
  for (Index t = candidates; t < tokens; ++t) taken.push_back(t);
  std::sort(taken.begin(), taken.end());
  return taken;
}

TEST(KeepHeavyHitters, TakesTheLastTokensAndTheHeaviestOfTheRest) {
  for (const Index tokens : {0, 1, 2, 30, 31})
    for (const Index recent : {0, 1, 10, 40})
      for (const Index more : {0, 1, 7, 100}) {
        const std::vector<float> masses = some_masses(tokens, static_cast<unsigned>(tokens + recent));
        EXPECT_EQ(keep_heavy_hitters(masses, recent + more, recent),
                  taken_one_by_one(masses, tokens - std::min(recent, tokens), more, tokens))
            << tokens << " tokens, " << recent << " recent, " << more << " more";
      }
}

TEST(KeepHeavyHitters, RefusesWhatCannotBeMeant) {
  const std::vector<float> masses{1, std::numeric_limits<float>::quiet_NaN()};
  expect_error([&] { (void)keep_heavy_hitters(masses, 1, -1); }, {"recent (-1)"});
  expect_error([&] { (void)keep_heavy_hitters(masses, 1, 2); }, {"budget (1)", "recent (2)"});
  expect_error([&] { (void)keep_heavy_hitters(masses, 2, 1); }, {"mass[1] (NaN)"});
}

TEST(KeepObserved, TakesTheWindowAndTheHeaviestAfterPooling) {
  for (const Index tokens : {0, 1, 5, 40})
    for (const Index window : {0, 1, 8, 50})
      for (const Index kernel : {1, 3, 7})
        for (const Pooling pooling : {Pooling::average, Pooling::max}) {
          const std::vector<float> masses = some_masses(tokens, static_cast<unsigned>(tokens + window + kernel));
          const Index before = tokens - std::min(window, tokens);
          std::vector<float> pooled;
          for (Index t = 0; t < before; ++t) {
            float sum = 0, most = 0;
            for (Index i = -(kernel / 2); i <= kernel / 2; ++i) {
              const float x = t + i >= 0 && t + i < before ? masses[static_cast<std::size_t>(t + i)] : 0.0f;
              sum += x;
              most = std::max(most, x);
            }
            // as exact as multiples of 1/8 are, whatever they are divided by
            pooled.push_back(pooling == Pooling::max
                                 ? most
                                 : static_cast<float>(static_cast<double>(sum) / static_cast<double>(kernel)));
          }
          EXPECT_EQ(keep_observed(masses, window + 6, {window, kernel, pooling}),
                    taken_one_by_one(pooled, before, 6, tokens))
              << tokens << " tokens, window of " << window << ", kernel of " << kernel;
        }
}

TEST(KeepObserved, ClustersAroundWhatIsHeavy) {
  std::vector<float> masses(100, 0.0f);
  masses[50] = 10;
  EXPECT_EQ(keep_observed(masses, 7, {.window = 2, .kernel = 5}), (Positions{48, 49, 50, 51, 52, 98, 99}));
  EXPECT_EQ(keep_observed(masses, 7, {.window = 2, .kernel = 1}), (Positions{0, 1, 2, 3, 50, 98, 99}));
}

TEST(KeepObserved, RefusesWhatCannotBeMeant) {
  const std::vector<float> masses(10, 1.0f);
  expect_error([&] { (void)keep_observed(masses, 5, {.window = -1}); }, {"window (-1)"});
  expect_error([&] { (void)keep_observed(masses, 5, {.window = 2, .kernel = 4}); }, {"kernel (4)", "odd"});
  expect_error([&] { (void)keep_observed(masses, 5, {.window = 6}); }, {"budget (5)", "window (6)"});
}

TEST(MassOfTokens, SumsTheHeadsOfASequence) {
  const std::vector<float> mass{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};  // [2][3][2]
  const View<const float> view(mass.data(), 2, 3, 2, 1);
  EXPECT_EQ(mass_of_tokens(view, 1, 2), (std::vector<float>{15, 19}));
  expect_error([&] { (void)mass_of_tokens(view, 2, 2); }, {"sequence (2)"});
  expect_error([&] { (void)mass_of_tokens(view, 0, 4); }, {"tokens (4)"});
}

/// Keys and values of `tokens` tokens of 2 KV heads of 8 dimensions.
std::vector<float> numbers(Index tokens, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<std::size_t>(tokens * 16));
  for (float& y : x) y = normal(generator);
  return x;
}

/// What attention pays the tokens of a sequence, as a cache's user goes about it.
template <class Layer>
Positions choose(const Layer& layer, const std::vector<float>& q, Index queries, Index tokens) {
  std::vector<float> out(static_cast<std::size_t>(queries * 32)), mass(static_cast<std::size_t>(tokens * 2));
  Outputs outputs(View<float>(out.data(), queries, 4, 8));
  outputs.mass = MassOutput(View<float>(mass.data(), tokens, 2, 1));
  Gqa<4, 2, 8>()(View<const float>(q.data(), queries, 4, 8), layer, outputs);
  return keep_heavy_hitters(mass_of_tokens(View<float>(mass.data(), tokens, 2, 1), 0, tokens), 40, 10);
}

TEST(CopyTokens, OfAKvCacheLeavesTheChosenOnesAtTheirNewPlaces) {
  const Index tokens = 150;
  const std::vector<float> k = numbers(tokens, 1), v = numbers(tokens, 2), q = numbers(2 * tokens, 3);
  KvCache<float> cache(Heads<>{4, 2, 8}, tokens, {.num_sequences = 2});
  const auto rows = [](const std::vector<float>& x, Index first, Index count) {
    return View<const float>(x.data() + first * 16, count, 2, 8);
  };
  cache.append(0, 0, rows(k, 0, tokens), rows(v, 0, tokens));
  KvCache<float> alone(Heads<>{4, 2, 8}, tokens);
  alone.append(rows(k, 0, tokens), rows(v, 0, tokens));
  const Positions kept = choose(alone, q, tokens, tokens);
  ASSERT_EQ(std::ssize(kept), 40);

  copy_tokens(cache, Index{0}, kept, Index{1});
  cache.fork(1, 0);
  cache.clear(1);
  ASSERT_EQ(cache.num_tokens(0, 0), 40);
  for (Index i = 0; i < 40; ++i)
    for (Index h = 0; h < 2; ++h) {
      std::vector<float> key(8), value(8);
      cache.read_key(0, 0, i, h, key);
      cache.read_value(0, 0, i, h, value);
      const Index at = (kept[static_cast<std::size_t>(i)] * 2 + h) * 8;
      EXPECT_EQ(key, std::vector<float>(k.begin() + at, k.begin() + at + 8));
      EXPECT_EQ(value, std::vector<float>(v.begin() + at, v.begin() + at + 8));
    }
}

TEST(CopyTokens, OfAPagedCacheLeavesTheChosenOnes) {
  const Index tokens = 150;
  const std::vector<float> k = numbers(tokens, 1), v = numbers(tokens, 2);
  PagedCache<float> cache(Heads<>{4, 2, 8}, 10);
  const SequenceId from = cache.create(), to = cache.create();
  const View<const float> keys(k.data(), tokens, 2, 8), values(v.data(), tokens, 2, 8);
  cache.append(0, from, keys, values);
  const Positions kept{0, 1, 5, 70, 71, 72, 149};
  copy_tokens(cache, from, kept, to);
  ASSERT_EQ(cache.num_tokens(0, to), 7);
  for (Index i = 0; i < 7; ++i) {
    std::vector<float> key(8);
    cache.read_key(0, to, i, 1, key);
    const Index at = (kept[static_cast<std::size_t>(i)] * 2 + 1) * 8;
    EXPECT_EQ(key, std::vector<float>(k.begin() + at, k.begin() + at + 8));
  }
}

TEST(CopyTokens, RefusesPositionsThatDoNotAscend) {
  const std::vector<float> x = numbers(10, 1);
  KvCache<float> cache(Heads<>{4, 2, 8}, 20, {.num_sequences = 2});
  cache.append(0, 0, View<const float>(x.data(), 10, 2, 8), View<const float>(x.data(), 10, 2, 8));
  for (const Positions& kept : {Positions{1, 1}, Positions{0, 10}, Positions{-1}, Positions{4, 3}})
    expect_error([&] { copy_tokens(cache, Index{0}, kept, Index{1}); }, {"kept["});
  EXPECT_EQ(cache.num_tokens(0, 1), 0);
}

}  // namespace
}  // namespace headwise
