// SPDX-License-Identifier: MIT
// Sink logits take part in the softmax of every row once; a temperature is a factor on its scores.
#include <array>

#include "tests/attention/oracle.hpp"
#include "tests/support/errors.hpp"

namespace headwise {
namespace {

using namespace testing;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// below, among and above the scores; none; so high that no key counts
constexpr std::array<float, 8> kLogits{-3.0f, 0.5f, 2.0f, -kInfinity, 0.0f, 12.0f, 300.0f, -400.0f};
constexpr std::array<float, 8> kSlopes{0.5f, 0.25f, 0.125f, 0.0625f, 1.0f, 0.0f, -0.01f, 0.75f};

struct Case {
  const char* name;
  Options options;
};
const Case kCases[] = {
    {"sink logits", {.sink_logits = kLogits}},
    {"of a window", {.window = 128, .sink_logits = kLogits}},
    {"without mask", {.causal = false, .sink_logits = kLogits}},
    {"beside softcap", {.softcap = 2.0f, .sink_logits = kLogits}},
    {"beside alibi and sink tokens",
     {.window = 20, .num_sink_tokens = 2, .alibi_slopes = kSlopes, .sink_logits = kLogits}},
    {"of nothing", {.window = 0, .sink_logits = kLogits}},
    {"temperature", {.temperature = Temperature{}}},
    {"temperature of short steps", {.temperature = Temperature{16, 0.7f}}},
    {"negative temperature", {.temperature = Temperature{1, -0.5f}}},
    {"temperature before softcap", {.temperature = Temperature{3, 0.5f}, .softcap = 1.5f}},
    {"everything",
     {.scale = 0.4f,
      .window = 70,
      .temperature = Temperature{7, 0.3f},
      .softcap = 3.0f,
      .alibi_slopes = kSlopes,
      .sink_logits = kLogits}},
};

class SinkLogits : public EveryIsa {};

TEST_P(SinkLogits, AndTemperaturesMeanWhatTheDefinitionSays) {
  struct Lengths {
    Index queries, keys;
  };
  for (const auto& [queries, keys] :
       {Lengths{1, 0}, Lengths{1, 1}, Lengths{1, 63}, Lengths{17, 130}, Lengths{3, 1100}, Lengths{9, 4}}) {
    const Inputs in({8, 2, 40, 24}, 1, queries, keys, 41);
    for (const auto& [name, options] : kCases) {
      expect_defined_for_every_storage(in, options, name);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(SinkLogits, AreOfEachHeadAndEachSequenceWhereverItsRowsGo) {
  const std::array<float, 6> logits{1.0f, -1.0f, 2.0f, 0.0f, 4.0f, -kInfinity};
  const Inputs in({6, 3, 32}, 3, 5, 170, 42);
  const std::vector<Index> keys{170, 0, 65}, queries{5, 3, 1}, boundaries{0, 1, 1, 6};
  const HeadMap cyclic = HeadMap::cyclic(6, 3);
  const Options options{.temperature = Temperature{8, 0.4f}, .sink_logits = logits};
  for (const Source source : kAllSources) {
    Options own = options;
    own.key_lengths = keys;
    own.query_lengths = queries;
    expect_defined(in, {.source = source}, own, nullptr, "lengths");
    own = options;
    own.head_map = &cyclic;
    expect_defined(in, {.source = source}, own, nullptr, "map");
    own = options;
    own.group_boundaries = boundaries;
    expect_defined(in, {.source = source}, own, nullptr, "boundaries");
  }
}

TEST_P(SinkLogits, CountOnceHoweverARowIsSplitAndCut) {
  ThreadPool pool(3);
  const Options options{.temperature = Temperature{100, 0.2f}, .softcap = 4.0f, .sink_logits = kLogits};
  for (const Storage storage : kAllStorages) {
    const Inputs in({8, 2, 32}, 1, 70, 3200, 43, {.coarse = false, .storage = storage});
    with_source(in, {.storage = storage}, [&](const auto& source) {
      const Results whole = run_over(source, in, options);
      Expected(in, options).check(whole, {.storage = storage});
      EXPECT_EQ(run_over(source, in, options, pool), whole);
      for (const Index tokens : {1, 9}) {  // the last tokens alone, few enough to be split along the keys
        Inputs last(in.heads, 1, tokens, 0);
        std::copy(in.q.end() - std::ssize(last.q), in.q.end(), last.q.begin());
        const Results step = run_over(source, last, options, pool);
        EXPECT_TRUE(std::equal(step.output.begin(), step.output.end(), whole.output.end() - std::ssize(step.output)));
        EXPECT_TRUE(std::equal(step.lse.begin(), step.lse.end(), whole.lse.end() - std::ssize(step.lse)));
      }
    });
  }
}

TEST_P(SinkLogits, OfMinusInfinityChangeNoBit) {
  const std::array<float, 8> none{-kInfinity, -kInfinity, -kInfinity, -kInfinity,
                                  -kInfinity, -kInfinity, -kInfinity, -kInfinity};
  const Inputs in({8, 2, 64}, 1, 5, 200, 44);
  EXPECT_EQ(run(in, {}, {.sink_logits = none}), run(in));
}

TEST_P(SinkLogits, LeaveNaNOfAQueryAndOfAVisibleKeyAsTheyAre) {
  Inputs in({8, 2, 24}, 1, 6, 90, 45);
  in.query(0, 2, 3)[5] = std::numeric_limits<float>::quiet_NaN();
  in.key(0, 88, 1)[7] = std::numeric_limits<float>::quiet_NaN();
  for (const Source source : {Source::cache, Source::packed_rows})
    expect_defined(in, {.source = source}, {.temperature = Temperature{4, 0.1f}, .sink_logits = kLogits});
}

HEADWISE_FOR_EVERY_ISA(SinkLogits);

TEST(SinkLogitsOfAPlan, AreCopied) {
  const Inputs in({4, 2, 16}, 1, 3, 40, 46);
  const auto cache = cache_of<float>(in);
  std::vector<float> logits{1, 2, 0, -1};
  const Results expected = run_over(cache, in, {.sink_logits = logits});
  const Attention<> attend(in.heads);
  const AttentionPlan plan = attend.plan(3, cache, {.sink_logits = logits});
  logits.assign(4, 100.0f);
  std::vector<float> out(expected.output.size());
  attend(plan, View<const float>(in.q.data(), 1, 3, 4, 16), cache, View<float>(out.data(), 1, 3, 4, 16));
  EXPECT_EQ(out, expected.output);
}

TEST(SinkLogitsOfAPlan, MayBeOfEachLayer) {
  const Inputs in({4, 2, 16}, 1, 3, 40, 46);
  const auto cache = cache_of<float>(in);
  const std::vector<float> first{1, 2, 0, -1}, second{-kInfinity, 0.5f, 3, 1}, short_by_one(3);
  const Attention<> attend(in.heads);
  std::vector<float> out(in.q.size());
  const View<const float> q(in.q.data(), 1, 3, 4, 16);
  const View<float> output(out.data(), 1, 3, 4, 16);
  for (const std::span<const float> planned : {std::span<const float>{}, std::span<const float>(first)}) {
    const AttentionPlan plan = attend.plan(3, cache, {.sink_logits = planned});
    attend(plan, {.sink_logits = second}, q, cache, output);
    EXPECT_EQ(out, run_over(cache, in, {.sink_logits = second}).output);
    attend(plan, LayerOptions{}, q, cache, output);
    EXPECT_EQ(out, run_over(cache, in, {.sink_logits = planned}).output);
    const std::vector<float> before = out;
    expect_error([&] { attend(plan, {.sink_logits = short_by_one}, q, cache, output); }, {"sink_logits (3", "(4)"});
    EXPECT_EQ(out, before);
  }
}

TEST(SinkLogits, OfRowsWithoutKeysAreTheirLse) {
  const std::vector<float> logits{1.25f, -0.1f, -kInfinity, 77.7f};
  const Inputs in({4, 2, 16}, 1, 2, 5, 47);
  const Results results = run(in, {}, {.window = 0, .sink_logits = logits});
  EXPECT_EQ(results.output, std::vector<float>(2 * 4 * 16, 0.0f));
  for (std::size_t r = 0; r < 8; ++r) EXPECT_EQ(results.lse[r], logits[r % 4]);
}

}  // namespace
}  // namespace headwise
