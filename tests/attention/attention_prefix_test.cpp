// SPDX-License-Identifier: MIT
// Sequences that begin in the same tiles read them together (Options::share_prefix) and have the bits that they have apart.
#include <array>

#include "tests/attention/shared_tiles.hpp"
#include "tests/support/errors.hpp"
#include "tests/support/tile_sources.hpp"

namespace headwise {
namespace {

using namespace testing;

constexpr std::array<float, 8> kSlopes{0.5f, 0.25f, 0.125f, 0.0625f, 1.0f, 0.0f, 0.01f, 0.75f};

/// Attention over a source of any type, by the same functions as run_with; outputs hold NaN before.
template <class S, class E = const Serial&>
Results attend_over(const S& source, const Inputs& in, const Options& options, E&& executor = Serial{}) {
  const Index rows = in.query_tokens * in.heads.num_heads();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  Results results{std::vector<float>(static_cast<std::size_t>(rows * in.heads.value_dim()), nan),
                  std::vector<float>(static_cast<std::size_t>(rows), nan)};
  const auto view = [&](std::vector<float>& x, Index dim) {
    return View<float>(x.data(), in.query_tokens, in.heads.num_heads(), dim);
  };
  Attention<>{in.heads}(View<const float>(in.q.data(), in.query_tokens, in.heads.num_heads(), in.heads.head_dim()),
                        source, {view(results.output, in.heads.value_dim()), view(results.lse, 1)}, options, executor);
  return results;
}

Options ragged(const RaggedBatch& batch, Options options, std::optional<bool> share) {
  options.query_offsets = batch.offsets;
  options.share_prefix = share;
  return options;
}

/// Decoding, a few new tokens, one that waits, a long prompt: all but the last two begin as sequence 0 does.
const std::vector<RaggedSequence> kSequences{{1, 3100}, {3, 3075},  {0, 3500}, {1, 5000},
                                             {7, 3080}, {40, 3300}, {1, 3200}};
std::vector<Borrowed> borrowed_from_first(Index tokens) {
  return {{0, tokens}, {0, tokens}, {0, tokens}, {0, tokens}, {0, tokens}, {0, 64}, {6, 0}};
}

class SharedPrefix : public EveryIsa {};

TEST_P(SharedPrefix, GivesTheBitsThatSequencesHaveApart) {
  ThreadPool one(1), two(2), three(3);
  for (const Heads<>& heads : {Heads<>{8, 8, 16}, Heads<>{8, 2, 24, 40}, Heads<>{8, 1, 32}}) {
    const RaggedBatch batch(heads, kSequences);
    for (const Index tokens : {1023, 1024, 1025, 3000})
      for (const Storage storage : {Storage::f32, Storage::bf16})
        with_type(storage, [&, tokens = tokens]<class T>() {
          const SharedTiles<T> source(batch, borrowed_from_first(tokens));
          const Results apart = attend_over(source, batch.queries, ragged(batch, {}, false));
          EXPECT_EQ(attend_over(source, batch.queries, ragged(batch, {}, true)), apart);
          for (ThreadPool* pool : {&one, &two, &three})
            for (const std::optional<bool> share : {std::optional<bool>(true), std::optional<bool>()})
              EXPECT_EQ(attend_over(source, batch.queries, ragged(batch, {}, share), *pool), apart)
                  << tokens << " tokens";
        });
    if (HasFailure()) return;
  }
}

TEST_P(SharedPrefix, GivesTheSameBitsWithEveryOption) {
  ThreadPool pool(3);
  std::vector<float> biases(8 * 32);
  for (std::size_t i = 0; i < biases.size(); ++i) biases[i] = static_cast<float>(i % 17) * 0.1f - 0.8f;
  const RelativeBias bias(biases, 8);
  std::vector<Index> boundaries;
  for (Index b = 0; b < 7; ++b) boundaries.insert(boundaries.end(), {0, b, 8});
  const std::vector<Index> lengths{3072, 3075, 3500, 3072, 3080, 3300, 3200};
  const HeadMap cyclic = HeadMap::cyclic(8, 2);
  const RaggedBatch batch({8, 2, 24}, kSequences);
  const SharedTiles<bf16> source(batch, borrowed_from_first(3072));
  for (const Options& options :
       {Options{.softcap = 3.0f}, Options{.alibi_slopes = kSlopes}, Options{.relative_bias = &bias},
        Options{.window = 4000}, Options{.window = 3077}, Options{.window = 900},
        Options{.window = 100, .num_sink_tokens = 4}, Options{.window = 100, .num_sink_tokens = 2050},
        Options{.causal = false}, Options{.causal = false, .key_lengths = lengths}, Options{.key_lengths = lengths},
        Options{.temperature = Temperature{50, 0.3f}}, Options{.sink_logits = kSlopes},
        Options{.softcap = 2.0f,
        .score_function =
                    [](float score, Index b, Index head, Index query, Index key) {
                      return score + 0.01f * static_cast<float>(3 * b - head) -
                             0.001f * static_cast<float>(query - key);
                    }},
        Options{.head_map = &cyclic}, Options{.group_boundaries = boundaries}}) {
    const Results apart = attend_over(source, batch.queries, ragged(batch, options, false));
    EXPECT_EQ(attend_over(source, batch.queries, ragged(batch, options, true)), apart);
    EXPECT_EQ(attend_over(source, batch.queries, ragged(batch, options, true), pool), apart);
  }
}

TEST_P(SharedPrefix, MayBeNestedOrEndAnywhere) {
  ThreadPool pool(3);
  const RaggedBatch batch({4, 2, 16}, std::vector<RaggedSequence>(8, {2, 4500}));
  // 0, 1, 2 share 4 segments, 3 and 4 with them one; 5, 6, 7 have another beginning, of 1 and of 3 segments
  const SharedTiles<float> source(batch,
                                  {{0, 0}, {0, 4100}, {0, 4352}, {0, 1100}, {0, 1024}, {5, 0}, {5, 1090}, {5, 3072}});
  const Results apart = attend_over(source, batch.queries, ragged(batch, {}, false));
  EXPECT_EQ(attend_over(source, batch.queries, ragged(batch, {}, true)), apart);
  EXPECT_EQ(attend_over(source, batch.queries, ragged(batch, {}, true), pool), apart);
  EXPECT_EQ(attend_over(source, batch.queries, ragged(batch, {}, {}), pool), apart);
}

HEADWISE_FOR_EVERY_ISA(SharedPrefix);

TEST(AttentionPrefix, TilesOfAPrefixAreAskedForOnceOfEachKvHead) {
  ThreadPool pool(3);
  const RaggedBatch batch({8, 2, 16}, std::vector<RaggedSequence>(20, {1, 2200}));  // 80 rows of each KV head
  const SharedTiles<float> source(batch, std::vector<Borrowed>(20, {0, 2112}));
  for (const std::optional<bool> share : {std::optional<bool>(true), std::optional<bool>()}) {
    const CountingSource counting(source);
    attend_over(counting, batch.queries, ragged(batch, {}, share), pool);
    for (Index head = 0; head < 2; ++head)
      for (Index tile = 0; tile < ceil_div(Index{2200}, 64); ++tile) {
        Index calls = 0;
        for (Index b = 0; b < 20; ++b) calls += counting.calls(b, head, tile);
        EXPECT_EQ(calls, tile < 2048 / 64 ? 1 : 20) << "tile " << tile;
      }
  }
  const CountingSource apart(source);
  attend_over(apart, batch.queries, ragged(batch, {}, false), pool);
  EXPECT_EQ(apart.calls(19, 1, 0), 1);
}

TEST(AttentionPrefix, MoreRowsThanARowTileAskAsOftenAsTheyFillOne) {
  const RaggedBatch batch({8, 1, 16},
                          std::vector<RaggedSequence>(20, {2, 1100}));  // 320 rows: 3 times 8 sequences of 16
  const SharedTiles<float> source(batch, std::vector<Borrowed>(20, {0, 1024}));
  const CountingSource counting(source);
  const Results shared = attend_over(counting, batch.queries, ragged(batch, {}, true));
  Index calls = 0;
  for (Index b = 0; b < 20; ++b) calls += counting.calls(b, 0, 3);
  EXPECT_EQ(calls, 3);
  EXPECT_EQ(shared, attend_over(source, batch.queries, ragged(batch, {}, false)));
}

/// Threads to plan for.
struct Threads {
  Index count;
  Index concurrency() const { return count; }
  template <class F>
  void parallel_for(Index n, F&& f) const {
    for (Index i = 0; i < n; ++i) f(i);
  }
};

/// How many sequences the plan of so many sequences and threads lets share their first 1024 tokens of its own accord.
Index sharing(Index sequences, Index queries, const Heads<>& heads, Index threads) {
  const Threads executor{threads};
  const RaggedBatch batch(heads, std::vector<RaggedSequence>(static_cast<std::size_t>(sequences), {queries, 1200}));
  const SharedTiles<float> source(batch, std::vector<Borrowed>(static_cast<std::size_t>(sequences), {0, 1024}));
  return Attention<>{heads}
      .plan(sequences * queries, source, {.query_offsets = batch.offsets}, executor)
      .num_sharing_sequences();
}

TEST(AttentionPrefix, IsSharedWhereThatIsFaster) {
  EXPECT_EQ(sharing(2, 1, {8, 2, 8}, 1), 2);
  EXPECT_EQ(sharing(16, 1, {8, 8, 8}, 4), 16);
  EXPECT_EQ(sharing(1, 1, {8, 2, 8}, 1), 0);
  // rows enough to keep threads busy, which one item of all of them would not
  EXPECT_EQ(sharing(8, 2, {8, 1, 8}, 8), 0);
  EXPECT_EQ(sharing(8, 2, {8, 1, 8}, 1), 8);
  // prompts, which meet each tile with many rows anyway
  EXPECT_EQ(sharing(3, 100, {8, 2, 8}, 1), 0);
}

TEST(AttentionPrefix, OfAPlanMustBeThatOfItsCalls) {
  const RaggedBatch batch({8, 2, 16}, std::vector<RaggedSequence>(3, {1, 2200}));
  const SharedTiles<float> source(batch, std::vector<Borrowed>(3, {0, 2112})),
      other(batch, {{0, 0}, {0, 2112}, {0, 1024}}), longer(batch, std::vector<Borrowed>(3, {0, 2200}));
  const Attention<> attend(batch.queries.heads);
  const AttentionPlan plan = attend.plan(3, source, {.query_offsets = batch.offsets});
  EXPECT_EQ(plan.num_sharing_sequences(), 3);
  std::vector<float> out(batch.queries.q.size());
  const auto call = [&](const auto& keys) {
    attend(plan, View<const float>(batch.queries.q.data(), 3, 8, 16), keys, View<float>(out.data(), 3, 8, 16));
    return out;
  };
  expect_error([&] { call(other); }, {"shared_tokens (1024) of sequences 0 and 2", "plan (2048)"});
  EXPECT_EQ(call(longer), attend_over(longer, batch.queries, ragged(batch, {}, false)).output);
  const CountingSource counting(source);
  call(counting);
  EXPECT_EQ(counting.calls(1, 0, 0), 0);
}

}  // namespace
}  // namespace headwise
