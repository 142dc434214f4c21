// SPDX-License-Identifier: MIT
// Block-sparse lists of tiles: rows see no other, and a tile that no row sees is never asked for, whatever hides it.
#include "tests/attention/oracle.hpp"
#include "tests/attention/ragged.hpp"
#include "tests/support/tile_sources.hpp"

namespace headwise {
namespace {

using namespace testing;

class TileSets : public EveryIsa {};

TileSet some_tiles(const TileSetShape& shape, unsigned seed, unsigned one_in = 3) {
  std::mt19937 generator(seed);
  TileSet set(shape);
  for (Index b = 0; b < shape.sequences; ++b)
    for (Index g = 0; g < shape.kv_heads; ++g)
      for (Index block = 0; block < shape.query_blocks; ++block)
        for (Index tile = 0; tile < shape.tiles; ++tile)
          if (generator() % one_in == 0) set.insert(b, g, block, tile);
  return set;
}

TEST_P(TileSets, OfEveryShapeAreTheDefinitions) {
  const Inputs in({4, 2, 24, 16}, 2, 70, 400, 91);
  for (int shared = 0; shared < 8; ++shared) {
    const TileSet set = some_tiles({.tiles = 7,
                                    .sequences = shared & 1 ? 1 : 2,
                                    .kv_heads = shared & 2 ? 1 : 2,
                                    .query_blocks = shared & 4 ? 1 : 5,
                                    .block_tokens = 16},
                                   static_cast<unsigned>(shared));
    for (const Source source : {Source::cache, Source::packed_rows, Source::odd_rows}) {
      expect_defined(in, {.source = source}, {.tile_set = &set});
      expect_defined(in, {.source = source}, {.causal = false, .tile_set = &set});
      expect_defined(in, {.source = source}, {.window = 100, .num_sink_tokens = 3, .tile_set = &set});
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(TileSets, OverManySegmentsGiveTheSameBitsOnAnyThreadsAndFromAnySource) {
  const Inputs in({4, 2, 24}, 1, 2, 9000, 92);
  for (const unsigned one_in : {2u, 20u, 60u}) {
    const TileSet set = some_tiles({.tiles = 141, .kv_heads = 2}, one_in, one_in);
    const Options options{.tile_set = &set};
    const Results serial = run(in, {}, options);
    Expected(in, options).check(serial, {});
    if (HasFatalFailure()) return;
    for (const Index threads : {2, 3, 16}) {
      ThreadPool pool(threads);
      EXPECT_EQ(run(in, {}, options, pool), serial);
      EXPECT_EQ(run(in, {.source = Source::packed_rows}, options, pool), serial);
    }
  }
}

TEST_P(TileSets, AskForListedTilesAloneAndForEachOnce) {
  for (const Index queries : {Index{1}, Index{3}}) {
    const Inputs in({4, 2, 24}, 2, queries, 5000, 93);
    const auto cache = cache_of<float>(in);
    const TileSet set = some_tiles({.tiles = 79, .sequences = 2, .kv_heads = 2}, 7, 9);
    for (const Index threads : {1, 4}) {
      const auto layer = cache.layer();
      const CountingSource source(layer);
      ThreadPool pool(threads);
      Memory out(std::vector<float>(static_cast<std::size_t>(2 * queries * 4 * 24)), Storage::f32, 2, queries, 4, 24);
      Attention<>(in.heads)(View<const float>(in.q.data(), 2, queries, 4, 24), source, out.view<float>(),
                            {.tile_set = &set}, pool);
      for (Index b = 0; b < 2; ++b)
        for (Index g = 0; g < 2; ++g)
          for (Index tile = 0; tile < 79; ++tile)
            ASSERT_EQ(source.calls(b, g, tile), set.contains(b, g, 0, tile) ? 1 : 0) << tile;
      EXPECT_EQ(source.beyond(), 0);
    }
  }
}

/// Asks for the tiles of a call; returns those that were.
std::vector<bool> asked_for(const Inputs& in, const Options& options) {
  const auto cache = cache_of<float>(in);
  const auto layer = cache.layer();
  const CountingSource source(layer);
  Memory out(std::vector<float>(in.q.size()), Storage::f32, 1, in.query_tokens, 4, 24);
  Attention<>(in.heads)(View<const float>(in.q.data(), 1, in.query_tokens, 4, 24), source, out.view<float>(), options);
  std::vector<bool> tiles;
  for (Index tile = 0; tile < ceil_div(in.key_tokens, 64); ++tile)
    tiles.push_back(source.calls(0, 0, tile) + source.calls(0, 1, tile) > 0);
  return tiles;
}

TEST_P(TileSets, AndEveryOtherMaskNeverAskForAHiddenTile) {
  const Inputs in({4, 2, 24}, 1, 70, 640, 94);
  std::vector<bool> expected(10, false);
  for (const std::size_t tile : {0u, 3u, 4u, 9u}) expected[tile] = true;
  const auto is_seen = [&](Index key) { return bool(expected[static_cast<std::size_t>(key / 64)]) && key % 64 == 17; };

  std::vector<std::uint8_t> bytes(640);
  std::vector<float> numbers(640, -std::numeric_limits<float>::infinity());
  std::vector<std::uint64_t> words(10);
  for (Index t = 0; t < 640; ++t)
    if (is_seen(t)) {
      bytes[static_cast<std::size_t>(t)] = 1;
      numbers[static_cast<std::size_t>(t)] = 0.5f;
      words[static_cast<std::size_t>(t / 64)] |= std::uint64_t{1} << (t % 64);
    }
  const auto function = [&](Index, Index, Index key) { return is_seen(key); };
  EXPECT_EQ(asked_for(in, {.mask = Mask(bytes.data(), 1, 640)}), expected);
  EXPECT_EQ(asked_for(in, {.mask = Mask(numbers.data(), 1, 640)}), expected);
  EXPECT_EQ(asked_for(in, {.mask = Mask::of_bits(words.data(), 1, 640)}), expected);
  EXPECT_EQ(asked_for(in, {.mask_function = MaskFunction(function)}), expected);
  // all together: what one hides, no other shows
  TileSet set({.tiles = 10});
  for (const Index tile : {3, 9}) set.insert(0, 0, 0, tile);
  expected.assign(10, false);
  expected[3] = expected[9] = true;
  EXPECT_EQ(asked_for(in, {.mask = Mask(bytes.data(), 1, 640), .tile_set = &set}), expected);
}

TEST_P(TileSets, OfARaggedBatchCountBlocksWithinTheirSequence) {
  const RaggedBatch batch({4, 2, 24}, {{1, 90}, {70, 330}, {0, 5}, {5, 5}, {3, 1100}}, 95);
  const TileSetShape shape{.tiles = 18, .sequences = 5, .kv_heads = 2, .query_blocks = 3, .block_tokens = 32};
  const TileSet set = some_tiles(shape, 11, 2);
  const Results together = run_over(cache_of<float>(batch.keys), batch.queries, batch.over_all({.tile_set = &set}));
  Results apart;
  for (Index b = 0; b < 5; ++b) {
    if (batch.alone(b).query_tokens == 0) continue;
    TileSetShape own = shape;
    own.sequences = 1;
    TileSet part(own);
    for (Index g = 0; g < 2; ++g)
      for (Index block = 0; block < 3; ++block)
        for (const Index tile : set.tiles(b, g, block)) part.insert(0, g, block, tile);
    const Results results = run(batch.alone(b), {}, {.tile_set = &part});
    apart.output.insert(apart.output.end(), results.output.begin(), results.output.end());
    apart.lse.insert(apart.lse.end(), results.lse.begin(), results.lse.end());
  }
  EXPECT_EQ(together, apart);
}

TEST_P(TileSets, WithoutATileLeaveZeroWithLseMinusInfinity) {
  const Inputs in({4, 2, 24}, 1, 3, 3000, 96);
  const TileSet none({.tiles = 47});
  for (const Index threads : {1, 5})
    for (const Source source : {Source::cache, Source::packed_rows}) {
      ThreadPool pool(threads);
      const Results results = run(in, {.source = source}, {.tile_set = &none}, pool);
      for (const float x : results.output) ASSERT_EQ(x, 0.0f);
      for (const float x : results.lse) ASSERT_EQ(x, -std::numeric_limits<float>::infinity());
    }
}

HEADWISE_FOR_EVERY_ISA(TileSets);

}  // namespace
}  // namespace headwise
