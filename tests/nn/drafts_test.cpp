// SPDX-License-Identifier: MIT
// Drafts in trees: the nodes are the tokens of a call, with their mask and positions.
#include <gtest/gtest.h>

#include <optional>
#include <vector>

#include "headwise/nn/multi_head_attention.hpp"
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

/// A draft of a few tokens and where they stand.
struct Draft {
  std::vector<Index> parents;
  DraftTree tree = DraftTree::from_parents(parents);

  std::vector<Index> positions(Index before) const {
    std::vector<Index> result;
    for (const Index depth : tree.depths()) result.push_back(before + depth);
    return result;
  }
  bool sees(Index node, Index other) const {
    for (Index at = node; at >= 0; at = parents[static_cast<std::size_t>(at)])
      if (at == other) return true;
    return false;
  }
};

TEST(ForwardDrafts, InATreeAreTheDefinition) {
  const Draft draft{{-1, -1, 0, 0, 1, 2, 4, 4}};
  for (const Index before : {0, 3, 60, 130}) {
    const Layers layers({small_layer(RopeOptions{})});
    const Index n = std::ssize(draft.parents);
    const Matrix x = random_matrix(before + n, kHidden, 1);
    auto cache = layers.alone<float>();
    if (before > 0) layers.modules[0].forward(x.topRows(before), cache);
    const auto positions = draft.positions(before);
    const Matrix y =
        layers.modules[0].forward(x.bottomRows(n), cache, 0, {.positions = positions, .tree_mask = draft.tree.mask()});
    DefinitionCall call;
    for (Index t = 0; t < before; ++t) call.positions.push_back({t, t, t});
    for (const Index p : positions) call.positions.push_back({p, p, p});
    call.rules.visible = [&](Index, Index i, Index t) { return t < before || draft.sees(i - before, t - before); };
    expect_near(y, module_definition(layers.modules[0], layers.weights[0], x, x, false, call).bottomRows(n));
  }
}

TEST(ForwardDrafts, ThatAreTakenBackLeaveNoTrace) {
  const Draft draft{{-1, 0, 0, 2}};
  const Layers layers({small_layer(RopeOptions{}), small_layer(RopeOptions{})});
  const Matrix x = random_matrix(80, kHidden, 1);
  auto drafted = layers.alone<bf16>(), plain = layers.alone<bf16>();
  layers.forward(Matrix(x.topRows(70)), drafted);
  layers.forward(Matrix(x.topRows(70)), plain);
  const auto positions = draft.positions(70);
  const Matrix nodes = random_matrix(4, kHidden, 2);
  const Matrix y = layers.forward(nodes, drafted, {.positions = positions, .tree_mask = draft.tree.mask()});
  drafted.truncate(71);  // the first node is what the model wanted, its children are not
  EXPECT_EQ(layers.forward(Matrix(nodes.topRows(1)), plain), Matrix(y.topRows(1)));
  EXPECT_EQ(layers.forward(Matrix(x.bottomRows(10)), drafted), layers.forward(Matrix(x.bottomRows(10)), plain));
}

TEST(ForwardDrafts, OfARaggedBatchHaveTheBitsTheyHaveAlone) {
  const Layers layers({small_layer(RopeOptions{}), small_layer(RopeOptions{}), small_layer()});
  const std::vector<Draft> drafts{{{-1, 0, 0, 1, 3}}, {{-1}}, {{-1, -1, 1, 2, 2, 0, 4}}};
  const std::vector<Index> before{70, 5, 130};
  auto paged = layers.paged<float>(12);
  RaggedBatch batch;
  std::vector<KvCache<float>> alone;
  std::vector<SequenceId> ids;
  for (std::size_t b = 0; b < 3; ++b) {
    ids.push_back(paged.create());
    alone.push_back(layers.alone<float>());
    const Matrix prompt = random_matrix(before[b], kHidden, static_cast<unsigned>(b));
    batch.clear();
    batch.add(ids[b], before[b]);
    layers.forward(prompt, paged, batch);
    layers.forward(prompt, alone[b]);
  }
  batch.clear();
  std::vector<Index> parents, positions;
  for (std::size_t b = 0; b < 3; ++b) {
    batch.add(ids[b], std::ssize(drafts[b].parents));
    parents.insert(parents.end(), drafts[b].parents.begin(), drafts[b].parents.end());
    const auto own = drafts[b].positions(before[b]);
    positions.insert(positions.end(), own.begin(), own.end());
  }
  const DraftTree trees = DraftTree::from_parents(parents, batch.offsets());
  batch.set_options({.positions = positions, .tree_mask = trees.mask()});
  const Matrix x = random_matrix(batch.num_tokens(), kHidden, 9);
  const Matrix y = layers.forward(x, paged, batch);
  EXPECT_EQ(batch.num_plans(), 1);
  for (Index b = 0; b < 3; ++b) {
    const auto i = static_cast<std::size_t>(b);
    const auto own = drafts[i].positions(before[i]);
    EXPECT_EQ(Matrix(y.middleRows(batch.offset(b), batch.num_tokens(b))),
              layers.forward(Matrix(x.middleRows(batch.offset(b), batch.num_tokens(b))), alone[i],
                             {.positions = own, .tree_mask = drafts[i].tree.mask()}));
  }
  batch.clear();  // and its options are none
  batch.add(ids[0], 2);
  const Matrix next = random_matrix(2, kHidden, 3);
  EXPECT_EQ(layers.forward(next, paged, batch), layers.forward(next, alone[0]));
}

}  // namespace
}  // namespace headwise::nn
