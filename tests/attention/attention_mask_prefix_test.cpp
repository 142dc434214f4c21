// SPDX-License-Identifier: MIT
// Sequences that share a prefix give the same bits under masks that differ between them.
#include "tests/attention/run.hpp"
#include "tests/attention/shared_tiles.hpp"
#include "tests/attention/some_masks.hpp"

namespace headwise {
namespace {

using namespace testing;

TEST(MaskPrefix, MayBeSharedUnderEveryMask) {
  const RaggedBatch batch({4, 2, 24}, {{1, 2100}, {3, 2200}, {2, 2300}}, 121);
  const SharedTiles<float> shared(batch, {{}, {0, 2048}, {0, 2048}});
  const SomeMask bytes(MaskElements::boolean, {3, 4, 3, 2300}, 1), numbers(MaskElements::f32, {3, 1, 3, 2300}, 2);
  const std::vector<Index> parents{-1, -1, 0, 0, -1, 0};
  const DraftTree trees = DraftTree::from_parents(parents, batch.offsets);
  TileSet tiles({.tiles = 36, .sequences = 3, .kv_heads = 2});
  for (Index i = 0; i < 60; ++i) tiles.insert(i % 3, i / 3 % 2, 0, i * 7 % 36);
  const auto function = [](Index sequence, Index, Index key) { return (key + sequence) % 5 != 0; };
  const Options all[] = {{.mask = bytes.view()},
                         {.mask = numbers.view()},
                         {.tree_mask = trees.mask()},
                         {.tile_set = &tiles},
                         {.mask_function = MaskFunction(function)}};
  for (const Options& options : all)
    for (const Index threads : {1, 3}) {
      ThreadPool pool(threads);
      const auto results = [&](bool share) {
        Options own = batch.over_all(options);
        own.share_prefix = share;
        Memory out(std::vector<float>(6 * 4 * 24), Storage::f32, 1, 6, 4, 24);
        Memory lse(std::vector<float>(6 * 4), Storage::f32, 1, 6, 4, 1);
        Attention<> attend(batch.queries.heads);
        EXPECT_EQ(attend.plan(6, shared, own, pool).num_sharing_sequences(), share ? 3 : 0);
        attend(View<const float>(batch.queries.q.data(), 1, 6, 4, 24), shared, {out.view<float>(), lse.view<float>()},
               own, pool);
        return Results{out.packed(), lse.packed()};
      };
      EXPECT_EQ(results(true), results(false));
    }
}

}  // namespace
}  // namespace headwise
