// SPDX-License-Identifier: MIT
// NaN in queries that do not exist shows in nothing, under whatever is done to queries on their way; in one that does, in
// its own row and in the masses of the keys that it sees. And NaN goes through what is made of several calls.
#include <limits>

#include "tests/attention/weights.hpp"

namespace headwise {
namespace {

using namespace testing;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr Index kDim = 24, kHeads = 4;

/// What may be done to queries, one at a time and together.
struct Changes {
  std::vector<float> weight = std::vector<float>(static_cast<std::size_t>(kDim), 0.5f);
  QkNorm norm{kDim, weight, 1e-5f};
  Rope rope{kDim}, sections{kDim, {.sections = {4, 4, 4}}};
  std::vector<Index> positions{3, 1, 0, 0, 0, 9, 8, 7, 6, 5};   // [sequence][token]
  std::vector<Index> threes{std::vector<Index>(2 * 5 * 3, 4)};  // [sequence][token][3]
  std::vector<float> sinks{1.0f, 2.0f, 3.0f, 4.0f}, slopes{1.0f, 0.5f, 0.25f, 0.125f};

  std::vector<Options> all() const {
    return {{},
            {.query_norm = &norm},
            {.query_rope = &rope},
            {.query_norm = &norm, .query_rope = &rope, .query_positions = positions},
            {.query_rope = &sections, .query_positions = threes},
            {.temperature = Temperature{.floor_scale = 16}, .softcap = 5.0f, .alibi_slopes = slopes},
            {.query_norm = &norm, .query_rope = &rope, .window = 20, .num_sink_tokens = 2, .sink_logits = sinks}};
  }
};

class QueryPoison : public EveryIsa {};

TEST_P(QueryPoison, OfTokensThatDoNotExistShowsInNothing) {
  const Changes changes;
  const Inputs clean({kHeads, 2, kDim}, 2, 5, 100, 71);
  Inputs bad = clean;
  const std::vector<Index> lengths{2, 4};
  for (Index b = 0; b < 2; ++b)
    for (Index i = lengths[static_cast<std::size_t>(b)]; i < 5; ++i)
      for (Index h = 0; h < kHeads; ++h) std::fill_n(bad.query(b, i, h), kDim, kNan);
  int number = 0;
  for (Options options : changes.all()) {
    options.query_lengths = lengths;
    for (const Source source : {Source::cache, Source::packed_rows, Source::odd_rows})
      for (const Storage storage : kAllStorages)
        with_source(clean, {.source = source, .storage = storage}, [&](const auto& kv) {
          for (const Asked& asked : {Asked{.stage = ScoreStage::scaled, .mass_heads = 4},
                                     Asked{.stage = ScoreStage::weights, .mass_heads = 2}})
            EXPECT_EQ(weights_over(kv, bad, options, asked), weights_over(kv, clean, options, asked)) << number;
        });
    ++number;
  }
}

TEST_P(QueryPoison, OfARowThatExistsStaysInItAndInTheMassesOfItsKeys) {
  const Changes changes;
  const Inputs clean({kHeads, 2, kDim}, 2, 5, 100, 72);
  Inputs bad = clean;
  bad.query(1, 3, 2)[7] = kNan;
  const Index row = (1 * 5 + 3) * kHeads + 2;
  int number = 0;
  for (const Options& options : changes.all()) {
    const Asked asked{.stage = ScoreStage::biased, .mass_heads = kHeads};
    const auto cache = cache_of<float>(clean);
    const Weights got = weights_over(cache, bad, options, asked), had = weights_over(cache, clean, options, asked);
    for (std::size_t i = 0; i < got.results.output.size(); ++i) {
      if (static_cast<Index>(i) / kDim == row)
        EXPECT_TRUE(std::isnan(got.results.output[i])) << number;
      else
        EXPECT_EQ(got.results.output[i], had.results.output[i]) << number;
    }
    const Index position = 98;  // of token 3 among 100 keys
    for (Index b = 0; b < 2; ++b)
      for (Index t = 0; t < 100; ++t)
        for (Index h = 0; h < kHeads; ++h) {
          const auto at = static_cast<std::size_t>((b * (100 + kRoom) + t) * kHeads + h);
          const bool seen = t <= position && (!options.window || t < 2 || t > position - *options.window);
          EXPECT_EQ(std::isnan(got.mass[at]), b == 1 && h == 2 && seen) << number << ", key " << t << ", head " << h;
          if (b == 0 || h != 2) {
            EXPECT_EQ(got.mass[at], had.mass[at]) << number;
          }
        }
    ++number;
  }
}

TEST_P(QueryPoison, OfALatentKeyReachesItsScoresAndItsValues) {
  // dimensions of the value, and those that are the key's alone
  for (const Index poisoned : {Index{3}, Index{20}})
    for (const Index at : {Index{10}, Index{95}}) {
      Inputs in({kHeads, 1, kDim, 16}, 1, 3, 100, 73);
      const LayerShape shape{.num_kv_heads = 1, .head_dim = kDim, .value_dim = 16, .values_in_keys = true};
      in.key(0, at, 0)[poisoned] = kNan;
      for (const Storage storage : {Storage::f32, Storage::f16, Storage::bf16, Storage::e4m3, Storage::int8}) {
        KvCache<> cache(std::span(&shape, 1), 100, {.key_storage = storage});
        cache.append(View<const float>(in.k.data(), 100, 1, kDim));
        const Options options{.window = 20};
        for (const float x : run_over(cache.layer(), in, options).output) EXPECT_EQ(std::isnan(x), at == 95);
      }
    }
}

TEST_P(QueryPoison, GoesThroughTheDifferenceOfTwoAttentionsInItsHeadAlone) {
  for (const bool in_first : {true, false}) {
    Inputs first({kHeads, 2, kDim}, 1, 3, 70, 74), second({kHeads, 2, kDim}, 1, 3, 70, 75);
    (in_first ? first : second).query(0, 1, 2)[0] = kNan;
    std::vector<float> difference = run(first).output, other = run(second).output;
    subtract_attention(View<float>(difference.data(), 3, kHeads, kDim), 0.5f,
                       View<float>(other.data(), 3, kHeads, kDim));
    for (std::size_t i = 0; i < difference.size(); ++i)
      EXPECT_EQ(std::isnan(difference[i]), static_cast<Index>(i) / kDim == kHeads + 2) << i;
  }
}

HEADWISE_FOR_EVERY_ISA(QueryPoison);

}  // namespace
}  // namespace headwise
