// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "headwise/nn/multi_head_attention.hpp"
#include "tests/nn/module_definition.hpp"

namespace headwise::nn {
namespace {

using headwise::testing::ModuleWeights;
using headwise::testing::random_matrix;

MultiHeadAttention with_weights(const MultiHeadAttentionOptions& options) {
  MultiHeadAttention module(options);
  ModuleWeights(module).give_to(module);
  return module;
}

TEST(MultiHeadAttention, IsPlainMultiHeadAttentionWhereKvHeadsAreUnset) {
  const MultiHeadAttention unset = with_weights({.hidden_size = 96, .num_heads = 6, .rope = RopeOptions{}});
  const MultiHeadAttention set =
      with_weights({.hidden_size = 96, .num_heads = 6, .num_kv_heads = 6, .rope = RopeOptions{}});
  const Matrix x = random_matrix(80, 96, 1);
  EXPECT_EQ(unset.heads().num_kv_heads(), 6);
  EXPECT_EQ(unset.forward(x), set.forward(x));
  KvCache<float> a(unset.heads(), 100), b(set.heads(), 100);
  EXPECT_EQ(unset.forward(x, a), set.forward(x, b));
  EXPECT_EQ(unset.forward(x.topRows(1), a), set.forward(x.topRows(1), b));
}

TEST(MultiHeadAttention, OfRepeatedKvHeadsEqualsTheGroupedOne) {
  const MultiHeadAttentionOptions grouped_options{.hidden_size = 64, .num_heads = 8, .num_kv_heads = 2};
  MultiHeadAttention grouped(grouped_options), plain({.hidden_size = 64, .num_heads = 8});
  const ModuleWeights w(grouped);
  w.give_to(grouped);
  Matrix wk(64, 64), wv(64, 64);
  for (Index h = 0; h < 8; ++h) {
    wk.middleRows(h * 8, 8) = w.wk.middleRows(h / 4 * 8, 8);
    wv.middleRows(h * 8, 8) = w.wv.middleRows(h / 4 * 8, 8);
  }
  plain.set_weights(w.wq, wk, wv, w.wo);
  const Matrix x = random_matrix(40, 64, 1);
  EXPECT_LE((grouped.forward(x) - plain.forward(x)).cwiseAbs().maxCoeff(), 0x1p-20f);
}

TEST(MultiHeadAttention, CountsParametersAndBytesAsPublished) {
  const MultiHeadAttention mha({.hidden_size = 2048, .num_heads = 32});
  const MultiHeadAttention gqa({.hidden_size = 2048, .num_heads = 32, .num_kv_heads = 8});
  EXPECT_EQ(gqa.heads().head_dim(), 64);
  EXPECT_EQ(mha.parameters(), 16777216);
  EXPECT_EQ(gqa.parameters(), 10485760);
  EXPECT_EQ(mha.kv_bytes_per_token(Storage::bf16), 8192);
  EXPECT_EQ(gqa.kv_bytes_per_token(Storage::bf16), 2048);
  EXPECT_EQ(gqa.kv_bytes_per_token(Storage::f32), 4096);
  const LayerShape shape = gqa.cache_shape();
  EXPECT_EQ(KvCache<bf16>(std::vector<LayerShape>{shape}, 64).bytes_per_token(), 2048);
}

TEST(MultiHeadAttention, CountsBiasesAndUnequalDimensions) {
  const MultiHeadAttention module({.hidden_size = 10,
                                   .num_heads = 4,
                                   .num_kv_heads = 2,
                                   .head_dim = 6,
                                   .value_dim = 3,
                                   .query_bias = true,
                                   .key_bias = true,
                                   .value_bias = true,
                                   .output_bias = true});
  // weights 24·10 + 12·10 + 6·10 + 10·12, biases 24 + 12 + 6 + 10
  EXPECT_EQ(module.parameters(), 540 + 52);
  EXPECT_EQ(module.kv_bytes_per_token(Storage::f32), 2 * (6 + 3) * 4);
}

TEST(MultiHeadAttention, ReadsWeightsThatAreViewed) {
  const MultiHeadAttentionOptions options{.hidden_size = 64, .num_heads = 4, .num_kv_heads = 2};
  MultiHeadAttention owner(options), viewer(options);
  ModuleWeights w(owner);
  w.give_to(owner);
  const auto view = [](const Matrix& m) { return Linear::view(m.data(), m.rows(), m.cols()); };
  viewer.set_weights(view(w.wq), view(w.wk), view(w.wv), view(w.wo));
  const Matrix x = random_matrix(10, 64, 1);
  EXPECT_EQ(viewer.forward(x), owner.forward(x));
  w.wo *= 2.0f;
  EXPECT_EQ(viewer.forward(x), Matrix(owner.forward(x) * 2.0f));
}

TEST(MultiHeadAttention, MayWriteOverItsInput) {
  const MultiHeadAttention module = with_weights({.hidden_size = 64, .num_heads = 4, .rope = RopeOptions{}});
  Matrix x = random_matrix(70, 64, 1), memory = random_matrix(30, 64, 2);
  KvCache<float> a(module.heads(), 100), b(module.heads(), 100), cross(module.heads(), 100);
  module.fill_cross(memory, cross);
  Workspace workspace;
  const Matrix plain = module.forward(x), cached = module.forward(x, a), crossed = module.forward_cross(x, cross);
  Matrix y = x;
  module.forward(y, y, workspace);
  EXPECT_EQ(y, plain);
  y = x;
  module.forward(y, b, 0, y, workspace);
  EXPECT_EQ(y, cached);
  y = x;
  module.forward_cross(y, cross, 0, y, workspace);
  EXPECT_EQ(y, crossed);
}

TEST(MultiHeadAttention, UsesItsOwnLayerOfAModelsCache) {
  const MultiHeadAttention wide = with_weights({.hidden_size = 64, .num_heads = 4, .rope = RopeOptions{}});
  const MultiHeadAttention narrow =
      with_weights({.hidden_size = 64, .num_heads = 4, .num_kv_heads = 1, .rope = RopeOptions{}});
  const std::vector<LayerShape> shapes = {wide.cache_shape(), narrow.cache_shape()};
  KvCache<float> model(shapes, 100), first(wide.heads(), 100), second(narrow.heads(), 100);
  Workspace workspace;  // one for all layers
  for (const Index count : {66, 1, 1, 3}) {
    const Matrix x = random_matrix(count, 64, static_cast<unsigned>(count));
    Matrix hidden(count, 64), y(count, 64);
    wide.forward(x, model, 0, hidden, workspace);
    narrow.forward(hidden, model, 1, y, workspace);
    EXPECT_EQ(y, narrow.forward(wide.forward(x, first), second));
  }
  EXPECT_EQ(model.num_tokens(0), 71);
  EXPECT_EQ(model.num_tokens(1), 71);
}

TEST(MultiHeadAttention, StoresKeysAfterRope) {
  const RopeOptions rope{.style = RopeStyle::interleaved};
  const MultiHeadAttention module = with_weights({.hidden_size = 64, .num_heads = 4, .num_kv_heads = 2, .rope = rope});
  const ModuleWeights w(module);
  const Matrix x = random_matrix(3, 64, 1);
  KvCache<float> cache(module.heads(), 10);
  module.forward(x.topRows(2), cache);
  module.forward(x.bottomRows(1), cache);
  Matrix k(3, 32);
  Linear{w.wk}(x, k);
  Rope(16, rope).apply(View<float>(k.data(), 3, 2, 16), 0);
  std::vector<float> stored(16);
  for (Index t = 0; t < 3; ++t)
    for (Index g = 0; g < 2; ++g) {
      cache.read_key(0, 0, t, g, stored);
      for (Index d = 0; d < 16; ++d)
        ASSERT_EQ(stored[static_cast<std::size_t>(d)], k(t, g * 16 + d)) << t << ", " << g << ", " << d;
    }
}

TEST(MultiHeadAttention, ContinuesEachSequenceFromItsOwnPosition) {
  const MultiHeadAttention module =
      with_weights({.hidden_size = 64, .num_heads = 4, .num_kv_heads = 2, .rope = RopeOptions{}});
  const Matrix x = random_matrix(12, 64, 1), next = random_matrix(2, 64, 2);
  KvCache<float> ragged(module.heads(), 20, {.num_sequences = 2}), a(module.heads(), 20), b(module.heads(), 20);
  module.forward(x, ragged);
  ragged.truncate(1, 4);  // sequence 1 keeps 4 of its 6 tokens
  module.forward(x.topRows(6), a);
  module.forward(x.middleRows(6, 4), b);
  const Matrix y = module.forward(next, ragged);
  EXPECT_EQ(Matrix(y.row(0)), module.forward(next.row(0), a));
  EXPECT_EQ(Matrix(y.row(1)), module.forward(next.row(1), b));
}

TEST(MultiHeadAttention, OfDynamicNtkTurnsAPromptByItsLength) {
  const Index count = 60;
  const MultiHeadAttention module = with_weights(
      {.hidden_size = 64, .num_heads = 4, .rope = RopeOptions{.base = 100.0, .scaling = DynamicNtkScaling{4.0, 20}}});
  // the base that 60 tokens give: 100·(4·60/20 − 3)^(16/14)
  const MultiHeadAttention grown = with_weights(
      {.hidden_size = 64, .num_heads = 4, .rope = RopeOptions{.base = 100.0 * std::pow(9.0, 16.0 / 14.0)}});
  const Matrix x = random_matrix(count, 64, 1);
  EXPECT_LE((module.forward(x) - grown.forward(x)).cwiseAbs().maxCoeff(), 0x1p-20f);
  const MultiHeadAttention plain =
      with_weights({.hidden_size = 64, .num_heads = 4, .rope = RopeOptions{.base = 100.0}});
  EXPECT_GT((module.forward(x) - plain.forward(x)).cwiseAbs().maxCoeff(), 1e-3f);
  EXPECT_EQ(module.forward(x.topRows(20)), plain.forward(x.topRows(20)));
}

TEST(MultiHeadAttention, TakesNoTokens) {
  const MultiHeadAttention module = with_weights({.hidden_size = 64, .num_heads = 4, .rope = RopeOptions{}});
  KvCache<float> cache(module.heads(), 10);
  EXPECT_EQ(module.forward(Matrix(0, 64)).rows(), 0);
  EXPECT_EQ(module.forward(Matrix(0, 64), cache).rows(), 0);
  EXPECT_EQ(module.forward_cross(Matrix(0, 64), cache).rows(), 0);
  EXPECT_EQ(cache.num_tokens(), 0);
}

TEST(MultiHeadAttention, OfAnEmptyMemoryIsTheOutputBias) {
  const MultiHeadAttention module = with_weights({.hidden_size = 64, .num_heads = 4, .output_bias = true});
  const ModuleWeights w(module);
  KvCache<float> cache(module.heads(), 10);
  module.fill_cross(Matrix(0, 64), cache);
  const Matrix y = module.forward_cross(random_matrix(2, 64, 1), cache);
  for (Index t = 0; t < 2; ++t) EXPECT_EQ(y.row(t), w.bo.transpose());
}

}  // namespace
}  // namespace headwise::nn
