// SPDX-License-Identifier: MIT
#include "headwise/core/tile_layout.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "headwise/core/heads.hpp"

namespace headwise {
namespace {

constexpr Storage kAll[] = {Storage::f32, Storage::f16, Storage::bf16};

// Every (token, dimension) has a place of its own inside the tile.
template <class IndexOf>
void expect_injective(Index elements, Index dim, IndexOf index_of) {
  std::vector<char> taken(static_cast<std::size_t>(elements));
  for (Index t = 0; t < kTileTokens; ++t)
    for (Index d = 0; d < dim; ++d) {
      const Index i = index_of(t, d);
      ASSERT_TRUE(i >= 0 && i < elements) << "token " << t << " dim " << d << " of " << dim;
      ASSERT_FALSE(taken[static_cast<std::size_t>(i)]) << "token " << t << " dim " << d << " of " << dim;
      taken[static_cast<std::size_t>(i)] = 1;
    }
}

TEST(TileLayout, EveryKeyElementHasItsOwnPlaceInTheTile) {
  for (const Storage storage : kAll)
    for (Index dim = 1; dim <= kMaxHeadDim; ++dim)
      expect_injective(key_tile_bytes(storage, dim) / size_of(storage), dim,
                       [&](Index t, Index d) { return key_index(storage, dim, t, d); });
}

TEST(TileLayout, EveryValueElementHasItsOwnPlaceInTheTile) {
  for (const Storage storage : kAll)
    for (Index dim = 1; dim <= kMaxHeadDim; ++dim)
      expect_injective(value_tile_bytes(storage, dim) / size_of(storage), dim,
                       [&](Index t, Index d) { return value_index(storage, dim, t, d); });
}

TEST(TileLayout, PaddedTilesAreFilledWithoutGaps) {
  for (const Storage storage : kAll) {
    for (Index dim = 8; dim <= kMaxHeadDim; dim += 8)
      EXPECT_EQ(key_index(storage, dim, 63, dim - 1) + 1, key_tile_bytes(storage, dim) / size_of(storage));
    for (Index dim = 16; dim <= kMaxHeadDim; dim += 16)
      EXPECT_EQ(value_index(storage, dim, 63, dim - 1) + 1, value_tile_bytes(storage, dim) / size_of(storage));
  }
}

TEST(TileLayout, SixteenTokensOfAKeyDimensionAreNeighbours) {
  EXPECT_EQ(key_index(Storage::f32, 128, 0, 0), 0);
  EXPECT_EQ(key_index(Storage::f32, 128, 1, 0), 1);
  EXPECT_EQ(key_index(Storage::f32, 128, 0, 1), 16);
  EXPECT_EQ(key_index(Storage::f32, 128, 16, 0), 16 * 128);
  EXPECT_EQ(key_index(Storage::f16, 128, 1, 0), 1);
}

TEST(TileLayout, Bf16KeysPairDimensionsAndBf16ValuesPairTokens) {
  EXPECT_EQ(key_index(Storage::bf16, 128, 0, 1), 1);
  EXPECT_EQ(key_index(Storage::bf16, 128, 1, 0), 2);
  EXPECT_EQ(key_index(Storage::bf16, 128, 0, 2), 32);
  EXPECT_EQ(value_index(Storage::bf16, 128, 1, 0), 1);
  EXPECT_EQ(value_index(Storage::bf16, 128, 0, 1), 2);
  EXPECT_EQ(value_index(Storage::bf16, 128, 2, 0), 64);
}

TEST(TileLayout, ValuesComeInPanelsOf32DimsAndALastOneOf16) {
  EXPECT_EQ(value_index(Storage::f32, 80, 0, 31), 31);
  EXPECT_EQ(value_index(Storage::f32, 80, 1, 0), 32);
  EXPECT_EQ(value_index(Storage::f32, 80, 0, 32), 32 * 64);
  EXPECT_EQ(value_index(Storage::f32, 80, 0, 64), 64 * 64);
  EXPECT_EQ(value_index(Storage::f32, 80, 1, 64), 64 * 64 + 16);
  EXPECT_EQ(panel_dims(80, 63), 32);
  EXPECT_EQ(panel_dims(80, 64), 16);
}

TEST(TileLayout, TilesAreWholeCacheLines) {
  for (const Storage storage : kAll)
    for (Index dim = 1; dim <= kMaxHeadDim; ++dim) {
      EXPECT_EQ(key_tile_bytes(storage, dim) % kTileAlignment, 0);
      EXPECT_EQ(value_tile_bytes(storage, dim) % kTileAlignment, 0);
    }
}

TEST(TileLayout, SizesArePaddedTo8And16) {
  EXPECT_EQ(tile_bytes(Storage::f32, 128, 128), 64 * 256 * 4);
  EXPECT_EQ(tile_bytes(Storage::bf16, 46, 46), 64 * (48 + 48) * 2);
  EXPECT_EQ(tile_bytes(Storage::f16, 1, 1), 64 * (8 + 16) * 2);
}

}  // namespace
}  // namespace headwise
