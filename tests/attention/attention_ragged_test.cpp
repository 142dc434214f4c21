// SPDX-License-Identifier: MIT
// Ragged batches (Options::query_offsets): sequences with any numbers of queries in one call, each with the bits that it
// has alone.
#include <array>

#include "tests/attention/ragged.hpp"
#include "tests/support/errors.hpp"

namespace headwise {
namespace {

using namespace testing;

constexpr std::array<float, 8> kSlopes{0.5f, 0.25f, 0.125f, 0.0625f, 1.0f, 0.0f, 0.01f, 0.75f};

/// A prompt, appended tokens, decoding and a sequence that waits; long and short keys, and none.
const std::vector<RaggedSequence> kMixed{{200, 200}, {7, 1500}, {1, 2100}, {0, 30}, {1, 65}, {3, 0}, {1, 1}, {0, 0}};

class Ragged : public EveryIsa {};

TEST_P(Ragged, SequencesHaveTheBitsThatTheyHaveAlone) {
  ThreadPool one(1), two(2), three(3);
  for (const Heads<>& heads : {Heads<>{8, 8, 16}, Heads<>{8, 2, 40, 24}, Heads<>{8, 1, 32}}) {
    const RaggedBatch batch(heads, kMixed);
    for (const Storage storage : {Storage::f32, Storage::bf16})
      for (const Source source : {Source::cache, Source::packed_rows})
        for (const Options& options : {Options{}, Options{.window = 70}, Options{.window = 1100},
                                       Options{.causal = false, .alibi_slopes = kSlopes}}) {
          const Route route{.source = source, .storage = storage};
          const Results expected = batch.one_by_one(route, options);
          const Options all = batch.over_all(options);
          with_source(batch.keys, route, [&](const auto& keys) {
            EXPECT_EQ(run_over(keys, batch.queries, all), expected);
            EXPECT_EQ(run_over(keys, batch.queries, all, one), expected);
            EXPECT_EQ(run_over(keys, batch.queries, all, two), expected);
            EXPECT_EQ(run_over(keys, batch.queries, all, three), expected);
          });
          if (HasFailure()) return;
        }
  }
}

HEADWISE_FOR_EVERY_ISA(Ragged);

TEST(AttentionRagged, QueriesAndOutputsMayHaveAnyLayoutAndType) {
  const RaggedBatch batch({4, 2, 24}, {{3, 40}, {0, 7}, {5, 70}});
  const Results expected = batch.one_by_one({.storage = Storage::f16}, {});
  for (const Layout layout : kAllLayouts) {
    const Route route{.storage = Storage::f16, .query_layout = layout, .output_layout = layout};
    with_source(batch.keys, route, [&](const auto& keys) {
      EXPECT_EQ(run_over(keys, batch.queries, batch.over_all({}), Serial{}, route), expected);
    });
  }
}

TEST(AttentionRagged, GroupsMayDifferFromSequenceToSequence) {
  const RaggedBatch batch({4, 2, 24}, {{3, 40}, {1, 1200}, {20, 70}});
  const std::vector<Index> all{0, 1, 4, 0, 4, 4, 0, 2, 4};
  Results expected;
  for (Index b = 0; b < 3; ++b) {
    const std::vector<Index> own(all.begin() + 3 * b, all.begin() + 3 * b + 3);
    const Results one = run(batch.alone(b), {}, {.group_boundaries = own});
    expected.output.insert(expected.output.end(), one.output.begin(), one.output.end());
    expected.lse.insert(expected.lse.end(), one.lse.begin(), one.lse.end());
  }
  Options options = batch.over_all({});
  options.group_boundaries = all;
  with_source(batch.keys, {}, [&](const auto& keys) { EXPECT_EQ(run_over(keys, batch.queries, options), expected); });
}

TEST(AttentionRagged, OffsetsThatDoNotFitAreRefused) {
  const Inputs queries({4, 2, 8}, 1, 6, 0), keys({4, 2, 8}, 2, 0, 10);
  const auto cache = cache_of<float>(keys);
  const auto expect_refused = [&](const std::vector<Index>& offsets, std::initializer_list<std::string_view> words) {
    expect_error([&] { run_over(cache, queries, {.query_offsets = offsets}); }, words);
  };
  expect_refused({0, 6}, {"query_offsets (2 numbers)", "sequences of the keys and values (2)"});
  expect_refused({1, 2, 6}, {"query_offsets[0] (1)", "0"});
  expect_refused({0, 4, 3}, {"query_offsets[2] (3)", "before it (4)"});
  expect_refused({0, 7, 6}, {"query_offsets[1] (7)", "tokens of q (6)"});
  expect_refused({0, -1, 6}, {"query_offsets[1] (-1)"});
  expect_refused({0, 2, 5}, {"query_offsets[2] (5)", "tokens of q (6)"});
  const std::vector<Index> offsets{0, 2, 6}, lengths{2, 4};
  expect_error([&] { run_over(cache, queries, {.query_lengths = lengths, .query_offsets = offsets}); },
               {"query_offsets", "query_lengths"});
  const Inputs two({4, 2, 8}, 2, 3, 0);
  expect_error([&] { run_over(cache, two, {.query_offsets = offsets}); }, {"sequences of q (2)", "must be 1"});
}

}  // namespace
}  // namespace headwise
