// SPDX-License-Identifier: MIT
#include "headwise/cost/model.hpp"

#include <limits>

#include "headwise/cost/known_models.hpp"
#include "tests/support/errors.hpp"

namespace headwise::cost {
namespace {

using testing::expect_error;

constexpr Index kLargest = std::numeric_limits<Index>::max();

/// Hidden size 8, 4 query heads of 2; keys and values of one head take 2·2·2 = 8 bytes in bf16.
LayerShape layer(Index kv_heads, std::optional<Index> window = {}) {
  return {.attention = {.hidden_size = 8, .num_heads = 4, .num_kv_heads = kv_heads}, .window = window};
}
ModelShape layers(std::vector<LayerShape> list) { return {.name = "test", .layers = std::move(list)}; }

TEST(ModelCost, StoredBytesAreTheSumOverLayersWithTheirOwnHeadCounts) {
  const Model model(layers({layer(4), layer(2), layer(1)}));
  EXPECT_EQ(model.kv_bytes_stored_per_token(Storage::bf16), 7 * 8);
  EXPECT_EQ(model.kv_bytes_stored_per_token(Storage::f32), 7 * 16);
  EXPECT_EQ(model.kv_bytes_stored_per_token(ElementFormat::int4()), 7 * 2 * (1 + 2));
  EXPECT_EQ(model.kv_bytes_held(10, Storage::bf16, 3), 3 * 10 * 7 * 8);
}

TEST(ModelCost, ParametersAreTheSumOfAllParts) {
  ModelShape shape = layers({layer(4), layer(2)});
  shape.layers[0].feed_forward = {.size = 20, .gated = true};
  shape.layers[1].feed_forward = {.size = 30, .gated = false, .biases = true};
  shape.layers[1].norm_parameters = 16;
  shape.layers[1].cross_attention = AttentionShape{.hidden_size = 8, .num_heads = 2, .num_kv_heads = 1};
  shape.vocabulary = {.size = 100, .tied = true};
  shape.encoder_layers = {layer(1)};
  shape.other_parameters = 5;
  const Index self = (4 * 64) + (2 * 64 + 2 * 32), cross = 2 * 64 + 2 * 32, encoder = 2 * 64 + 2 * 16;
  const Index network = 3 * 8 * 20 + 2 * 8 * 30 + 30 + 8;
  EXPECT_EQ(Model(shape).attention_parameters(), self + cross + encoder);
  EXPECT_EQ(Model(shape).parameters(), self + cross + encoder + network + 16 + 100 * 8 + 5);
  shape.vocabulary.tied = false;
  EXPECT_EQ(Model(shape).parameters(), self + cross + encoder + network + 16 + 2 * 100 * 8 + 5);
}

TEST(ModelCost, SharingAcrossLayersSavesCapacityAndProjectionsButNoReads) {
  const ModelShape alone = layers(std::vector<LayerShape>(10, layer(2)));
  const Model own(alone), shared(alone.with_sharing(KvSharing::every(10, 3)));  // producers 0, 1, 4, 7
  EXPECT_EQ(own.kv_bytes_stored_per_token(Storage::bf16), 10 * 16);
  EXPECT_EQ(shared.kv_bytes_stored_per_token(Storage::bf16), 4 * 16);
  EXPECT_EQ(own.attention_parameters(), 10 * (2 * 64 + 2 * 32));
  EXPECT_EQ(shared.attention_parameters(), 10 * 2 * 64 + 4 * 2 * 32);
  EXPECT_EQ(shared.attention_parameters(4), 2 * 64 + 2 * 32);
  EXPECT_EQ(shared.attention_parameters(5), 2 * 64);
  const Step step = Step::decode(100, 3);
  EXPECT_EQ(own.kv_bytes_read_per_step(step, Storage::bf16), 3.0 * 100 * 10 * 16);
  EXPECT_EQ(shared.kv_bytes_read_per_step(step, Storage::bf16), 3.0 * 100 * 10 * 16);
  EXPECT_EQ(shared.cost(step, {}).core_flops, own.cost(step, {}).core_flops);
  EXPECT_EQ(own.cost(step, {}).projection_flops - shared.cost(step, {}).projection_flops, 2.0 * 3 * 6 * 2 * 32);
  EXPECT_EQ(own.cost(step, {}).weight_bytes - shared.cost(step, {}).weight_bytes, 2.0 * 6 * 2 * 32);
}

TEST(ModelCost, StepIsTheSumOfItsParts) {
  ModelShape shape = layers({layer(2), layer(1, 16)});
  shape.layers[1].feed_forward = {.size = 30};
  shape.layers[1].norm_parameters = 16;
  shape.layers[1].cross_attention = AttentionShape{.hidden_size = 8, .num_heads = 4, .num_kv_heads = 1};
  shape.vocabulary = {.size = 100, .tied = false};
  shape.encoder_layers = {layer(4)};  // no part of a step
  const Model model(shape);
  const Step step{.batch = 2, .new_tokens = 3, .past = 40, .source_tokens = 7};
  const StepCost cost = model.cost(step, {.weights = Storage::f32, .kv = Storage::f16});
  const double first = 2 * 64 + 2 * 32, second = 2 * 64 + 2 * 16, cross = 2 * 64, network = 3 * 8 * 30, output = 800;
  EXPECT_EQ(cost.projection_flops, 2 * 6 * (first + second + cross + network) + 2 * 2 * output);  // logits of the last
  EXPECT_EQ(cost.weight_bytes, 4 * (first + second + cross + network + 16 + output));
  EXPECT_EQ(cost.core_flops, 2 * 2 * 4 * 4 * (41.0 + 42 + 43 + 3 * 16 + 3 * 7));
  EXPECT_EQ(cost.kv_bytes, 2 * (43 * 16.0 + 18 * 8 + 7 * 8));
}

TEST(ModelCost, TimeIsTheSumOfThePartsLeastTimes) {
  ModelShape shape = layers({layer(2), layer(1)});
  for (LayerShape& l : shape.layers) l.feed_forward = {.size = 30};
  shape.vocabulary = {.size = 100};
  const Model model(shape);
  const Machine machine{.flops_per_second = 2e6, .bytes_per_second = 1e6};
  const Step step =
      Step::decode(5, 4);  // projections: arithmetic limits; the core of layer 0: memory, of layer 1: both
  const double projections = 2.0 * 4 * ((2 * 64 + 2 * 32) + (2 * 64 + 2 * 16) + 2 * 3 * 8 * 30 + 800) / 2e6;
  EXPECT_DOUBLE_EQ(model.seconds(step, {}, machine), projections + 4 * 5 * 16 / 1e6 + 4 * 5 * 2 * 4 * 4 / 2e6);
}

TEST(ModelCost, RooflineRatioOfSiblingsIsThePredictedSpeedupWhereWeightsAreTheSame) {
  // huge compute: memory alone decides; the sibling's smaller Wk and Wv put the ratio above the closed form
  const Machine machine{.flops_per_second = 1e18, .bytes_per_second = 1e9};
  const ModelShape& llama = known_model("Llama-2-7B");
  const Model mha(llama), gqa(llama.with_kv_heads(8));
  const Step step = Step::decode(4096, 32);
  const StepCost cost = mha.cost(step, {});
  const double predicted = decode_speedup(8, 32, cost.kv_bytes / cost.bytes());
  const double ratio = mha.seconds(step, {}, machine) / gqa.seconds(step, {}, machine);
  const double saved_weights = cost.weight_bytes - gqa.cost(step, {}).weight_bytes;
  EXPECT_EQ(saved_weights, 2.0 * 32 * 2 * 4096 * 24 * 128);
  EXPECT_NEAR(1 / predicted - 1 / ratio, saved_weights / cost.bytes(), 1e-12);
  EXPECT_GT(predicted, 2.5);
}

TEST(ModelCost, LongestContextIsTheLastThatFitsTheBudget) {
  const Model model(layers({layer(4), layer(2)}));  // 48 bytes per token
  const auto longest = [&](Index bytes, Index batch) {
    return model.longest_context({.bytes = bytes, .batch = batch});
  };
  EXPECT_EQ(longest(480, 1), 10);
  EXPECT_EQ(longest(479, 1), 9);
  EXPECT_EQ(longest(480, 3), 3);
  EXPECT_EQ(longest(47, 1), 0);
  EXPECT_EQ(longest(0, 1), 0);
  EXPECT_EQ(longest(kLargest, 1), kLargest / 48);
}

TEST(ModelCost, LongestContextLeavesRoomForTheWeights) {
  const Model llama(known_model("Llama-3-8B"));
  const Index budget = Index{24} << 30;
  const Index left = budget - 2 * 8'030'261'248;
  EXPECT_EQ(llama.longest_context({.bytes = budget, .weights = Storage::bf16}), left / 131'072);
  EXPECT_EQ(llama.longest_context({.bytes = budget, .batch = 4, .weights = Storage::bf16}), left / (4 * 131'072));
  EXPECT_EQ(llama.longest_context({.bytes = budget, .kv = Storage::f32}), budget / 262'144);
  EXPECT_EQ(llama.longest_context({.bytes = Index{16'060'522'495}, .weights = Storage::bf16}), 0);
}

TEST(ModelCost, CachesThatHoldTheirWindowStopGrowing) {
  const Model mixed(layers({layer(4), layer(2, 10), layer(1, 20)}));  // 32, 16 and 8 bytes per token
  EXPECT_EQ(mixed.kv_bytes_held(100, Storage::bf16), 100 * 56);
  const auto held = [&](Index tokens) {
    return mixed.kv_bytes_held(tokens, Storage::bf16, 1, WindowCaches::hold_window);
  };
  EXPECT_EQ(held(5), 5 * 56);
  EXPECT_EQ(held(15), 15 * 40 + 10 * 16);
  EXPECT_EQ(held(100), 100 * 32 + 10 * 16 + 20 * 8);
  for (Index bytes = 0; bytes < 2000; ++bytes) {  // the longest is what counting up finds
    Index tokens = 0;
    while (held(tokens + 1) <= bytes) ++tokens;
    ASSERT_EQ(mixed.longest_context({.bytes = bytes, .windows = WindowCaches::hold_window}), tokens) << bytes;
  }
  const Model windowed(layers({layer(2, 10), layer(1, 20)}));
  const MemoryBudget all{.bytes = 10 * 16 + 20 * 8, .windows = WindowCaches::hold_window};
  EXPECT_EQ(windowed.longest_context(all), kUnboundedContext);
  MemoryBudget less = all;
  less.bytes -= 1;
  EXPECT_EQ(windowed.longest_context(less), 19);
}

TEST(ModelCost, SharedCacheHoldsTheWidestWindowThatReadsIt) {
  const ModelShape shape = layers({layer(1, 4), layer(1, 9), layer(1, 2)});
  const Model model(shape.with_sharing(KvSharing::every(3, 3)));
  EXPECT_EQ(model.kv_bytes_held(100, Storage::bf16, 1, WindowCaches::hold_window), 9 * 8);
}

TEST(ModelCost, CrossAttentionTakesItsPartOfTheBudget) {
  ModelShape shape = layers({layer(1)});
  shape.layers[0].cross_attention = AttentionShape{.hidden_size = 8, .num_heads = 4, .num_kv_heads = 2};
  const Model model(shape);
  EXPECT_EQ(model.kv_bytes_held(3, Storage::bf16, 2, WindowCaches::hold_all, 5), 2 * (3 * 8 + 5 * 16));
  EXPECT_EQ(model.longest_context({.bytes = 80 + 17, .source_tokens = 5}), 2);
  EXPECT_EQ(model.longest_context({.bytes = 79, .source_tokens = 5}), 0);
}

TEST(ModelCost, SiblingsDifferInTheDecodersKvHeadsAlone) {
  const ModelShape& t5 = known_model("T5-XXL");
  const Model mha(t5), gqa(t5.with_kv_heads(8));
  EXPECT_EQ(gqa.attention(0).num_kv_heads(), 8);
  EXPECT_EQ(mha.kv_bytes_stored_per_token(Storage::bf16), 8 * gqa.kv_bytes_stored_per_token(Storage::bf16));
  // 24 layers of self- and cross-attention lose 56 heads of Wk and of Wv; the encoder keeps its own
  EXPECT_EQ(mha.parameters() - gqa.parameters(), Index{24} * 2 * 2 * 4096 * 56 * 64);
}

TEST(ModelCost, RefusesModelsThatCannotBe) {
  const auto make = [](ModelShape shape) { return [shape] { Model model(shape); }; };
  const auto changed = [](auto change) {
    ModelShape shape = layers({layer(2), layer(2)});
    change(shape);
    return [shape] { Model model(shape); };
  };
  expect_error(make({}), {"layers (0)", "at least 1"});
  expect_error(changed([](auto& s) { s.layers[1].attention.hidden_size = 16; }),
               {"hidden_size (16) of layers[1]", "layers[0] (8)"});
  expect_error(changed([](auto& s) { s.encoder_layers = {{.attention = {.hidden_size = 4, .num_heads = 2}}}; }),
               {"hidden_size (4) of encoder_layers[0]"});
  expect_error(changed([](auto& s) { s.layers[1].attention.num_kv_heads = 5; }), {"num_kv_heads (5)"});
  expect_error(
      changed([](auto& s) { s.layers[1].cross_attention = AttentionShape{.hidden_size = 16, .num_heads = 2}; }),
      {"hidden_size (16) of layers[1]"});
  expect_error(changed([](auto& s) { s.layers[0].window = -1; }), {"window (-1)"});
  expect_error(changed([](auto& s) { s.layers[1].norm_parameters = -1; }), {"norm_parameters (-1) of layers[1]"});
  expect_error(changed([](auto& s) { s.layers[0].feed_forward.size = -3; }), {"feed_forward size (-3)"});
  expect_error(changed([](auto& s) { s.vocabulary.size = -1; }), {"vocabulary size (-1)"});
  expect_error(changed([](auto& s) { s.other_parameters = -1; }), {"other_parameters (-1)"});
  expect_error(changed([](auto& s) { s.context = -1; }), {"context (-1)"});
  expect_error(changed([](auto& s) { s.sharing = KvSharing::none(3); }), {"sharing (3 layers)", "layers (2)"});
  expect_error(changed([](auto& s) { s.vocabulary.size = kLargest; }), {"vocabulary", "below 2^63"});
  expect_error(changed([](auto& s) { s.layers[1].feed_forward.size = kLargest / 8; }), {"feed_forward", "below 2^63"});
  expect_error(changed([](auto& s) { s.other_parameters = kLargest; }), {"below 2^63"});
}

TEST(ModelCost, RefusesBorrowersOfAnotherShape) {
  const auto refuses = [](auto change, std::initializer_list<std::string_view> parts) {
    ModelShape shape = layers({layer(2), layer(2)});
    shape.sharing = KvSharing::every(2, 2);
    EXPECT_NO_THROW(Model{shape});
    change(shape.layers[1].attention);
    expect_error([&] { Model model(shape); }, parts);
  };
  refuses([](AttentionShape& a) { a.num_kv_heads = 1; }, {"num_kv_heads (1) of layers[1]", "layers[0] (2)"});
  refuses([](AttentionShape& a) { a.head_dim = 3, a.value_dim = 2; }, {"head_dim (3) of layers[1]", "layers[0] (2)"});
  refuses([](AttentionShape& a) { a.value_dim = 3; }, {"value_dim (3) of layers[1]", "layers[0] (2)"});
}

TEST(ModelCost, RefusesQuestionsThatCannotBe) {
  const Model model(layers({layer(2)}));
  expect_error([&] { model.attention(1); }, {"layer (1)", "num_layers - 1 (0)"});
  expect_error([&] { model.attention(-1); }, {"layer (-1)"});
  expect_error([&] { model.longest_context({.bytes = -1}); }, {"bytes (-1)"});
  expect_error([&] { model.longest_context({.bytes = 1, .batch = 0}); }, {"batch (0)"});
  expect_error([&] { model.longest_context({.bytes = 1, .source_tokens = -2}); }, {"source_tokens (-2)"});
  expect_error([&] { model.kv_bytes_held(-1, Storage::f32); }, {"tokens (-1)"});
  expect_error([&] { model.kv_bytes_held(kLargest, Storage::f32); }, {"bytes of caches", "below 2^63"});
  expect_error([&] { model.cost({.batch = 0}, {}); }, {"batch (0)"});
  expect_error([&] { model.seconds({}, {}, {}); }, {"flops_per_second (0)"});
  expect_error([] { ModelShape::uniform("", 0, layer(1)); }, {"num_layers (0)"});
}

}  // namespace
}  // namespace headwise::cost
