// SPDX-License-Identifier: MIT
// Quest's choice of tiles against the formula, and its bounds through everything that a cache does.
#include "headwise/attention/select_tiles.hpp"

#include "tests/attention/oracle.hpp"
#include "tests/support/errors.hpp"

namespace headwise {
namespace {

using namespace testing;

/// The bounds of a tile straight from the keys that were appended.
void expect_bounds(const TileBounds& bounds, const Inputs& in, Index tokens) {
  const Index dim = in.heads.head_dim();
  for (Index b = 0; b < in.sequences; ++b) {
    ASSERT_EQ(bounds.num_tiles(b), ceil_div(tokens, 64));
    for (Index g = 0; g < in.heads.num_kv_heads(); ++g)
      for (Index tile = 0; tile < bounds.num_tiles(b); ++tile)
        for (Index d = 0; d < dim; ++d) {
          float least = std::numeric_limits<float>::infinity(), greatest = -least;
          for (Index t = tile * 64; t < std::min(tokens, tile * 64 + 64); ++t) {
            const float x =
                in.k[static_cast<std::size_t>(((b * in.key_tokens + t) * in.heads.num_kv_heads() + g) * dim + d)];
            least = std::min(least, x);
            greatest = std::max(greatest, x);
          }
          ASSERT_EQ(bounds.least(b, g, tile)[d], least) << "tile " << tile << " dim " << d;
          ASSERT_EQ(bounds.greatest(b, g, tile)[d], greatest) << "tile " << tile << " dim " << d;
        }
  }
}

TEST(TileBounds, AreThoseOfTheKeysOfEverySourceAndStorage) {
  const Inputs in({4, 2, 20}, 2, 1, 200, 111);  // coarse: the same in every storage type
  for (const Storage storage : kAllStorages)
    for (const Source source : kAllSources)
      with_source(in, {.source = source, .storage = storage}, [&](const auto& keys) {
        TileBounds bounds;
        if constexpr (requires { keys.layer(); })
          bounds.update(keys.layer());
        else
          bounds.update(keys);
        expect_bounds(bounds, in, 200);
        return Results{};
      });
}

TEST(TileBounds, FollowAppendsAndTruncations) {
  const Inputs in({4, 2, 24}, 2, 1, 300, 112);
  Inputs other({4, 2, 24}, 2, 1, 300, 113);
  const auto append = [&](KvCache<float>& cache, const Inputs& from, Index first, Index count) {
    const Strides strides{300 * 2 * 24, 2 * 24, 24, 1};
    cache.append(View<const float>(from.k.data() + first * 48, 2, count, 2, 24, strides),
                 View<const float>(from.v.data() + first * 48, 2, count, 2, 24, strides));
  };
  KvCache<float> cache(in.heads, 300, {.num_sequences = 2});
  TileBounds bounds;
  Index tokens = 0;
  for (const Index more : {1, 62, 1, 1, 64, 100}) {
    append(cache, in, tokens, more);
    tokens += more;
    bounds.update(cache.layer());
    expect_bounds(bounds, in, tokens);
  }
  for (const Index fewer : {200, 129, 128, 64, 3}) {
    cache.truncate(fewer);
    bounds.update(cache.layer());
    expect_bounds(bounds, in, fewer);
  }
  // truncated and grown again in between: said so, other keys are seen
  append(cache, in, 3, 200);
  bounds.update(cache.layer());
  cache.truncate(100);
  Inputs mixed = in;
  for (Index b = 0; b < 2; ++b)
    for (Index t = 100; t < 300; ++t)
      for (Index g = 0; g < 2; ++g) std::copy_n(other.key(b, t, g), 24, mixed.key(b, t, g));
  append(cache, mixed, 100, 150);
  for (const Index b : {0, 1}) bounds.truncate(b, 100);
  bounds.update(cache.layer());
  expect_bounds(bounds, mixed, 250);
}

TEST(TileBounds, AreNanWhereAKeyIs) {
  Inputs in({4, 2, 24}, 1, 1, 130, 114);
  in.key(0, 70, 1)[5] = std::numeric_limits<float>::quiet_NaN();
  const auto cache = cache_of<float>(in);
  TileBounds bounds;
  bounds.update(cache.layer());
  EXPECT_TRUE(std::isnan(bounds.least(0, 1, 1)[5]));
  EXPECT_TRUE(std::isnan(bounds.greatest(0, 1, 1)[5]));
  EXPECT_FALSE(std::isnan(bounds.least(0, 1, 1)[4]));
  // and the tile is chosen, whatever the others' products are
  const TileSet set = select_tiles(View<const float>(in.q.data(), 1, 4, 24), HeadMap::contiguous(4, 2), bounds,
                                   {.tiles = 1, .newest = false, .first = false});
  EXPECT_EQ(set.tiles(0, 1), std::vector<Index>{1});
}

/// The best tiles by the formula, all in double.
std::vector<Index> best_tiles(const Inputs& in, Index b, Index g, const TileSelection& selection) {
  const Index tiles = ceil_div(in.key_tokens, 64), group = in.heads.num_heads() / in.heads.num_kv_heads(),
              dim = in.heads.head_dim();
  Inputs copy = in;
  std::vector<std::pair<double, Index>> scores;
  for (Index tile = 0; tile < tiles; ++tile) {
    double best = -std::numeric_limits<double>::infinity();
    for (Index i = 0; i < in.query_tokens; ++i)
      for (Index h = g * group; h < (g + 1) * group; ++h) {
        double sum = 0;
        for (Index d = 0; d < dim; ++d) {
          double least = std::numeric_limits<double>::infinity(), greatest = -least;
          for (Index t = tile * 64; t < std::min(in.key_tokens, tile * 64 + 64); ++t) {
            least = std::min(least, static_cast<double>(copy.key(b, t, g)[d]));
            greatest = std::max(greatest, static_cast<double>(copy.key(b, t, g)[d]));
          }
          const auto q = static_cast<double>(copy.query(b, i, h)[d]);
          sum += std::max(q * least, q * greatest);
        }
        best = std::max(best, sum);
      }
    if (selection.newest && tile == tiles - 1) best = 1e30;
    if (selection.first && tile == 0) best = 1e29;
    scores.push_back({best, tile});
  }
  std::sort(scores.begin(), scores.end(), std::greater<>());
  std::vector<Index> result;
  for (Index i = 0; i < std::min(selection.tiles, tiles); ++i)
    result.push_back(scores[static_cast<std::size_t>(i)].second);
  std::sort(result.begin(), result.end());
  return result;
}

TEST(SelectTiles, TakesThoseOfTheLargestPossibleProducts) {
  for (const Index queries : {1, 3}) {
    const Inputs in({4, 2, 20}, 2, queries, 1000, 115);
    const auto cache = cache_of<float>(in);
    TileBounds bounds;
    bounds.update(cache.layer());
    ThreadPool pool(3);
    for (const Index tiles : {1, 2, 5, 15, 16, 40})
      for (const bool newest : {true, false})
        for (const bool first : {true, false}) {
          const TileSelection selection{.tiles = tiles, .newest = newest, .first = first};
          const TileSet set = select_tiles(View<const float>(in.q.data(), 2, queries, 4, 20), HeadMap::contiguous(4, 2),
                                           bounds, selection, pool);
          for (Index b = 0; b < 2; ++b)
            for (Index g = 0; g < 2; ++g) ASSERT_EQ(set.tiles(b, g), best_tiles(in, b, g, selection)) << tiles;
          expect_defined(in, {}, {.tile_set = &set});
        }
  }
}

TEST(SelectTiles, OfAllTilesChangesNoBit) {
  const Inputs in({4, 2, 24}, 2, 1, 2500, 116);
  const auto cache = cache_of<float>(in);
  TileBounds bounds;
  bounds.update(cache.layer());
  const TileSet set =
      select_tiles(View<const float>(in.q.data(), 2, 1, 4, 24), HeadMap::contiguous(4, 2), bounds, {.tiles = 40});
  EXPECT_EQ(run(in, {}, {.tile_set = &set}), run(in));
}

TEST(SelectTiles, GoesByRaggedOffsets) {
  const Inputs in({4, 2, 24}, 2, 3, 700, 117);
  const auto cache = cache_of<float>(in);
  TileBounds bounds;
  bounds.update(cache.layer());
  const std::vector<Index> offsets{0, 3, 6};
  const HeadMap map = HeadMap::contiguous(4, 2);
  const TileSet plain = select_tiles(View<const float>(in.q.data(), 2, 3, 4, 24), map, bounds, {.tiles = 4}),
                ragged = select_tiles(View<const float>(in.q.data(), 6, 4, 24), map, bounds,
                                      {.tiles = 4, .query_offsets = offsets});
  for (Index b = 0; b < 2; ++b)
    for (Index g = 0; g < 2; ++g) EXPECT_EQ(ragged.tiles(b, g), plain.tiles(b, g));
}

TEST(SelectTiles, RefusesShapesThatDoNotFitNamingThem) {
  const Inputs in({4, 2, 24}, 2, 1, 100, 118);
  const auto cache = cache_of<float>(in);
  TileBounds bounds;
  const HeadMap map = HeadMap::contiguous(4, 2);
  const View<const float> q(in.q.data(), 2, 1, 4, 24);
  EXPECT_THROW(select_tiles(q, map, bounds), std::invalid_argument);
  bounds.update(cache.layer());
  EXPECT_THROW(select_tiles(q, map, bounds, {.tiles = 0}), std::invalid_argument);
  EXPECT_THROW(select_tiles(q, HeadMap::contiguous(4, 4), bounds), std::invalid_argument);
  EXPECT_THROW(select_tiles(View<const float>(in.q.data(), 2, 1, 2, 24), map, bounds), std::invalid_argument);
  EXPECT_THROW(select_tiles(View<const float>(in.q.data(), 2, 1, 4, 20), map, bounds), std::invalid_argument);
  EXPECT_THROW(select_tiles(View<const float>(in.q.data(), 1, 1, 4, 24), map, bounds), std::invalid_argument);
  EXPECT_THROW(bounds.truncate(2, 0), std::invalid_argument);
  const Inputs fewer({4, 2, 24}, 1, 1, 100, 118);
  const auto other = cache_of<float>(fewer);
  EXPECT_THROW(bounds.update(other.layer()), std::invalid_argument);
}

}  // namespace
}  // namespace headwise
