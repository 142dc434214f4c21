// SPDX-License-Identifier: MIT
// Every index of a view, a mask, a map or a cache that is not there is named in checked mode.
#include <functional>

#include "tests/attention/inputs.hpp"
#include "tests/checked/checked_errors.hpp"

namespace headwise {
namespace {

using namespace testing;

TEST(CheckedViews, NameTheIndexThatIsNotThere) {
  std::vector<float> numbers(2 * 3 * 4 * 5);
  const View<float> view(numbers.data(), 2, 3, 4, 5);
  EXPECT_EQ(&view(1, 2, 3, 4), &numbers.back());
  expect_index_error([&] { view(2, 0, 0, 0); }, {"sequence of a view (2)", "below 2"});
  expect_index_error([&] { view(0, -1, 0, 0); }, {"token of a view (-1)", "below 3"});
  expect_index_error([&] { view(0, 0, 4, 0); }, {"head of a view (4)", "below 4"});
  expect_index_error([&] { view(0, 0, 0, 5); }, {"dimension of a view (5)", "below 5"});
  expect_index_error([&] { view.array().row(0, 3, 0); }, {"token of a view (3)", "below 3"});
}

TEST(CheckedViews, AreCheckedWhereTheyRepeatAndRunBackwards) {
  const float one = 1;
  const View<const float> repeated(&one, 1, 1000, 1, 1, Strides{0, 0, 0, 0});
  EXPECT_EQ(repeated(0, 999, 0, 0), 1.0f);
  expect_index_error([&] { repeated(0, 1000, 0, 0); }, {"token of a view (1000)"});
}

TEST(CheckedMaps, NameTheHeadThatIsNotThere) {
  const HeadMap map = HeadMap::contiguous(8, 2);
  EXPECT_EQ(map.kv_head_of(7), 1);
  expect_index_error([&] { map.kv_head_of(8); }, {"query head of a HeadMap (8)", "below 8"});
  expect_index_error([&] { map.query_heads_of(2); }, {"KV head of a HeadMap (2)", "below 2"});
}

TEST(CheckedMasks, NameTheIndexThatIsNotThere) {
  const std::vector<std::uint8_t> elements(2 * 3 * 70, 1);
  const Mask mask(elements.data(), 2, 1, 3, 70);
  EXPECT_EQ(mask.row(1, 5, 2), reinterpret_cast<const char*>(elements.data()) + 5 * 70);  // one head serves all
  expect_index_error([&] { mask.row(2, 0, 0); }, {"sequence of the mask (2)", "below 2"});
  expect_index_error([&] { mask.row(0, 0, 3); }, {"query of the mask (3)", "below 3"});
  expect_index_error([&] { mask.check_keys(64, 7); }, {"keys of the mask (from 64 on, 7 of them)", "70"});
  mask.check_keys(64, 6);

  const std::uint64_t words[] = {1, 3};
  expect_index_error([&] { TreeMask(words, 2, 1).row(2); }, {"row of the tree mask (2)", "below 2"});

  const TileSet tiles({.tiles = 4, .sequences = 2, .kv_heads = 3});
  expect_index_error([&] { tiles.list_for(2, 0, 0); }, {"sequence of the tile set (2)"});
  expect_index_error([&] { tiles.list_for(0, 3, 0); }, {"KV head of the tile set (3)"});

  const RelativeBias bias(std::vector<float>(64), 2);
  expect_index_error([&] { bias(2, 0); }, {"head of the relative bias (2)"});
}

/// A source that does something when its tile is asked for: the caller's memory changes under a call.
struct Meddling {
  const KvCache<float>& cache;
  std::function<void()> meddle;

  TileFormat format() const { return cache.layer().format(); }
  Index num_sequences() const { return 1; }
  Index num_tokens(Index) const { return cache.num_tokens(); }
  TilePointers tile(Index b, Index g, Index i) const {
    if (i == 1) meddle();
    return cache.layer().tile(b, g, i);
  }
};

/// A call over 130 tokens during which `meddle` is called.
void attend_while(const Options& options, const std::function<void()>& meddle) {
  const Inputs in({4, 2, 16}, 1, 3, 130);
  KvCache<float> cache(in.heads, 130);
  cache.append(View<const float>(in.k.data(), 130, 2, 16), View<const float>(in.v.data(), 130, 2, 16));
  std::vector<float> out(in.q.size());
  Attention<>{in.heads}(View<const float>(in.q.data(), 3, 4, 16), Meddling{cache, meddle},
                        View<float>(out.data(), 3, 4, 16), options);
}

TEST(CheckedOptions, ThatChangeUnderACallAreCaught) {
  std::vector<Index> lengths{130}, queries{3}, boundaries{0, 2, 4};
  attend_while({.key_lengths = lengths}, [] {});
  attend_while({.query_lengths = queries}, [] {});
  attend_while({.group_boundaries = boundaries}, [] {});
  expect_index_error([&] { attend_while({.key_lengths = lengths}, [&] { lengths[0] = 131; }); },
                     {"key_lengths[0] (131)", "130"});
  expect_index_error([&] { attend_while({.group_boundaries = boundaries}, [&] { boundaries[1] = 9; }); },
                     {"group_boundaries (0 to 9 of KV head 0)", "num_heads (4)"});
  boundaries[1] = 2;
  expect_index_error([&] { attend_while({.group_boundaries = boundaries}, [&] { boundaries[1] = -3; }); },
                     {"group_boundaries (0 to -3 of KV head 0)"});
}

TEST(CheckedCalls, OfWorkThatDoesNotFitIsNamed) {
  const Inputs in({4, 2, 16}, 1, 3, 130);
  KvCache<float> cache(in.heads, 130);
  cache.append(View<const float>(in.k.data(), 130, 2, 16), View<const float>(in.v.data(), 130, 2, 16));
  const CacheLayer layer = cache.layer();
  const HeadMap map = HeadMap::contiguous(4, 2);
  const Options options;
  const detail::CallShape call{3, detail::source_ref(layer), {map, {}}, &options};
  const detail::WorkspaceShape shape{layer.format(), 1, 6, 1};
  const detail::WorkItem good{0, 0, 1, 0, 6, {0, 1}, 130, {}};
  check_item(call, good, shape, 0);
  const auto refuse = [&](auto change, std::string_view what) {
    detail::WorkItem item = good;
    change(item);
    expect_index_error([&] { check_item(call, item, shape, 5); }, {what});
  };
  refuse([](auto& item) { item.sequence = 1; }, "sequence of a work item (1)");
  refuse([](auto& item) { item.kv_head = 2; }, "KV heads of a work item (from 2 on, 1 of them)");
  refuse([](auto& item) { item.kv_heads = 2; }, "KV heads of a work item");
  refuse([](auto& item) { item.rows = 7; }, "rows of a work item (from 0 on, 7 of them)");
  refuse([](auto& item) { item.segments.end = 4; }, "partial sums of a work item");
  refuse([](auto& item) { item.partial = 0; }, "partial sums of a work item (from 0 on, 6 of them)");
}

TEST(CheckedTiles, SlotsAndRowsBeyondATileAreNamed) {
  const TileFormat format{Storage::f32, Storage::f32, 1, 16, 16};
  std::vector<std::byte> tile(static_cast<std::size_t>(format.bytes()));
  float row[16];
  expect_index_error([&] { detail::read_stored_key(format, tile.data(), 64, row); }, {"slot of a tile (64)"});
  expect_index_error([&] { detail::read_stored_value(format, tile.data(), -1, row); }, {"slot of a tile (-1)"});
  expect_index_error([&] { detail::clear_slots(format, tile.data(), 60, 65); }, {"slots of a tile (from 60 on, 5"});
  expect_index_error([&] { detail::move_slots(format, 0, tile.data(), 10, tile.data(), 60, 8, nullptr, nullptr, {}); },
                     {"slots of a tile (from 60 on, 8"});
  const std::vector<float> numbers(16 * 16);
  const detail::RowSource rows(View<const float>(numbers.data(), 16, 1, 16).array(), 0, 0, 0);
  const detail::BlockTarget target{&format, tile.data(), 8, 16, 0};
  expect_index_error([&] { detail::write_block(target, rows, rows, {}); }, {"slots of a block (from 8 on, 16"});
}

TEST(CheckedPages, OfAPoolAreNamed) {
  detail::PagePool pool(4);
  EXPECT_FALSE(pool.is_indexed(3));
  expect_index_error([&] { pool.uses(4); }, {"page id (4)", "below 4"});
  expect_index_error([&] { pool.is_writable(-1); }, {"page id (-1)"});
  const detail::PageTable table{{2, 3}, {100}};
  EXPECT_EQ(table.page(1), 3);
  expect_index_error([&] { table.page(2); }, {"page of a sequence (2)", "below 2"});
}

}  // namespace
}  // namespace headwise
