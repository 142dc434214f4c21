// SPDX-License-Identifier: MIT
#include "headwise/regroup/convert/permutation.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "headwise/regroup/module.hpp"
#include "headwise/regroup/convert/pooling.hpp"
#include "tests/regroup/random_weights.hpp"
#include "tests/support/errors.hpp"

namespace headwise::regroup {
namespace {

using namespace headwise::testing;
using List = std::vector<Index>;

TEST(Permutation, MovesTheHeadsOfMultiHeadAttention) {
  const AttentionWeights w = random_weights(4, 4, 8, 6, 16, true);
  const List order{2, 0, 3, 1};
  const AttentionWeights moved = permute_heads(w, order);
  for (Index i = 0; i < 4; ++i) {
    const Index from = order[static_cast<std::size_t>(i)];
    EXPECT_EQ(nn::Matrix(moved.query_block(i)), nn::Matrix(w.query_block(from)));
    EXPECT_EQ(nn::Matrix(moved.key_block(i)), nn::Matrix(w.key_block(from)));
    EXPECT_EQ(nn::Matrix(moved.value_block(i)), nn::Matrix(w.value_block(from)));
    EXPECT_EQ(nn::Matrix(moved.output_block(i)), nn::Matrix(w.output_block(from)));
    EXPECT_EQ(nn::Vector(moved.query_bias.segment(i * 8, 8)), nn::Vector(w.query_bias.segment(from * 8, 8)));
    EXPECT_EQ(nn::Vector(moved.key_bias.segment(i * 8, 8)), nn::Vector(w.key_bias.segment(from * 8, 8)));
    EXPECT_EQ(nn::Vector(moved.value_bias.segment(i * 6, 6)), nn::Vector(w.value_bias.segment(from * 6, 6)));
  }
  EXPECT_EQ(moved.output_bias, w.output_bias);
  EXPECT_FALSE(moved.head_map);
}

TEST(Permutation, LeavesWhatTheLayerComputes) {
  for (const bool biases : {false, true})
    for (const auto& [heads, kv_heads] : {std::pair<Index, Index>{9, 9}, {9, 3}, {8, 1}})
      for (unsigned seed = 1; seed <= 3; ++seed) {
        const AttentionWeights w = random_weights(heads, kv_heads, 8, 6, 48, biases, seed);
        EXPECT_LE(distance(output_of(permute_heads(w, random_order(kv_heads, seed))), output_of(w)), kForwardTolerance)
            << heads << ":" << kv_heads;
      }
}

TEST(Permutation, LeavesWhatALayerWithAnyMapComputesAndNeedsNone) {
  AttentionWeights w = random_weights(9, 3, 8, 6, 48, true);
  for (const HeadMap& map : {HeadMap::cyclic(9, 3), HeadMap::arbitrary(List{2, 0, 1, 1, 0, 2, 2, 1, 0}, 3)}) {
    w.head_map = map;
    const AttentionWeights moved = permute_heads(w, List{1, 2, 0});
    EXPECT_FALSE(moved.head_map) << "equal groups are contiguous now";
    EXPECT_LE(distance(output_of(moved), output_of(w)), kForwardTolerance);
  }
  w.head_map = HeadMap::arbitrary(List{2, 0, 2, 1, 2, 2, 2, 1, 2}, 3);
  const AttentionWeights moved = make_contiguous(w);
  for (Index h = 0; h < 9; ++h)
    EXPECT_EQ(moved.map().kv_head_of(h), (List{0, 1, 1, 2, 2, 2, 2, 2, 2})[static_cast<std::size_t>(h)]);
  EXPECT_LE(distance(output_of(moved), output_of(w)), kForwardTolerance);
}

TEST(Permutation, TheQueryOrderNamesTheReadersOfEachKvHead) {
  const HeadMap map = HeadMap::arbitrary(List{2, 0, 2, 1, 0}, 3);
  EXPECT_EQ(query_order(map, List{0, 1, 2}), (List{1, 4, 3, 0, 2}));
  EXPECT_EQ(query_order(map, List{2, 0, 1}), (List{0, 2, 1, 4, 3}));
}

TEST(Permutation, APartitionsGroupsBecomeContiguous) {
  const AttentionWeights w = random_weights(6, 6, 8, 6, 48, true);
  const Partition partition = partition_of({0, 1, 0, 2, 1, 0});
  const AttentionWeights before = pool(permute_heads(w, partition), Partition::blocks(partition.sizes()));
  const AttentionWeights after = make_contiguous(pool(w, partition));
  EXPECT_EQ(before.query, after.query);
  EXPECT_EQ(before.key, after.key);
  EXPECT_EQ(before.value, after.value);
  EXPECT_EQ(before.output, after.output);
  EXPECT_EQ(before.key_bias, after.key_bias);
  EXPECT_LE(distance(output_of(before), output_of(pool(w, partition))), kForwardTolerance);
  EXPECT_FALSE(make_contiguous(pool(w, partition_of({0, 1, 0, 1, 1, 0}))).head_map);
}

TEST(Permutation, ItsInverseBringsTheWeightsBack) {
  const AttentionWeights w = random_weights(9, 9, 4, 4, 8, true);
  const List order = random_order(9, 4);
  List inverse(9);
  for (Index i = 0; i < 9; ++i) inverse[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])] = i;
  const AttentionWeights back = permute_heads(permute_heads(w, order), inverse);
  EXPECT_EQ(back.query, w.query);
  EXPECT_EQ(back.key, w.key);
  EXPECT_EQ(back.output, w.output);
  EXPECT_EQ(back.value_bias, w.value_bias);
}

TEST(Permutation, RefusesOrdersThatMissOrRepeatAHead) {
  const AttentionWeights w = random_weights(6, 3, 4, 4, 8, false);
  expect_error([&] { permute_heads(w, List{0, 1}); }, {"order (2 heads)", "num_kv_heads (3)"});
  expect_error([&] { permute_heads(w, List{0, 1, 3}); }, {"order[2] (3)", "num_kv_heads - 1 (2)"});
  expect_error([&] { permute_heads(w, List{0, -1, 2}); }, {"order[1] (-1)"});
  expect_error([&] { permute_heads(w, List{0, 2, 0}); }, {"order[2] (0)", "named once"});
  expect_error([&] { permute_heads(w, Partition::contiguous(6, 2)); }, {"partition (6 heads)", "num_kv_heads (3)"});
}

}  // namespace
}  // namespace headwise::regroup
