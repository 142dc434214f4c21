// SPDX-License-Identifier: MIT
// M-RoPE: pairs share out the positions of a token in time, height and width.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "headwise/position/rope.hpp"
#include "tests/position/numbers.hpp"
#include "tests/support/errors.hpp"

namespace headwise {
namespace {

using testing::expect_error;
using testing::random_numbers;
using testing::view;

struct Case {
  const char* name;
  Index head_dim;
  RopeOptions options;
  std::string axes;  // of each pair, as transformers' slices of the frequencies give them
};

/// Qwen2-VL: the frequencies split into sections, one axis after another.
std::string split(Index t, Index h, Index w) {
  const auto run = [](Index n, char axis) { return std::string(static_cast<std::size_t>(n), axis); };
  return run(t, 't') + run(h, 'h') + run(w, 'w');
}
/// Qwen3-VL: all are temporal, then every third from 1 up to 3·h is height and every third from 2 up to 3·w is width.
std::string sliced(Index t, Index h, Index w) {
  std::string axes(static_cast<std::size_t>(t + h + w), 't');
  for (std::size_t i = 1; i < static_cast<std::size_t>(3 * h); i += 3) axes.at(i) = 'h';
  for (std::size_t i = 2; i < static_cast<std::size_t>(3 * w); i += 3) axes.at(i) = 'w';
  return axes;
}

constexpr auto kMixed = RopeSectionOrder::interleaved;

class RopeSections : public ::testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(
    Models, RopeSections,
    ::testing::Values(
        Case{"qwen2_vl", 128, {.base = 1e6, .sections = {16, 24, 24}}, split(16, 24, 24)},
        Case{"qwen3_vl", 128, {.base = 5e6, .sections = {24, 20, 20}, .section_order = kMixed}, sliced(24, 20, 20)},
        Case{"qwen3_5", 256, {.rotary_dim = 64, .sections = {11, 11, 10}, .section_order = kMixed}, sliced(11, 11, 10)},
        Case{"glm_4v",
             128,
             {.style = RopeStyle::interleaved, .rotary_dim = 64, .sections = {8, 12, 12}},
             split(8, 12, 12)},
        Case{"small", 16, {.sections = {4, 2, 2}, .section_order = kMixed}, "thwthwtt"},
        Case{"one_axis", 8, {.sections = {0, 4, 0}}, "hhhh"}),
    [](const auto& test) { return std::string(test.param.name); });

TEST_P(RopeSections, TurnEachPairByItsAxisPosition) {
  const Case& c = GetParam();
  const Rope rope(c.head_dim, c.options);
  EXPECT_EQ(rope.num_axes(), 3);
  const Index pairs = rope.rotary_dim() / 2, heads = 2;
  ASSERT_EQ(std::ssize(c.axes), pairs);
  const std::vector<Index> positions = {0, 0, 0, 7, 7, 7, 8, 100, 3, 8, 101, 3, Index{1} << 31, 5, 0, 1, 2, 3};
  const auto x = random_numbers(2 * 3 * heads * c.head_dim);
  auto y = x;
  rope.apply(view(y, 2, 3, heads), positions);
  for (Index row = 0; row < 6 * heads; ++row)
    for (Index d = 0; d < c.head_dim; ++d) {
      const bool mixed = c.options.style == RopeStyle::interleaved;
      const Index pair = mixed ? d / 2 : d % pairs;
      const auto at = [&](Index dim) {
        return static_cast<double>(x[static_cast<std::size_t>(row * c.head_dim + dim)]);
      };
      double want = at(d);
      if (d < 2 * pairs) {
        const std::size_t axis = std::string("thw").find(c.axes[static_cast<std::size_t>(pair)]);
        const double angle = static_cast<double>(positions[static_cast<std::size_t>(row / heads * 3) + axis]) *
                             std::pow(c.options.base, -static_cast<double>(pair) / static_cast<double>(pairs));
        const bool first = mixed ? d % 2 == 0 : d < pairs;
        const Index partner = mixed ? d ^ 1 : first ? d + pairs : d - pairs;
        want = at(d) * std::cos(angle) + (first ? -1 : 1) * at(partner) * std::sin(angle);
      }
      // cos, sin and three operations on numbers below 1 round once each; another order of the angle's operations in
      // double moves it by 2^-52 of its size
      ASSERT_NEAR(y[static_cast<std::size_t>(row * c.head_dim + d)], want, 8 * 0x1p-24 + 0x1p-19)
          << "row " << row << " dim " << d;
    }
}

TEST_P(RopeSections, TurnTextBitForBitAsWithoutThem) {
  const Case& c = GetParam();
  RopeOptions plain = c.options;
  plain.sections = {};
  const auto x = random_numbers(4 * 3 * c.head_dim);
  auto with = x, without = x, in_order = x, plain_in_order = x;
  const std::vector<Index> positions = {5, Index{1} << 53, 0, 9};
  std::vector<Index> three;
  for (const Index p : positions) three.insert(three.end(), 3, p);
  Rope(c.head_dim, c.options).apply(view(with, 1, 4, 3), three);
  Rope(c.head_dim, plain).apply(view(without, 1, 4, 3), positions);
  EXPECT_EQ(with, without);
  Rope(c.head_dim, c.options).apply(view(in_order, 1, 4, 3), 1000);
  Rope(c.head_dim, plain).apply(view(plain_in_order, 1, 4, 3), 1000);
  EXPECT_EQ(in_order, plain_in_order);
}

TEST(RopeSectionErrors, AreNamed) {
  const auto make = [](std::array<Index, 3> sections, RopeSectionOrder order = RopeSectionOrder::consecutive) {
    return [=] { Rope(16, {.sections = sections, .section_order = order}); };
  };
  expect_error(make({4, 4, 4}), {"sections (4, 4, 4)", "rotary_dim / 2 (8)"});
  expect_error(make({9, -1, 0}), {"sections (9, -1, 0)", "at least 0"});
  expect_error(make({1, 6, 1}, kMixed), {"sections (1, 6, 1)", "interleaved"});
  expect_error(make({4, 1, 3}, kMixed), {"sections (4, 1, 3)", "interleaved"});  // the last width would be pair 8
  EXPECT_NO_THROW(make({3, 3, 2}, kMixed)());

  const Rope rope(16, {.sections = {4, 2, 2}});
  const auto before = random_numbers(2 * 16);
  auto x = before;
  expect_error([&] { rope.apply(view(x, 1, 2, 1), std::vector<Index>{1, 2}); }, {"positions (2)", "three", "(6)"});
  expect_error([&] { rope.apply(view(x, 1, 2, 1), std::vector<Index>{1, 2, 3, 4, -5, 6}); }, {"positions[4] (-5)"});
  EXPECT_EQ(x, before);
}

}  // namespace
}  // namespace headwise
