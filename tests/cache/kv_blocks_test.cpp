// SPDX-License-Identifier: MIT
// What KvBlocks accepts, and how it names what it does not. What attention makes of it is tested in tests/attention.
#include "headwise/cache/kv_blocks.hpp"

#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <vector>

#include "tests/support/errors.hpp"

namespace headwise {
namespace {

using testing::expect_error;

class KvBlocksTest : public ::testing::Test {
 protected:
  // 5 blocks of 16 tokens, 2 sequences of up to 3 blocks
  View<const float> keys(Index blocks = 5, Index block_size = 16, Index heads = 2) const {
    return {memory.data(), blocks, block_size, heads, 8};
  }
  View<const bf16> values(Index blocks = 5, Index block_size = 16, Index heads = 2) const {
    return {halves.data(), blocks, block_size, heads, 4};
  }
  template <class Entries>
  KvBlocks make(const Entries& entries, const Integers& lengths) const {
    return {keys(), values(), BlockTable(entries.data(), 2, 3), lengths};
  }

  std::vector<float> memory = std::vector<float>(5 * 16 * 2 * 8);
  std::vector<bf16> halves = std::vector<bf16>(5 * 16 * 2 * 4);
};

TEST_F(KvBlocksTest, TableAndLengthsAreOfEitherWidth) {
  const std::vector<std::int32_t> narrow{4, 0, 1, 3, 2, 2}, narrow_lengths{48, 17};
  const std::vector<Index> wide{4, 0, 1, 3, 2, 2}, wide_lengths{48, 17};
  for (const KvBlocks& blocks : {make(narrow, narrow_lengths), make(wide, wide_lengths), make(wide, narrow_lengths)}) {
    EXPECT_EQ(blocks.num_blocks(), 5);
    EXPECT_EQ(blocks.block_size(), 16);
    EXPECT_EQ(blocks.num_sequences(), 2);
    EXPECT_EQ(blocks.num_tokens(0), 48);
    EXPECT_EQ(blocks.num_tokens(1), 17);
    EXPECT_EQ(blocks.table()(0, 0), 4);
    EXPECT_EQ(blocks.table()(1, 1), 2);
  }
}

TEST_F(KvBlocksTest, TheTableMayBeThePartOfAWiderOne) {
  const std::vector<std::int32_t> entries{4, 0, 1, -1, -1, 3, 2, 2}, lengths{48, 48};
  const KvBlocks blocks(keys(), values(), BlockTable(entries.data(), 2, 3, 5), lengths);
  EXPECT_EQ(blocks.table()(0, 2), 1);
  EXPECT_EQ(blocks.table()(1, 0), 3);
}

TEST_F(KvBlocksTest, EntriesThatNoLengthReachesAreNotLookedAt) {
  constexpr Index kAny = std::numeric_limits<Index>::min();
  EXPECT_NO_THROW(make(std::array<Index, 6>{4, kAny, kAny, kAny, kAny, kAny}, std::array<Index, 2>{16, 0}));
  EXPECT_NO_THROW(
      KvBlocks(keys(), values(), BlockTable(static_cast<const Index*>(nullptr), 2, 0), std::array<Index, 2>{}));
  EXPECT_NO_THROW(KvBlocks(keys(), values(), BlockTable(static_cast<const Index*>(nullptr), 0, 3), Integers()));
}

TEST_F(KvBlocksTest, AnEntryThatNamesNoBlockIsNamed) {
  expect_error(
      [&] {
        make(std::array<std::int32_t, 6>{4, 0, 5, 3, 2, 2}, std::array<Index, 2>{33, 0});
      },
      {"table[0][2] (5)", "0 to 4", "sequence 0 has 33 tokens in blocks of 16"});
  expect_error(
      [&] {
        make(std::array<Index, 6>{4, 0, 1, 3, -1, 2}, std::array<Index, 2>{48, 17});
      },
      {"table[1][1] (-1)", "0 to 4", "sequence 1 has 17 tokens"});
}

TEST_F(KvBlocksTest, LengthsThatDoNotFitAreNamed) {
  const std::vector<std::int32_t> entries{4, 0, 1, 3, 2, 2};
  expect_error([&] { make(entries, std::array<Index, 2>{48, 49}); }, {"lengths[1] (49)", "3 x 16"});
  expect_error([&] { make(entries, std::array<Index, 2>{-1, 0}); }, {"lengths[0] (-1)", "must be 0"});
  expect_error([&] { make(entries, std::array<Index, 2>{std::numeric_limits<Index>::max(), 0}); }, {"lengths[0]"});
  expect_error([&] { make(entries, std::array<Index, 1>{1}); }, {"lengths (1)", "sequence of the table (2)"});
}

TEST_F(KvBlocksTest, KeysAndValuesThatDisagreeAreNamed) {
  const std::vector<std::int32_t> entries{4, 0, 1, 3, 2, 2}, lengths{1, 1};
  const BlockTable table(entries.data(), 2, 3);
  expect_error([&] { KvBlocks(keys(), values(4), table, lengths); }, {"blocks (4) of the values", "keys (5)"});
  expect_error([&] { KvBlocks(keys(), values(5, 15), table, lengths); },
               {"block_size (15) of the values", "keys (16)"});
  expect_error([&] { KvBlocks(keys(), values(5, 16, 3), table, lengths); }, {"heads (3) of the values", "keys (2)"});
  expect_error([&] { KvBlocks(keys(5, 0), values(5, 0), table, lengths); }, {"block_size (0)", "at least 1"});
}

TEST_F(KvBlocksTest, ATableThatCannotBeIsNamed) {
  const std::vector<std::int32_t> entries(6);
  expect_error([&] { BlockTable(entries.data(), -1, 3); }, {"sequences (-1)", "block table"});
  expect_error([&] { BlockTable(entries.data(), 2, -3); }, {"max_blocks (-3)"});
  expect_error([&] { BlockTable(entries.data(), 2, 3, 2); }, {"row_stride (2)", "max_blocks (3)"});
  expect_error([&] { BlockTable(entries.data(), 2, 3, std::numeric_limits<Index>::max()); }, {"row_stride (9"});
  expect_error([&] { BlockTable(static_cast<const Index*>(nullptr), 2, 3); }, {"entries (null)", "2 x 3"});
}

}  // namespace
}  // namespace headwise
