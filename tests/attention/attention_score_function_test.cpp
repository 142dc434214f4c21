// SPDX-License-Identifier: MIT
// The user's own function changes scores where the definition changes them, and nothing that it does elsewhere shows.
#include <array>

#include "tests/attention/oracle.hpp"

namespace headwise {
namespace {

using namespace testing;

constexpr float kInfinity = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();
constexpr std::array<float, 8> kSlopes{0.5f, 0.25f, 0.125f, 0.0625f, 1.0f, 0.0f, -0.01f, 0.75f};

/// Different for every head and sequence, and curved in the score: scores in other units show.
struct Curved {
  template <class T>
  T operator()(T score, Index sequence, Index head, Index query, Index key) const {
    const T distance = static_cast<T>(static_cast<int>(query - key));
    return score / (1 + score * score / 16) +
           static_cast<T>(0.25) * static_cast<T>(static_cast<int>(head + 3 * sequence)) -
           static_cast<T>(0.015625) * distance;
  }
};
/// Hides every third key and every key whose position is not below the query's by 70, in strides of heads.
struct Sparse {
  template <class T>
  T operator()(T score, Index, Index head, Index query, Index key) const {
    const bool hidden = (key + head) % 3 == 0 || (query + key) / 70 % 4 == 1;
    return hidden ? -std::numeric_limits<T>::infinity() : score;
  }
};
constexpr Curved kCurved;
constexpr Sparse kSparse;
constexpr auto kCurvedRow = [](ScoreRow scores, Index sequence, Index head, Index query, Index first_key) {
  for (std::size_t j = 0; j < scores.size(); ++j)
    scores[j] = kCurved(scores[j], sequence, head, query, first_key + static_cast<Index>(j));
};

template <class F>
ExactFunction exactly(const F& f, double size) {
  return {[f](double score, Index b, Index head, Index query, Index key) { return f(score, b, head, query, key); }, 1,
          size};
}
/// |d/ds s/(1 + s²/16)| <= 1, its value at most 2; of up to three sequences.
ExactFunction exact_curved(Index tokens, Index heads) {
  return exactly(kCurved, 2 + 0.25 * static_cast<double>(heads + 6) + 0.015625 * static_cast<double>(tokens));
}

struct Case {
  const char* name;
  Options options;
};
const Case kCases[] = {
    {"causal", {}},
    {"no mask", {.causal = false}},
    {"window", {.window = 70}},
    {"behind softcap", {.softcap = 2.0f}},
    {"behind alibi", {.alibi_slopes = kSlopes}},
    {"everything",
     {.scale = 0.3f,
      .window = 50,
      .temperature = Temperature{9, 0.3f},
      .softcap = 3.0f,
      .alibi_slopes = kSlopes,
      .sink_logits = kSlopes}},
};

class ScoreFunctions : public EveryIsa {};

TEST_P(ScoreFunctions, ChangeScoresAsTheDefinitionSays) {
  struct Lengths {
    Index queries, keys;
  };
  std::mt19937 generator(51);
  const RelativeBias bias(random_numbers(8 * 32, generator), 8);
  for (const auto& [queries, keys] : {Lengths{1, 300}, Lengths{9, 4}, Lengths{20, 90}, Lengths{2, 1100}}) {
    const Inputs in({8, 2, 16, 8}, 1, queries, keys, 52);
    for (const auto& [name, without] : kCases)
      for (const bool biased : {false, true}) {
        Options options = without;
        options.score_function = kCurved;
        if (biased) options.relative_bias = &bias;
        const Expected expected(in, options, nullptr, exact_curved(keys, 8));
        for (const Storage storage : kAllStorages)
          for (const Source source : {Source::cache, Source::packed_rows}) {
            const Route route{.source = source, .storage = storage};
            const Results results = run(in, route, options);
            expected.check(results, route, name);
            Options rows = options;
            rows.score_function = kCurvedRow;
            expected.check(run(in, route, rows), route, name);
            if (HasFatalFailure()) return;
          }
      }
  }
}

TEST_P(ScoreFunctions, KnowTheSequenceAndTheHead) {
  const Inputs in({6, 3, 32}, 3, 5, 170, 53);
  const std::vector<Index> keys{170, 0, 65}, queries{5, 3, 1};
  const HeadMap cyclic = HeadMap::cyclic(6, 3);
  for (const Source source : kAllSources) {
    Options options{.key_lengths = keys, .query_lengths = queries};
    options.score_function = kCurved;
    expect_defined(in, {.source = source}, options, nullptr, "lengths", exact_curved(170, 6));
    Options mapped{.head_map = &cyclic};
    mapped.score_function = kCurved;
    expect_defined(in, {.source = source}, mapped, nullptr, "map", exact_curved(170, 6));
  }
}

TEST_P(ScoreFunctions, HideKeysByMinusInfinityWithWhateverTheseHold) {
  for (const Index queries : {1, 7, 40}) {
    Inputs in({8, 2, 24}, 1, queries, 260, 54);
    for (Index g = 0; g < 2;
         ++g)  // keys that all heads of all queries hide are poisoned; (key + head) % 3 hides of some
      for (Index t = 0; t < 260; ++t) {
        bool hidden = true;
        for (Index h = 0; h < 8; ++h)
          for (Index i = 0; i < queries; ++i) hidden = hidden && std::isinf(kSparse(0.0f, 0, h, 260 - queries + i, t));
        if (!hidden) continue;
        std::fill_n(in.value(0, t, g), 24, t % 2 == 0 ? kNan : kInfinity);
      }
    Options options{};
    options.score_function = kSparse;
    for (const Storage storage : kAllStorages)
      expect_defined(in, {.storage = storage}, options, nullptr, "sparse", exactly(kSparse, 0));
  }
}

TEST_P(ScoreFunctions, ThatHideEverythingLeaveZero) {
  const auto nothing = [](float, Index, Index, Index, Index) { return -kInfinity; };
  const Inputs in({4, 2, 16}, 1, 3, 150, 55);
  Options options{};
  options.score_function = nothing;
  const Results results = run(in, {}, options);
  EXPECT_EQ(results.output, std::vector<float>(3 * 4 * 16, 0.0f));
  for (const float lse : results.lse) EXPECT_EQ(lse, -kInfinity);
}

TEST_P(ScoreFunctions, OfHiddenKeysNeverShow) {
  // what masks hide: NaN and +∞ of the function there must not come out
  const Inputs in({8, 2, 16}, 1, 9, 200, 56);
  const auto loud = [](float score, Index, Index, Index query, Index key) {
    return key > query ? kNan : key <= query - 90 ? kInfinity : score;
  };
  Options options{.window = 90};
  options.score_function = loud;
  const auto same = [](float score, Index, Index, Index, Index) { return score; };
  Options quiet{.window = 90};
  quiet.score_function = same;
  for (const Storage storage : kAllStorages)
    EXPECT_EQ(run(in, {.storage = storage}, options), run(in, {.storage = storage}, quiet));
}

TEST_P(ScoreFunctions, PassNaNOfAVisibleKeyOn) {
  const Inputs in({2, 1, 16}, 1, 4, 100, 57);
  const auto one = [](float score, Index, Index head, Index query, Index key) {
    return head == 1 && query == 97 && key == 31 ? kNan : score;
  };
  Options options{};
  options.score_function = one;
  const Results results = run(in, {}, options);
  for (std::size_t row = 0; row < 8; ++row) {
    EXPECT_EQ(std::isnan(results.lse[row]), row == 3) << row;
    EXPECT_EQ(std::isnan(results.output[row * 16]), row == 3) << row;
  }
}

TEST_P(ScoreFunctions, LeaveTheBitsIndependentOfThreadsAndOfHowAPromptIsCut) {
  ThreadPool pool(3);
  const Inputs in({8, 2, 32}, 1, 100, 2100, 58, {.coarse = false});
  Options options{.softcap = 5.0f};
  options.score_function = kCurved;
  for (const Storage storage : kAllStorages)
    with_source(in, {.storage = storage}, [&](const auto& source) {
      const Results whole = run_over(source, in, options);
      EXPECT_EQ(run_over(source, in, options, pool), whole);
      for (const Index tokens : {1, 7}) {
        Inputs last(in.heads, 1, tokens, 0);
        std::copy(in.q.end() - std::ssize(last.q), in.q.end(), last.q.begin());
        const Results step = run_over(source, last, options, pool);
        EXPECT_TRUE(std::equal(step.output.begin(), step.output.end(), whole.output.end() - std::ssize(step.output)));
      }
    });
}

HEADWISE_FOR_EVERY_ISA(ScoreFunctions);

TEST(ScoreFunctionOfAPlan, IsTheOneOfItsOptions) {
  const Inputs in({4, 2, 16}, 1, 3, 40, 59);
  const auto cache = cache_of<float>(in);
  Options options{};
  options.score_function = kCurved;
  const Attention<> attend(in.heads);
  const AttentionPlan plan = attend.plan(3, cache, options);
  const Results expected = run_over(cache, in, options);
  std::vector<float> out(expected.output.size());
  attend(plan, View<const float>(in.q.data(), 1, 3, 4, 16), cache, View<float>(out.data(), 1, 3, 4, 16));
  EXPECT_EQ(out, expected.output);
}

}  // namespace
}  // namespace headwise
