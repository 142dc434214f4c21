// SPDX-License-Identifier: MIT
#include "headwise/position/rope.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <limits>
#include <vector>

#include "headwise/parallel/thread_pool.hpp"
#include "tests/position/numbers.hpp"

namespace headwise {
namespace {

using headwise::testing::random_numbers;
using headwise::testing::view;

/// One head of one token, by the definition: complex numbers times a·e^(i·p·f).
std::vector<double> turned(std::span<const float> x, const Rope& rope, std::span<const double> frequencies, Index p) {
  std::vector<double> result(x.begin(), x.end());
  const std::size_t pairs = static_cast<std::size_t>(rope.rotary_dim()) / 2;
  for (std::size_t i = 0; i < pairs; ++i) {
    const bool interleaved = rope.options().style == RopeStyle::interleaved;
    const std::size_t a = interleaved ? 2 * i : i, b = interleaved ? 2 * i + 1 : i + pairs;
    const auto z =
        std::complex<double>(x[a], x[b]) * std::polar(rope.attention_factor(), static_cast<double>(p) * frequencies[i]);
    result[a] = z.real();
    result[b] = z.imag();
  }
  return result;
}

// cos, sin and the three operations round once each: within 4 roundings of numbers up to 2·attention_factor
constexpr double kTolerance = 8 * 0x1p-24 * 1.5;

struct Case {
  const char* name;
  Index head_dim;
  RopeOptions options;
};

class RopeCases : public ::testing::TestWithParam<Case> {};

TEST_P(RopeCases, TurnEveryHeadByTheDefinition) {
  const Case& c = GetParam();
  const Rope rope(c.head_dim, c.options);
  for (const Index first : {Index{0}, Index{1}, Index{4095}, Index{1000003}}) {
    const Index sequences = 2, tokens = 3, heads = 5;
    const auto x = random_numbers(sequences * tokens * heads * c.head_dim);
    auto y = x;
    rope.apply(view(y, sequences, tokens, heads), first);
    for (Index row = 0; row < sequences * tokens * heads; ++row) {
      const Index position = first + row / heads % tokens;
      const auto at = static_cast<std::size_t>(row * c.head_dim);
      const auto want =
          turned(std::span(x).subspan(at, static_cast<std::size_t>(c.head_dim)), rope, rope.frequencies(), position);
      for (std::size_t d = 0; d < want.size(); ++d)
        ASSERT_NEAR(y[at + d], want[d], kTolerance) << "row " << row << " dim " << d << " position " << position;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Styles, RopeCases,
    ::testing::Values(
        Case{"half_split", 64, {.style = RopeStyle::half_split}},
        Case{"interleaved", 64, {.style = RopeStyle::interleaved, .base = 1e5}},
        Case{"smallest", 2, {.style = RopeStyle::interleaved}}, Case{"largest", 576, {.style = RopeStyle::half_split}},
        Case{"partial_half_split", 80, {.style = RopeStyle::half_split, .rotary_dim = 32}},
        Case{"partial_interleaved", 45, {.style = RopeStyle::interleaved, .rotary_dim = 18}},
        Case{"linear", 32, {.scaling = LinearScaling{4.0}}},
        Case{"yarn", 64, {.scaling = YarnScaling{.factor = 16.0, .original_max_position = 4096}}},
        Case{"proportional", 64, {.scaling = ProportionalScaling{.proportion = 0.4}}},
        Case{"one_list",
             16,
             {.scaling = LongRopeScaling{.short_factors = std::vector<double>(8, 1.5),
                                         .long_factors = std::vector<double>(8, 1.5),
                                         .original_max_position = 4096,
                                         .factor = 16}}},
        Case{"llama3", 64, {.base = 5e5, .scaling = Llama3Scaling{.factor = 8.0, .original_max_position = 8192}}}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(Rope, InterleavedIsHalfSplitOfPermutedDimensions) {
  const Index dim = 48, pairs = dim / 2, tokens = 4, heads = 3;
  auto interleaved = random_numbers(tokens * heads * dim);
  auto split = interleaved;
  const auto permute = [&](const std::vector<float>& from) {
    auto to = from;
    for (Index row = 0; row < tokens * heads; ++row)
      for (Index i = 0; i < pairs; ++i)
        for (Index half = 0; half < 2; ++half)
          to[static_cast<std::size_t>(row * dim + half * pairs + i)] =
              from[static_cast<std::size_t>(row * dim + 2 * i + half)];
    return to;
  };
  split = permute(split);
  Rope(dim, {.style = RopeStyle::interleaved}).apply(view(interleaved, 1, tokens, heads), 77);
  Rope(dim, {.style = RopeStyle::half_split}).apply(view(split, 1, tokens, heads), 77);
  const auto expected = permute(interleaved);
  for (std::size_t i = 0; i < split.size(); ++i) ASSERT_NEAR(split[i], expected[i], 0x1p-23) << i;
}

TEST(Rope, LeavesScoresThatDependOnTheDistanceAlone) {
  const Index dim = 64;
  const auto q = random_numbers(dim, 1), k = random_numbers(dim, 2);
  for (const RopeStyle style : {RopeStyle::interleaved, RopeStyle::half_split}) {
    const Rope rope(dim, {.style = style});
    const auto score = [&](Index query_position, Index key_position) {
      auto a = q, b = k;
      rope.apply(view(a, 1, 1, 1), query_position);
      rope.apply(view(b, 1, 1, 1), key_position);
      double sum = 0;
      for (std::size_t d = 0; d < a.size(); ++d) sum += static_cast<double>(a[d]) * static_cast<double>(b[d]);
      return sum;
    };
    const double near = score(9, 2);
    EXPECT_NEAR(score(1009, 1002), near, 1e-5);
    EXPECT_NEAR(score(2000009, 2000002), near, 1e-5);  // float angles would be off by 0.1 here
    EXPECT_GT(std::abs(score(10, 2) - near), 1e-3);
  }
}

TEST(Rope, ChangesNothingAtPositionZero) {
  const auto x = random_numbers(3 * 64);
  auto y = x;
  Rope(64).apply(view(y, 1, 1, 3), 0);
  EXPECT_EQ(y, x);
}

TEST(Rope, TakesOnePositionPerToken) {
  const Index dim = 16, tokens = 3, heads = 2;
  const Rope rope(dim);
  const std::vector<Index> positions = {5, 0, 900, 7, 7, 1};
  const auto x = random_numbers(2 * tokens * heads * dim);
  auto all = x;
  rope.apply(view(all, 2, tokens, heads), positions);
  for (std::size_t t = 0; t < positions.size(); ++t) {
    const std::size_t row = static_cast<std::size_t>(heads * dim);
    std::vector<float> alone(x.begin() + static_cast<Index>(t * row), x.begin() + static_cast<Index>((t + 1) * row));
    rope.apply(view(alone, 1, 1, heads), positions[t]);
    for (std::size_t i = 0; i < row; ++i) ASSERT_EQ(all[t * row + i], alone[i]) << "token " << t;
  }
}

TEST(Rope, GivesTheSameBitsOnAnyNumberOfThreads) {
  const Rope rope(64);
  auto serial = random_numbers(2 * 33 * 3 * 64);
  auto threaded = serial;
  rope.apply(view(serial, 2, 33, 3), 100);
  ThreadPool pool(3);
  rope.apply(view(threaded, 2, 33, 3), 100, pool);
  EXPECT_EQ(serial, threaded);
}

TEST(Rope, TakesAnyStrides) {
  const Index dim = 8, tokens = 3;
  auto packed = random_numbers(tokens * dim);
  std::vector<float> spread(packed.size() * 3, 9.0f);
  for (std::size_t i = 0; i < packed.size(); ++i) spread[3 * i] = packed[i];
  Rope(dim).apply(view(packed, 1, tokens, 1), 4);
  Rope(dim).apply(View<float>(spread.data(), 1, tokens, 1, dim, {0, 3 * dim, 0, 3}), 4);
  for (std::size_t i = 0; i < spread.size(); ++i) {
    if (i % 3 == 0)
      EXPECT_NEAR(spread[i], packed[i / 3], 0x1p-23);
    else
      EXPECT_EQ(spread[i], 9.0f);
  }
}

TEST(Rope, OfDynamicNtkUsesTheLengthThatEachSequenceReaches) {
  const Index dim = 16, tokens = 2;
  const RopeScaling scaling = DynamicNtkScaling{2.0, 100};
  const Rope rope(dim, {.scaling = scaling});
  const std::vector<Index> positions = {98, 99, 298, 299};  // lengths 100 and 300
  const auto x = random_numbers(2 * tokens * dim);
  auto y = x;
  rope.apply(view(y, 2, tokens, 1), positions);
  for (std::size_t t = 0; t < 4; ++t) {
    std::vector<double> frequencies(static_cast<std::size_t>(dim / 2));
    // base·((factor·L / original) − (factor − 1))^(n / (n − 2)) = base·5^(16/14) at L = 300
    const double base = t < 2 ? 1e4 : 1e4 * std::pow(5.0, 16.0 / 14.0);
    for (std::size_t i = 0; i < frequencies.size(); ++i)
      frequencies[i] = std::pow(base, -2.0 * static_cast<double>(i) / 16.0);
    const auto want = turned(std::span(x).subspan(t * 16, 16), rope, frequencies, positions[t]);
    for (std::size_t d = 0; d < 16; ++d) ASSERT_NEAR(y[t * 16 + d], want[d], kTolerance) << "token " << t;
  }
}

TEST(Rope, OfLongRopeUsesTheFactorsOfTheLengthThatEachSequenceReaches) {
  const Index dim = 4;
  const Rope rope(
      dim, {.scaling = LongRopeScaling{
                .short_factors = {1, 2}, .long_factors = {3, 4}, .original_max_position = 100, .attention_factor = 1}});
  const std::vector<Index> positions = {98, 99, 99, 100};  // lengths 100 and 101
  const auto x = random_numbers(4 * dim);
  auto y = x;
  rope.apply(view(y, 2, 2, 1), positions);
  for (std::size_t t = 0; t < 4; ++t) {
    const double frequencies[] = {t < 2 ? 1.0 : 1.0 / 3, 0.01 / (t < 2 ? 2 : 4)};
    const auto want = turned(std::span(x).subspan(t * 4, 4), rope, frequencies, positions[t]);
    for (std::size_t d = 0; d < 4; ++d) ASSERT_NEAR(y[t * 4 + d], want[d], kTolerance) << "token " << t;
  }
}

TEST(Rope, TurnsTheDimensionsFromRotaryBeginOn) {
  const Index dim = 24, begin = 10, rotary = 8;
  for (const RopeStyle style : {RopeStyle::interleaved, RopeStyle::half_split}) {
    const Rope rope(dim, {.style = style, .rotary_dim = rotary, .rotary_begin = begin}), own(rotary, {.style = style});
    EXPECT_EQ(Rope(dim, {.rotary_begin = begin}).rotary_dim(), dim - begin);
    const auto x = random_numbers(3 * dim);
    auto y = x;
    rope.apply(view(y, 1, 3, 1), 5);
    for (Index t = 0; t < 3; ++t) {
      std::vector<float> part(x.begin() + t * dim + begin, x.begin() + t * dim + begin + rotary);
      own.apply(view(part, 1, 1, 1), 5 + t);
      for (Index d = 0; d < dim; ++d) {
        const bool turns = d >= begin && d < begin + rotary;
        EXPECT_EQ(y[static_cast<std::size_t>(t * dim + d)],
                  turns ? part[static_cast<std::size_t>(d - begin)] : x[static_cast<std::size_t>(t * dim + d)]);
      }
    }
  }
}

TEST(Rope, LeavesWhatDoesNotTurnAsItIs) {
  const float infinity = std::numeric_limits<float>::infinity();
  std::vector<float> x(16, infinity);
  x[0] = x[8] = 1;  // the only pair that turns
  Rope(16, {.scaling = ProportionalScaling{.proportion = 0.125}}).apply(view(x, 1, 1, 1), 3);
  for (std::size_t d = 0; d < 16; ++d) EXPECT_EQ(x[d] == infinity, d % 8 != 0) << d;
}

TEST(Rope, TakesNoTokens) {
  EXPECT_NO_THROW(Rope(8).apply(View<float>(nullptr, 0, 3, 8), 5));
  EXPECT_NO_THROW(Rope(8).apply(View<float>(nullptr, 0, 3, 8), std::span<const Index>()));
}

}  // namespace
}  // namespace headwise
