// SPDX-License-Identifier: MIT
// Chunks, prefixes that all queries see, and padding on the left: the definition, alone and with the other intervals; the
// same bits however a prompt is cut; and nothing hidden is touched.
#include <array>

#include "headwise/parallel/thread_pool.hpp"
#include "tests/attention/oracle.hpp"
#include "tests/attention/ragged.hpp"
#include "tests/support/tile_sources.hpp"

namespace headwise {
namespace {

using namespace testing;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

class Intervals : public EveryIsa {};

/// Shapes around the ends of tiles and segments.
struct Lengths {
  Index queries, keys;
};
constexpr std::array<Lengths, 6> kLengths{{{1, 200}, {90, 250}, {40, 40}, {70, 60}, {3, 2100}, {1, 1}}};

TEST_P(Intervals, ChunksHideWhatIsBeforeThem) {
  for (const auto& [queries, keys] : kLengths)
    for (const Index chunk : {Index{1}, Index{7}, Index{63}, Index{64}, Index{65}, Index{1024}, Index{5000}})
      for (const Source source : {Source::cache, Source::packed_rows}) {
        const Inputs in({4, 2, 8}, 1, queries, keys, 61);
        expect_defined(in, {.source = source}, {.chunk_size = chunk});
        expect_defined(in, {.source = source}, {.causal = false, .chunk_size = chunk});
        expect_defined(in, {.source = source}, {.window = 20, .num_sink_tokens = 3, .chunk_size = chunk});
        if (HasFatalFailure()) return;
      }
}

TEST_P(Intervals, PrefixesAreSeenByEveryQuery) {
  for (const auto& [queries, keys] : kLengths)
    for (const Index prefix : {Index{0}, Index{1}, Index{33}, Index{64}, Index{130}, Index{1500}}) {
      const Inputs in({4, 2, 8}, 2, queries, keys, 62);
      const std::vector<Index> prefixes{std::min(prefix, keys), std::min(prefix / 2, keys)};
      for (const Source source : {Source::cache, Source::packed_rows}) {
        expect_defined(in, {.source = source}, {.prefix_lengths = prefixes});
        expect_defined(in, {.source = source}, {.window = 20, .prefix_lengths = prefixes});
        expect_defined(in, {.source = source}, {.causal = false, .window_right = 4, .prefix_lengths = prefixes});
        if (HasFatalFailure()) return;
      }
    }
}

TEST_P(Intervals, PaddingOnTheLeftIsNotThere) {
  for (const auto& [queries, keys] : kLengths)
    for (const Index start : {Index{0}, Index{1}, Index{63}, Index{64}, Index{100}, Index{1030}}) {
      const Inputs in({4, 2, 8}, 2, queries, keys, 63);
      const std::vector<Index> starts{std::min(start, keys), std::min(start / 3, keys)};
      for (const Source source : {Source::cache, Source::packed_rows}) {
        expect_defined(in, {.source = source}, {.key_starts = starts});
        expect_defined(in, {.source = source}, {.causal = false, .key_starts = starts});
        expect_defined(in, {.source = source}, {.window = 30, .num_sink_tokens = 5, .key_starts = starts});
        expect_defined(in, {.source = source}, {.chunk_size = 50, .key_starts = starts});
        if (HasFatalFailure()) return;
      }
    }
}

TEST_P(Intervals, AllTogetherMeanWhatTheDefinitionSays) {
  unsigned seed = 64;
  for (const Index keys : {90, 300, 2500}) {
    const std::vector<Index> lengths{keys, keys / 2, 1, keys - 7}, starts{0, keys / 3, 1, 70},
        prefixes{keys / 4, keys / 2, 0, 100 % (keys - 7)};
    const Inputs in({4, 2, 8}, 4, 20, keys, seed++);
    for (const Index sinks : {0, 2, 80})
      for (const std::optional<Index> window :
           {std::optional<Index>{}, std::optional<Index>{0}, std::optional<Index>{40}})
        for (const std::optional<Index> chunk : {std::optional<Index>{}, std::optional<Index>{33}}) {
          const Options options{.window = window,
                                .num_sink_tokens = sinks,
                                .chunk_size = chunk,
                                .prefix_lengths = prefixes,
                                .key_starts = starts,
                                .key_lengths = lengths};
          for (const Storage storage : {Storage::f32, Storage::bf16}) {
            expect_defined(in, {.storage = storage}, options);
            if (HasFatalFailure()) return;
          }
        }
  }
}

HEADWISE_FOR_EVERY_ISA(Intervals);

/// Options of four sequences that hold much of what the tests above do.
struct Mixed {
  std::vector<Index> starts{0, 70, 1, 300}, prefixes{400, 0, 130, 350};
  Options options() const {
    return {.window = 500, .num_sink_tokens = 4, .chunk_size = 700, .prefix_lengths = prefixes, .key_starts = starts};
  }
};

TEST(AttentionIntervals, AreTheSameForASequenceAloneForAnyThreadsAndPlanned) {
  const RaggedBatch batch({4, 2, 16}, {{3, 1500}, {1, 90}, {40, 200}, {1, 2600}}, 65);
  const Mixed mixed;
  const Options options = batch.over_all(mixed.options());
  const auto cache = cache_of<float>(batch.keys);
  const Results all = run_over(cache, batch.queries, options);
  ThreadPool pool(4);
  EXPECT_EQ(run_over(cache, batch.queries, options, pool), all);

  const Attention<> attend(batch.queries.heads);
  const AttentionPlan plan = attend.plan(batch.queries.query_tokens, cache, options, pool);
  Results planned = all;
  std::fill(planned.output.begin(), planned.output.end(), kNan);
  const Index tokens = batch.queries.query_tokens;
  attend(plan, View<const float>(batch.queries.q.data(), tokens, 4, 16), cache,
         {View<float>(planned.output.data(), tokens, 4, 16), View<float>(planned.lse.data(), tokens, 4, 1)}, pool);
  EXPECT_EQ(planned, all);

  Results alone;
  for (std::size_t b = 0; b < 4; ++b) {
    Options one = mixed.options();
    one.key_starts = one.key_starts.subspan(b, 1);
    one.prefix_lengths = one.prefix_lengths.subspan(b, 1);
    const Results results = run(batch.alone(static_cast<Index>(b)), {}, one);
    alone.output.insert(alone.output.end(), results.output.begin(), results.output.end());
    alone.lse.insert(alone.lse.end(), results.lse.begin(), results.lse.end());
  }
  EXPECT_EQ(alone, all);
}

TEST(AttentionIntervals, PoisonInPaddingAndOtherChunksReachesNothing) {
  const Inputs clean({4, 2, 24}, 1, 3, 1300, 66);
  Inputs bad = clean;
  const std::vector<Index> starts{70};
  // chunks of 600 begin at 70: the queries, 1297 to 1299, are in the one from 1270 on
  for (Index t = 0; t < 1270; ++t)
    for (Index g = 0; g < 2; ++g)
      if (t < 70 || t >= 75) {  // five sink tokens
        std::fill_n(bad.key(0, t, g), 24, kNan);
        std::fill_n(bad.value(0, t, g), 24, kNan);
      }
  const Options options{.num_sink_tokens = 5, .chunk_size = 600, .key_starts = starts};
  for (const Storage storage : kAllStorages)
    for (const Source source : kAllSources) {
      const Route route{.source = source, .storage = storage};
      EXPECT_EQ(run(bad, route, options), run(clean, route, options)) << testing::name_of(source);
    }
}

TEST(AttentionIntervals, TilesOfPaddingAndOtherChunksAreNeverAskedFor) {
  const Inputs in({4, 2, 16}, 1, 2, 2000, 67);
  const auto cache = cache_of<float>(in);
  const auto layer = cache.layer();
  const CountingSource source(layer);
  const std::vector<Index> starts{130};
  run_over(source, in, {.num_sink_tokens = 20, .chunk_size = 800, .key_starts = starts});
  for (Index tile = 0; tile < 32; ++tile)  // 20 sink tokens from 130 on, and the chunk of the queries from 1730 on
    EXPECT_EQ(source.calls(0, 0, tile), tile == 2 || tile >= 1730 / 64 ? 1 : 0) << tile;
  EXPECT_EQ(source.beyond(), 0);
}

TEST(AttentionIntervals, ImpossibleOnesAreNamed) {
  const Inputs in({4, 2, 16}, 2, 3, 50, 68);
  const std::vector<Index> one{3}, low{0, -1}, high{51, 2};
  const auto expect_named = [&](const Options& options, const std::string& text) {
    try {
      run(in, {}, options);
      ADD_FAILURE() << "expected: " << text;
    } catch (const std::invalid_argument& error) {
      EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what();
    }
  };
  expect_named({.chunk_size = 0}, "chunk_size (0) must be at least 1");
  expect_named({.prefix_lengths = one}, "prefix_lengths (1 lengths) must hold one length per sequence (2)");
  expect_named({.prefix_lengths = low}, "prefix_lengths[1] (-1) must be 0 to the keys of the sequence (50)");
  expect_named({.key_starts = high}, "key_starts[0] (51) must be 0 to the keys of the sequence (50)");
  const std::vector<Index> lengths{20, 50}, starts{21, 0};
  expect_named({.key_starts = starts, .key_lengths = lengths},
               "key_starts[0] (21) must be 0 to the keys of the sequence (20)");
}

}  // namespace
}  // namespace headwise
