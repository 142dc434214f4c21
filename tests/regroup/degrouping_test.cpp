// SPDX-License-Identifier: MIT
#include "headwise/regroup/convert/degrouping.hpp"

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

TEST(Degrouping, RepeatsEveryKvHeadSideBySide) {
  const AttentionWeights w = random_weights(12, 2, 4, 3, 8, true);
  const AttentionWeights more = degroup(w, 6);
  more.check();
  EXPECT_EQ(more.num_kv_heads, 6);
  EXPECT_FALSE(more.head_map);
  for (Index g = 0; g < 6; ++g) {
    EXPECT_EQ(nn::Matrix(more.key_block(g)), nn::Matrix(w.key_block(g / 3)));
    EXPECT_EQ(nn::Matrix(more.value_block(g)), nn::Matrix(w.value_block(g / 3)));
    EXPECT_EQ(nn::Vector(more.key_bias.segment(g * 4, 4)), nn::Vector(w.key_bias.segment(g / 3 * 4, 4)));
    EXPECT_EQ(nn::Vector(more.value_bias.segment(g * 3, 3)), nn::Vector(w.value_bias.segment(g / 3 * 3, 3)));
  }
  EXPECT_EQ(more.query, w.query);
  EXPECT_EQ(more.output, w.output);
}

TEST(Degrouping, GivesTheSameBits) {
  for (const bool biases : {false, true})
    for (const auto& [from, to] : {std::pair<Index, Index>{1, 12}, {3, 12}, {2, 4}, {3, 6}, {4, 4}}) {
      const AttentionWeights w = random_weights(12, from, 8, 6, 48, biases);
      EXPECT_EQ(output_of(degroup(w, to)), output_of(w)) << from << " to " << to;
    }
}

TEST(Degrouping, GivesTheSameBitsUnderAnyMap) {
  AttentionWeights w = random_weights(7, 2, 8, 6, 48, true);
  w.head_map = HeadMap::arbitrary(List{0, 1, 0, 0, 0, 1, 0}, 2);
  const AttentionWeights more = degroup(w, 6);
  for (Index h = 0; h < 7; ++h)
    EXPECT_EQ(more.map().kv_head_of(h), (List{0, 3, 0, 1, 1, 4, 2})[static_cast<std::size_t>(h)]) << h;
  EXPECT_EQ(output_of(more), output_of(w));
}

TEST(Degrouping, PoolingTheCopiesBringsTheWeightsBack) {
  const AttentionWeights w = random_weights(12, 3, 4, 3, 8, true);
  const AttentionWeights back = pool(degroup(w, 12), Partition::contiguous(12, 3));
  EXPECT_EQ(back.key, w.key);
  EXPECT_EQ(back.value, w.value);
  EXPECT_EQ(back.key_bias, w.key_bias);
  EXPECT_FALSE(back.head_map);
}

TEST(Degrouping, UnequalGroupsBecomeEqualOnesOfTheirCommonSize) {
  const AttentionWeights mha = random_weights(9, 9, 8, 6, 48, true);
  struct Case {
    List labels;
    Index kv_heads;
  };
  for (const Case& c : {Case{{0, 1, 0, 0, 2, 0, 1, 0, 1}, 9}, Case{{0, 1, 0, 0, 1, 0, 1, 0, 0}, 3},
                        Case{{0, 1, 2, 0, 1, 2, 0, 1, 2}, 3}, Case{{0, 0, 0, 0, 0, 0, 0, 0, 0}, 1}}) {
    const AttentionWeights w = pool(mha, partition_of(c.labels));
    const AttentionWeights equal = to_equal_groups(w);
    equal.check();
    EXPECT_EQ(equal.num_kv_heads, c.kv_heads);
    EXPECT_FALSE(equal.head_map);
    EXPECT_LE(distance(output_of(equal), output_of(w)), kForwardTolerance);
  }
}

TEST(Degrouping, EqualGroupsLeaveUnreadKvHeadsOut) {
  AttentionWeights w = random_weights(6, 4, 8, 6, 48, false);
  w.head_map = HeadMap::blocks(List{2, 0, 4, 0});
  const AttentionWeights equal = to_equal_groups(w);
  EXPECT_EQ(equal.num_kv_heads, 3);
  EXPECT_EQ(output_of(equal), output_of(w)) << "heads stay in order";
}

TEST(Degrouping, RefusesCountsThatDoNotFit) {
  AttentionWeights w = random_weights(12, 4, 4, 4, 8, false);
  expect_error([&] { degroup(w, 6); }, {"num_kv_heads (6)", "multiple of the weights' num_kv_heads (4)"});
  expect_error([&] { degroup(w, 2); }, {"num_kv_heads (2)"});
  expect_error([&] { degroup(w, 0); }, {"num_kv_heads (0)"});
  expect_error([&] { degroup(w, 24); }, {"num_kv_heads (24)", "at most num_heads (12)"});
  expect_error([&] { degroup(w, 8); }, {"num_heads (12)", "multiple of num_kv_heads (8)", "head_map"});
  w.head_map = HeadMap::contiguous(12, 4);
  EXPECT_EQ(degroup(w, 8).num_kv_heads, 8);
}

}  // namespace
}  // namespace headwise::regroup
