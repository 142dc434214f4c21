// SPDX-License-Identifier: MIT
// What a forward pass is told of its tokens: positions and masks. By the definition, alone and in batches.
#include "headwise/nn/forward_options.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <vector>

#include "headwise/nn/multi_head_attention.hpp"
#include "tests/nn/layers.hpp"
#include "tests/support/errors.hpp"

namespace headwise::nn {
namespace {

using headwise::testing::DefinitionCall;
using headwise::testing::expect_error;
using headwise::testing::expect_near;
using headwise::testing::kHidden;
using headwise::testing::Layers;
using headwise::testing::module_definition;
using headwise::testing::random_matrix;
using headwise::testing::small_layer;

/// Qwen2-VL: pairs turn by time, height and width.
MultiHeadAttentionOptions qwen2_vl(RopeSectionOrder order = RopeSectionOrder::consecutive) {
  auto o = small_layer(RopeOptions{.base = 1e6, .sections = {2, 1, 1}, .section_order = order});
  o.query_bias = o.key_bias = o.value_bias = true;
  return o;
}
Eigen::MatrixXd definition(const Layers& layers, const Matrix& x, const DefinitionCall& call) {
  return module_definition(layers.modules[0], layers.weights[0], x, x, false, call);
}

/// Text, an image of rows and columns, and text again, as Qwen2-VL counts them.
std::vector<std::array<Index, 3>> text_image_text(Index text, Index rows, Index columns, Index more) {
  std::vector<std::array<Index, 3>> result;
  for (Index t = 0; t < text; ++t) result.push_back({t, t, t});
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < columns; ++c) result.push_back({text, text + r, text + c});
  const Index next = text + std::max(rows, columns);
  for (Index t = 0; t < more; ++t) result.push_back({next + t, next + t, next + t});
  return result;
}
std::vector<Index> flat(std::span<const std::array<Index, 3>> positions) {
  std::vector<Index> result;
  for (const auto& p : positions) result.insert(result.end(), p.begin(), p.end());
  return result;
}

TEST(ForwardPositions, OfTimeHeightAndWidthAreTheDefinition) {
  const auto positions = text_image_text(9, 7, 11, 20);
  const auto numbers = flat(positions);
  const Matrix x = random_matrix(std::ssize(positions), kHidden, 1);
  for (const auto order : {RopeSectionOrder::consecutive, RopeSectionOrder::interleaved}) {
    const Layers layers({qwen2_vl(order)});
    const Matrix y = layers.modules[0].forward(x, {.positions = numbers});
    expect_near(y, definition(layers, x, {.positions = positions}));
    EXPECT_NE(y, layers.modules[0].forward(x));
    auto cache = layers.alone<float>();
    EXPECT_EQ(layers.modules[0].forward(x, cache, 0, {.positions = numbers}), y);
  }
}

TEST(ForwardPositions, GiveATokenTheSameBitsInPiecesAndInBatches) {
  const Layers layers({qwen2_vl(), qwen2_vl()});
  const std::vector<std::vector<std::array<Index, 3>>> positions{text_image_text(9, 7, 11, 20),
                                                                 text_image_text(30, 2, 33, 10)};
  const Index count = 106;
  const Matrix x = random_matrix(2 * count, kHidden, 1);
  std::vector<Matrix> expected;
  for (Index b = 0; b < 2; ++b) {
    const auto numbers = flat(positions[static_cast<std::size_t>(b)]);
    ASSERT_EQ(std::ssize(numbers), 3 * count);
    auto cache = layers.alone<bf16>(), pieces = layers.alone<bf16>();
    const Matrix own = x.middleRows(b * count, count);
    expected.push_back(layers.forward(own, cache, {.positions = numbers}));
    for (Index t = 0; t < count;) {
      const Index n = t < 80 ? 20 : 1;
      const auto piece = std::span(numbers).subspan(static_cast<std::size_t>(3 * t), static_cast<std::size_t>(3 * n));
      ASSERT_EQ(layers.forward(Matrix(own.middleRows(t, n)), pieces, {.positions = piece}),
                Matrix(expected.back().middleRows(t, n)));
      t += n;
    }
  }
  auto both = flat(positions[0]);
  const auto second = flat(positions[1]);
  both.insert(both.end(), second.begin(), second.end());
  KvCache<bf16> cache(layers.shapes(), count, {.num_sequences = 2});
  const Matrix y = layers.forward(x, cache, {.positions = both});
  auto paged = layers.paged<bf16>(4);
  RaggedBatch batch;
  for (int b = 0; b < 2; ++b) batch.add(paged.create(), count);
  batch.set_options({.positions = both});
  const Matrix ragged = layers.forward(x, paged, batch);
  for (Index b = 0; b < 2; ++b) {
    EXPECT_EQ(Matrix(y.middleRows(b * count, count)), expected[static_cast<std::size_t>(b)]);
    EXPECT_EQ(Matrix(ragged.middleRows(b * count, count)), expected[static_cast<std::size_t>(b)]);
  }
}

TEST(ForwardPositions, AreThoseOfRopeAlone) {
  // the layers of a model may be told the same, those without RoPE too (Llama 4)
  const Layers layers({small_layer()});
  const Matrix x = random_matrix(5, kHidden, 1);
  const std::vector<Index> positions{4, 3, 2, 1, 0};
  EXPECT_EQ(layers.modules[0].forward(x, {.positions = positions}), layers.modules[0].forward(x));
}

TEST(ForwardPositions, SetTheLengthThatDynamicRopeAsksFor) {
  const Layers layers({small_layer(RopeOptions{.scaling = DynamicNtkScaling{2.0, 40}})});
  const Matrix x = random_matrix(120, kHidden, 1);
  KvCache<float> cache(layers.shapes(), 60, {.num_sequences = 2});
  std::vector<Index> both;
  for (const Index first : {0, 500})
    for (Index t = 0; t < 60; ++t) both.push_back(first + t);
  const Matrix y = layers.forward(x, cache, {.positions = both});
  auto first = layers.alone<float>(), second = layers.alone<float>();
  EXPECT_EQ(Matrix(y.topRows(60)), layers.forward(Matrix(x.topRows(60)), first));
  EXPECT_EQ(Matrix(y.bottomRows(60)),
            layers.forward(Matrix(x.bottomRows(60)), second, {.positions = std::span(both).last(60)}));
}

TEST(ForwardMasks, AreTheDefinition) {
  const Layers layers({small_layer(RopeOptions{})});
  const MultiHeadAttention& module = layers.modules[0];
  constexpr Index kTokens = 100;
  const Matrix x = random_matrix(kTokens, kHidden, 1);
  const auto hides = [](Index i, Index t) { return (i * 7 + t) % 3 == 0 && i != t; };

  DefinitionCall call;
  call.rules.visible = [&](Index, Index i, Index t) { return !hides(i, t); };
  const Eigen::MatrixXd masked = definition(layers, x, call);
  std::vector<std::uint8_t> bytes;
  for (Index i = 0; i < kTokens; ++i)
    for (Index t = 0; t < kTokens; ++t) bytes.push_back(hides(i, t) ? 0 : 1);
  expect_near(module.forward(x, {.mask = Mask(bytes.data(), kTokens, kTokens)}), masked);
  const auto function = [&](Index, Index i, Index t) { return !hides(i, t); };
  auto cache = layers.alone<float>();
  expect_near(module.forward(x, cache, 0, {.mask_function = MaskFunction(function)}), masked);

  std::vector<float> added;
  for (Index i = 0; i < kTokens * kTokens; ++i) added.push_back(static_cast<float>(i * 13 % 7) / 4);
  call = {};
  call.rules.added = [](Index, Index i, Index t) { return static_cast<double>((i * kTokens + t) * 13 % 7) / 4; };
  expect_near(module.forward(x, {.mask = Mask(added.data(), kTokens, kTokens)}), definition(layers, x, call));

  TileSet tiles({.tiles = 2, .query_blocks = kTokens, .block_tokens = 1});
  for (Index i = 0; i < kTokens; ++i) tiles.insert(0, 0, i, i / 64);
  call = {};
  call.rules.visible = [](Index, Index i, Index t) { return i / 64 == t / 64; };
  expect_near(module.forward(x, {.tile_set = &tiles}), definition(layers, x, call));
}

TEST(ForwardMasks, OfPrefixesAndPaddingAreTheDefinition) {
  const Layers layers({small_layer(RopeOptions{})});
  const MultiHeadAttention& module = layers.modules[0];
  const Matrix x = random_matrix(90, kHidden, 1);
  const std::vector<Index> prefix{40}, start{7};
  DefinitionCall call;
  call.rules.prefix_length = 40;  // PaliGemma: an image and a question see all of each other
  expect_near(module.forward(x, {.prefix_lengths = prefix}), definition(layers, x, call));
  call = {};
  call.rules.key_start = 7;
  expect_near(module.forward(x, {.key_starts = start}), definition(layers, x, call));
}

TEST(ForwardMasks, OfSequencesOfABatchAreTheirOwn) {
  const Layers layers({small_layer(RopeOptions{})});
  constexpr Index kTokens = 20;
  const Matrix x = random_matrix(2 * kTokens, kHidden, 1);
  std::vector<std::uint8_t> bytes;
  for (Index i = 0; i < 2 * kTokens * kTokens; ++i) bytes.push_back(i % 5 != 1 || i % (kTokens + 1) == 0);
  auto paged = layers.paged<float>(2);
  KvCache<float> cache(layers.shapes(), kTokens, {.num_sequences = 2});
  const Mask both(bytes.data(), 2, 1, kTokens, kTokens);
  const Matrix y = layers.forward(x, cache, {.mask = both});
  RaggedBatch batch;
  for (int b = 0; b < 2; ++b) batch.add(paged.create(), kTokens);
  batch.set_options({.mask = both});
  EXPECT_EQ(layers.forward(x, paged, batch), y);
  for (Index b = 0; b < 2; ++b) {
    const Mask own(bytes.data() + b * kTokens * kTokens, kTokens, kTokens);
    auto alone = layers.alone<float>();
    EXPECT_EQ(layers.forward(Matrix(x.middleRows(b * kTokens, kTokens)), alone, {.mask = own}),
              Matrix(y.middleRows(b * kTokens, kTokens)));
  }
}

TEST(ForwardOptions, OfABatchThatAreSetAgainPlanAnew) {
  const Layers layers({small_layer(RopeOptions{})});
  auto paged = layers.paged<float>(1);
  const SequenceId id = paged.create();
  RaggedBatch batch;
  batch.add(id, 6);
  const Matrix x = random_matrix(6, kHidden, 1);
  const Matrix plain = layers.forward(x, paged, batch);
  paged.clear(id);
  const auto itself = [](Index, Index i, Index t) { return i == t; };
  batch.set_options({.mask_function = MaskFunction(itself)});
  EXPECT_EQ(batch.num_plans(), 0);
  const Matrix masked = layers.forward(x, paged, batch);
  EXPECT_EQ(Matrix(masked.topRows(1)), Matrix(plain.topRows(1)));
  EXPECT_NE(Matrix(masked.row(1)), Matrix(plain.row(1)));
}

TEST(ForwardOptions, ThatDoNotFitChangeNothing) {
  const Layers layers({qwen2_vl()}), plain({small_layer(RopeOptions{})});
  const MultiHeadAttention &module = layers.modules[0], &text = plain.modules[0];
  KvCache<float> cache(layers.shapes(), 30), other(plain.shapes(), 30);
  const Matrix x = random_matrix(6, kHidden, 1);
  module.forward(x, cache);
  text.forward(x, other);
  Workspace workspace;
  Matrix y = Matrix::Constant(6, kHidden, 7.0f);
  const Matrix before = y;
  const auto expect = [&](const ForwardOptions& call, std::initializer_list<std::string_view> parts) {
    expect_error([&] { module.forward(x, cache, 0, y, workspace, call); }, parts);
  };
  const std::vector<Index> six(6), negative{0, 1, 2, 3, -4, 5}, two{1, 1};
  expect({.positions = six}, {"positions (6)", "three positions", "(18)"});
  expect_error([&] { text.forward(x, other, 0, y, workspace, {.positions = two}); },
               {"positions (2)", "one position per token (6)"});
  expect_error([&] { text.forward(x, other, 0, y, workspace, {.positions = negative}); },
               {"positions[4] (-4)", "0 to 9007199254740992"});
  expect({.prefix_lengths = two}, {"prefix_lengths (2", "(1)"});
  expect({.key_starts = two}, {"key_starts (2", "(1)"});
  const std::vector<std::uint8_t> bytes(100, 1);
  expect({.mask = Mask(bytes.data(), 6, 6)}, {"keys of the mask (6)", "(12)"});
  expect({.mask = Mask(bytes.data(), 5, 12)}, {"queries of the mask (5)", "tokens of q (6)"});
  const DraftTree tree = DraftTree::from_parents(std::vector<Index>{-1, 0, 1});
  expect({.tree_mask = tree.mask()}, {"rows of the tree mask (3)", "(6)"});
  const TileSet tiles({.tiles = 1, .sequences = 2});
  expect({.tile_set = &tiles}, {"sequences of tile_set (2)"});
  EXPECT_EQ(y, before);
  EXPECT_EQ(cache.num_tokens(), 6);
  EXPECT_EQ(other.num_tokens(), 6);

  const std::vector<Index> boundaries{0, 3, 6};
  const auto groups = [&](const KvCache<>&, Index) { return std::span<const Index>(boundaries); };
  expect_error([&] { module.forward(x, y, workspace, {.groups = groups}); }, {"groups (given)", "KvCache"});
  RaggedBatch batch;
  expect_error([&] { batch.set_options({.groups = groups}); }, {"groups (given) of a RaggedBatch"});
  auto paged = layers.paged<float>(1);
  const SequenceId id = paged.create();
  batch.add(id, 6);
  batch.set_options({.tree_mask = tree.mask()});
  expect_error([&] { module.forward(x, paged, batch, 0, y, workspace); }, {"rows of the tree mask (3)"});
  EXPECT_EQ(paged.num_tokens(0, id), 0);
  EXPECT_EQ(y, before);
}

}  // namespace
}  // namespace headwise::nn
