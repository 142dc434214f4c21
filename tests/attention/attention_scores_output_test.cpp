// SPDX-License-Identifier: MIT
// Scores that a call gives (Outputs::scores) are those of the definition at every stage, whatever walks the keys.
#include "tests/attention/ragged.hpp"
#include "tests/attention/weight_cases.hpp"

namespace headwise {
namespace {

using namespace testing;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();

class ScoresOutput : public EveryIsa {
 protected:
  static void expect_all_stages(const Inputs& in, const Route& route, const Options& options) {
    with_source(in, route, [&](const auto& source) {
      const ExpectedWeights expected(in, options, meets_pairs(route.storage));
      for (const ScoreStage stage : kStages)
        expected.check_scores(weights_over(source, in, options, {stage}).scores, stage);
    });
  }
};

TEST_P(ScoresOutput, AreTheDefinitionsOfEveryShapeSourceAndStorage) {
  for_each_weighed_shape([](const Inputs& in, const Route& route) { expect_all_stages(in, route, {}); });
}

TEST_P(ScoresOutput, ObeyMasksLengthsAndBiases) {
  for_each_weighed_option([](const Inputs& in, const Options& options) { expect_all_stages(in, {}, options); });
}

TEST_P(ScoresOutput, WeightsOfScoresFarFromZeroAreAsExactAsOfOthers) {
  for (const Index queries : {1, 3})
    for (const float score : {3e4f, -7e5f}) {
      const Inputs in = alike(queries, 300, score);
      const Options options{.scale = 1.0f, .causal = false};
      const std::vector<float> weights =
          weights_over(cache_of<float>(in), in, options, {.stage = ScoreStage::weights}).scores;
      for (Index r = 0; r < queries * 4; ++r)
        for (Index t = 0; t < 300; ++t)
          EXPECT_NEAR(weights[static_cast<std::size_t>(r * (300 + kRoom) + t)], 1.0f / 300, 4 * 0x1p-24f / 300)
              << score;
    }
}

TEST_P(ScoresOutput, LeaveTheResultsTheirBitsAndNeedNoLse) {
  ThreadPool pool(3);
  for (const Index queries : {1, 60}) {
    const Inputs in({4, 2, 8}, 1, queries, 2500, 63, {.coarse = false});
    const auto cache = cache_of<bf16>(in);
    const Options options{.window = 1500};
    const Results plain = run_over(cache, in, options, pool);
    for (const ScoreStage stage : kStages) {
      const Weights with = weights_over(cache, in, options, {stage}, pool);
      EXPECT_EQ(with.results, plain);
      const Weights without = weights_over(cache, in, options, {.stage = stage, .lse = false});
      EXPECT_EQ((Results{without.scores, {}}), (Results{with.scores, {}})) << "of one thread, without an lse";
    }
  }
}

TEST_P(ScoresOutput, HaveTheSameBitsHoweverAPromptIsCut) {
  const Index tokens = 210;
  const Inputs in({4, 2, 8}, 1, tokens, tokens, 64, {.coarse = false});
  const auto cache = cache_of<float>(in);
  const Options options{.window = 100, .softcap = 3.0f};
  for (const ScoreStage stage : {ScoreStage::biased, ScoreStage::weights}) {
    const std::vector<float> whole = weights_over(cache, in, options, {stage}).scores;
    for (const Index chunk : {1, 50})
      for (Index t = 0; t < tokens; t += chunk) {
        Inputs some = in;
        some.query_tokens = std::min(chunk, tokens - t);
        some.q.assign(in.q.begin() + t * 32, in.q.begin() + (t + some.query_tokens) * 32);
        Options of_chunk = options;
        const std::vector<Index> length{t + some.query_tokens};
        of_chunk.key_lengths = length;
        const std::vector<float> part = weights_over(cache, some, of_chunk, {stage}).scores;
        const Index row = tokens + kRoom;
        EXPECT_EQ((Results{part, {}}),
                  (Results{{whole.begin() + t * 4 * row, whole.begin() + (t * 4) * row + std::ssize(part)}, {}}))
            << "chunks of " << chunk << " at " << t;
      }
  }
}

TEST_P(ScoresOutput, NanInHiddenKeysShowsBeforeTheMaskAlone) {
  const Inputs clean({4, 2, 8}, 1, 2, 200, 65);
  Inputs bad = clean;
  for (const Index t : {0, 70, 199}) {  // behind the window, behind the window's tiles, ahead of one of two queries
    std::fill_n(bad.key(0, t, 1), 8, kNan);
    std::fill_n(bad.value(0, t, 1), 8, kNan);
  }
  const Options options{.window = 100};
  for (const Source source : {Source::cache, Source::packed_rows})
    with_source(bad, {.source = source}, [&](const auto& kv) {
      const Weights raw = weights_over(kv, bad, options, {ScoreStage::scaled});
      const Weights weights = weights_over(kv, bad, options, {ScoreStage::weights});
      const Weights biased = weights_over(kv, bad, options, {ScoreStage::biased});
      const Weights good = weights_over(cache_of<float>(clean), clean, options, {ScoreStage::weights});
      EXPECT_EQ(raw.results, weights.results);
      const Index row = 200 + kRoom;
      for (Index i = 0; i < 2; ++i)
        for (Index h = 0; h < 4; ++h)
          for (Index t = 0; t < row; ++t) {
            const auto at = static_cast<std::size_t>((i * 4 + h) * row + t);
            const bool poisoned = h >= 2 && (t == 0 || t == 70 || t == 199);
            const bool nan_row = h >= 2 && i == 1;  // which sees key 199
            const bool hidden = t >= 200 || t > 198 + i || t <= 198 + i - 100;
            EXPECT_EQ(std::isnan(raw.scores[at]), poisoned) << i << ", " << h << ", " << t;
            EXPECT_EQ(std::isnan(biased.scores[at]), poisoned && !hidden) << i << ", " << h << ", " << t;
            EXPECT_EQ(std::isnan(weights.scores[at]), nan_row && !hidden) << i << ", " << h << ", " << t;
            if (hidden) {
              EXPECT_EQ(weights.scores[at], 0.0f);
              EXPECT_EQ(biased.scores[at], -kInfinity);
            }
            if (!nan_row) {
              EXPECT_EQ(weights.scores[at], good.scores[at]);
            }
          }
    });
}

HEADWISE_FOR_EVERY_ISA(ScoresOutput);

TEST(ScoresOutputOf, RaggedBatchesAreThoseOfEachSequence) {
  ThreadPool pool(3);
  const RaggedBatch batch({4, 2, 8}, {{60, 150}, {1, 2100}, {0, 30}, {7, 9}, {1, 1}});
  const auto cache = cache_of<float>(batch.keys);
  const Options options{.window = 1000};
  for (const ScoreStage stage : kStages) {
    const Weights all = weights_of(batch.queries, batch.keys, {stage}, 0, [&](auto q, const Outputs& outputs) {
      Attention<> attend(batch.queries.heads);
      attend(attend.plan(q.tokens(), cache, batch.over_all(options), pool), q, cache, outputs, pool);
    });
    const Index row = batch.keys.key_tokens + kRoom;
    for (Index b = 0; b < 5; ++b) {
      const Inputs in = batch.alone(b);
      const std::vector<float> one = weights_over(cache_of<float>(in), in, options, {stage}).scores;
      for (Index r = 0; r < in.query_tokens * 4; ++r)
        for (Index t = 0; t < row; ++t) {
          const float nothing = stage == ScoreStage::weights ? 0.0f : -kInfinity;
          const float expected =
              t < in.key_tokens ? one[static_cast<std::size_t>(r * (in.key_tokens + kRoom) + t)] : nothing;
          ASSERT_EQ(
              all.scores[static_cast<std::size_t>((batch.offsets[static_cast<std::size_t>(b)] * 4 + r) * row + t)],
              expected)
              << "sequence " << b << ", row " << r << ", key " << t;
        }
    }
  }
}

TEST(ScoresOutputOf, AnyLayoutAreTheSame) {
  const Inputs in({4, 2, 8}, 1, 5, 70, 66);
  const auto cache = cache_of<float>(in);
  std::vector<float> packed(5 * 4 * 70), by_head(4 * 5 * 70, 0.0f), out(5 * 4 * 8);
  const auto call = [&](View<float> scores) {
    Outputs outputs(View<float>(out.data(), 5, 4, 8));
    outputs.scores = {scores, ScoreStage::weights};
    Attention<>{in.heads}(View<const float>(in.q.data(), 5, 4, 8), cache, outputs);
  };
  call(View<float>(packed.data(), 5, 4, 70));
  call(View<float>(by_head.data() + 69, 1, 5, 4, 70, {0, 70, 350, -1}));  // [head][token][key], keys backwards
  for (Index t = 0; t < 5; ++t)
    for (Index h = 0; h < 4; ++h)
      for (Index key = 0; key < 70; ++key)
        EXPECT_EQ(by_head[static_cast<std::size_t>(h * 350 + t * 70 + 69 - key)],
                  packed[static_cast<std::size_t>((t * 4 + h) * 70 + key)]);
}

TEST(ScoresOutputOf, WhatARingHasForgottenAreNone) {
  const Inputs in({2, 1, 8}, 1, 300, 300, 67);
  LayerShape shape{.num_kv_heads = 1, .head_dim = 8};
  shape.window = 70;
  KvCache<float> cache(std::span<const LayerShape>(&shape, 1), 400, {.max_append = 1});
  for (Index t = 0; t < 300; ++t)
    cache.append(View<const float>(in.k.data() + t * 8, 1, 1, 8), View<const float>(in.v.data() + t * 8, 1, 1, 8));
  Inputs last = in;
  last.query_tokens = 1;
  last.q.assign(in.q.end() - 16, in.q.end());
  const TokenRange kept = cache.layer().kept(0);
  ASSERT_GT(kept.begin, 64);
  const std::vector<float> scores = weights_over(cache.layer(), last, {.window = 70}, {ScoreStage::scaled}).scores;
  for (Index h = 0; h < 2; ++h)
    for (Index t = 0; t < 300 + kRoom; ++t)
      EXPECT_EQ(scores[static_cast<std::size_t>(h * (300 + kRoom) + t)] == -kInfinity, t < kept.begin || t >= 300) << t;
}

}  // namespace
}  // namespace headwise
