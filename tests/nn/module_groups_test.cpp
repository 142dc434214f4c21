// SPDX-License-Identifier: MIT
// Groups of query heads that are decided in each call, when the cache holds the new tokens.
#include <gtest/gtest.h>

#include <span>
#include <stdexcept>
#include <type_traits>
#include <vector>

#include "headwise/nn/multi_head_attention.hpp"
#include "tests/nn/module_definition.hpp"
#include "tests/support/errors.hpp"

namespace headwise::nn {
namespace {

using headwise::testing::expect_error;
using headwise::testing::ModuleWeights;
using headwise::testing::random_matrix;

const MultiHeadAttentionOptions kOptions{.hidden_size = 48, .num_heads = 6, .num_kv_heads = 3, .rope = RopeOptions{}};

MultiHeadAttention with_weights(const MultiHeadAttentionOptions& options) {
  MultiHeadAttention module(options);
  ModuleWeights(module).give_to(module);
  return module;
}

TEST(ModuleGroups, AreAskedForOnceWhenTheCacheHoldsTheNewTokens) {
  const MultiHeadAttention module = with_weights(kOptions);
  KvCache<bf16> cache(std::vector<LayerShape>{module.cache_shape(), module.cache_shape()}, 10,
                      {.num_sequences = 2, .key_norms = true});
  std::vector<Index> boundaries{0, 2, 4, 6};
  int calls = 0;
  double norm = 0;
  const auto groups = [&](const KvCache<>& seen, Index layer) {
    ++calls;
    EXPECT_EQ(&seen, &cache);
    EXPECT_EQ(layer, 1);
    EXPECT_EQ(seen.num_tokens(1, 0), 3 * calls);
    EXPECT_GT(seen.key_norm_squares(1, 1, 0), norm);
    norm = seen.key_norm_squares(1, 1, 0);
    return std::span<const Index>(boundaries);
  };
  const Matrix x = random_matrix(6, 48, 1);
  module.forward(x, cache, 1, {.groups = groups});
  EXPECT_EQ(calls, 1);
  module.forward(x, cache, 1, {.groups = groups});
  EXPECT_EQ(calls, 2);
  EXPECT_EQ(cache.num_tokens(0), 0);
}

TEST(ModuleGroups, GiveTheBitsOfAModuleWithThatHeadMap) {
  const MultiHeadAttention module = with_weights(kOptions);
  const Matrix x = random_matrix(70, 48, 1), next = random_matrix(1, 48, 2);
  for (const std::vector<Index>& sizes : {std::vector<Index>{2, 2, 2}, {1, 4, 1}, {0, 5, 1}, {6, 0, 0}}) {
    MultiHeadAttentionOptions mapped = kOptions;
    mapped.head_map = HeadMap::blocks(sizes);
    const MultiHeadAttention expected = with_weights(mapped);
    const std::vector<Index> boundaries{0, sizes[0], sizes[0] + sizes[1], 6};
    [[maybe_unused]] const auto groups = [&](const KvCache<>&, Index) { return boundaries; };
    // a vector that is returned lasts for no call, so that is no grouping
    static_assert(!std::is_convertible_v<decltype((groups)), KvGroups>);
    const auto lasting = [&](const KvCache<>&, Index) { return std::span<const Index>(boundaries); };
    KvCache<float> a(module.heads(), 100), b(module.heads(), 100);
    Matrix y(70, 48);
    Workspace workspace;
    module.forward(x, a, 0, y, workspace, {.groups = lasting});
    EXPECT_EQ(y, expected.forward(x, b));
    EXPECT_EQ(module.forward(next, a, 0, {.groups = lasting}), expected.forward(next, b));
  }
}

TEST(ModuleGroups, MayDifferPerSequence) {
  const MultiHeadAttention module = with_weights(kOptions);
  const Matrix x = random_matrix(8, 48, 1);
  KvCache<float> both(module.heads(), 10, {.num_sequences = 2});
  const std::vector<Index> boundaries{0, 1, 2, 6, 0, 3, 3, 6};
  const auto all = [&](const KvCache<>&, Index) { return std::span<const Index>(boundaries); };
  const Matrix y = module.forward(x, both, 0, {.groups = all});
  for (Index b = 0; b < 2; ++b) {
    KvCache<float> one(module.heads(), 10);
    const auto mine = [&](const KvCache<>&, Index) {
      return std::span<const Index>(boundaries).subspan(static_cast<std::size_t>(4 * b), 4);
    };
    EXPECT_EQ(Matrix(y.middleRows(4 * b, 4)), module.forward(x.middleRows(4 * b, 4), one, 0, {.groups = mine}));
  }
}

TEST(ModuleGroups, ThatAreWrongOrThrowLeaveEveryLayerAsItWas) {
  const MultiHeadAttention module = with_weights(kOptions);
  const std::vector<LayerShape> shapes(3, module.cache_shape());
  KvCache<float> cache(shapes, 100, {.num_sequences = 2, .key_norms = true});
  const Matrix x = random_matrix(10, 48, 1), next = random_matrix(4, 48, 2);
  for (Index layer = 0; layer < 3; ++layer) module.forward(x, cache, layer);
  cache.truncate(1, 3);            // unequal lengths
  module.forward(next, cache, 0);  // layer 0 has already taken this step's tokens
  const double norm = cache.key_norm_squares(1, 1, 2);
  Matrix y = next;
  Workspace workspace;
  const std::vector<Index> wrong{0, 4, 2, 6};
  const auto falling = [&](const KvCache<>&, Index) { return std::span<const Index>(wrong); };
  expect_error([&] { module.forward(next, cache, 1, y, workspace, {.groups = falling}); }, {"group_boundaries[2] (2)"});
  const auto throwing = [](const KvCache<>&, Index) -> std::span<const Index> {
    throw std::runtime_error("no groups today");
  };
  EXPECT_THROW(module.forward(next, cache, 1, y, workspace, {.groups = throwing}), std::runtime_error);
  EXPECT_EQ(y, next);
  EXPECT_EQ(cache.num_tokens(0, 0), 7);
  EXPECT_EQ(cache.num_tokens(0, 1), 5);
  for (Index layer = 1; layer < 3; ++layer) {
    EXPECT_EQ(cache.num_tokens(layer, 0), 5);
    EXPECT_EQ(cache.num_tokens(layer, 1), 3);
  }
  EXPECT_EQ(cache.key_norm_squares(1, 1, 2), norm);
  // and what comes next is as if nothing had been
  KvCache<float> fresh(shapes, 100, {.num_sequences = 2});
  module.forward(x, fresh, 1);
  fresh.truncate(1, 3);
  EXPECT_EQ(module.forward(next, cache, 1), module.forward(next, fresh, 1));
}

}  // namespace
}  // namespace headwise::nn
