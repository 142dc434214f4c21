// SPDX-License-Identifier: MIT
// What attention touches and what it allocates: tiles that no query sees are never asked for, and memory of its own
// grows with the threads and not with the keys.
#include <algorithm>
#include <bit>
#include <thread>

#include "tests/attention/run.hpp"
#include "tests/support/allocation_counts.hpp"
#include "tests/support/sanitizers.hpp"
#include "tests/support/tile_sources.hpp"

namespace headwise {
namespace {

using namespace testing;

/// Whether some of `queries` tokens at the end of `keys` sees a key of this tile through the window.
bool is_seen(Index tile, Index queries, Index keys, Index window) {
  for (Index p = keys - queries; p < keys; ++p)
    for (Index key = std::max<Index>(0, p - window + 1); key <= p; ++key)
      if (key / kTileTokens == tile) return true;
  return false;
}

/// Tiles that a windowed call asks for, all KV heads together.
template <class E>
Index tiles_asked_for(Index queries, Index keys, std::optional<Index> window, E&& executor) {
  const Inputs in({2, 1, 8}, 1, queries, keys);
  const auto cache = cache_of<float>(in);
  const auto layer = cache.layer();
  const CountingSource counting(layer);
  std::vector<float> out(in.q.size());
  Attention<>{in.heads}(View<const float>(in.q.data(), queries, 2, 8), counting, View<float>(out.data(), queries, 2, 8),
                        {.window = window}, executor);
  return counting.calls();
}

struct Lengths {
  Index queries, keys;
};

class AttentionWindow : public ::testing::TestWithParam<Lengths> {};

TEST_P(AttentionWindow, TilesThatNoQuerySeesAreNeverAskedFor) {
  const auto [queries, keys] = GetParam();
  const Inputs in({4, 2, 8}, 2, queries, keys);
  const auto cache = cache_of<float>(in);
  const auto layer = cache.layer();
  std::vector<float> out(in.q.size());
  ThreadPool pool(3);
  for (const Index window : {0, 1, 2, 63, 64, 65, 127, 128, 129, 1023, 1024, 1025, 5000}) {
    const CountingSource counting(layer);
    Attention<>{in.heads}(View<const float>(in.q.data(), 2, queries, 4, 8), counting,
                          View<float>(out.data(), 2, queries, 4, 8), {.window = window}, pool);
    EXPECT_EQ(counting.beyond(), 0) << "window " << window;
    for (Index tile = 0; tile < ceil_div(keys, kTileTokens); ++tile) {
      const bool seen = is_seen(tile, queries, keys, window);
      for (const Index sequence : {0, 1})
        for (const Index head : {0, 1})
          EXPECT_EQ(counting.calls(sequence, head, tile) > 0, seen)
              << "tile " << tile << " of KV head " << head << " of sequence " << sequence << ", window " << window;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(DecodeAndPrefill, AttentionWindow,
                         ::testing::Values(Lengths{1, 1}, Lengths{1, 64}, Lengths{1, 65}, Lengths{1, 1000},
                                           Lengths{1, 1024}, Lengths{1, 1025}, Lengths{1, 2111}, Lengths{7, 2112},
                                           Lengths{130, 130}, Lengths{200, 1500}),
                         [](const auto& lengths) {
                           return std::to_string(lengths.param.queries) + "_queries_" +
                                  std::to_string(lengths.param.keys) + "_keys";
                         });

TEST(AttentionWindowCost, MakesTilesOfAPrefillGrowWithItsLengthAndNotWithItsSquare) {
  Serial serial;
  const Index few = tiles_asked_for(1000, 1000, {}, serial), many = tiles_asked_for(2000, 2000, {}, serial);
  EXPECT_GT(many, 3 * few);
  const Index few_seen = tiles_asked_for(1000, 1000, 100, serial), many_seen = tiles_asked_for(2000, 2000, 100, serial);
  EXPECT_LE(many_seen, 2 * few_seen + 8);  // the first tokens see fewer keys than all others
}

TEST(AttentionWindowCost, MakesTilesOfDecodeIndependentOfTheKeys) {
  Serial serial;
  EXPECT_EQ(tiles_asked_for(1, 1000, 100, serial), tiles_asked_for(1, 1000 + 64 * 30, 100, serial));
}

#if !defined(HEADWISE_TEST_ASAN) && !defined(HEADWISE_TEST_TSAN)

struct Allocated {
  long first_bytes;  // by the first call
  long later_calls;  // allocations by the two calls after it
};

/// What attention of these lengths allocates, by threads that have run nothing before.
Allocated allocated_by(const Heads<>& heads, Lengths lengths, Index threads) {
  Allocated result{};
  std::thread([&] {
    MeetingPool pool(threads);
    const EndlessTile<float> source(heads, lengths.keys, pool);
    const Attention<> attend(heads);
    const std::vector<float> q(static_cast<std::size_t>(lengths.queries * heads.num_heads() * heads.head_dim()), 0.5f);
    std::vector<float> out(static_cast<std::size_t>(lengths.queries * heads.num_heads() * heads.value_dim()));
    const auto call = [&] {
      attend(View<const float>(q.data(), lengths.queries, heads.num_heads(), heads.head_dim()), source,
             View<float>(out.data(), lengths.queries, heads.num_heads(), heads.value_dim()), {}, pool);
    };
    const long bytes = allocated_bytes;
    call();
    result.first_bytes = allocated_bytes - bytes;
    const long before = allocations;
    for (int i = 0; i < 2; ++i) call();
    result.later_calls = allocations - before;
  }).join();
  return result;
}

/// A row's sums over some keys: a maximum, a sum and value_dim numbers.
Index state_bytes(Index value_dim) { return (value_dim + 2) * 4; }

/// What a call may allocate. For each thread: a row's query, scores, weights and sums; a few tiles in f32; states, of
/// which as many are kept, by a thread and for it, as a binary tree over the segments of 1024 keys is deep, a few times.
/// None of it is as long as the keys: scores would take rows · keys · 4 bytes.
Index allowed_bytes(Index rows, Index head_dim, Index value_dim, Index keys, Index threads) {
  const auto depth = static_cast<Index>(std::bit_width(static_cast<std::size_t>(keys / 1024)));
  const Index row = (head_dim + 2 * kTileTokens + 2 * kMaxLanes) * 4 + 4 * depth * state_bytes(value_dim);
  const Index tile = kTileTokens * (head_dim + value_dim) * 4, plan = 4096;
  return threads * (rows * row + 4 * tile + plan);
}

TEST(AttentionMemory, OfDecodingIsFarFromAScoreForEveryKey) {
  const Index rows = 4, dim = 32, threads = 4;
  for (const Index keys : {Index{4096}, Index{65536}, Index{262144}}) {
    const Index allowed = allowed_bytes(rows, dim, dim, keys, threads);
    if (keys >= 65536) {
      ASSERT_LT(allowed, rows * keys * 2) << "scores of every key, be they f16, would not be noticed";
    }
    for (const Index kv_heads : {1, 4}) {  // split along the keys; one KV head for each thread
      const Allocated decoding = allocated_by({rows * kv_heads, kv_heads, dim}, {1, keys}, threads);
      EXPECT_GT(decoding.first_bytes, 0);
      EXPECT_LE(decoding.first_bytes, allowed) << kv_heads << " KV heads of " << keys << " keys";
      EXPECT_EQ(decoding.later_calls, 0) << kv_heads << " KV heads of " << keys << " keys";
    }
  }
}

TEST(AttentionMemory, GrowsByAFewStatesOfEachRowWhereTheKeysDouble) {
  const Index rows = 4, dim = 32, threads = 4, doublings = 4;
  const Heads<> heads{rows, 1, dim};
  const long few = allocated_by(heads, {1, 16384}, threads).first_bytes;
  const long many = allocated_by(heads, {1, 16384 << doublings}, threads).first_bytes;
  EXPECT_LE(many - few, threads * doublings * 5 * rows * state_bytes(dim));
}

TEST(AttentionMemory, OfAPrefillHoldsNoScoresButATile) {
  const Index tokens = 2000, heads = 2, dim = 8, threads = 4, most_rows = 128;
  const Allocated prefill = allocated_by({heads, 1, dim}, {tokens, tokens}, threads);
  const Index row_tiles = 16 * tokens * heads;  // the plan: a few words for some dozens of rows
  const Index allowed = allowed_bytes(most_rows, dim, dim, tokens, threads) + row_tiles;
  ASSERT_LT(allowed, tokens * tokens * heads / 4);
  EXPECT_GT(prefill.first_bytes, 0);
  EXPECT_LE(prefill.first_bytes, allowed);
  EXPECT_EQ(prefill.later_calls, 0);
}

#endif

}  // namespace
}  // namespace headwise
