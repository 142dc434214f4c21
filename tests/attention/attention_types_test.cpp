// SPDX-License-Identifier: MIT
// Every type of queries and outputs, every layout, every head_dim, K and V of different types, sources of the user's own.
#include "tests/attention/oracle.hpp"

namespace headwise {
namespace {

using namespace testing;

class AttentionTypes : public EveryIsa {};

TEST_P(AttentionTypes, QueriesAndOutputsMayBeOfAnyStorage) {
  for (const Heads<>& heads : {Heads<>{4, 2, 64}, Heads<>{3, 1, 37, 45}}) {
    const Inputs in(heads, 2, 3, 80, 21);
    const Expected expected(in);
    for (const Storage storage : kAllStorages)
      for (const Storage queries : kAllStorages)
        for (const Storage outputs : kAllStorages) {
          const Route route{.storage = storage, .queries = queries, .outputs = outputs};
          expected.check(run(in, route), route);
          if (HasFatalFailure()) return;
        }
  }
}

TEST_P(AttentionTypes, QueriesAndOutputsMayLieAnywhere) {
  const Inputs in({6, 2, 40, 24}, 2, 3, 70, 22);
  for (const Storage queries : kAllStorages)
    for (const Storage outputs : kAllStorages) {
      const Results packed = run(in, {.queries = queries, .outputs = outputs});
      for (const Layout query_layout : kAllLayouts)
        for (const Layout output_layout : kAllLayouts)
          EXPECT_EQ(run(in, {.queries = queries,
                             .outputs = outputs,
                             .query_layout = query_layout,
                             .output_layout = output_layout}),
                    packed);
    }
}

TEST_P(AttentionTypes, EveryHeadDimFrom1To576Works) {
  for (Index dim = 1; dim <= kMaxHeadDim; ++dim) {
    const Inputs in({3, 1, dim}, 1, 2, 67, static_cast<unsigned>(dim));
    const Expected expected(in);
    for (const Storage storage : kAllStorages)
      for (const Source source : {Source::cache, Source::packed_rows}) {
        const Route route{.source = source, .storage = storage};
        expected.check(run(in, route), route);
        if (HasFatalFailure()) return;
      }
  }
}

TEST_P(AttentionTypes, ValueDimMayDifferFromHeadDim) {
  unsigned seed = 0;
  for (const Index head_dim : {Index{1}, Index{8}, Index{96}, Index{192}, Index{512}, Index{576}})
    for (const Index value_dim : {Index{1}, Index{15}, Index{33}, Index{128}, Index{512}, Index{576}}) {
      const Inputs in({4, 2, head_dim, value_dim}, 1, 6, 70, ++seed);
      const Expected expected(in);
      for (const Storage storage : kAllStorages)
        for (const Source source : kAllSources) {
          const Route route{.source = source, .storage = storage};
          expected.check(run(in, route), route);
          if (HasFatalFailure()) return;
        }
    }
}

TEST_P(AttentionTypes, KeysAndValuesOfTheCallersMemoryMayDifferInType) {
  const Inputs in({4, 2, 64, 48}, 2, 5, 100, 23);
  const Expected expected(in);
  for (const Storage keys : kAllStorages)
    for (const Storage values : kAllStorages) {
      Memory k(in.k, keys, 2, 100, 2, 64, Layout::head_major), v(in.v, values, 2, 100, 2, 48, Layout::scattered);
      // where one of them is bf16, its bounds hold
      const Route route{.storage = keys == Storage::bf16 || values == Storage::bf16 ? Storage::bf16 : Storage::f32};
      with_type(keys, [&]<class K>() {
        with_type(values, [&]<class V>() {
          expected.check(run_over(KvRows(k.view<const K>(), v.view<const V>()), in), route);
        });
      });
      if (HasFatalFailure()) return;
    }
}

/// A cache of the user's own: every tile is a separate piece of memory, in no order.
struct ScatteredTiles {
  Heads<> heads;
  Index tokens;
  std::vector<std::vector<char>> tiles;  // [kv_head][tile]

  explicit ScatteredTiles(const Inputs& in) : heads(in.heads), tokens(in.key_tokens) {
    const auto cache = cache_of<f16>(in);
    const auto source = cache.layer();
    const Index bytes = tile_bytes(Storage::f16, heads.head_dim(), heads.value_dim());
    for (Index g = 0; g < heads.num_kv_heads(); ++g)
      for (Index i = 0; i < num_tiles(); ++i) {
        auto& memory = tiles.emplace_back(static_cast<std::size_t>(bytes + kTileAlignment));
        std::memcpy(aligned(memory), source.tile(0, g, i).keys, static_cast<std::size_t>(bytes));
      }
  }

  Index num_tiles() const { return ceil_div(tokens, kTileTokens); }
  static char* aligned(const std::vector<char>& memory) {
    const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
    return const_cast<char*>(memory.data()) + (64 - address % 64) % 64;
  }

  TileFormat format() const {
    return {Storage::f16, Storage::f16, heads.num_kv_heads(), heads.head_dim(), heads.value_dim()};
  }
  Index num_sequences() const { return 1; }
  Index num_tokens(Index) const { return tokens; }
  TilePointers tile(Index, Index kv_head, Index index) const {
    const char* data = aligned(tiles[static_cast<std::size_t>(kv_head * num_tiles() + index)]);
    return {data, data + key_tile_bytes(Storage::f16, heads.head_dim())};
  }
};
static_assert(TileSource<ScatteredTiles>);

TEST_P(AttentionTypes, ASourceOfTheUsersOwnGivesTheBitsOfTheLibrarysCache) {
  const Inputs in({4, 2, 24}, 1, 3, 200, 24);
  EXPECT_EQ(run_over(ScatteredTiles(in), in), run(in, {.storage = Storage::f16}));
}

HEADWISE_FOR_EVERY_ISA(AttentionTypes);

TEST(AttentionTypes, EigenPointersAreTaken) {
  const Inputs in({4, 2, 16}, 1, 2, 30);
  const auto cache = cache_of<f16>(in);
  Memory q(in.q, Storage::f16, 1, 2, 4, 16), out(std::vector<float>(2 * 4 * 16), Storage::bf16, 1, 2, 4, 16);
  Attention<>(in.heads)(q.view<const Eigen::half>(), cache, out.view<Eigen::bfloat16>());
  EXPECT_EQ(out.packed(),
            run_over(cache, in, {}, Serial{}, {.queries = Storage::f16, .outputs = Storage::bf16}).output);
}

}  // namespace
}  // namespace headwise
