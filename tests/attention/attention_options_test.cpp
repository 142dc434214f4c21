// SPDX-License-Identifier: MIT
// Every option, alone and with others, means what the definition says.
#include <array>
#include <string>

#include "tests/attention/oracle.hpp"

namespace headwise {
namespace {

using namespace testing;

struct Case {
  const char* name;
  Options options;
};

constexpr std::array<float, 8> kSlopes{0.5f, 0.25f, 0.125f, 0.0625f, 1.0f, 0.0f, -0.01f, 0.75f};

std::vector<Case> cases() {
  return {
      {"no mask", {.causal = false}},
      {"window 1", {.window = 1}},
      {"window 7", {.window = 7}},
      {"window 64", {.window = 64}},
      {"window 100", {.window = 100}},
      {"window larger than all", {.window = 100000}},
      {"window 0 hides everything", {.window = 0}},
      {"both windows", {.causal = false, .window = 5, .window_right = 3}},
      {"both windows, wide", {.causal = false, .window = 70, .window_right = 66}},
      {"only keys to the right", {.causal = false, .window = 0, .window_right = 2}},
      {"right window alone", {.causal = false, .window_right = 10}},
      {"right window under causal", {.window = 9, .window_right = 10}},
      {"softcap below the scores", {.softcap = 1.0f}},
      {"softcap above the scores", {.softcap = 50.0f}},
      {"softcap and large scores", {.scale = 2.0f, .softcap = 30.0f}},
      {"softcap without mask", {.causal = false, .softcap = 5.0f}},
      {"alibi", {.alibi_slopes = kSlopes}},
      {"alibi without mask", {.causal = false, .alibi_slopes = kSlopes}},
      {"everything", {.scale = 0.2f, .window = 40, .softcap = 3.0f, .alibi_slopes = kSlopes}},
      {"scale 0 averages", {.scale = 0.0f}},
      {"negative scale", {.scale = -0.2f}},
      {"large scale", {.scale = 3.0f}},
  };
}

struct Lengths {
  Index queries, keys;
};

class AttentionOptions : public EveryIsa {};

TEST_P(AttentionOptions, MeanWhatTheDefinitionSays) {
  for (const auto& [queries, keys] :
       {Lengths{1, 100}, Lengths{17, 130}, Lengths{40, 40}, Lengths{3, 1100}, Lengths{9, 4}}) {
    const Inputs in({8, 2, 40, 24}, 1, queries, keys, static_cast<unsigned>(keys));
    for (const auto& [name, options] : cases()) {
      expect_defined_for_every_storage(in, options, name);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(AttentionOptions, LengthsAreOfEachSequence) {
  const Inputs in({4, 2, 64}, 5, 6, 150, 3);
  const std::vector<Index> keys{0, 17, 64, 150, 129}, queries{6, 0, 3, 6, 1};
  for (const bool causal : {true, false})
    for (const Storage storage : kAllStorages)
      for (const Source source : kAllSources) {
        const Route route{.source = source, .storage = storage};
        expect_defined(in, route, {.causal = causal, .key_lengths = keys, .query_lengths = queries}, nullptr, "both");
        expect_defined(in, route, {.causal = causal, .window = 20, .key_lengths = keys}, nullptr, "keys");
        expect_defined(in, route, {.causal = causal, .query_lengths = queries}, nullptr, "queries");
        if (HasFatalFailure()) return;
      }
}

TEST_P(AttentionOptions, AnyHeadMapIsFollowed) {
  const std::vector<Index> sizes{3, 0, 1, 4}, anything{2, 0, 2, 1, 0, 2, 2, 0};
  const std::pair<const char*, HeadMap> maps[] = {
      {"cyclic", HeadMap::cyclic(8, 3)},
      {"balanced", HeadMap::balanced(8, 3)},
      {"unequal blocks with an empty one", HeadMap::blocks(sizes)},
      {"arbitrary", HeadMap::arbitrary(anything, 4)},
  };
  for (const auto& [name, map] : maps)
    for (const Index queries : {Index{1}, Index{7}, Index{30}}) {
      const Inputs in({8, map.num_kv_heads(), 48}, 2, queries, 90, 5);
      for (const Storage storage : kAllStorages) {
        expect_defined(in, {.storage = storage}, {}, &map, name);
        expect_defined(in, {.storage = storage}, {.window = 30, .alibi_slopes = kSlopes}, &map, name);
        if (HasFatalFailure()) return;
      }
    }
}

TEST_P(AttentionOptions, AMapForOneCallTakesTheFirstOnesPlace) {
  const Inputs in({6, 3, 32}, 1, 4, 50, 6);
  const HeadMap cyclic = HeadMap::cyclic(6, 3), balanced = HeadMap::balanced(6, 3);
  EXPECT_EQ(run(in, {}, {.head_map = &cyclic}, Serial{}, &balanced), run(in, {}, {}, Serial{}, &cyclic));
  EXPECT_NE(run(in, {}, {.head_map = &cyclic}, Serial{}, &balanced), run(in, {}, {}, Serial{}, &balanced));
}

HEADWISE_FOR_EVERY_ISA(AttentionOptions);

TEST(Attention, ARowThatSeesNothingIsZeroWithLseMinusInfinity) {
  const Inputs in({4, 2, 16}, 1, 3, 5);
  const Results hidden = run(in, {}, {.window = 0});
  for (const float x : hidden.output) EXPECT_EQ(x, 0.0f);
  for (const float x : hidden.lse) EXPECT_EQ(x, -std::numeric_limits<float>::infinity());
}

TEST(Attention, NoKeysGiveZeroWithLseMinusInfinity) {
  const Inputs in({4, 2, 16}, 2, 3, 0);
  for (const Source source : kAllSources)
    for (const bool causal : {true, false}) {
      const Results results = run(in, {.source = source}, {.causal = causal});
      EXPECT_EQ(results.output, std::vector<float>(2 * 3 * 4 * 16, 0.0f));
      EXPECT_EQ(results.lse, std::vector<float>(2 * 3 * 4, -std::numeric_limits<float>::infinity()));
    }
}

TEST(Attention, NoQueriesAreNoWork) {
  const Inputs none({4, 2, 16}, 2, 0, 10);
  EXPECT_TRUE(run(none).output.empty());
  const Inputs no_sequences({4, 2, 16}, 0, 3, 10);
  EXPECT_TRUE(run(no_sequences, {.source = Source::packed_rows}).output.empty());
}

TEST(Attention, LseIsOptionalAndDoesNotChangeTheOutput) {
  const Inputs in({4, 2, 16}, 2, 3, 20);
  const auto cache = cache_of<float>(in);
  std::vector<float> out(2 * 3 * 4 * 16);
  const Attention<> attend(in.heads);
  attend(View<const float>(in.q.data(), 2, 3, 4, 16), cache, View<float>(out.data(), 2, 3, 4, 16));
  EXPECT_EQ(out, run_over(cache, in).output);
}

TEST(Attention, CompileTimeHeadsGiveTheSameBitsAsRunTimeOnes) {
  const Inputs in({8, 2, 64}, 1, 5, 70);
  const auto cache = cache_of<bf16>(in);
  const View<const float> q(in.q.data(), 5, 8, 64);
  const std::vector<float> expected = run_over(cache, in).output;
  std::vector<float> out(expected.size());
  const View<float> view(out.data(), 5, 8, 64);
  const Gqa<8, 2, 64> gqa;
  gqa(q, cache, view);
  EXPECT_EQ(out, expected);
  static_assert(std::is_same_v<Mha<8, 64>, Gqa<8, 8, 64>> && std::is_same_v<Mqa<8, 64>, Gqa<8, 1, 64>>);
  const Attention deduced(Heads<8, dynamic, 64>{8, 2, 64});
  std::fill(out.begin(), out.end(), 0.0f);
  deduced(q, cache, view);
  EXPECT_EQ(out, expected);
}

}  // namespace
}  // namespace headwise
