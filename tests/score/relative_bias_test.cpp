// SPDX-License-Identifier: MIT
#include "headwise/score/relative_bias.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tests/support/errors.hpp"

namespace headwise {
namespace {

using testing::expect_error;

/// T5's function as published: logarithms in double, truncated.
Index published_bucket(Index relative_position, bool bidirectional, Index num_buckets, Index max_distance) {
  Index result = 0, n = 0;
  if (bidirectional) {
    num_buckets /= 2;
    result = relative_position > 0 ? num_buckets : 0;
    n = relative_position < 0 ? -relative_position : relative_position;
  } else {
    n = relative_position < 0 ? -relative_position : 0;
  }
  const Index max_exact = num_buckets / 2;
  if (n < max_exact) return result + n;
  const double fraction = std::log(static_cast<double>(n) / static_cast<double>(max_exact)) /
                          std::log(static_cast<double>(max_distance) / static_cast<double>(max_exact));
  const Index large = max_exact + static_cast<Index>(fraction * static_cast<double>(num_buckets - max_exact));
  return result + std::min(large, num_buckets - 1);
}

TEST(RelativeBias, BucketsAreThoseOfThePublishedFormula) {
  for (const bool bidirectional : {true, false})
    for (const auto& [buckets, furthest] :
         {std::pair<Index, Index>{32, 128}, {16, 64}, {32, 256}, {320, 800}, {33, 100}})
      for (Index distance = -1000; distance <= 1000; ++distance)
        ASSERT_EQ(RelativeBias::bucket(distance, {buckets, furthest, bidirectional}),
                  published_bucket(distance, bidirectional, buckets, furthest))
            << distance << " of " << buckets << " buckets up to " << furthest;
}

TEST(RelativeBias, BucketsOfT5BeginAtTheseDistances) {
  // n^8 ≥ 8^8·16^j, and n^16 ≥ 16^16·8^j: the bounds of the logarithmic buckets in whole numbers
  const std::vector<Index> encoder{0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91};
  const std::vector<Index> decoder{0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                   16, 19, 21, 24, 27, 31, 35, 40, 46, 52, 59, 67, 77, 87, 99, 113};
  for (Index n = 0; n <= 300; ++n) {
    const auto of = [&](const std::vector<Index>& begins) {
      return std::upper_bound(begins.begin(), begins.end(), n) - begins.begin() - 1;
    };
    EXPECT_EQ(RelativeBias::bucket(-n, {}), of(encoder)) << n;
    EXPECT_EQ(RelativeBias::bucket(n, {}), n == 0 ? 0 : 16 + of(encoder)) << n;
    EXPECT_EQ(RelativeBias::bucket(-n, {.bidirectional = false}), of(decoder)) << n;
    EXPECT_EQ(RelativeBias::bucket(n, {.bidirectional = false}), 0) << n;
  }
  constexpr Index kFar = std::numeric_limits<Index>::max();
  EXPECT_EQ(RelativeBias::bucket(-kFar - 1, {}), 15);
  EXPECT_EQ(RelativeBias::bucket(kFar, {}), 31);
}

TEST(RelativeBias, APowerIsNotLostToTheRoundingOfLogarithms) {
  // m·(max/m)^(j/(N − m)) is a whole number: it begins a bucket
  for (const Index ratio : {2, 3, 5, 7, 10})
    for (const Index exact : {1, 3, 6, 7}) {
      Index furthest = exact;
      for (Index i = 0; i < exact; ++i) furthest *= ratio;  // one bucket for each factor
      if (furthest > 1'000'000) continue;
      const RelativeBiasOptions options{2 * exact, furthest, false};
      Index n = exact;
      for (Index j = 0; j < exact; ++j, n *= ratio) {
        EXPECT_EQ(RelativeBias::bucket(-n, options), exact + j) << n << " of " << furthest;
        if (n > exact) {
          EXPECT_EQ(RelativeBias::bucket(-n + 1, options), exact + j - 1) << n - 1;
        }
      }
    }
}

TEST(RelativeBias, BothLayoutsOfATableAreTheSameBias) {
  constexpr Index heads = 3, buckets = 8;
  std::vector<float> by_head, by_bucket;
  const auto number = [](Index h, Index b) { return static_cast<float>(10 * h + b); };
  for (Index h = 0; h < heads; ++h)
    for (Index b = 0; b < buckets; ++b) by_head.push_back(number(h, b));
  for (Index b = 0; b < buckets; ++b)
    for (Index h = 0; h < heads; ++h) by_bucket.push_back(number(h, b));
  const RelativeBiasOptions options{.num_buckets = buckets, .max_distance = 20};
  const RelativeBias bias(by_head, heads, options), t5 = RelativeBias::from_t5(by_bucket, heads, options);
  EXPECT_EQ(bias.num_heads(), heads);
  for (Index h = 0; h < heads; ++h)
    for (Index d = -40; d <= 40; ++d) {
      EXPECT_EQ(bias(h, d), number(h, RelativeBias::bucket(d, options)));
      EXPECT_EQ(t5(h, d), bias(h, d));
    }
}

TEST(RelativeBias, ATileIsTheBiasesOfItsDistancesInUnitsOfLog2) {
  std::vector<float> table(2 * 32);
  for (std::size_t i = 0; i < table.size(); ++i) table[i] = std::sin(static_cast<float>(i));
  for (const bool bidirectional : {true, false}) {
    const RelativeBias bias(table, 2, {.bidirectional = bidirectional});
    for (Index h = 0; h < 2; ++h)
      for (Index first = -400; first <= 400; ++first)
        for (Index t = 0; t < kTileTokens; ++t)
          ASSERT_EQ(bias.of_tile(h, first)[t], bias(h, first + t) * 1.4426950408889634f) << first << " + " << t;
    EXPECT_EQ(bias.of_tile(1, Index{-1} << 61)[0], bias(1, -1000) * 1.4426950408889634f);
    EXPECT_EQ(bias.of_tile(1, Index{1} << 61)[0], bias(1, 1000) * 1.4426950408889634f);
  }
}

TEST(RelativeBias, ImpossibleValuesAreNamed) {
  std::vector<float> table(4 * 32);
  const auto make = [&](Index heads, RelativeBiasOptions options) {
    return [&table, heads, options] { RelativeBias(table, heads, options); };
  };
  EXPECT_NO_THROW(make(4, {})());
  expect_error(make(0, {}), {"num_heads (0)", "1 to"});
  expect_error(make(3, {}), {"table (128 numbers)", "(3 x 32)"});
  expect_error(make(4, {.num_buckets = 3}), {"num_buckets (3)", "4 to"});
  expect_error(make(4, {.num_buckets = 1, .bidirectional = false}), {"num_buckets (1)", "2 to"});
  expect_error(make(4, {.max_distance = 8}), {"max_distance (8)", "8 distances"});
  expect_error(make(4, {.max_distance = 16, .bidirectional = false}), {"max_distance (16)", "16 distances"});
  expect_error(make(4, {.max_distance = Index{1} << 40}), {"max_distance (1099511627776)", "at most"});
  expect_error([&] { RelativeBias::from_t5(std::span(table).first(100), 4); }, {"table (100 numbers)", "(4 x 32)"});
  table[70] = std::numeric_limits<float>::quiet_NaN();
  expect_error(make(4, {}), {"table[70] (nan)", "finite"});
  table[70] = -std::numeric_limits<float>::infinity();
  expect_error(make(4, {}), {"table[70] (-inf)", "finite"});
}

}  // namespace
}  // namespace headwise
