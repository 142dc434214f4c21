// SPDX-License-Identifier: MIT
// A relative position bias is added where the definition adds it, whatever else is asked for.
#include <array>
#include <string>

#include "tests/attention/oracle.hpp"

namespace headwise {
namespace {

using namespace testing;

/// Biases of the size that scores have, so that a wrong bucket shows.
RelativeBias random_bias(Index num_heads, RelativeBiasOptions options, unsigned seed = 1) {
  std::mt19937 generator(seed);
  return RelativeBias(random_numbers(num_heads * options.num_buckets, generator), num_heads, options);
}

constexpr std::array<float, 8> kSlopes{0.5f, 0.25f, 0.125f, 0.0625f, 1.0f, 0.0f, -0.01f, 0.75f};

struct Case {
  const char* name;
  Options options;
};
const Case kCases[] = {{"causal", {}},
                       {"scale 1", {.scale = 1.0f}},
                       {"no mask", {.causal = false}},
                       {"window", {.window = 70}},
                       {"both windows", {.causal = false, .window = 40, .window_right = 9}},
                       {"softcap before the bias", {.softcap = 2.0f}},
                       {"beside alibi", {.alibi_slopes = kSlopes}},
                       {"everything", {.scale = 0.3f, .window = 50, .softcap = 3.0f, .alibi_slopes = kSlopes}}};

class RelativeBiases : public EveryIsa {};

TEST_P(RelativeBiases, AreAddedAsTheDefinitionSays) {
  struct Lengths {
    Index queries, keys;
  };
  for (const bool bidirectional : {true, false}) {
    // T5's, one whose last bucket begins within a tile, and one that reaches farther than the keys
    for (const auto& [buckets, furthest] : {std::pair<Index, Index>{32, 128}, {8, 21}, {64, 2000}}) {
      const RelativeBias bias = random_bias(8, {buckets, furthest, bidirectional});
      for (const auto& [queries, keys] : {Lengths{1, 300}, Lengths{9, 4}, Lengths{20, 90}}) {
        const Inputs in({8, 2, 16, 8}, 1, queries, keys, 31);
        for (const auto& [name, without] : kCases) {
          Options options = without;
          options.relative_bias = &bias;
          expect_defined_for_every_storage(in, options, name);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST_P(RelativeBiases, FollowEachSequencesPositionsAndEachHeadsGroup) {
  const Inputs in({6, 3, 32}, 3, 5, 170, 32);
  const RelativeBias bias = random_bias(6, {});
  const std::vector<Index> keys{170, 0, 65}, queries{5, 3, 1}, boundaries{0, 1, 1, 6};
  const HeadMap cyclic = HeadMap::cyclic(6, 3);
  for (const bool causal : {true, false}) {
    expect_defined(in, {}, {.causal = causal, .relative_bias = &bias, .key_lengths = keys, .query_lengths = queries});
    expect_defined(in, {}, {.causal = causal, .relative_bias = &bias, .head_map = &cyclic});
    expect_defined(in, {}, {.causal = causal, .relative_bias = &bias, .group_boundaries = boundaries});
  }
}

TEST_P(RelativeBiases, OfAllModelsShapesAreThatOfTheDefinition) {
  for (const Heads<>& heads : {Heads<>{8, 8, 64}, Heads<>{32, 8, 128}, Heads<>{71, 1, 64}, Heads<>{5, 5, 46}}) {
    const RelativeBias bias = random_bias(heads.num_heads(), {.bidirectional = false});
    for (const auto& [queries, keys] : {std::pair<Index, Index>{1, 1030}, {3, 90}}) {
      const Inputs in(heads, 1, queries, keys, 33);
      const Options options{.relative_bias = &bias};
      const Expected expected(in, options);
      for (const Storage storage : kAllStorages) {
        const Route route{.storage = storage};
        expected.check(run(in, route, options), route);
      }
    }
  }
}

TEST_P(RelativeBiases, LeaveTheBitsIndependentOfThreadsAndOfHowAPromptIsCut) {
  ThreadPool pool(3);
  const RelativeBias bias = random_bias(8, {.bidirectional = false});
  const Options options{.relative_bias = &bias};
  const Inputs in({8, 2, 32}, 1, 100, 1100, 34, {.coarse = false});
  for (const Storage storage : kAllStorages)
    with_source(in, {.storage = storage}, [&](const auto& source) {
      const Results whole = run_over(source, in, options);
      EXPECT_EQ(run_over(source, in, options, pool), whole);
      // the last token alone
      Inputs last(in.heads, 1, 1, 0);
      std::copy(in.q.end() - std::ssize(last.q), in.q.end(), last.q.begin());
      const Results step = run_over(source, last, options);
      EXPECT_TRUE(std::equal(step.output.begin(), step.output.end(), whole.output.end() - std::ssize(step.output)));
    });
}

TEST_P(RelativeBiases, OfZeroChangeNoBit) {
  // though scores and softmax are one pass without a bias
  const RelativeBias zero(std::vector<float>(8 * 32, 0.0f), 8);
  const Inputs in({8, 2, 64}, 1, 5, 200, 35);
  EXPECT_EQ(run(in, {}, {.relative_bias = &zero}), run(in));
}

HEADWISE_FOR_EVERY_ISA(RelativeBiases);

}  // namespace
}  // namespace headwise
