// SPDX-License-Identifier: MIT
#include "headwise/score/mask.hpp"

#include <cstring>

#include "headwise/score/mask_function.hpp"
#include "headwise/score/tile_set.hpp"
#include "headwise/score/tree_mask.hpp"
#include "tests/support/errors.hpp"

namespace headwise {
namespace {

using testing::expect_error;

constexpr std::uint8_t kBytes[600] = {};

TEST(Mask, OfEveryRankLiesAsPackedArraysDo) {
  const Mask two(kBytes, 5, 7), three(kBytes, 3, 5, 7), four(kBytes, 2, 3, 5, 7);
  const auto offset = [](const char* row) { return row - reinterpret_cast<const char*>(kBytes); };
  EXPECT_EQ(offset(two.row(1, 2, 4)), 28);
  EXPECT_EQ(offset(three.row(1, 2, 4)), (2 * 5 + 4) * 7);
  EXPECT_EQ(offset(four.row(1, 2, 4)), ((3 + 2) * 5 + 4) * 7);
  EXPECT_EQ(offset(Mask(kBytes, 2, 1, 5, 7).row(1, 2, 4)), (5 + 4) * 7);
  EXPECT_EQ(Mask(kBytes, 5, 1).key_stride(), 0);
}

TEST(Mask, RefusesImpossibleSizesNamingThem) {
  expect_error([] { Mask(kBytes, 0, 7); }, {"queries (0)"});
  expect_error([] { Mask(kBytes, 5, -1); }, {"keys (-1)"});
  expect_error([] { Mask(kBytes, 0, 1, 5, 7); }, {"sequences (0)"});
  expect_error([] { Mask(kBytes, 1, 0, 5, 7); }, {"heads (0)"});
  expect_error([] { Mask(static_cast<const float*>(nullptr), 5, 7); }, {"data (null)"});
  expect_error([] { Mask(kBytes, 1, 1, 5, 7, {0, 0, Index{1} << 60, 1}); }, {"must span less than"});
  expect_error([] { Mask(kBytes, Index{1} << 40, Index{1} << 40, 5, 7); }, {"must span less than"});
}

TEST(TileWord, TakesEveryByteThatIsNotZero) {
  for (int i = 0; i < 64; ++i)
    for (const int value : {1, 2, 127, 128, 255}) {
      std::uint8_t bytes[64] = {};
      bytes[i] = static_cast<std::uint8_t>(value);
      EXPECT_EQ(detail::word_of_bytes(bytes), std::uint64_t{1} << i);
      for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(byte == 0 ? value : 0);
      EXPECT_EQ(detail::word_of_bytes(bytes), ~(std::uint64_t{1} << i));
    }
}

TEST(TileWord, OfPackedBitsIsThatOfTheirOffset) {
  const std::uint64_t words[] = {0x0123456789abcdef, 0xfedcba9876543210, 0x5a5a5a5a5a5a5a5a};
  for (Index offset = -70; offset < 260; ++offset) {
    const std::uint64_t word = detail::word_at(words, 3, offset);
    for (Index j = 0; j < 64; ++j) {
      const Index bit = offset + j;
      const bool expected = bit < 0 || (bit < 192 && (words[bit / 64] >> (bit % 64) & 1) != 0);
      ASSERT_EQ(word >> j & 1, expected ? 1u : 0u) << offset << " " << j;
    }
  }
}

TEST(DraftTree, HasAncestorsAndDepths) {
  const std::vector<Index> parents{-1, 0, 0, 1, -1, 4};
  const DraftTree tree = DraftTree::from_parents(parents);
  EXPECT_EQ(std::vector<Index>(tree.depths().begin(), tree.depths().end()), (std::vector<Index>{0, 1, 1, 2, 0, 1}));
  const std::uint64_t expected[] = {0b1, 0b11, 0b101, 0b1011, 0b10000, 0b110000};
  for (Index node = 0; node < 6; ++node) EXPECT_EQ(tree.mask().row(node)[0], expected[node]);
}

TEST(DraftTree, OfSeveralTreesCountsNodesWithinEach) {
  const std::vector<Index> parents{-1, 0, -1, 0, 1}, offsets{0, 2, 2, 5};
  const DraftTree trees = DraftTree::from_parents(parents, offsets);
  const std::uint64_t expected[] = {0b1, 0b11, 0b1, 0b11, 0b111};
  for (Index node = 0; node < 5; ++node) EXPECT_EQ(trees.mask().row(node)[0], expected[node]);
}

TEST(DraftTree, RefusesImpossibleParentsNamingThem) {
  const auto make = [](std::vector<Index> parents, std::vector<Index> offsets = {}) {
    return [=] { DraftTree::from_parents(parents, offsets); };
  };
  expect_error(make({-1, 1}), {"parents[1] (1)", "before its own"});
  expect_error(make({-2}), {"parents[0] (-2)"});
  expect_error(make({-1, 0, 1}, {0, 2, 3}), {"parents[2] (1)"});
  expect_error(make({-1, 0}, {0, 1}), {"offsets (2 numbers)"});
  expect_error(make({-1, 0}, {0, 2, 1, 2}), {"offsets[2] (1)"});
  expect_error([] { TreeMask(nullptr, 3, 1); }, {"words (null)"});
  expect_error([] { TreeMask(nullptr, 0, 0); }, {"words_per_row (0)"});
}

TEST(TileSet, HoldsWhatItsListsSay) {
  const std::vector<Index> offsets{0, 2, 2, 3, 6}, tiles{0, 99, 64, 1, 63, 65};
  const TileSet set({.tiles = 100, .kv_heads = 2, .query_blocks = 2, .block_tokens = 8}, offsets, tiles);
  EXPECT_EQ(set.tiles(0, 0, 0), (std::vector<Index>{0, 99}));
  EXPECT_EQ(set.tiles(0, 0, 1), std::vector<Index>{});
  EXPECT_EQ(set.tiles(0, 1, 0), std::vector<Index>{64});
  EXPECT_EQ(set.tiles(0, 1, 1), (std::vector<Index>{1, 63, 65}));
  EXPECT_TRUE(set.contains(7, 1, 8, 63));
  EXPECT_FALSE(set.contains(7, 1, 7, 63));
}

TEST(TileSet, RefusesBadListsNamingThem) {
  const auto make = [](Index tiles, std::vector<Index> offsets, std::vector<Index> list) {
    return [=] { TileSet({.tiles = tiles}, offsets, list); };
  };
  expect_error(make(10, {0, 2}, {3, 3}), {"tiles[1] (3)", "above the tile before it"});
  expect_error(make(10, {0, 2}, {3, 2}), {"tiles[1] (2)", "above the tile before it"});
  expect_error(make(10, {0, 1}, {10}), {"tiles[0] (10)", "0 to 9"});
  expect_error(make(10, {0, 1}, {-1}), {"tiles[0] (-1)"});
  expect_error(make(10, {0}, {}), {"offsets (1 numbers)"});
  expect_error(make(10, {1, 1}, {1}), {"offsets[0] (1)"});
  expect_error(make(10, {0, 2}, {1}), {"offsets[1] (2)"});
  expect_error([] { TileSet({.tiles = -1}); }, {"tiles (-1)"});
  expect_error([] { TileSet({.tiles = 1, .sequences = 0}); }, {"sequences (0)"});
  expect_error([] { TileSet({.tiles = 100, .sequences = Index{1} << 30, .kv_heads = Index{1} << 30}); },
               {"less than 2^40"});
  TileSet set({.tiles = 3});
  expect_error([&] { set.insert(0, 0, 0, 3); }, {"tile (3)"});
  expect_error([&] { set.insert(1, 0, 0, 0); }, {"sequence (1)"});
}

TEST(MaskFunction, KnowsWhetherHeadsDiffer) {
  const auto four = [](Index, Index, Index, Index) { return true; };
  const auto three = [](Index, Index, Index key) { return key != 3; };
  EXPECT_TRUE(MaskFunction(four).by_head());
  EXPECT_FALSE(MaskFunction(three).by_head());
  EXPECT_EQ(MaskFunction(three)({0, 0, 0, 0, 64}), ~std::uint64_t{8});
  EXPECT_EQ(MaskFunction(three)({0, 0, 0, 0, 5}), std::uint64_t{0b10111});
}

}  // namespace
}  // namespace headwise
