// SPDX-License-Identifier: MIT
#include "headwise/regroup/attention_weights.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "headwise/regroup/module.hpp"
#include "tests/nn/module_definition.hpp"
#include "tests/regroup/random_weights.hpp"
#include "tests/support/errors.hpp"

namespace headwise::regroup {
namespace {

using headwise::testing::distance;
using headwise::testing::error_of;
using headwise::testing::expect_error;
using headwise::testing::random_matrix;
using headwise::testing::random_weights;

TEST(AttentionWeights, BlocksAreTheRowsAndColumnsOfAHead) {
  AttentionWeights w = random_weights(6, 3, 4, 5, 7, false);
  EXPECT_EQ(w.hidden_size(), 7);
  EXPECT_EQ(nn::Matrix(w.query_block(5)), nn::Matrix(w.query.middleRows(20, 4)));
  EXPECT_EQ(nn::Matrix(w.key_block(1)), nn::Matrix(w.key.middleRows(4, 4)));
  EXPECT_EQ(nn::Matrix(w.value_block(2)), nn::Matrix(w.value.middleRows(10, 5)));
  EXPECT_EQ(nn::Matrix(w.output_block(1)), nn::Matrix(w.output.middleCols(5, 5)));
  w.key_block(1).setZero();
  EXPECT_EQ(w.key(4, 0), 0.0f);
  EXPECT_NE(w.key(3, 0), 0.0f);
}

TEST(AttentionWeights, AnUnsetMapMeansConsecutiveGroups) {
  AttentionWeights w = random_weights(6, 3, 4, 5, 7, false);
  EXPECT_EQ(w.map().kv_head_of(3), 1);
  w.set_map(HeadMap::contiguous(6, 3));
  EXPECT_FALSE(w.head_map);
  w.set_map(HeadMap::cyclic(6, 3));
  ASSERT_TRUE(w.head_map);
  EXPECT_EQ(w.map().kv_head_of(3), 0);
  w.set_map(HeadMap::contiguous(6, 3));
  EXPECT_FALSE(w.head_map);
}

TEST(AttentionWeights, ShapesThatDisagreeAreAllNamed) {
  AttentionWeights w = random_weights(6, 3, 4, 5, 7, true);
  w.key = random_matrix(11, 7, 1);
  w.output = random_matrix(7, 24, 1);
  w.value_bias.resize(3);
  const std::string message = error_of([&] { w.check(); });
  expect_error([&] { w.check(); }, {"6 heads, 3 KV heads, head_dim 4, value_dim 5", "key (11 x 7) must be 12 x 7",
                                    "output (7 x 24) must be 7 x 30", "value_bias (3 numbers) must hold 15 or none"});
  EXPECT_EQ(message.find("query"), std::string::npos) << message;
}

TEST(AttentionWeights, EveryShapeIsChecked) {
  const AttentionWeights good = random_weights(6, 3, 4, 5, 7, true);
  EXPECT_NO_THROW(good.check());
  const auto spoilt = [&](auto member, std::initializer_list<std::string_view> parts) {
    AttentionWeights w = good;
    (w.*member).resize((w.*member).rows() + 1, (w.*member).cols());
    expect_error([&] { w.check(); }, parts);
  };
  spoilt(&AttentionWeights::query, {"query (25 x 7) must be 24 x 7"});
  spoilt(&AttentionWeights::key, {"key (13 x 7) must be 12 x 7"});
  spoilt(&AttentionWeights::value, {"value (16 x 7) must be 15 x 7"});
  spoilt(&AttentionWeights::output, {"output (8 x 30) must be 7 x 30"});
  spoilt(&AttentionWeights::query_bias, {"query_bias (25 numbers) must hold 24"});
  spoilt(&AttentionWeights::key_bias, {"key_bias (13 numbers) must hold 12"});
  spoilt(&AttentionWeights::value_bias, {"value_bias (16 numbers) must hold 15"});
  spoilt(&AttentionWeights::output_bias, {"output_bias (8 numbers) must hold 7"});
  AttentionWeights empty = good;
  empty.query.resize(24, 0);
  expect_error([&] { empty.check(); }, {"query (24 x 0)", "one column per feature"});
}

TEST(AttentionWeights, CountsAndMapsAreChecked) {
  AttentionWeights w = random_weights(6, 3, 4, 5, 7, false);
  w.value_dim = 0;
  expect_error([&] { w.check(); }, {"value_dim (0)"});
  w.value_dim = 5;
  w.num_kv_heads = 4;
  expect_error([&] { w.check(); }, {"num_heads (6) must be a multiple of num_kv_heads (4)"});
  w.num_kv_heads = 7;
  expect_error([&] { w.check(); }, {"num_kv_heads (7)", "1 to num_heads (6)"});
  w.num_kv_heads = 3;
  w.head_map = HeadMap::cyclic(6, 2);
  expect_error([&] { w.check(); }, {"head_map (6 query heads, 2 KV heads)", "num_heads (6)", "num_kv_heads (3)"});
}

TEST(AttentionWeights, NumbersThatAreNotFiniteAreNamed) {
  AttentionWeights w = random_weights(6, 3, 4, 5, 7, true);
  w.value(8, 2) = std::nanf("");
  expect_error([&] { w.check(); }, {"value (nan at row 8, column 2)", "finite"});
  w.value(8, 2) = 0;
  w.key_bias(5) = INFINITY;
  expect_error([&] { w.check(); }, {"key_bias (inf at row 5", "finite"});
}

TEST(AttentionWeights, ToModuleIsTheModuleOfTheseWeights) {
  const nn::MultiHeadAttentionOptions options{.hidden_size = 48,
                                              .num_heads = 6,
                                              .num_kv_heads = 2,
                                              .head_dim = 16,
                                              .value_dim = 8,
                                              .query_bias = true,
                                              .value_bias = true,
                                              .rope = nn::RopeOptions{.style = nn::RopeStyle::interleaved},
                                              .window = 9,
                                              .head_map = HeadMap::cyclic(6, 2)};
  const nn::MultiHeadAttention shape(options);
  const testing::ModuleWeights given(shape);
  const AttentionWeights w{.num_heads = 6,
                           .num_kv_heads = 2,
                           .head_dim = 16,
                           .value_dim = 8,
                           .query = given.wq,
                           .key = given.wk,
                           .value = given.wv,
                           .output = given.wo,
                           .query_bias = given.bq,
                           .value_bias = given.bv,
                           .head_map = HeadMap::cyclic(6, 2)};
  const nn::MultiHeadAttention module =
      to_module(w, {.rope = nn::RopeOptions{.style = nn::RopeStyle::interleaved}, .window = 9});
  const nn::Matrix x = random_matrix(30, 48, 3);
  EXPECT_LE(distance(module.forward(x), testing::module_definition(shape, given, x, x).cast<float>()),
            testing::kForwardTolerance);
  AttentionWeights bad = w;
  bad.key_bias.resize(1);
  expect_error([&] { to_module(bad); }, {"key_bias (1 numbers)"});
}

}  // namespace
}  // namespace headwise::regroup
