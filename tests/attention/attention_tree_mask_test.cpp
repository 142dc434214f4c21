// SPDX-License-Identifier: MIT
// Draft trees and the caller's own masks: each is the definition's, in every kind of batch and of plan.
#include <atomic>
#include <cstring>

#include "tests/attention/oracle.hpp"
#include "tests/attention/ragged.hpp"
#include "tests/attention/some_masks.hpp"

namespace headwise {
namespace {

using namespace testing;

class TreeMasks : public EveryIsa {};

std::vector<Index> random_tree(Index nodes, unsigned seed) {
  std::mt19937 generator(seed);
  std::vector<Index> parents;
  for (Index node = 0; node < nodes; ++node)
    parents.push_back(static_cast<Index>(generator() % static_cast<unsigned>(node + 1)) - 1);
  return parents;
}

TEST_P(TreeMasks, OfEverySizeAreTheDefinitions) {
  for (const Index nodes : {1, 5, 63, 64, 65, 150})
    for (const Index before : {0, 1, 60, 64, 1000}) {
      const Inputs in({4, 2, 24, 16}, 1, nodes, nodes + before, 101);
      const DraftTree tree = DraftTree::from_parents(random_tree(nodes, static_cast<unsigned>(nodes)));
      for (const Source source : {Source::cache, Source::packed_rows})
        expect_defined(in, {.source = source}, {.tree_mask = tree.mask()});
      expect_defined(in, {}, {.window = 40, .num_sink_tokens = 2, .tree_mask = tree.mask()});
      if (HasFatalFailure()) return;
    }
}

TEST_P(TreeMasks, OfAnyBitsNeedNoOrderWithoutCausal) {
  const Inputs in({2, 1, 16}, 1, 70, 130, 102);
  std::mt19937_64 generator(3);
  std::vector<std::uint64_t> words(70 * 3);
  for (std::uint64_t& word : words) word = generator();
  expect_defined(in, {}, {.causal = false, .tree_mask = TreeMask(words.data(), 70, 3)});
}

TEST_P(TreeMasks, MayBeOneForAllSequencesOrOneEach) {
  const Inputs in({4, 2, 24}, 3, 9, 100, 103);
  const std::vector<Index> one = random_tree(9, 4);
  const DraftTree shared = DraftTree::from_parents(one);
  expect_defined(in, {}, {.tree_mask = shared.mask()});
  std::vector<Index> all;
  for (const unsigned seed : {5u, 6u, 7u})
    for (const Index parent : random_tree(9, seed)) all.push_back(parent);
  const std::vector<Index> offsets{0, 9, 18, 27};
  const DraftTree each = DraftTree::from_parents(all, offsets);
  expect_defined(in, {}, {.tree_mask = each.mask()});
}

TEST_P(TreeMasks, OfARaggedBatchFollowItsOffsets) {
  const RaggedBatch batch({4, 2, 24}, {{1, 90}, {70, 130}, {0, 5}, {5, 5}, {3, 1100}}, 104);
  std::vector<Index> parents;
  for (const auto& sequence : batch.sequences)
    for (const Index parent : random_tree(sequence.queries, static_cast<unsigned>(sequence.keys)))
      parents.push_back(parent);
  const DraftTree trees = DraftTree::from_parents(parents, batch.offsets);
  const Results together =
      run_over(cache_of<float>(batch.keys), batch.queries, batch.over_all({.tree_mask = trees.mask()}));
  Results apart;
  for (Index b = 0; b < 5; ++b) {
    const Inputs alone = batch.alone(b);
    if (alone.query_tokens == 0) continue;
    const DraftTree own = DraftTree::from_parents(
        random_tree(alone.query_tokens, static_cast<unsigned>(batch.sequences[static_cast<std::size_t>(b)].keys)));
    const Results results = run(alone, {}, {.tree_mask = own.mask()});
    Expected(alone, {.tree_mask = own.mask()}).check(results, {});
    apart.output.insert(apart.output.end(), results.output.begin(), results.output.end());
    apart.lse.insert(apart.lse.end(), results.lse.begin(), results.lse.end());
  }
  EXPECT_EQ(together, apart);
}

TEST_P(TreeMasks, OfAChainChangeNoBit) {
  const Inputs in({4, 2, 24}, 1, 20, 300, 105);
  std::vector<Index> parents;
  for (Index node = 0; node < 20; ++node) parents.push_back(node - 1);
  const DraftTree chain = DraftTree::from_parents(parents);
  EXPECT_EQ(run(in, {}, {.tree_mask = chain.mask()}), run(in));
}

class MaskFunctions : public EveryIsa {};

TEST_P(MaskFunctions, OfEveryFormAreTheDefinitions) {
  const auto by_head = [](Index sequence, Index head, Index query, Index key) {
    return (key + head + sequence) % 3 != 0 || key == query;
  };
  const auto for_all_heads = [](Index sequence, Index query, Index key) {
    return (key * 7 + query + sequence) % 5 < 3;
  };
  const auto by_word = [](const MaskTile& tile) -> std::uint64_t {
    return 0x9249249249249249u << (tile.head + tile.query % 3);
  };
  for (const Index queries : {Index{1}, Index{40}}) {
    const Inputs in({4, 2, 24, 16}, 2, queries, 200, 106);
    for (const MaskFunction& function : {MaskFunction(by_head), MaskFunction(for_all_heads), MaskFunction(by_word)})
      for (const Source source : {Source::cache, Source::packed_rows}) {
        expect_defined(in, {.source = source}, {.mask_function = function});
        expect_defined(in, {.source = source}, {.causal = false, .window = 90, .mask_function = function});
      }
    if (HasFatalFailure()) return;
  }
}

TEST_P(MaskFunctions, AreAskedAboutPositionsThatExistAlone) {
  const std::vector<Index> key_lengths{3, 130};
  std::atomic<bool> wrong{false};
  const auto function = [&](Index sequence, Index, Index query, Index key) {
    const Index keys = key_lengths[static_cast<std::size_t>(sequence)];
    if (key < 0 || key >= keys || query < 0 || query >= keys) wrong = true;
    return true;
  };
  const Inputs in({4, 2, 24}, 2, 5, 130, 107);
  EXPECT_EQ(run(in, {}, {.mask_function = MaskFunction(function), .key_lengths = key_lengths}),
            run(in, {}, {.key_lengths = key_lengths}));
  EXPECT_FALSE(wrong);
}

class PlannedMasks : public EveryIsa {};

TEST_P(PlannedMasks, GiveTheBitsOfCallsThatPlanForThemselves) {
  const Inputs in({4, 2, 24}, 2, 6, 1500, 108);
  const SomeMask elements(MaskElements::f32, {2, 4, 6, 1500}, 3);
  const DraftTree tree = DraftTree::from_parents(random_tree(6, 9));
  TileSet tiles({.tiles = 24, .kv_heads = 2});
  for (const Index tile : {0, 5, 17, 23}) tiles.insert(0, tile % 2, 0, tile);
  const auto odd = [](Index, Index, Index key) { return key % 2 == 1; };
  const Options all[] = {{.mask = elements.view()},
                         {.tree_mask = tree.mask()},
                         {.tile_set = &tiles},
                         {.mask_function = MaskFunction(odd)},
                         {.mask = elements.view(), .tree_mask = tree.mask(), .tile_set = &tiles}};
  const auto cache = cache_of<float>(in);
  const View<const float> q(in.q.data(), 2, 6, 4, 24);
  for (const Options& options : all)
    for (const Index threads : {1, 3}) {
      ThreadPool pool(threads);
      const Attention<> attend(in.heads);
      const AttentionPlan plan = attend.plan(6, cache, options, pool);
      std::vector<float> planned(in.q.size()), direct(in.q.size());
      attend(plan, q, cache, View<float>(planned.data(), 2, 6, 4, 24), pool);
      attend(q, cache, View<float>(direct.data(), 2, 6, 4, 24), options);
      EXPECT_EQ(std::memcmp(planned.data(), direct.data(), direct.size() * sizeof(float)), 0);
    }
}

HEADWISE_FOR_EVERY_ISA(TreeMasks);
HEADWISE_FOR_EVERY_ISA(MaskFunctions);
HEADWISE_FOR_EVERY_ISA(PlannedMasks);

}  // namespace
}  // namespace headwise
