// SPDX-License-Identifier: MIT
// Attention layers of published models, in their order: by the definition, decoded as read at once, in rings, in batches.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "headwise/nn/multi_head_attention.hpp"
#include "headwise/parallel/thread_pool.hpp"
#include "tests/nn/layers.hpp"

namespace headwise::nn {
namespace {

using headwise::testing::DefinitionCall;
using headwise::testing::expect_near;
using headwise::testing::kHidden;
using headwise::testing::Layers;
using headwise::testing::module_definition;
using headwise::testing::random_matrix;
using headwise::testing::small_layer;

constexpr Index kHeads = 6;  // of small_layer

/// gpt-oss: windows in every other layer, sink logits of every head and layer, YaRN whose ramp is not rounded.
std::vector<MultiHeadAttentionOptions> gpt_oss() {
  std::vector<MultiHeadAttentionOptions> layers;
  for (int l = 0; l < 4; ++l) {
    auto o = small_layer();
    o.head_dim = 16;
    o.query_bias = o.key_bias = o.value_bias = o.output_bias = true;
    o.rope = RopeOptions{.base = 150000,
                         .scaling = YarnScaling{.factor = 32, .original_max_position = 64, .truncate = false}};
    if (l % 2 == 0) o.window = 20;
    for (Index h = 0; h < kHeads; ++h) o.sink_logits.push_back(0.4f * static_cast<float>(h - l) + 0.3f);
    layers.push_back(o);
  }
  return layers;
}
/// Llama 4: chunks with RoPE and a norm without weights, and every fourth layer all tokens with a temperature.
std::vector<MultiHeadAttentionOptions> llama4() {
  std::vector<MultiHeadAttentionOptions> layers;
  for (int l = 0; l < 4; ++l) {
    auto o = small_layer();
    if (l < 3) {
      o.rope = RopeOptions{.style = RopeStyle::interleaved, .base = 5e5};
      o.qk_norm_epsilon = 1e-5f;
      o.chunk_size = 48;
    } else {
      o.temperature = Temperature{.floor_scale = 16, .strength = 0.1f};
    }
    layers.push_back(o);
  }
  return layers;
}
std::vector<MultiHeadAttentionOptions> gemma2() {
  std::vector<MultiHeadAttentionOptions> layers;
  for (int l = 0; l < 4; ++l) {
    auto o = small_layer();
    o.head_dim = 24;
    o.rope = RopeOptions{};
    o.scale = 1 / std::sqrt(12.0f);
    o.softcap = 5;
    if (l % 2 == 0) o.window = 40;
    layers.push_back(o);
  }
  return layers;
}
std::vector<MultiHeadAttentionOptions> gemma3() {
  std::vector<MultiHeadAttentionOptions> layers;
  for (int l = 0; l < 6; ++l) {
    auto o = small_layer();
    o.head_dim = 24;
    o.scale = 1 / std::sqrt(20.0f);
    o.qk_norm_epsilon = 1e-6f;
    if (l < 5) {
      o.rope = RopeOptions{};
      o.window = 24;
    } else {
      o.rope = RopeOptions{.base = 1e6, .scaling = LinearScaling{8}};
    }
    layers.push_back(o);
  }
  return layers;
}
/// A window behind the first tokens, and its own change of scores.
std::vector<MultiHeadAttentionOptions> streaming() {
  auto o = small_layer();
  o.rope = RopeOptions{};
  o.window = 30;
  o.num_sink_tokens = 4;
  return {o, o};
}

struct Case {
  const char* name;
  std::vector<MultiHeadAttentionOptions> layers;
  Index plans;  // ways to attend
};

class ModelLayers : public ::testing::TestWithParam<Case> {
 protected:
  Layers layers{GetParam().layers};
};

TEST_P(ModelLayers, AreTheDefinition) {
  for (std::size_t l = 0; l < layers.modules.size(); ++l)
    for (const Index count : {1, 150}) {
      const Matrix x = random_matrix(count, kHidden, static_cast<unsigned>(l) + 1);
      expect_near(layers.modules[l].forward(x), module_definition(layers.modules[l], layers.weights[l], x, x));
      if (HasFatalFailure()) FAIL() << "layer " << l << ", " << count << " tokens";
    }
}

TEST_P(ModelLayers, GiveATokenTheSameBitsReadAtOnceAndOneByOne) {
  const Matrix x = random_matrix(150, kHidden, 1);
  auto at_once = layers.alone<bf16>(), one_by_one = layers.alone<bf16>();
  const Matrix expected = layers.forward(x, at_once);
  for (Index t = 0; t < 150;) {
    const Index count = t < 66 ? 66 : 1;
    ASSERT_EQ(layers.forward(Matrix(x.middleRows(t, count)), one_by_one), Matrix(expected.middleRows(t, count))) << t;
    t += count;
  }
}

TEST_P(ModelLayers, GiveTheSameBitsInRings) {
  const Matrix x = random_matrix(400, kHidden, 1);
  auto complete = layers.alone<float>();
  KvCache<float> rings(layers.ring_shapes(), 400, {.max_append = 70});
  for (Index t = 0; t < 400;) {
    const Index count = t < 210 ? 70 : t < 240 ? 1 : std::min<Index>(7, 400 - t);
    const Matrix piece = x.middleRows(t, count);
    ASSERT_EQ(layers.forward(piece, rings), layers.forward(piece, complete)) << t;
    t += count;
  }
  EXPECT_LT(rings.bytes_used(), complete.bytes_used());
}

TEST_P(ModelLayers, GiveEverySequenceOfARaggedBatchTheBitsItHasAlone) {
  ThreadPool pool(2);
  auto paged = layers.paged<bf16>(20);
  std::vector<SequenceId> ids;
  std::vector<KvCache<bf16>> alone;
  for (int b = 0; b < 3; ++b) {
    ids.push_back(paged.create());
    alone.push_back(layers.alone<bf16>());
  }
  RaggedBatch batch;
  unsigned seed = 0;
  for (const std::vector<Index>& step : {std::vector<Index>{70, 3, 130}, {1, 60, 1}, {1, 1, 1}, {1, 20, 2}}) {
    batch.clear();
    for (std::size_t b = 0; b < 3; ++b) batch.add(ids[b], step[b]);
    const Matrix x = random_matrix(batch.num_tokens(), kHidden, ++seed);
    const Matrix y = layers.forward(x, paged, batch, pool);
    EXPECT_EQ(batch.num_plans(), GetParam().plans) << "layers that attend alike share the plan of a step";
    for (Index b = 0; b < 3; ++b) {
      const Matrix own = x.middleRows(batch.offset(b), batch.num_tokens(b));
      ASSERT_EQ(Matrix(y.middleRows(batch.offset(b), batch.num_tokens(b))),
                layers.forward(own, alone[static_cast<std::size_t>(b)]));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Of, ModelLayers,
                         ::testing::Values(Case{"gpt_oss", gpt_oss(), 2}, Case{"llama4", llama4(), 2},
                                           Case{"gemma2", gemma2(), 2}, Case{"gemma3", gemma3(), 2},
                                           Case{"streaming", streaming(), 1}),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(LayerOptions, ChangeWhatTheySay) {
  // each option gives its layer another result than it has without
  const Matrix x = random_matrix(100, kHidden, 1);
  auto with = small_layer();
  with.rope = RopeOptions{};
  const Matrix plain = Layers({with}).modules[0].forward(x);
  const auto differs = [&](void (*change)(MultiHeadAttentionOptions&)) {
    auto changed = with;
    change(changed);
    return (Layers({changed}).modules[0].forward(x) - plain).cwiseAbs().maxCoeff() > 1e-3f;
  };
  EXPECT_TRUE(differs([](auto& o) { o.sink_logits.assign(kHeads, 1.0f); }));
  EXPECT_TRUE(differs([](auto& o) { o.temperature = Temperature{.floor_scale = 4, .strength = 0.5f}; }));
  EXPECT_TRUE(differs([](auto& o) { o.chunk_size = 10; }));
  EXPECT_TRUE(differs([](auto& o) { o.window = 10; }));
  EXPECT_TRUE(differs([](auto& o) { o.score_function = [](float s, Index, Index, Index, Index) { return 2 * s; }; }));
}

TEST(LayerOptions, OfAScoreFunctionAreTheDefinition) {
  // a bonus for keys near by, of every second head, with state of its own
  const float bonus = 0.75f;
  const auto function = [&](float score, Index, Index head, Index query, Index key) {
    return head % 2 == 1 && query - key < 5 ? score + bonus : score;
  };
  auto o = small_layer();
  o.rope = RopeOptions{};
  o.softcap = 4;
  o.score_function = function;
  const Layers layers({o});
  DefinitionCall call;
  call.rules.transform = [&](double score, Index head, Index query, Index key) {
    return head % 2 == 1 && query - key < 5 ? score + 0.75 : score;
  };
  const Matrix x = random_matrix(100, kHidden, 1);
  expect_near(layers.modules[0].forward(x), module_definition(layers.modules[0], layers.weights[0], x, x, false, call));
}

TEST(LayerOptions, SayHowMuchARingKeeps) {
  auto o = small_layer();
  const auto ring = [&] { return MultiHeadAttention(o).ring_shape(); };
  EXPECT_EQ(ring(), MultiHeadAttention(o).cache_shape());
  o.num_sink_tokens = 3;  // of no use without a window
  EXPECT_EQ(ring(), MultiHeadAttention(o).cache_shape());
  o.window = 100;
  EXPECT_EQ(ring().window, 100);
  EXPECT_EQ(ring().num_sink_tokens, 3);
  o.chunk_size = 64;
  EXPECT_EQ(ring().window, 64);
  o.window.reset();
  EXPECT_EQ(ring().window, 64);
  o.chunk_size = Index{1} << 60;  // longer than any sequence
  EXPECT_EQ(ring().window, 0);
  EXPECT_NO_THROW(KvCache<float>(std::vector{ring()}, 10));
}

TEST(LayerOptions, OfSinkLogitsAreParameters) {
  auto o = small_layer();
  const Index without = MultiHeadAttention(o).parameters();
  o.sink_logits.assign(kHeads, 0.0f);
  EXPECT_EQ(MultiHeadAttention(o).parameters(), without + kHeads);
}

}  // namespace
}  // namespace headwise::nn
