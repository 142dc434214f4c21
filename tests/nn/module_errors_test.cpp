// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "headwise/nn/multi_head_attention.hpp"
#include "tests/nn/module_definition.hpp"
#include "tests/support/errors.hpp"

namespace headwise::nn {
namespace {

using headwise::testing::expect_error;
using headwise::testing::ModuleWeights;
using headwise::testing::random_matrix;
using headwise::testing::random_vector;

TEST(MultiHeadAttentionErrors, NameTheImpossibleOption) {
  const auto make = [](MultiHeadAttentionOptions options) { return [=] { MultiHeadAttention module(options); }; };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  expect_error(make({}), {"hidden_size (0)"});
  expect_error(make({.hidden_size = -64, .num_heads = 4}), {"hidden_size (-64)"});
  expect_error(make({.hidden_size = 64}), {"num_heads (0)"});
  expect_error(make({.hidden_size = 64, .num_heads = -4}), {"num_heads (-4)"});
  expect_error(make({.hidden_size = 100, .num_heads = 30}), {"hidden_size (100)", "multiple of num_heads (30)"});
  expect_error(make({.hidden_size = 60, .num_heads = 30, .num_kv_heads = 8}),
               {"num_heads (30)", "multiple of num_kv_heads (8)", "HeadMap"});
  expect_error(make({.hidden_size = 64, .num_heads = 4, .num_kv_heads = 0}), {"num_kv_heads (0)"});
  expect_error(make({.hidden_size = 64, .num_heads = 4, .num_kv_heads = 8}), {"num_kv_heads (8)", "num_heads (4)"});
  expect_error(make({.hidden_size = 64, .num_heads = 4, .head_dim = 0}), {"head_dim (0)", "1 to 576"});
  expect_error(make({.hidden_size = 4096, .num_heads = 4}), {"head_dim (1024)", "1 to 576"});
  expect_error(make({.hidden_size = 64, .num_heads = 4, .value_dim = 0}), {"value_dim (0)", "1 to 576"});
  expect_error(make({.hidden_size = 64, .num_heads = 4, .value_dim = 577}), {"value_dim (577)"});
  expect_error(make({.hidden_size = 60, .num_heads = 4, .rope = RopeOptions{}}), {"rotary_dim (15)", "even"});
  expect_error(make({.hidden_size = 64, .num_heads = 4, .rope = RopeOptions{.base = -1}}), {"base (-1)"});
  expect_error(make({.hidden_size = 64, .num_heads = 4, .scale = nan}), {"scale (nan)"});
  expect_error(make({.hidden_size = 64, .num_heads = 4, .qk_norm_epsilon = 0.0f}), {"qk_norm_epsilon (0)", "above 0"});
  expect_error(make({.hidden_size = 64, .num_heads = 4, .window = -1}), {"window (-1)"});
  expect_error(make({.hidden_size = 64, .num_heads = 4, .window_right = -2}), {"window_right (-2)"});
  expect_error(make({.hidden_size = 64, .num_heads = 4, .softcap = -3.0f}), {"softcap (-3)"});
  expect_error(make({.hidden_size = 64, .num_heads = 4, .alibi_slopes = {1.0f}}), {"alibi_slopes (1", "(4)"});
  expect_error(make({.hidden_size = 64, .num_heads = 4, .num_sink_tokens = -1}), {"num_sink_tokens (-1)"});
  expect_error(make({.hidden_size = 64, .num_heads = 4, .chunk_size = 0}), {"chunk_size (0)"});
  expect_error(make({.hidden_size = 64, .num_heads = 4, .temperature = Temperature{.floor_scale = 0}}),
               {"floor_scale (0)"});
  expect_error(make({.hidden_size = 64, .num_heads = 4, .sink_logits = {1.0f, 2.0f}}), {"sink_logits (2", "(4)"});
  expect_error(make({.hidden_size = 64, .num_heads = 4, .sink_logits = {1, 1, nan, 1}}), {"sink_logits[2] (nan)"});
  const auto bias = std::make_shared<const RelativeBias>(std::vector<float>(3 * 32), 3);
  expect_error(make({.hidden_size = 64, .num_heads = 4, .relative_bias = bias}), {"relative_bias (of 3", "(4)"});
  expect_error(make({.hidden_size = 64, .num_heads = 4, .num_kv_heads = 2, .head_map = HeadMap::contiguous(6, 2)}),
               {"head_map (6", "num_heads (4)"});
  expect_error(make({.hidden_size = 64, .num_heads = 4, .num_kv_heads = 2, .head_map = HeadMap::contiguous(4, 4)}),
               {"head_map (4", "num_kv_heads (2)"});
}

TEST(MultiHeadAttentionErrors, NameTheNormThatDoesNotFit) {
  const std::vector<float> sixteen(16, 1.0f), eight(8, 1.0f);
  MultiHeadAttention plain({.hidden_size = 64, .num_heads = 4});
  expect_error([&] { plain.set_qk_norm(sixteen, sixteen); }, {"qk_norm_epsilon (unset)"});
  MultiHeadAttention normed({.hidden_size = 64, .num_heads = 4, .qk_norm_epsilon = 1e-6f});
  EXPECT_EQ(normed.parameters(), plain.parameters() + 2 * 16);
  expect_error([&] { normed.set_qk_norm(eight, sixteen); }, {"weight (8", "head_dim (16)"});
  expect_error([&] { normed.set_qk_norm(sixteen, eight); }, {"weight (8", "head_dim (16)"});
  MultiHeadAttention borrower({.hidden_size = 64, .num_heads = 4, .qk_norm_epsilon = 1e-6f, .borrows_kv = true});
  expect_error([&] { borrower.set_qk_norm(sixteen, sixteen); }, {"key_weight (16", "borrows_kv"});
  EXPECT_NO_THROW(borrower.set_qk_norm(sixteen, {}));
}

TEST(MultiHeadAttentionErrors, NameTheWeightThatDoesNotFit) {
  MultiHeadAttention module({.hidden_size = 64, .num_heads = 4, .num_kv_heads = 2, .value_dim = 8, .key_bias = true});
  const ModuleWeights w(module);
  const Linear q(w.wq), k(w.wk, w.bk), v(w.wv), o(w.wo);
  expect_error([&] { module.set_weights(random_matrix(63, 64, 1), k, v, o); }, {"query weight (63 x 64)", "64 x 64"});
  expect_error(
      [&] {
        module.set_weights(q, {random_matrix(64, 64, 1), random_vector(64, 2)}, v, o);
      },
      {"key weight (64 x 64)", "32 x 64"});
  expect_error([&] { module.set_weights(q, k, random_matrix(16, 32, 1), o); }, {"value weight (16 x 32)", "16 x 64"});
  expect_error([&] { module.set_weights(q, k, v, random_matrix(64, 64, 1)); }, {"output weight (64 x 64)", "64 x 32"});
  expect_error([&] { module.set_weights(q, k, v, Linear()); }, {"output weight (0 x 0)", "64 x 32"});
  expect_error([&] { module.set_weights(q, w.wk, v, o); }, {"key bias (none)", "must be given"});
  expect_error(
      [&] {
        module.set_weights({w.wq, random_vector(64, 1)}, k, v, o);
      },
      {"query bias (given)", "must be none"});
  // none of them was taken
  expect_error([&] { module.forward(random_matrix(1, 64, 1)); }, {"weights (unset)", "set_weights"});
  module.set_weights(q, k, v, o);
  EXPECT_TRUE(module.forward(random_matrix(1, 64, 1)).allFinite());
}

TEST(MultiHeadAttentionErrors, OfACallChangeNeitherCacheNorOutput) {
  MultiHeadAttention module({.hidden_size = 64, .num_heads = 4, .num_kv_heads = 2, .rope = RopeOptions{}});
  const Matrix x = random_matrix(6, 64, 1), wrong = random_matrix(6, 63, 1);
  KvCache<float> unset(module.heads(), 8);
  expect_error([&] { module.forward(x); }, {"weights (unset)", "set_weights"});
  expect_error([&] { module.forward(x, unset); }, {"weights (unset)"});
  expect_error([&] { module.fill_cross(x, unset); }, {"weights (unset)"});
  expect_error([&] { module.forward_cross(x, unset); }, {"weights (unset)"});
  ModuleWeights(module).give_to(module);

  KvCache<float> cache(module.heads(), 8), pair(module.heads(), 8, {.num_sequences = 2}), other(Heads<>(4, 4, 16), 8);
  module.forward(x, cache);
  Workspace workspace;
  Matrix y = Matrix::Constant(6, 64, 7.0f), bad_y(5, 64);
  const Matrix before = y;
  expect_error([&] { module.forward(wrong, y, workspace); }, {"x (6 x 63)", "hidden_size (64)"});
  expect_error([&] { module.forward(wrong, cache, 0, y, workspace); }, {"x (6 x 63)", "hidden_size (64)"});
  expect_error([&] { module.forward_cross(wrong, cache, 0, y, workspace); }, {"x (6 x 63)"});
  expect_error([&] { module.fill_cross(wrong, pair); }, {"memory (6 x 63)"});
  expect_error([&] { module.forward(x, bad_y, workspace); }, {"y (5 x 64)", "6 x 64"});
  expect_error([&] { module.forward(x, cache, 0, bad_y, workspace); }, {"y (5 x 64)", "6 x 64"});
  expect_error([&] { module.forward_cross(x, cache, 0, bad_y, workspace); }, {"y (5 x 64)", "6 x 64"});
  expect_error([&] { module.forward(x, cache, 1, y, workspace); }, {"layer (1)"});
  expect_error([&] { module.forward(x, cache, -1, y, workspace); }, {"layer (-1)"});
  expect_error([&] { module.forward(x, other, 0, y, workspace); },
               {"layer 0 of the cache", "num_kv_heads 4", "num_kv_heads 2"});
  expect_error([&] { module.forward_cross(x, other, 0, y, workspace); }, {"num_kv_heads 4", "num_kv_heads 2"});
  expect_error([&] { module.forward(x, cache, 0, y, workspace); }, {"tokens (6)", "max_tokens is 8"});
  expect_error([&] { module.forward(x.topRows(5), pair); }, {"x (5 rows)", "2 sequences"});
  expect_error([&] { module.fill_cross(x.topRows(5), pair); }, {"memory (5 rows)", "2 sequences"});
  expect_error([&] { module.fill_cross(x, cache); }, {"layer 0 of the cache (6 tokens)", "empty"});
  EXPECT_EQ(y, before);
  EXPECT_EQ(cache.num_tokens(), 6);
  EXPECT_EQ(pair.num_tokens(), 0);
}

}  // namespace
}  // namespace headwise::nn
