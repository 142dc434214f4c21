// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "headwise/position/rope.hpp"
#include "tests/position/numbers.hpp"
#include "tests/support/errors.hpp"

namespace headwise {
namespace {

using testing::expect_error;
using testing::random_numbers;
using testing::view;

TEST(Rope, RefusesImpossibleSettings) {
  const auto make = [](Index head_dim, RopeOptions options = {}) { return [=] { Rope(head_dim, options); }; };
  const double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
  expect_error(make(0), {"head_dim (0)", "1 to 576"});
  expect_error(make(577), {"head_dim (577)", "1 to 576"});
  expect_error(make(45), {"rotary_dim (45)", "even", "head_dim (45)"});
  expect_error(make(64, {.rotary_dim = 7}), {"rotary_dim (7)", "even"});
  expect_error(make(64, {.rotary_dim = 66}), {"rotary_dim (66)", "head_dim (64)"});
  expect_error(make(64, {.rotary_dim = -2}), {"rotary_dim (-2)"});
  expect_error(make(64, {.rotary_begin = -1}), {"rotary_begin (-1)", "0 to head_dim - 1 (63)"});
  expect_error(make(64, {.rotary_begin = 64}), {"rotary_begin (64)"});
  expect_error(make(64, {.rotary_dim = 8, .rotary_begin = 57}), {"rotary_dim (8)", "less rotary_begin (57)"});
  expect_error(make(64, {.base = 0}), {"base (0)", "above 0"});
  expect_error(make(64, {.base = -1e4}), {"base (-10000)", "above 0"});
  expect_error(make(64, {.base = nan}), {"base (nan)", "finite"});
  expect_error(make(64, {.base = infinity}), {"base (inf)", "finite"});
}

TEST(Rope, RefusesImpossibleScalings) {
  const auto make = [](RopeScaling scaling, double base = 1e4, Index head_dim = 64) {
    return [=] { Rope(head_dim, {.base = base, .scaling = scaling}); };
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  expect_error(make(LinearScaling{0.5}), {"factor (0.5)", "at least 1"});
  expect_error(make(LinearScaling{nan}), {"factor (nan)", "finite"});
  expect_error(make(DynamicNtkScaling{0.0, 2048}), {"factor (0)"});
  expect_error(make(DynamicNtkScaling{2.0, 0}), {"original_max_position (0)", "at least 1"});
  expect_error(make(DynamicNtkScaling{2.0, 2048}, 1e4, 2), {"rotary_dim (2)", "at least 4"});
  expect_error(make(YarnScaling{.factor = -1, .original_max_position = 9}), {"factor (-1)"});
  expect_error(make(YarnScaling{.factor = 2}), {"original_max_position (0)"});
  expect_error(make(YarnScaling{.factor = 2, .original_max_position = 9}, 1.0), {"base (1)", "above 1"});
  expect_error(make(YarnScaling{.factor = 2, .original_max_position = 9, .beta_slow = 0}), {"beta_slow (0)"});
  expect_error(make(YarnScaling{.factor = 2, .original_max_position = 9, .beta_fast = 1, .beta_slow = 2}),
               {"beta_fast (1)", "beta_slow (2)"});
  expect_error(make(YarnScaling{.factor = 2, .original_max_position = 9, .attention_factor = 0}),
               {"attention_factor (0)"});
  expect_error(make(YarnScaling{.factor = 2, .original_max_position = 9, .mscale = nan}), {"mscale (nan)"});
  expect_error(make(YarnScaling{.factor = 2, .original_max_position = 9, .mscale_all_dim = -1}),
               {"mscale_all_dim (-1)"});
  const std::vector<double> ones(32, 1.0), few(3, 1.0);
  std::vector<double> bad = ones;
  bad[5] = 0;
  expect_error(make(LongRopeScaling{.short_factors = ones, .long_factors = ones}), {"original_max_position (0)", "2"});
  expect_error(make(LongRopeScaling{.short_factors = few, .long_factors = ones, .original_max_position = 9}),
               {"short_factors (3", "rotary_dim / 2 (32)"});
  expect_error(make(LongRopeScaling{.short_factors = ones, .long_factors = bad, .original_max_position = 9}),
               {"long_factors[5] (0)", "above 0"});
  expect_error(
      make(LongRopeScaling{.short_factors = ones, .long_factors = ones, .original_max_position = 9, .factor = 0.5}),
      {"factor (0.5)"});
  expect_error(make(ProportionalScaling{.proportion = 1.5}), {"proportion (1.5)", "0 to 1"});
  expect_error(make(ProportionalScaling{.proportion = nan}), {"proportion (nan)"});
  expect_error(make(ProportionalScaling{.factor = 0}), {"factor (0)"});
  expect_error(make(Llama3Scaling{.factor = 0.9, .original_max_position = 9}), {"factor (0.9)"});
  expect_error(make(Llama3Scaling{.factor = 8}), {"original_max_position (0)"});
  expect_error(make(Llama3Scaling{.factor = 8, .low_freq_factor = 0, .original_max_position = 9}),
               {"low_freq_factor (0)"});
  expect_error(make(Llama3Scaling{.factor = 8, .low_freq_factor = 4, .original_max_position = 9}),
               {"high_freq_factor (4)", "low_freq_factor (4)"});
}

TEST(Rope, RefusesBadPositionsAndLeavesTheDataAlone) {
  const Rope rope(16);
  const auto before = random_numbers(2 * 16);
  auto x = before;
  const Index last = Index{1} << 53;
  expect_error([&] { rope.apply(view(x, 1, 2, 1), -1); }, {"first_position (-1)", "0 to"});
  expect_error([&] { rope.apply(view(x, 1, 2, 1), last); }, {"first_position (9007199254740992)"});
  expect_error([&] { rope.apply(view(x, 1, 2, 1), std::vector<Index>{1}); }, {"positions (1)", "(2)"});
  expect_error([&] { rope.apply(view(x, 1, 2, 1), std::vector<Index>{1, -3}); }, {"positions[1] (-3)"});
  expect_error(
      [&] {
        rope.apply(view(x, 1, 2, 1), std::vector<Index>{last + 1, 0});
      },
      {"positions[0] (9007199254740993)"});
  expect_error([&] { rope.apply(view(x, 1, 4, 1), 0); }, {"dim (8) of x", "head_dim (16)"});
  EXPECT_EQ(x, before);
}

}  // namespace
}  // namespace headwise
