// SPDX-License-Identifier: MIT
// Masks that do not fit a call are refused by name, before anything is written.
#include "tests/attention/run.hpp"
#include "tests/support/errors.hpp"

namespace headwise {
namespace {

using namespace testing;

/// The error of a call of 2 sequences of 3 queries and 130 keys, 4 heads over 2.
void expect_refused(const Options& options, std::initializer_list<std::string_view> parts) {
  const Inputs in({4, 2, 8}, 2, 3, 130);
  expect_error([&] { run(in, {}, options); }, parts);
  const auto cache = cache_of<float>(in);
  expect_error([&] { Attention<>(in.heads).plan(3, cache, options); }, parts);
}

TEST(MaskErrors, NameTheMaskAndWhatWasExpected) {
  const std::vector<std::uint8_t> bytes(5 * 5 * 5 * 200);
  const auto mask = [&](Index b, Index h, Index q, Index k) { return Options{.mask = Mask(bytes.data(), b, h, q, k)}; };
  expect_refused(mask(3, 1, 3, 130), {"sequences of the mask (3)", "(2)"});
  expect_refused(mask(1, 2, 3, 130), {"heads of the mask (2)", "num_heads (4)"});
  expect_refused(mask(1, 1, 2, 130), {"queries of the mask (2)", "tokens of q (3)"});
  expect_refused(mask(1, 1, 4, 130), {"queries of the mask (4)"});
  expect_refused(mask(1, 1, 3, 129), {"keys of the mask (129)", "(130)"});
}

TEST(MaskErrors, NameTheTreeAndWhatWasExpected) {
  const std::vector<std::uint64_t> words(20);
  expect_refused({.tree_mask = TreeMask(words.data(), 2, 1)}, {"rows of the tree mask (2)", "(3)", "(6)"});
  expect_refused({.tree_mask = TreeMask(words.data(), 5, 1)}, {"rows of the tree mask (5)"});
}

TEST(MaskErrors, NameTheTileSetAndWhatWasExpected) {
  const auto refused = [](const TileSetShape& shape, std::initializer_list<std::string_view> parts) {
    const TileSet set(shape);
    expect_refused({.tile_set = &set}, parts);
  };
  refused({.tiles = 2}, {"tiles of tile_set (2)", "(3)"});
  refused({.tiles = 3, .sequences = 3}, {"sequences of tile_set (3)", "(2)"});
  refused({.tiles = 3, .kv_heads = 4}, {"kv_heads of tile_set (4)", "num_kv_heads (2)"});
  refused({.tiles = 3, .query_blocks = 2, .block_tokens = 1}, {"query_blocks of tile_set (2)", "(3)"});
}

}  // namespace
}  // namespace headwise
