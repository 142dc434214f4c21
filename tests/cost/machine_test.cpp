// SPDX-License-Identifier: MIT
#include "headwise/cost/machine.hpp"

#include <limits>

#include "headwise/cost/attention_layer.hpp"
#include "tests/support/errors.hpp"

namespace headwise::cost {
namespace {

using testing::expect_error;

constexpr Machine kMachine{.flops_per_second = 1000, .bytes_per_second = 100};

TEST(Roofline, IsTheSlowerOfArithmeticAndMemory) {
  EXPECT_EQ(roofline_seconds(5000, 100, kMachine), 5.0);
  EXPECT_EQ(roofline_seconds(100, 700, kMachine), 7.0);
  EXPECT_EQ(roofline_seconds(0, 0, kMachine), 0.0);
}

TEST(Roofline, ProjectionsAndTheCoreAreLimitedEachByItself) {
  // arithmetic limits the projections, memory the core: together neither total alone would give their sum
  const StepCost cost{.projection_flops = 5000, .core_flops = 100, .weight_bytes = 100, .kv_bytes = 700};
  EXPECT_EQ(roofline_seconds(cost, kMachine), 5.0 + 7.0);
}

TEST(Roofline, TimeOfALayerFollowsFromItsCost) {
  // 10⁹ and 10⁸: with one sequence memory limits both halves, with 64 arithmetic limits the projections
  const Machine machine{.flops_per_second = 1e9, .bytes_per_second = 1e8};
  const AttentionLayer layer({.hidden_size = 64, .num_heads = 4, .num_kv_heads = 2});
  const double weights = 64 * 64 * 2 + 64 * 32 * 2;
  const auto seconds = [&](Index batch) { return roofline_seconds(layer.cost(Step::decode(50, batch), {}), machine); };
  EXPECT_DOUBLE_EQ(seconds(1), 2 * weights / 1e8 + 50 * 2 * 32 * 2 / 1e8);
  EXPECT_DOUBLE_EQ(seconds(64), 64 * 2 * weights / 1e9 + 64.0 * 50 * 2 * 32 * 2 / 1e8);
}

TEST(Roofline, RidgeGroupSizeIsWhereDecodeTurnsFromMemoryToArithmetic) {
  EXPECT_EQ(ridge_group_size(2, kMachine), 2 * 1000.0 / (2 * 100));
  const Machine machine{.flops_per_second = 8e9, .bytes_per_second = 1e9};  // R* = 8 at 2 bytes
  EXPECT_EQ(ridge_group_size(2, machine), 8.0);
  const auto core = [&](Index kv_heads) {
    const AttentionLayer layer({.hidden_size = 64, .num_heads = 32, .num_kv_heads = kv_heads, .head_dim = 64});
    const StepCost cost = layer.cost(Step::decode(1000), {});
    return roofline_seconds(cost.core_flops, cost.kv_bytes, machine);
  };
  EXPECT_EQ(core(4), core(32) / 8);  // up to R* time falls with the group size,
  EXPECT_EQ(core(2), core(4));       // beyond no more
  EXPECT_EQ(core(1), core(4));
}

TEST(DecodeSpeedup, FollowsFromTheShareOfKeysAndValuesInAllBytes) {
  EXPECT_EQ(decode_speedup(8, 32, 1.0), 4.0);  // nothing but keys and values: the ratio of heads
  EXPECT_EQ(decode_speedup(8, 32, 0.0), 1.0);
  EXPECT_EQ(decode_speedup(32, 32, 0.7), 1.0);
  EXPECT_DOUBLE_EQ(decode_speedup(8, 32, 0.5), 1.6);  // 1/(1 − 3/8)
  EXPECT_EQ(decode_speedup(1, 64, 1.0), 64.0);
}

TEST(Roofline, RefusesWhatCannotBe) {
  const double infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  expect_error([] { roofline_seconds(1, 1, {.flops_per_second = 0, .bytes_per_second = 1}); },
               {"flops_per_second (0)"});
  expect_error([] { roofline_seconds(1, 1, {.flops_per_second = 1, .bytes_per_second = -1}); },
               {"bytes_per_second (-1)"});
  expect_error([=] { roofline_seconds(1, 1, {.flops_per_second = nan, .bytes_per_second = 1}); }, {"flops_per_second"});
  expect_error([=] { roofline_seconds(1, 1, {.flops_per_second = 1, .bytes_per_second = infinity}); },
               {"bytes_per_second (inf)"});
  expect_error([] { roofline_seconds(-1, 1, kMachine); }, {"flops (-1)"});
  expect_error([=] { roofline_seconds(1, nan, kMachine); }, {"bytes (", "finite"});
  expect_error([] { ridge_group_size(0, kMachine); }, {"bytes_per_element (0)"});
  expect_error([] { decode_speedup(0, 4, 0.5); }, {"num_kv_heads (0)"});
  expect_error([] { decode_speedup(5, 4, 0.5); }, {"num_kv_heads (5)", "num_heads (4)"});
  expect_error([] { decode_speedup(1, 0, 0.5); }, {"num_heads (0)"});
  expect_error([] { decode_speedup(1, 4, 1.5); }, {"kv_share (1.5)", "0 to 1"});
  expect_error([=] { decode_speedup(1, 4, nan); }, {"kv_share"});
}

}  // namespace
}  // namespace headwise::cost
