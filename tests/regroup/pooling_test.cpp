// SPDX-License-Identifier: MIT
#include "headwise/regroup/convert/pooling.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "headwise/position/rope.hpp"
#include "headwise/regroup/module.hpp"
#include "tests/regroup/random_weights.hpp"
#include "tests/support/errors.hpp"

namespace headwise::regroup {
namespace {

using namespace headwise::testing;
using List = std::vector<Index>;

constexpr PoolMethod kMethods[] = {PoolMethod::mean, PoolMethod::first, PoolMethod::medoid, PoolMethod::random};
constexpr PoolScale kScales[] = {PoolScale::none, PoolScale::renorm, PoolScale::sqrt_size};

// One rounding from double to float.
constexpr double kRounding = 0x1p-23;

/// The mean over the heads with `label`, one entry at a time.
double naive_mean(const nn::Matrix& weight, const List& labels, Index label, Index dim, Index row, Index column) {
  double sum = 0, count = 0;
  for (std::size_t h = 0; h < labels.size(); ++h)
    if (labels[h] == label) {
      sum += static_cast<double>(weight(static_cast<Index>(h) * dim + row, column));
      ++count;
    }
  return sum / count;
}

/// Norm of the rows of head g with their bias.
double head_norm(const nn::Matrix& weight, const nn::Vector& bias, Index dim, Index g) {
  double sum = 0;
  for (Index i = g * dim; i < (g + 1) * dim; ++i) {
    for (Index j = 0; j < weight.cols(); ++j) sum += std::pow(static_cast<double>(weight(i, j)), 2);
    if (bias.size() > 0) sum += std::pow(static_cast<double>(bias(i)), 2);
  }
  return std::sqrt(sum);
}

TEST(Pooling, MeanIsTheMeanOfTheHeadsOfEachGroup) {
  const AttentionWeights w = random_weights(6, 6, 4, 3, 8, true);
  const List labels{0, 1, 0, 2, 1, 0};
  const AttentionWeights pooled = pool(w, partition_of(labels));
  pooled.check();
  ASSERT_EQ(pooled.num_kv_heads, 3);
  for (Index g = 0; g < 3; ++g) {
    for (Index j = 0; j < 8; ++j) {
      for (Index i = 0; i < 4; ++i)
        ASSERT_NEAR(pooled.key(g * 4 + i, j), naive_mean(w.key, labels, g, 4, i, j), kRounding);
      for (Index i = 0; i < 3; ++i)
        ASSERT_NEAR(pooled.value(g * 3 + i, j), naive_mean(w.value, labels, g, 3, i, j), kRounding);
    }
    for (Index i = 0; i < 4; ++i)
      ASSERT_NEAR(pooled.key_bias(g * 4 + i), naive_mean(w.key_bias, labels, g, 4, i, 0), kRounding);
    for (Index i = 0; i < 3; ++i)
      ASSERT_NEAR(pooled.value_bias(g * 3 + i), naive_mean(w.value_bias, labels, g, 3, i, 0), kRounding);
  }
}

TEST(Pooling, LeavesQueriesAndOutputAsTheyAre) {
  const AttentionWeights w = random_weights(6, 6, 4, 3, 8, true);
  for (const PoolMethod method : kMethods) {
    const AttentionWeights pooled = pool(w, Partition::contiguous(6, 2), {.method = method});
    EXPECT_EQ(pooled.query, w.query);
    EXPECT_EQ(pooled.output, w.output);
    EXPECT_EQ(pooled.query_bias, w.query_bias);
    EXPECT_EQ(pooled.output_bias, w.output_bias);
  }
}

TEST(Pooling, QueryHeadsReadTheGroupOfWhatTheyRead) {
  const AttentionWeights mha = random_weights(6, 6, 4, 4, 8, false);
  EXPECT_FALSE(pool(mha, Partition::contiguous(6, 2)).head_map);
  const AttentionWeights scattered = pool(mha, partition_of({0, 1, 0, 2, 1, 0}));
  ASSERT_TRUE(scattered.head_map);
  for (Index h = 0; h < 6; ++h)
    EXPECT_EQ(scattered.map().kv_head_of(h), (List{0, 1, 0, 2, 1, 0})[static_cast<std::size_t>(h)]);

  AttentionWeights gqa = random_weights(8, 4, 4, 4, 8, false);
  gqa.head_map = HeadMap::cyclic(8, 4);
  const AttentionWeights pooled = pool(gqa, partition_of({0, 1, 1, 0}));
  for (Index h = 0; h < 8; ++h) EXPECT_EQ(pooled.map().kv_head_of(h), h % 4 == 1 || h % 4 == 2 ? 1 : 0) << h;
}

TEST(Pooling, ToAsManyGroupsAsHeadsIsTheIdentity) {
  for (const bool biases : {false, true}) {
    const AttentionWeights w = random_weights(6, 3, 4, 5, 8, biases);
    for (const PoolMethod method : {PoolMethod::mean, PoolMethod::first, PoolMethod::medoid})
      for (const PoolScale scale : kScales) {
        const AttentionWeights same = pool(w, Partition::contiguous(3, 3), {method, scale});
        EXPECT_EQ(same.key, w.key);
        EXPECT_EQ(same.value, w.value);
        EXPECT_EQ(same.key_bias, w.key_bias);
        EXPECT_EQ(same.value_bias, w.value_bias);
        EXPECT_FALSE(same.head_map);
      }
  }
}

TEST(Pooling, ThePooledLayerIsAttentionOverTheMeanKeysAndValues) {
  // A model of its own for what pooling means: multi-head attention whose heads all hold the mean of their group.
  const AttentionWeights w = random_weights(6, 6, 8, 4, 24, true);
  const Partition partition = partition_of({0, 1, 0, 2, 1, 0});
  const AttentionWeights pooled = pool(w, partition);
  AttentionWeights spread = w;
  for (Index h = 0; h < 6; ++h) {
    const Index g = partition.group_of(h);
    spread.key_block(h) = pooled.key_block(g);
    spread.value_block(h) = pooled.value_block(g);
    spread.key_bias.segment(h * 8, 8) = pooled.key_bias.segment(g * 8, 8);
    spread.value_bias.segment(h * 4, 4) = pooled.value_bias.segment(g * 4, 4);
  }
  const nn::MultiHeadAttentionOptions like{.rope = nn::RopeOptions{}};
  const nn::Matrix x = random_matrix(40, 24, 5);
  EXPECT_EQ(to_module(pooled, like).forward(x), to_module(spread, like).forward(x)) << "the same rows: the same bits";
}

TEST(Pooling, MeanCommutesWithRope) {
  const Index heads = 4, dim = 16, tokens = 20;
  for (const nn::RopeStyle style : {nn::RopeStyle::interleaved, nn::RopeStyle::half_split}) {
    const nn::Rope rope(dim, {.style = style, .rotary_dim = 12});
    const AttentionWeights w = random_weights(heads, heads, dim, dim, 32, true);
    const AttentionWeights pooled = pool(w, Partition::contiguous(heads, 1));
    const nn::Matrix x = random_matrix(tokens, 32, 9);
    nn::Matrix keys = (x * w.key.transpose()).rowwise() + w.key_bias.transpose();
    nn::Matrix mean = (x * pooled.key.transpose()).rowwise() + pooled.key_bias.transpose();
    rope.apply(View<float>(keys.data(), tokens, heads, dim), 100);
    rope.apply(View<float>(mean.data(), tokens, 1, dim), 100);
    nn::Matrix mean_of_turned = nn::Matrix::Zero(tokens, dim);
    for (Index h = 0; h < heads; ++h) mean_of_turned += keys.middleCols(h * dim, dim) / static_cast<float>(heads);
    EXPECT_LE(distance(mean, mean_of_turned), testing::kForwardTolerance);
  }
}

TEST(Pooling, FirstKeepsTheFirstHeadOfEachGroup) {
  const AttentionWeights w = random_weights(5, 5, 4, 3, 8, true);
  const AttentionWeights pooled = pool(w, partition_of({0, 1, 0, 1, 0}), {.method = PoolMethod::first});
  for (Index g = 0; g < 2; ++g) {
    EXPECT_EQ(nn::Matrix(pooled.key_block(g)), nn::Matrix(w.key_block(g)));
    EXPECT_EQ(nn::Matrix(pooled.value_block(g)), nn::Matrix(w.value_block(g)));
    EXPECT_EQ(nn::Vector(pooled.key_bias.segment(g * 4, 4)), nn::Vector(w.key_bias.segment(g * 4, 4)));
    EXPECT_EQ(nn::Vector(pooled.value_bias.segment(g * 3, 3)), nn::Vector(w.value_bias.segment(g * 3, 3)));
  }
}

TEST(Pooling, MedoidKeepsTheHeadNearestToTheOthers) {
  AttentionWeights w = random_weights(5, 5, 4, 3, 8, true);
  const auto set = [&](Index h, float number) {
    w.key_block(h).setConstant(number);
    w.value_block(h).setConstant(number);
    w.key_bias.segment(h * 4, 4).setConstant(number);
    w.value_bias.segment(h * 3, 3).setConstant(number);
  };
  // heads 0, 2, 3, 4: at 10, 0, 1, 2 on a line; summed distances 27, 13, 11, 11
  set(0, 10), set(2, 0), set(3, 1), set(4, 2);
  const AttentionWeights pooled = pool(w, partition_of({0, 1, 0, 0, 0}), {.method = PoolMethod::medoid});
  EXPECT_EQ(nn::Matrix(pooled.key_block(0)), nn::Matrix(w.key_block(3))) << "of equals the first";
  EXPECT_EQ(nn::Matrix(pooled.value_block(0)), nn::Matrix(w.value_block(3)));
  EXPECT_EQ(nn::Matrix(pooled.key_block(1)), nn::Matrix(w.key_block(1)));
}

TEST(Pooling, MedoidLooksAtKeysValuesAndBiases) {
  // Three heads that differ in one place only; the middle of the three numbers wins, wherever it stands.
  for (int place = 0; place < 4; ++place) {
    AttentionWeights w = random_weights(3, 3, 4, 3, 8, true);
    for (Index h = 1; h < 3; ++h) {
      w.key_block(h) = w.key_block(0);
      w.value_block(h) = w.value_block(0);
      w.key_bias.segment(h * 4, 4) = w.key_bias.segment(0, 4);
      w.value_bias.segment(h * 3, 3) = w.value_bias.segment(0, 3);
    }
    const float numbers[] = {9, 1, 4};
    for (Index h = 0; h < 3; ++h) {
      const float number = numbers[h];
      if (place == 0) w.key_block(h)(1, 2) = number;
      if (place == 1) w.value_block(h)(1, 2) = number;
      if (place == 2) w.key_bias(h * 4) = number;
      if (place == 3) w.value_bias(h * 3) = number;
    }
    const AttentionWeights pooled = pool(w, Partition::contiguous(3, 1), {.method = PoolMethod::medoid});
    EXPECT_EQ(pooled.key, nn::Matrix(w.key_block(2))) << place;
    EXPECT_EQ(pooled.value, nn::Matrix(w.value_block(2))) << place;
    EXPECT_EQ(pooled.key_bias, nn::Vector(w.key_bias.segment(8, 4))) << place;
    EXPECT_EQ(pooled.value_bias, nn::Vector(w.value_bias.segment(6, 3))) << place;
  }
}

TEST(Pooling, RandomIsANormalProjectionAsLargeAsTheLayersOwn) {
  AttentionWeights w = random_weights(4, 4, 32, 16, 256, true);
  w.value *= 3.0f;
  const AttentionWeights pooled = pool(w, Partition::contiguous(4, 2), {.method = PoolMethod::random, .seed = 5});
  const auto mean_square = [](const nn::Matrix& m) {
    return m.cast<double>().squaredNorm() / static_cast<double>(m.size());
  };
  // five standard errors of the mean square of n normals, √(2/n)
  const auto error = [](const nn::Matrix& m) { return 5 * std::sqrt(2 / static_cast<double>(m.size())); };
  EXPECT_NEAR(mean_square(pooled.key) / mean_square(w.key), 1, error(pooled.key));
  EXPECT_NEAR(mean_square(pooled.value) / mean_square(w.value), 1, error(pooled.value));
  EXPECT_TRUE(pooled.key_bias.isZero(0));
  EXPECT_TRUE(pooled.value_bias.isZero(0));
  EXPECT_EQ(pooled.key_bias.size(), 64);
  // unrelated to what it replaces: the cosine of unrelated blocks of n numbers is 1/√n
  const double cosine = static_cast<double>(pooled.key_block(0).cwiseProduct(w.key_block(0)).sum()) /
                        static_cast<double>(pooled.key_block(0).norm() * w.key_block(0).norm());
  EXPECT_LE(std::abs(cosine), 5 / std::sqrt(32 * 256));
}

TEST(Pooling, RandomFollowsItsSeedAlone) {
  const AttentionWeights w = random_weights(4, 4, 4, 4, 8, false);
  const auto with_seed = [&](std::uint64_t seed) {
    return pool(w, Partition::contiguous(4, 2), {.method = PoolMethod::random, .seed = seed});
  };
  EXPECT_EQ(with_seed(1).key, with_seed(1).key);
  EXPECT_EQ(with_seed(1).value, with_seed(1).value);
  EXPECT_NE(with_seed(1).key, with_seed(2).key);
  EXPECT_NE(with_seed(1).key.topRows(4), with_seed(1).key.bottomRows(4));
}

TEST(Pooling, RandomReplacesHeadsThatAreAloneToo) {
  const AttentionWeights w = random_weights(4, 4, 4, 4, 8, false);
  EXPECT_NE(pool(w, Partition::contiguous(4, 4), {.method = PoolMethod::random}).key, w.key);
}

TEST(Pooling, RenormGivesTheMeanNormOfThePooledHeads) {
  for (const bool biases : {false, true}) {
    const AttentionWeights w = random_weights(6, 6, 4, 3, 8, biases);
    const Partition partition = partition_of({0, 1, 0, 2, 1, 0});
    for (const PoolMethod method : kMethods) {
      const AttentionWeights pooled = pool(w, partition, {.method = method, .scale = PoolScale::renorm});
      const AttentionWeights plain = pool(w, partition, {.method = method});
      for (Index g = 0; g < 3; ++g) {
        double keys = 0, values = 0, count = 0;
        for (const Index h : partition.heads_of(g)) {
          keys += head_norm(w.key, w.key_bias, 4, h);
          values += head_norm(w.value, w.value_bias, 3, h);
          ++count;
        }
        EXPECT_NEAR(head_norm(pooled.key, pooled.key_bias, 4, g), keys / count, 4 * kRounding * keys);
        EXPECT_NEAR(head_norm(pooled.value, pooled.value_bias, 3, g), values / count, 4 * kRounding * values);
        const auto ratio = static_cast<double>(pooled.key(g * 4, 0) / plain.key(g * 4, 0));
        EXPECT_NEAR(pooled.key(g * 4 + 3, 7), ratio * static_cast<double>(plain.key(g * 4 + 3, 7)), 8 * kRounding)
            << "one factor for all of it";
      }
    }
  }
}

TEST(Pooling, RenormLeavesAZeroMeanZero) {
  AttentionWeights w = random_weights(2, 2, 4, 4, 8, true);
  w.key_block(1) = -w.key_block(0);
  w.key_bias.tail(4) = -w.key_bias.head(4);
  const AttentionWeights pooled = pool(w, Partition::contiguous(2, 1), {.scale = PoolScale::renorm});
  EXPECT_TRUE(pooled.key.isZero(0));
  EXPECT_TRUE(pooled.key_bias.isZero(0));
  EXPECT_FALSE(pooled.value.isZero(0));
}

TEST(Pooling, SqrtSizeMultipliesByTheRootOfTheGroupsSize) {
  const AttentionWeights w = random_weights(6, 6, 4, 3, 8, true);
  const Partition partition = partition_of({0, 1, 0, 2, 1, 0});
  for (const PoolMethod method : kMethods) {
    const AttentionWeights plain = pool(w, partition, {.method = method});
    const AttentionWeights pooled = pool(w, partition, {.method = method, .scale = PoolScale::sqrt_size});
    for (Index g = 0; g < 3; ++g) {
      const float factor = std::sqrt(static_cast<float>(partition.heads_of(g).size()));
      EXPECT_LE(distance(pooled.key_block(g), factor * plain.key_block(g)), 4 * kRounding);
      EXPECT_LE(distance(pooled.value_block(g), factor * plain.value_block(g)), 4 * kRounding);
      EXPECT_LE(distance(pooled.key_bias.segment(g * 4, 4), factor * plain.key_bias.segment(g * 4, 4)), 4 * kRounding);
    }
  }
}

TEST(Pooling, RefusesAPartitionOfOtherHeadsAndBadWeights) {
  AttentionWeights w = random_weights(6, 3, 4, 4, 8, false);
  expect_error([&] { pool(w, Partition::contiguous(6, 3)); }, {"partition (6 heads)", "num_kv_heads (3)"});
  w.key = random_matrix(8, 8, 1);
  expect_error([&] { pool(w, Partition::contiguous(3, 1)); }, {"key (8 x 8) must be 12 x 8"});
}

}  // namespace
}  // namespace headwise::regroup
