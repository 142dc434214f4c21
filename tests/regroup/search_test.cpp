// SPDX-License-Identifier: MIT
#include "headwise/regroup/search/asym_gqa.hpp"

#include <gtest/gtest.h>

#include <limits>

#include "headwise/regroup/search/activations.hpp"
#include "headwise/regroup/convert/degrouping.hpp"
#include "headwise/regroup/module.hpp"
#include "headwise/regroup/convert/permutation.hpp"
#include "headwise/regroup/convert/pooling.hpp"
#include "tests/regroup/random_weights.hpp"
#include "tests/support/errors.hpp"

namespace headwise::regroup {
namespace {

using namespace headwise::testing;
using List = std::vector<Index>;

Eigen::MatrixXd random_gram(Index heads, unsigned seed) {
  const Eigen::MatrixXd x = random_matrix(heads, 2 * heads, seed).cast<double>();
  return x * x.transpose();
}

/// Multi-head attention whose K and V projections are W_h = proto of the head's cluster + ε·noise.
AttentionWeights planted(const Partition& clusters, float noise, unsigned seed) {
  const Index heads = clusters.num_heads(), dim = 8, hidden = 32;
  const AttentionWeights prototypes = random_weights(heads, heads, dim, dim, hidden, false, seed);
  AttentionWeights w = random_weights(heads, heads, dim, dim, hidden, false, seed + 1);
  for (Index h = 0; h < heads; ++h) {
    const Index cluster = clusters.group_of(h);
    w.key_block(h) = prototypes.key_block(cluster) + noise * w.key_block(h);
    w.value_block(h) = prototypes.value_block(cluster) + noise * w.value_block(h);
  }
  return w;
}

Eigen::MatrixXd activation_gram(const AttentionWeights& w, unsigned seed = 7) {
  ActivationStatistics statistics(w);
  statistics.add_inputs(random_matrix(300, w.hidden_size(), seed), w);
  return statistics.gram().sum();
}

/// Mean squared difference of what the layer and its pooled form compute.
double output_error(const AttentionWeights& w, const Partition& partition) {
  const nn::Matrix x = random_matrix(80, w.hidden_size(), 77);
  const nn::MultiHeadAttentionOptions like{.rope = nn::RopeOptions{}};
  return (to_module(pool(w, partition), like).forward(x) - to_module(w, like).forward(x)).cast<double>().squaredNorm();
}

TEST(Search, PlantedUnequalClustersAreFoundByTheAsymmetricSearchAlone) {
  double neighbour_output = 0, symmetric_output = 0;
  for (const List& labels : {List{0, 1, 0, 2, 0, 1, 0, 1, 0},
                             {0, 1, 1, 2, 1, 1, 2, 1, 1},
                             {0, 1, 1, 1, 2, 1, 1, 1, 1},
                             {0, 1, 0, 2, 0, 3, 1, 0, 2, 0, 1, 0}})
    for (unsigned seed = 1; seed <= 3; ++seed) {
      const Partition clusters = partition_of(labels);
      const AttentionWeights w = planted(clusters, 0.1f, 10 * seed);
      const Eigen::MatrixXd gram = activation_gram(w);
      const Index groups = clusters.num_groups();
      const Grouping neighbour = neighbour_groups(gram, groups), symmetric = symmetric_search(gram, groups),
                     asymmetric = asymmetric_search(gram, groups);
      EXPECT_EQ(asymmetric.partition, clusters) << asymmetric.partition.text();
      EXPECT_TRUE(symmetric.partition.has_equal_sizes());
      EXPECT_LT(asymmetric.error, symmetric.error);
      EXPECT_LT(symmetric.error, neighbour.error);
      const double output = output_error(w, symmetric.partition);
      EXPECT_LT(output_error(w, asymmetric.partition), 0.25 * output);
      neighbour_output += output_error(w, neighbour.partition);
      symmetric_output += output;
    }
  // The search knows keys and values, not what the layer makes of them: of layers that it cannot save, a few lose more.
  EXPECT_LT(symmetric_output, neighbour_output);
}

TEST(Search, SimilarityFindsPlantedClustersWhateverTheLengthOfTheirHeads) {
  const Partition clusters = partition_of({0, 1, 0, 2, 0, 1, 0, 1, 0});
  AttentionWeights w = planted(clusters, 0.1f, 5);
  for (Index h = 0; h < 9; ++h) {
    w.key_block(h) *= static_cast<float>(1 + h % 4);
    w.value_block(h) *= static_cast<float>(1 + h % 3);
  }
  ActivationStatistics statistics(w);
  statistics.add_inputs(random_matrix(300, w.hidden_size(), 7), w);
  EXPECT_EQ(asymmetric_search(statistics.similarity(), 3).partition, clusters);
}

TEST(Search, DegroupedAndPermutedHeadsAreFoundAgain) {
  for (unsigned seed = 1; seed <= 3; ++seed) {
    const AttentionWeights gqa = random_weights(9, 3, 8, 8, 48, true, seed);
    const AttentionWeights mha = permute_heads(degroup(gqa, 9), random_order(9, seed));
    const nn::MultiHeadAttentionOptions like{.rope = nn::RopeOptions{}};
    const nn::Matrix x = random_matrix(60, 48, 3);
    const nn::Matrix original = to_module(gqa, like).forward(x);
    EXPECT_LE(distance(to_module(mha, like).forward(x), original), kForwardTolerance);

    const Grouping informed = symmetric_search(activation_gram(mha), 3);
    const AttentionWeights recovered = make_contiguous(pool(mha, informed.partition));
    EXPECT_EQ(recovered.num_kv_heads, 3);
    EXPECT_FALSE(recovered.head_map);
    EXPECT_LE(distance(to_module(recovered, like).forward(x), original), kForwardTolerance);
    EXPECT_GT(distance(to_module(pool(mha, Partition::contiguous(9, 3)), like).forward(x), original), 0.1);
  }
}

TEST(Search, AgreesWithTheExactSearchOnSmallLayers) {
  for (unsigned seed = 1; seed <= 10; ++seed) {
    const Eigen::MatrixXd gram = random_gram(9, seed);
    const Grouping any = exact_search(gram, 3), equal = exact_search(gram, 3, {.equal_sizes = true});
    const SearchOptions options{.restarts = 50};  // enough on these grams; a search promises no optimum
    EXPECT_EQ(asymmetric_search(gram, 3, options).partition, any.partition) << seed;
    EXPECT_EQ(symmetric_search(gram, 3, options).partition, equal.partition) << seed;
  }
}

TEST(Search, ExactIsTheLeastOfAllPartitions) {
  const Eigen::MatrixXd gram = random_gram(7, 3);
  for (Index groups = 1; groups <= 7; ++groups) {
    double least = std::numeric_limits<double>::infinity();
    for (Index code = 0; code < 823543; ++code) {  // 7^7
      List labels;
      bool canonical = true;  // each partition once
      for (Index rest = code, h = 0, used = 0; h < 7; ++h, rest /= 7) {
        labels.push_back(rest % 7);
        canonical = canonical && labels.back() <= used;
        used = std::max(used, labels.back() + 1);
      }
      if (!canonical) continue;
      const Partition p = Partition::from_labels(labels);
      if (p.num_groups() == groups) least = std::min(least, pooling_error(gram, p));
    }
    const Grouping exact = exact_search(gram, groups);
    EXPECT_EQ(exact.partition.num_groups(), groups);
    EXPECT_NEAR(exact.error, least, 1e-12 * gram.trace());
    EXPECT_NEAR(exact.error, pooling_error(gram, exact.partition), 1e-12 * gram.trace());
  }
}

TEST(Search, NoSearchIsWorseThanWhatItStartsFrom) {
  for (unsigned seed = 1; seed <= 5; ++seed)
    for (const Index groups : {1, 2, 3, 4, 5, 8, 12, 16}) {
      const Eigen::MatrixXd gram = random_gram(16, seed);
      const SearchOptions options{.restarts = 0};
      const Grouping neighbour = neighbour_groups(gram, groups), symmetric = symmetric_search(gram, groups, options),
                     asymmetric = asymmetric_search(gram, groups, options), merged = merged_groups(gram, groups);
      EXPECT_LE(symmetric.error, neighbour.error);
      EXPECT_LE(asymmetric.error, symmetric.error);
      EXPECT_LE(asymmetric.error, merged.error + 1e-12 * gram.trace());
      List sizes = symmetric.partition.sizes(), expected = neighbour.partition.sizes();
      std::ranges::sort(sizes);
      std::ranges::sort(expected);
      EXPECT_EQ(sizes, expected);
      for (const Grouping& g : {neighbour, symmetric, asymmetric, merged}) {
        EXPECT_EQ(g.partition.num_groups(), groups);
        EXPECT_EQ(g.error, pooling_error(gram, g.partition));
      }
    }
}

TEST(Search, EndsWhereNoMoveHelps) {
  const Eigen::MatrixXd gram = random_gram(16, 9);
  const Grouping symmetric = symmetric_search(gram, 4), asymmetric = asymmetric_search(gram, 4);
  const double rounding = 1e-11 * gram.trace();
  for (Index a = 0; a < 16; ++a) {
    for (Index b = 0; b < a; ++b) {
      EXPECT_GE(PoolingError(gram, symmetric.partition).swap_change(a, b), -rounding);
      EXPECT_GE(PoolingError(gram, asymmetric.partition).swap_change(a, b), -rounding);
    }
    for (Index g = 0; g < 4; ++g)
      EXPECT_GE(PoolingError(gram, asymmetric.partition).relocation_change(a, g), -rounding);
  }
}

TEST(Search, FollowsItsSeedAndGainsByRestarts) {
  const Eigen::MatrixXd gram = random_gram(24, 2);
  EXPECT_EQ(asymmetric_search(gram, 6, {.seed = 3}).partition, asymmetric_search(gram, 6, {.seed = 3}).partition);
  EXPECT_EQ(symmetric_search(gram, 6, {.seed = 3}).partition, symmetric_search(gram, 6, {.seed = 3}).partition);
  EXPECT_LT(symmetric_search(gram, 6, {.restarts = 64}).error, symmetric_search(gram, 6, {.restarts = 0}).error);
}

TEST(Search, MergingIsGreedy) {
  // Heads on a line at 0, 1, 10, 12, 30: the nearest pairs unite first.
  Eigen::VectorXd x(5);
  x << 0, 1, 10, 12, 30;
  const Eigen::MatrixXd gram = x * x.transpose();
  EXPECT_EQ(merged_groups(gram, 5).partition.text(), "0 | 1 | 2 | 3 | 4");
  EXPECT_EQ(merged_groups(gram, 4).partition.text(), "0 1 | 2 | 3 | 4");
  EXPECT_EQ(merged_groups(gram, 3).partition.text(), "0 1 | 2 3 | 4");
  EXPECT_EQ(merged_groups(gram, 2).partition.text(), "0 1 2 3 | 4");
  EXPECT_EQ(merged_groups(gram, 1).partition.text(), "0 1 2 3 4");
  EXPECT_NEAR(merged_groups(gram, 3).error, 0.5 + 2.0, 1e-9);
}

TEST(Search, HeadsThatAreAllAlikeCostNothing) {
  const Eigen::MatrixXd gram = Eigen::MatrixXd::Constant(6, 6, 2.0);
  EXPECT_NEAR(asymmetric_search(gram, 2).error, 0, 1e-12);
  EXPECT_NEAR(exact_search(gram, 2).error, 0, 1e-12);
  EXPECT_EQ(asymmetric_search(Eigen::MatrixXd::Zero(6, 6), 2).partition, Partition::contiguous(6, 2));
}

TEST(Search, RefusesMoreGroupsThanHeads) {
  const Eigen::MatrixXd gram = random_gram(4, 1);
  expect_error([&] { neighbour_groups(gram, 5); }, {"num_groups (5)", "(4)"});
  expect_error([&] { symmetric_search(gram, 5); }, {"num_groups (5)", "(4)"});
  expect_error([&] { asymmetric_search(gram, 0); }, {"num_groups (0)", "(4)"});
  expect_error([&] { merged_groups(gram, 5); }, {"num_groups (5)", "(4)"});
  expect_error([&] { exact_search(gram, 5); }, {"num_groups (5)", "(4)"});
}

TEST(Search, RefusesGramsThatAreNotFinite) {
  Eigen::MatrixXd gram = random_gram(4, 1);
  gram(2, 1) = std::numeric_limits<double>::quiet_NaN();
  const auto parts = {std::string_view("gram(2, 1) (nan)"), std::string_view("finite")};
  expect_error([&] { neighbour_groups(gram, 2); }, parts);
  expect_error([&] { symmetric_search(gram, 2); }, parts);
  expect_error([&] { asymmetric_search(gram, 2); }, parts);
  expect_error([&] { merged_groups(gram, 2); }, parts);
  expect_error([&] { exact_search(gram, 2); }, parts);
}

TEST(Search, RefusesToTryTooManyPartitions) {
  expect_error([] { exact_search(random_gram(16, 1), 4); },
               {"partitions (171798901) of 16 heads into 4 groups", "max_partitions (10000000)", "asymmetric_search"});
  expect_error([] { exact_search(random_gram(64, 1), 8, {.equal_sizes = true}); }, {"or more)", "max_partitions"});
  expect_error([] { exact_search(random_gram(9, 1), 3, {.max_partitions = 3024}); }, {"partitions (3025)", "(3024)"});
  EXPECT_NO_THROW(exact_search(random_gram(9, 1), 3, {.max_partitions = 3025}));
  expect_error([] { exact_search(random_gram(8, 1), 3, {.equal_sizes = true}); }, {"num_heads (8)", "equal sizes"});
  expect_error([] { symmetric_search(random_gram(4, 1), 2, {.restarts = -1}); }, {"restarts (-1)"});
}

}  // namespace
}  // namespace headwise::regroup
