// SPDX-License-Identifier: MIT
// A plan made once (AttentionPlan) serves the calls of every layer with the bits of calls that plan for themselves, and
// refuses calls that are not what was planned.
#include <array>

#include "tests/attention/ragged.hpp"
#include "tests/support/errors.hpp"

namespace headwise {
namespace {

using namespace testing;

constexpr std::array<float, 8> kSlopes{0.5f, 0.25f, 0.125f, 0.0625f, 1.0f, 0.0f, 0.01f, 0.75f};
const Heads<> kHeads{8, 2, 24, 16};

/// A planned call; outputs hold NaN before.
template <class S, class E>
Results run_planned(const Attention<>& attend, const AttentionPlan& plan, const S& source, const Inputs& in,
                    E&& executor) {
  const Heads<>& heads = in.heads;
  const Index rows = in.sequences * in.query_tokens * heads.num_heads();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  Results results{std::vector<float>(static_cast<std::size_t>(rows * heads.value_dim()), nan),
                  std::vector<float>(static_cast<std::size_t>(rows), nan)};
  const auto view = [&](std::vector<float>& x, Index dim) {
    return View<float>(x.data(), in.sequences, in.query_tokens, heads.num_heads(), dim);
  };
  attend(plan, View<const float>(in.q.data(), in.sequences, in.query_tokens, heads.num_heads(), heads.head_dim()),
         source, {view(results.output, heads.value_dim()), view(results.lse, 1)}, executor);
  return results;
}

struct Planned : ::testing::TestWithParam<Source> {};

TEST_P(Planned, CallsOfEveryLayerHaveTheBitsOfCallsWithoutAPlan) {
  ThreadPool pool(3);
  const std::vector<RaggedSequence> sequences{{150, 150}, {1, 2100}, {0, 30}, {7, 1100}, {1, 1}};
  const RaggedBatch first(kHeads, sequences, 1), second(kHeads, sequences, 5);
  const Attention<> attend(kHeads);
  const HeadMap cyclic = HeadMap::cyclic(8, 2);
  const std::vector<Index> boundaries{0, 3, 8};
  AttentionPlan plan;
  for (Options options : {Options{}, Options{.window = 1030, .softcap = 3.0f}, Options{.alibi_slopes = kSlopes},
                          Options{.head_map = &cyclic}, Options{.group_boundaries = boundaries}}) {
    with_source(first.keys, {.source = GetParam(), .storage = Storage::bf16}, [&](const auto& layer) {
      attend.plan(plan, first.queries.query_tokens, layer, first.over_all(options), pool);
    });
    EXPECT_EQ(plan.num_sequences(), 5);
    EXPECT_EQ(plan.query_tokens(), 159);
    for (const RaggedBatch* batch : {&first, &second})
      with_source(batch->keys, {.source = GetParam(), .storage = Storage::bf16}, [&](const auto& layer) {
        const Results expected = run_over(layer, batch->queries, batch->over_all(options));
        EXPECT_EQ(run_planned(attend, plan, layer, batch->queries, pool), expected);
        EXPECT_EQ(run_planned(attend, plan, layer, batch->queries, Serial{}), expected) << "on other threads";
      });
  }
}

INSTANTIATE_TEST_SUITE_P(Sources, Planned, ::testing::Values(Source::cache, Source::packed_rows),
                         [](const auto& source) { return testing::name_of(source.param); });

TEST(AttentionPlan, ServesBatchesWithoutOffsetsAndKeepsItsOwnCopyOfTheOptions) {
  const Inputs in(kHeads, 3, 5, 70, 2, {.coarse = false});
  const auto cache = cache_of<float>(in);
  const Attention<> attend(kHeads);
  AttentionPlan plan;
  EXPECT_TRUE(plan.empty());
  {
    const std::vector<Index> keys{70, 3, 64}, queries{5, 2, 0};
    const std::vector<float> slopes(kSlopes.begin(), kSlopes.end());
    plan = attend.plan(5, cache, {.alibi_slopes = slopes, .key_lengths = keys, .query_lengths = queries});
  }
  const AttentionPlan moved = std::move(plan);
  EXPECT_TRUE(plan.empty());  // NOLINT: says what moving leaves
  const std::vector<Index> keys{70, 3, 64}, queries{5, 2, 0};
  EXPECT_EQ(run_planned(attend, moved, cache, in, Serial{}),
            run_over(cache, in, {.alibi_slopes = kSlopes, .key_lengths = keys, .query_lengths = queries}));
}

TEST(AttentionPlan, CallsThatWereNotPlannedAreRefused) {
  const Inputs in(kHeads, 2, 3, 20, 3);
  auto cache = cache_of<float>(in);
  const Attention<> attend(kHeads);
  const AttentionPlan plan = attend.plan(3, cache);
  const auto call = [&](const AttentionPlan& with, const auto& source, const Inputs& inputs) {
    run_planned(attend, with, source, inputs, Serial{});
  };
  expect_error([&] { call({}, cache, in); }, {"plan (empty)", "Attention::plan"});
  expect_error([&] { call(plan, cache, Inputs(kHeads, 2, 4, 0)); }, {"tokens of q (4)", "plan (3)"});
  expect_error([&] { call(plan, cache, Inputs(kHeads, 1, 3, 0)); }, {"sequences of q (1)", "(2)"});
  const Inputs three(kHeads, 3, 3, 20);
  expect_error([&] { call(plan, cache_of<float>(three), three); },
               {"sequences of the keys and values (3)", "plan (2)"});
  const Inputs longer(kHeads, 2, 3, 21);
  expect_error([&] { call(plan, cache_of<float>(longer), in); },
               {"tokens of the keys and values (21) of sequence 0", "plan (20)"});
  with_source(in, {.source = Source::packed_rows}, [&](const auto& rows) {
    expect_error([&] { call(plan, rows, in); }, {"keys (the caller's memory)", "tiles"});
  });
  expect_error([&] { run_planned(Attention<>(kHeads, HeadMap::cyclic(8, 2)), plan, cache, in, Serial{}); },
               {"head map", "the one of the plan"});
  const Heads<> wide{8, 2, 24, 32};
  expect_error([&] { run_planned(Attention<>(wide), plan, cache, in, Serial{}); }, {"value_dim (32)", "24 and 16"});
  const std::vector<Index> offsets{0, 2, 5};
  expect_error([&] { attend.plan(4, cache, {.query_offsets = offsets}); }, {"query_offsets[2] (5)", "tokens of q (4)"});
  expect_error([&] { attend.plan(-1, cache); }, {"query_tokens (-1)"});
}

TEST(AttentionPlan, ThatCannotBeMadeLeavesTheOneBefore) {
  const Inputs in(kHeads, 2, 3, 20, 4, {.coarse = false});
  const auto cache = cache_of<float>(in);
  const Attention<> attend(kHeads);
  AttentionPlan plan = attend.plan(3, cache, {.window = 7});
  expect_error([&] { attend.plan(plan, 3, cache, {.window = -1}); }, {"window (-1)"});
  EXPECT_EQ(run_planned(attend, plan, cache, in, Serial{}), run_over(cache, in, {.window = 7}));
}

}  // namespace
}  // namespace headwise
