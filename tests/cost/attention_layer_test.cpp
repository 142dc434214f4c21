// SPDX-License-Identifier: MIT
#include "headwise/cost/attention_layer.hpp"

#include <limits>

#include "tests/support/errors.hpp"

namespace headwise::cost {
namespace {

using testing::expect_error;

constexpr Index kLargest = std::numeric_limits<Index>::max();

/// LLaMA-2-7B's layer with groups of `group_size` query heads.
AttentionLayer llama2(Index group_size) {
  return AttentionLayer({.hidden_size = 4096, .num_heads = 32, .num_kv_heads = 32 / group_size});
}

TEST(AttentionCost, FillsInWhatIsUnset) {
  const AttentionLayer layer({.hidden_size = 2048, .num_heads = 32});
  EXPECT_EQ(layer.num_kv_heads(), 32);
  EXPECT_EQ(layer.head_dim(), 64);
  EXPECT_EQ(layer.value_dim(), 64);
  EXPECT_EQ(layer.group_size(), 1.0);
  EXPECT_EQ(AttentionLayer({.hidden_size = 64, .num_heads = 5, .num_kv_heads = 2, .head_dim = 12}).group_size(), 2.5);
}

TEST(AttentionCost, ModuleOf32HeadsSharing8SavesThreeEighthsOfItsParametersAndThreeQuartersOfItsCache) {
  const AttentionLayer mha({.hidden_size = 2048, .num_heads = 32});
  const AttentionLayer gqa({.hidden_size = 2048, .num_heads = 32, .num_kv_heads = 8});
  EXPECT_EQ(mha.parameters(), 16'777'216);
  EXPECT_EQ(gqa.parameters(), 10'485'760);
  EXPECT_EQ(1000 * (mha.parameters() - gqa.parameters()), 375 * mha.parameters());
  EXPECT_EQ(mha.kv_bytes_per_token(Storage::bf16), 8'192);
  EXPECT_EQ(gqa.kv_bytes_per_token(Storage::bf16), 2'048);
}

TEST(AttentionCost, ParametersOfALlama2LayerByGroupSize) {
  const Index group_sizes[] = {1, 2, 4, 8, 16, 32};
  const Index parameters[] = {67'108'864, 50'331'648, 41'943'040, 37'748'736, 35'651'584, 34'603'008};
  for (int i = 0; i < 6; ++i) EXPECT_EQ(llama2(group_sizes[i]).parameters(), parameters[i]) << group_sizes[i];
}

TEST(AttentionCost, MegaflopsPerTokenOfALlama2LayerByGroupSizeAtContext2048) {
  const Index group_sizes[] = {1, 2, 4, 8, 16, 32};
  const double megaflops[] = {167.77, 134.22, 117.44, 109.05, 104.86, 102.76};
  for (int i = 0; i < 6; ++i) {
    const double flops = llama2(group_sizes[i]).cost(Step::decode(2048), {}).flops();
    EXPECT_NEAR(flops * 1e-6, megaflops[i], 0.005) << group_sizes[i];  // half of the last digit stated
  }
}

TEST(AttentionCost, ParametersCountEveryBiasWithItsRows) {
  AttentionShape shape{.hidden_size = 10, .num_heads = 6, .num_kv_heads = 2, .head_dim = 3, .value_dim = 5};
  const Index weights = 10 * 6 * 3 + 10 * 2 * 3 + 10 * 2 * 5 + 6 * 5 * 10;
  EXPECT_EQ(AttentionLayer(shape).parameters(), weights);
  shape.query_bias = true;
  EXPECT_EQ(AttentionLayer(shape).parameters(), weights + 18);
  shape.key_bias = true;
  EXPECT_EQ(AttentionLayer(shape).parameters(), weights + 18 + 6);
  shape.value_bias = true;
  EXPECT_EQ(AttentionLayer(shape).parameters(), weights + 18 + 6 + 10);
  shape.output_bias = true;
  EXPECT_EQ(AttentionLayer(shape).parameters(), weights + 18 + 6 + 10 + 10);
  EXPECT_EQ(AttentionLayer(shape).weights(), weights);
}

TEST(AttentionCost, BorrowerHasTheQueryAndTheOutputProjectionOnly) {
  const AttentionLayer layer({.hidden_size = 10,
                              .num_heads = 6,
                              .num_kv_heads = 2,
                              .head_dim = 3,
                              .value_dim = 5,
                              .query_bias = true,
                              .key_bias = true,
                              .value_bias = true,
                              .output_bias = true});
  EXPECT_EQ(layer.weights(KvRole::borrower), 10 * 6 * 3 + 6 * 5 * 10);
  EXPECT_EQ(layer.parameters(KvRole::borrower), 10 * 6 * 3 + 6 * 5 * 10 + 18 + 10);
  EXPECT_EQ(layer.projection_flops({}, KvRole::borrower), 2.0 * (10 * 6 * 3 + 6 * 5 * 10));
}

TEST(AttentionCost, CacheHoldsKeysAndValuesOfTheirOwnLengthAndFormat) {
  const AttentionLayer layer({.hidden_size = 10, .num_heads = 6, .num_kv_heads = 2, .head_dim = 46, .value_dim = 64});
  EXPECT_EQ(layer.kv_bytes_per_token(Storage::f32), 2 * (46 + 64) * 4);
  EXPECT_EQ(layer.kv_bytes_per_token(Storage::f16), 2 * (46 + 64) * 2);
  EXPECT_EQ(layer.kv_bytes_per_token(ElementFormat::fp8()), 2 * (46 + 64));
  // 46 elements are two groups of 32, each with a scale; 64 are two as well
  EXPECT_EQ(layer.kv_bytes_per_token(ElementFormat::int8()), 2 * (46 + 4 + 64 + 4));
  EXPECT_EQ(layer.kv_bytes_per_token(ElementFormat::int4()), 2 * (23 + 4 + 32 + 4));
  EXPECT_EQ(layer.kv_bytes_per_token({ElementFormat::int8(), Storage::bf16}), 2 * (46 + 4 + 128));
}

TEST(AttentionCost, StepAsksForWhatTheDefinitionSaysForAnyBatchTokensAndPast) {
  const AttentionLayer layer({.hidden_size = 24, .num_heads = 6, .num_kv_heads = 2, .head_dim = 3, .value_dim = 5});
  for (const Index batch : {1, 3})
    for (const Index tokens : {1, 2, 7})
      for (const Index past : {0, 1, 9}) {
        double core = 0;  // a multiply-add for each pair, head and element of q·k and of p·v
        for (Index i = 0; i < tokens; ++i)
          for (Index key = 0; key <= past + i; ++key) core += 2.0 * 6 * (3 + 5);
        const StepCost cost = layer.cost({.batch = batch, .new_tokens = tokens, .past = past},
                                         {.weights = Storage::f32, .kv = Storage::f16});
        const auto b = static_cast<double>(batch), t = static_cast<double>(tokens),
                   all = static_cast<double>(past + tokens);
        const double weights = 24 * 6 * 3 + 24 * 2 * 3 + 24 * 2 * 5 + 6 * 5 * 24;
        EXPECT_EQ(cost.core_flops, b * core);
        EXPECT_EQ(cost.projection_flops, 2 * b * t * weights);
        EXPECT_EQ(cost.weight_bytes, 4 * weights);
        EXPECT_EQ(cost.kv_bytes, b * all * 2 * (3 + 5) * 2);
        EXPECT_EQ(cost.flops(), cost.core_flops + cost.projection_flops);
        EXPECT_EQ(cost.bytes(), cost.weight_bytes + cost.kv_bytes);
      }
}

TEST(AttentionCost, DecodeBytesAreTheWeightsAndTheKeysAndValuesOfEverySequence) {
  // s_w·P + b·T·G(dk+dv)·s
  const StepCost cost = llama2(4).cost(Step::decode(4096, 16), {.weights = Storage::bf16, .kv = ElementFormat::int8()});
  EXPECT_EQ(cost.bytes(), 2.0 * 41'943'040 + 16.0 * 4096 * 8 * 2 * (128 + 4 * 2));
}

TEST(AttentionCost, WindowBoundsPairsAndReads) {
  const AttentionLayer layer({.hidden_size = 8, .num_heads = 2, .num_kv_heads = 1, .head_dim = 4});
  const Step decode = Step::decode(100);
  EXPECT_EQ(layer.core_flops(decode, 16), 2.0 * 2 * 8 * 16);
  EXPECT_EQ(layer.kv_bytes_read(decode, Storage::f32, 16), 16.0 * 8 * 4);
  EXPECT_EQ(layer.core_flops(decode, 0), 0.0);
  EXPECT_EQ(layer.kv_bytes_read(decode, Storage::f32, 0), 0.0);
  EXPECT_EQ(layer.cost(decode, {}, KvRole::producer, 1000), layer.cost(decode, {}));
}

TEST(AttentionCost, CrossAttentionSeesEveryKeyOfTheSourceAndProjectsNone) {
  const AttentionLayer layer({.hidden_size = 10, .num_heads = 6, .num_kv_heads = 2, .head_dim = 3, .value_dim = 5});
  const StepCost cost = layer.cross_attention_cost({.batch = 2, .new_tokens = 3, .past = 50, .source_tokens = 7}, {});
  EXPECT_EQ(cost.core_flops, 2.0 * 2 * 6 * 8 * 3 * 7);
  EXPECT_EQ(cost.projection_flops, 2.0 * 2 * 3 * (10 * 6 * 3 + 6 * 5 * 10));
  EXPECT_EQ(cost.weight_bytes, 2.0 * (10 * 6 * 3 + 6 * 5 * 10));
  EXPECT_EQ(cost.kv_bytes, 2.0 * 7 * 2 * 8 * 2);
}

TEST(AttentionCost, DecodeIntensityIsTwiceTheGroupSizeOverTheBytesOfAnElement) {
  for (const Index group_size : {1, 2, 4, 8, 16, 32}) {
    const auto r = static_cast<double>(group_size);
    EXPECT_EQ(llama2(group_size).decode_intensity(Storage::f32), 2 * r / 4);
    EXPECT_EQ(llama2(group_size).decode_intensity(Storage::bf16), 2 * r / 2);
    EXPECT_EQ(llama2(group_size).decode_intensity(ElementFormat::int8()), 2 * r / (34.0 / 32));
    // and it is what a step has, whatever its length
    const StepCost cost = llama2(group_size).cost(Step::decode(777, 3), {});
    EXPECT_EQ(cost.core_flops / cost.kv_bytes, r);
  }
}

TEST(AttentionCost, RefusesShapesThatCannotBe) {
  const auto make = [](AttentionShape shape) { return [shape] { AttentionLayer layer(shape); }; };
  expect_error(make({.hidden_size = 0, .num_heads = 1}), {"hidden_size (0)", "at least 1"});
  expect_error(make({.hidden_size = -4, .num_heads = 1}), {"hidden_size (-4)"});
  expect_error(make({.hidden_size = 8, .num_heads = 0}), {"num_heads (0)"});
  expect_error(make({.hidden_size = 8, .num_heads = 4, .num_kv_heads = 5}), {"num_kv_heads (5)", "num_heads (4)"});
  expect_error(make({.hidden_size = 8, .num_heads = 4, .num_kv_heads = 0}), {"num_kv_heads (0)"});
  expect_error(make({.hidden_size = 10, .num_heads = 4}), {"hidden_size (10)", "multiple of num_heads (4)"});
  expect_error(make({.hidden_size = 8, .num_heads = 4, .head_dim = 0}), {"head_dim (0)"});
  expect_error(make({.hidden_size = 8, .num_heads = 4, .value_dim = -1}), {"value_dim (-1)"});
  expect_error(make({.hidden_size = Index{1} << 40, .num_heads = 1 << 20}), {"parameters", "below 2^63"});
  expect_error(make({.hidden_size = 1, .num_heads = kLargest}), {"hidden_size (1)"});
  expect_error(make({.hidden_size = 1, .num_heads = kLargest, .head_dim = 1, .query_bias = true}), {"below 2^63"});
}

TEST(AttentionCost, RefusesStepsThatCannotBe) {
  const AttentionLayer layer({.hidden_size = 8, .num_heads = 4});
  const auto ask = [&](Step step, std::optional<Index> window = {}) {
    return [=] { layer.cost(step, {}, {}, window); };
  };
  expect_error(ask({.batch = 0}), {"batch (0)"});
  expect_error(ask({.new_tokens = 0}), {"new_tokens (0)"});
  expect_error(ask({.past = -1}), {"past (-1)"});
  expect_error(ask({}, -1), {"window (-1)"});
  expect_error(ask({.new_tokens = 1, .past = kLargest}), {"past + new_tokens", "below 2^63"});
  expect_error(ask({.new_tokens = Index{1} << 40, .past = Index{1} << 40}), {"pairs", "below 2^63"});
  expect_error([&] { layer.cross_attention_cost({.source_tokens = -1}, {}); }, {"source_tokens (-1)"});
  expect_error([] { Step::decode(0); }, {"context (0)"});
}

}  // namespace
}  // namespace headwise::cost
