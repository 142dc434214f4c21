// SPDX-License-Identifier: MIT
#include "headwise/score/options.hpp"

#include <limits>
#include <vector>

#include "tests/support/errors.hpp"

namespace headwise {
namespace {

using testing::expect_error;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();

void check(const Options& options) { detail::check_options(options, 4); }

TEST(Options, DefaultsAreCausalAttentionWithoutAnythingElse) {
  const Options options;
  EXPECT_TRUE(options.causal);
  EXPECT_FALSE(options.scale || options.window || options.window_right);
  EXPECT_EQ(options.softcap, 0.0f);
  EXPECT_NO_THROW(check(options));
}

TEST(Options, AnyFiniteScaleAndWindowIsAllowed) {
  EXPECT_NO_THROW(check({.scale = 0.0f}));
  EXPECT_NO_THROW(check({.scale = -3.0f, .window = 0, .window_right = std::numeric_limits<Index>::max()}));
}

TEST(Options, ImpossibleValuesAreNamed) {
  expect_error([] { check({.scale = kNan}); }, {"scale (nan)", "finite"});
  expect_error([] { check({.scale = kInfinity}); }, {"scale (inf)", "finite"});
  expect_error([] { check({.window = -1}); }, {"window (-1)", "at least 0"});
  expect_error([] { check({.num_sink_tokens = -1}); }, {"num_sink_tokens (-1)", "at least 0"});
  expect_error([] { check({.window_right = -7}); }, {"window_right (-7)", "at least 0"});
  expect_error([] { check({.softcap = -1.0f}); }, {"softcap (-1)", "at least 0"});
  expect_error([] { check({.softcap = kNan}); }, {"softcap (nan)", "finite"});
  expect_error([] { check({.softcap = kInfinity}); }, {"softcap (inf)", "finite"});
}

TEST(Options, SlopesAreOneFiniteNumberPerQueryHead) {
  const std::vector<float> good{1, 0, -1, 0.5f}, few{1, 2, 3}, bad{1, 2, kNan, 4};
  EXPECT_NO_THROW(check({.alibi_slopes = good}));
  expect_error([&] { check({.alibi_slopes = few}); }, {"alibi_slopes (3 slopes)", "per query head (4)"});
  expect_error([&] { check({.alibi_slopes = bad}); }, {"alibi_slopes[2] (nan)", "finite"});
}

TEST(Options, ARelativeBiasIsOfAllQueryHeads) {
  const RelativeBias good(std::vector<float>(4 * 32), 4), few(std::vector<float>(3 * 32), 3);
  EXPECT_NO_THROW(check({.relative_bias = &good}));
  expect_error([&] { check({.relative_bias = &few}); }, {"relative_bias (of 3 heads)", "num_heads (4)"});
}

TEST(Options, SinkLogitsAreOnePerQueryHeadAndNoneIsMinusInfinity) {
  const std::vector<float> good{1, 0, -kInfinity, -80.5f}, few{1, 2, 3}, high{1, kInfinity, 0, 0}, bad{1, 2, kNan, 4};
  EXPECT_NO_THROW(check({.sink_logits = good}));
  expect_error([&] { check({.sink_logits = few}); }, {"sink_logits (3 logits)", "per query head (4)"});
  expect_error([&] { check({.sink_logits = high}); }, {"sink_logits[1] (inf)", "finite"});
  expect_error([&] { check({.sink_logits = bad}); }, {"sink_logits[2] (nan)", "finite"});
}

TEST(Options, ATemperatureHasAFiniteStrengthAndStepsOfAToken) {
  EXPECT_NO_THROW(check({.temperature = Temperature{1, -3.0f}}));
  expect_error([] { check({.temperature = Temperature{0, 0.1f}}); }, {"floor_scale (0)", "at least 1"});
  expect_error([] { check({.temperature = Temperature{8, kNan}}); }, {"strength (nan)", "finite"});
  expect_error([] { check({.temperature = Temperature{8, kInfinity}}); }, {"strength (inf)", "finite"});
}

TEST(Options, ATemperatureGrowsByTheLogarithmOfWholeSteps) {
  const Temperature temperature{4, 0.5f};
  EXPECT_EQ(temperature.at(-5), 1.0f);
  EXPECT_EQ(temperature.at(0), 1.0f);
  EXPECT_EQ(temperature.at(2), 1.0f);
  for (const Index position : {3, 4, 6}) EXPECT_FLOAT_EQ(temperature.at(position), 1.0f + 0.5f * std::log(2.0f));
  EXPECT_FLOAT_EQ(temperature.at(7), 1.0f + 0.5f * std::log(3.0f));
}

}  // namespace
}  // namespace headwise
