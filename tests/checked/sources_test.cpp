// SPDX-License-Identifier: MIT
// What a source of keys and values answers is not believed in checked mode: neither the caller's tables and lengths, which
// may have changed since they were checked, nor the tiles of a TileSource of the user's own.
#include <functional>

#include "tests/attention/inputs.hpp"
#include "tests/checked/checked_errors.hpp"

namespace headwise {
namespace {

using namespace testing;

/// A call over 200 tokens of 2 KV heads, whose source is made after `keys`, from these numbers.
struct Call {
  Inputs in{{4, 2, 16}, 1, 3, 200};
  std::vector<float> out = std::vector<float>(in.q.size());

  template <class S, class E = const Serial&>
  void operator()(const S& source, const Options& options = {}, E&& executor = Serial{}) {
    Attention<>{in.heads}(View<const float>(in.q.data(), 3, 4, 16), source, View<float>(out.data(), 3, 4, 16), options,
                          executor);
  }
};

/// The keys and values in blocks of 16 tokens, one after another, and the table and lengths that say so.
struct Blocks {
  const Inputs& in;
  std::vector<std::int32_t> table{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13};  // two more than there are blocks
  std::vector<Index> lengths{192};
  KvBlocks source;

  explicit Blocks(const Inputs& inputs)
      : in(inputs),
        source(View<const float>(in.k.data(), 12, 16, 2, 16), View<const float>(in.v.data(), 12, 16, 2, 16),
               BlockTable(table.data(), 1, 14), lengths) {}
};

TEST(CheckedBlocks, AreReadWhereNothingHasChanged) {
  Call call;
  const Blocks blocks(call.in);
  call(blocks.source);
}

TEST(CheckedBlocks, TableEntriesThatChangeAreCaughtWhenTheyAreRead) {
  Call call;
  Blocks blocks(call.in);
  blocks.table[3] = 12;
  expect_index_error([&] { call(blocks.source); }, {"table[0][3] (12)", "0 to 11"});
  blocks.table[3] = -1;
  expect_index_error([&] { call(blocks.source); }, {"table[0][3] (-1)"});
  ThreadPool pool(3);
  expect_index_error([&] { call(blocks.source, {}, pool); }, {"table[0][3] (-1)"});
  blocks.table[3] = 3;
  call(blocks.source, {}, pool);  // and everything goes on
}

TEST(CheckedBlocks, LengthsThatGrowAreCaught) {
  Call call;
  Blocks blocks(call.in);
  blocks.lengths[0] = 14 * 16 + 1;
  expect_index_error([&] { call(blocks.source); }, {"lengths[0] (225)", "14 x 16"});
  blocks.lengths[0] = -5;
  expect_index_error([&] { call(blocks.source); }, {"lengths[0] (-5)"});
  blocks.lengths[0] = 193;  // within the table, whose next entry was never one of a block
  expect_index_error([&] { call(blocks.source); }, {"table[0][12] (12)"});
}

TEST(CheckedBlocks, IndicesOfTablesAndNumbersAreNamed) {
  const Call call;
  const Blocks blocks(call.in);
  expect_index_error([&] { blocks.source.table()(1, 0); }, {"sequence of a block table (1)", "below 1"});
  expect_index_error([&] { blocks.source.table()(0, 14); }, {"entry of a block table (14)", "below 14"});
  const std::vector<std::int32_t> numbers{1, 2};
  expect_index_error([&] { return Integers(numbers)[2]; }, {"(2)", "below 2"});
}

/// A cache behind the interface of a source, of which a test changes answers.
struct OwnSource {
  const KvCache<float>& cache;
  std::function<TilePointers(Index tile, TilePointers)> change_tile = [](Index, TilePointers t) { return t; };
  std::function<Index(Index asked)> tokens = [](Index) { return Index{200}; };
  mutable Index asked = 0;

  TileFormat format() const { return cache.layer().format(); }
  Index num_sequences() const { return 1; }
  Index num_tokens(Index) const { return tokens(asked++); }
  TilePointers tile(Index b, Index g, Index i) const { return change_tile(i, cache.layer().tile(b, g, i)); }
};
static_assert(TileSource<OwnSource>);

KvCache<float> cache_of(const Inputs& in) {
  KvCache<float> cache(in.heads, 256);
  cache.append(View<const float>(in.k.data(), 200, 2, 16), View<const float>(in.v.data(), 200, 2, 16));
  return cache;
}

TEST(CheckedSources, TilesThatAreNotThereOrNotAlignedAreCaught) {
  Call call;
  const KvCache<float> cache = cache_of(call.in);
  OwnSource source{cache};
  call(source);
  source.change_tile = [](Index i, TilePointers t) { return i == 2 ? TilePointers{nullptr, t.values} : t; };
  expect_index_error([&] { call(source); }, {"keys of tile 2 of KV head 0 of sequence 0 (null)"});
  source.change_tile = [](Index i, TilePointers t) { return i == 1 ? TilePointers{t.keys, nullptr} : t; };
  expect_index_error([&] { call(source); }, {"values of tile 1 of KV head 0 of sequence 0 (null)"});
  source.change_tile = [](Index i, TilePointers t) {
    return i == 3 ? TilePointers{static_cast<const char*>(t.keys) + 4, t.values} : t;
  };
  expect_index_error([&] { call(source); }, {"keys of tile 3", "aligned to 64 bytes"});
  ThreadPool pool(2);
  expect_index_error([&] { call(source, {}, pool); }, {"keys of tile 3"});
}

TEST(CheckedSources, LengthsThatChangeDuringACallAreCaught) {
  Call call;
  const KvCache<float> cache = cache_of(call.in);
  OwnSource counting{cache};
  call(counting);
  const Index questions = counting.asked;
  ASSERT_GT(questions, 3);
  // the last of them come when tiles are under way
  for (const Index later : {Index{70}, Index{4000}}) {
    OwnSource source{cache};
    source.tokens = [&](Index asked) { return asked < questions - 1 ? Index{200} : later; };
    expect_index_error([&] { call(source); }, {"tokens (" + std::to_string(later) + ")", "were 200"});
  }
  OwnSource negative{cache};
  negative.tokens = [](Index) { return Index{-64}; };
  expect_index_error([&] { call(negative); }, {"tokens (-64) of sequence 0"});
}

TEST(CheckedSources, MoreTilesThanACacheHoldsAreCaughtByTheCache) {
  Call call;
  const KvCache<float> cache = cache_of(call.in);
  OwnSource source{cache};
  source.tokens = [](Index) { return Index{500}; };  // of which the cache knows nothing
  expect_index_error([&] { call(source); }, {"tile (4) of sequence 0", "200"});
}

TEST(CheckedSources, TilesBeyondASequenceAreNamedByEveryCache) {
  const Inputs in({2, 2, 16}, 1, 1, 200);
  const KvCache<float> cache = cache_of(in);
  expect_index_error([&] { cache.layer().tile(0, 0, 4); }, {"tile (4)"});
  expect_index_error([&] { cache.layer().tile(0, 2, 0); }, {"KV head of a cache (2)", "below 2"});
  expect_index_error([&] { cache.layer().tile(1, 0, 0); }, {"sequence of a cache (1)", "below 1"});
  expect_index_error([&] { cache.layer().tile(0, 0, -1); }, {"tile (-1)"});

  PagedCache<float> pages(in.heads, 8, {.page_tokens = 64});
  const SequenceId id = pages.create();
  pages.append(0, id, View<const float>(in.k.data(), 200, 2, 16), View<const float>(in.v.data(), 200, 2, 16));
  const std::vector<SequenceId> ids{id};
  const PagedLayer layer = pages.layer(0, ids);
  expect_index_error([&] { layer.tile(0, 0, 4); }, {"page of a sequence (4)", "below 4"});
  expect_index_error([&] { layer.tile(0, -1, 0); }, {"KV head of a page (-1)"});
  expect_index_error([&] { layer.tile(2, 0, 0); }, {"sequence of a PagedLayer (2)"});
}

TEST(CheckedSources, ARingIsNotAskedForWhatItHasForgotten) {
  const Inputs in({2, 2, 16}, 1, 1, 1000);
  const LayerShape shape{.num_kv_heads = 2, .head_dim = 16, .window = 100};
  KvCache<float> ring(std::span(&shape, 1), 1, {.max_append = 1});
  for (Index t = 0; t < 1000; ++t)
    ring.append(View<const float>(in.k.data() + t * 32, 1, 2, 16), View<const float>(in.v.data() + t * 32, 1, 2, 16));
  EXPECT_NE(ring.layer().tile(0, 0, 15).keys, nullptr);
  expect_index_error([&] { ring.layer().tile(0, 0, 5); }, {"tile (5) of sequence 0"});
}

TEST(CheckedSources, ASequenceReleasedBehindALayersBackIsCaught) {
  Call call;
  PagedCache<float> pages(call.in.heads, 8);
  const std::vector<SequenceId> ids{pages.create()};
  pages.append(0, ids[0], View<const float>(call.in.k.data(), 200, 2, 16),
               View<const float>(call.in.v.data(), 200, 2, 16));
  const PagedLayer layer = pages.layer(0, ids);
  call(layer);
  pages.release(ids[0]);
  expect_index_error([&] { call(layer); }, {"sequence 0", "in use"});
}

}  // namespace
}  // namespace headwise
