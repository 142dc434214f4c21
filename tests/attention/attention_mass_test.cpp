// SPDX-License-Identifier: MIT
// The attention that each key was paid (Outputs::mass) is the definition's sum of weights, with the same bits however the
// call is worked out.
#include <array>

#include "tests/attention/ragged.hpp"
#include "tests/attention/shared_tiles.hpp"
#include "tests/attention/weight_cases.hpp"

namespace headwise {
namespace {

using namespace testing;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

/// One thread that promises many, so that what can be split is.
struct Promising {
  Index threads = 8;
  Index concurrency() const { return threads; }
  template <class F>
  void parallel_for(Index n, F&& f) const {
    for (Index i = 0; i < n; ++i) f(i);
  }
};

class KeyMasses : public EveryIsa {
 protected:
  static void expect_defined_mass(const Inputs& in, const Route& route, const Options& options,
                                  std::optional<Index> last = {}) {
    with_source(in, route, [&](const auto& source) {
      const ExpectedWeights expected(in, options, meets_pairs(route.storage));
      for (const Index heads : {in.heads.num_heads(), in.heads.num_kv_heads()})
        expected.check_mass(weights_over(source, in, options, {.mass_heads = heads, .last_queries = last}).mass, heads,
                            last);
    });
  }
};

TEST_P(KeyMasses, AreTheDefinitionsOfEveryShapeSourceAndStorage) {
  for_each_weighed_shape([](const Inputs& in, const Route& route) { expect_defined_mass(in, route, {}); });
}

TEST_P(KeyMasses, OfSeveralRowTilesAndSegmentsAreTheDefinitions) {
  for (const Source source : {Source::cache, Source::packed_rows})
    expect_defined_mass(Inputs({4, 2, 8}, 1, 210, 1100, 70), {.source = source}, {});
}

TEST_P(KeyMasses, ObeyMasksLengthsAndBiases) {
  for (const std::optional<Index> last : {std::optional<Index>{}, std::optional<Index>{0}, std::optional<Index>{5}})
    for_each_weighed_option(
        [&](const Inputs& in, const Options& options) { expect_defined_mass(in, {}, options, last); });
}

TEST_P(KeyMasses, OfScoresFarFromZeroAreAsExactAsOfOthers) {
  for (const Index queries : {1, 3})
    for (const float score : {3e4f, -7e5f})
      for (const Index heads : {2, 4}) {
        const Inputs in = alike(queries, 300, score);
        const Options options{.scale = 1.0f, .causal = false};
        const std::vector<float> mass = weights_over(cache_of<float>(in), in, options, {.mass_heads = heads}).mass;
        const auto rows = static_cast<double>(queries * 4 / heads);
        for (Index i = 0; i < 300 * heads; ++i)  // half a unit for each weight
          EXPECT_NEAR(static_cast<double>(mass[static_cast<std::size_t>(i)]), rows / 300, rows * 0x1p-24) << score;
      }
}

TEST_P(KeyMasses, GoToArraysOfAnyOrder) {
  for (const Index queries : {1, 5, 260})
    for (const Index keys : {0, 1, 63, 64, 65, 300, 1030})
      for (const Index heads : {2, 34}) {
        const Inputs in({34, 2, 8}, 1, queries, keys, 84);
        const auto cache = cache_of<float>(in);
        const std::vector<float> packed = weights_over(cache, in, {.window = 200}, {.mass_heads = heads}).mass;
        const Index room = keys + kRoom, spread = heads + 3;
        const std::vector<Strides> orders{
            {0, 1, room, 1}, {0, spread, 1, 1}, {0, 2, 2 * room + 1, 1}, {0, -1, room, 1}};
        for (const Strides& order : orders)
          for (const bool add : {false, true}) {
            const float before = 0.25f, gap = 77.0f;
            std::vector<float> memory(static_cast<std::size_t>((2 * room + 1) * spread), gap), out(in.q.size());
            float* const first = memory.data() + (order.token < 0 ? room - 1 : 0);
            const auto at = [&](Index t, Index h) -> float& { return first[t * order.token + h * order.head]; };
            for (Index t = 0; t < room; ++t)
              for (Index h = 0; h < heads; ++h) at(t, h) = add ? before : kNan;
            Outputs outputs(View<float>(out.data(), queries, 34, 8));
            outputs.mass = {View<float>(first, 1, room, heads, 1, order), add};
            Attention<>{in.heads}(View<const float>(in.q.data(), queries, 34, 8), cache, outputs, {.window = 200});
            for (Index t = 0; t < room; ++t)
              for (Index h = 0; h < heads; ++h) {
                const float mass = packed[static_cast<std::size_t>(t * heads + h)];
                ASSERT_EQ(at(t, h), add ? before + mass : mass) << "key " << t << ", head " << h;
                at(t, h) = gap;
              }
            EXPECT_EQ(std::count(memory.begin(), memory.end(), gap), std::ssize(memory)) << "written between elements";
          }
      }
}

TEST_P(KeyMasses, FollowScoresThatRiseSoFarThatSumsAreRescaled) {
  Inputs in({2, 1, 8}, 1, 40, 700, 73);
  for (Index t = 0; t < 700; ++t)
    for (Index d = 0; d < 8; ++d) in.key(0, t, 0)[d] *= static_cast<float>(t / 64) * 4;
  expect_defined_mass(in, {}, {.causal = false});
}

TEST_P(KeyMasses, HaveTheSameBitsForAnyThreadsAndPlan) {
  ThreadPool two(2), three(3);
  for (const auto& [queries, keys] : {std::pair<Index, Index>{1, 3000}, {4, 5000}, {300, 300}, {130, 2500}}) {
    const Inputs in({4, 2, 8}, 2, queries, keys, 74, {.coarse = false});
    for (const Storage storage : {Storage::f32, Storage::bf16})
      for (const Source source : {Source::cache, Source::packed_rows})
        with_source(in, {.source = source, .storage = storage}, [&](const auto& kv) {
          for (const Index heads : {2, 4})
            for (const std::optional<Index> last : {std::optional<Index>{}, std::optional<Index>{3}}) {
              const Options options{.window = 2000};
              const Asked asked{.mass_heads = heads, .last_queries = last};
              const Weights one = weights_over(kv, in, options, asked);
              EXPECT_EQ(one.results, run_over(kv, in, options));
              EXPECT_EQ(weights_over(kv, in, options, asked, two), one);
              EXPECT_EQ(weights_over(kv, in, options, asked, three), one);
              EXPECT_EQ(weights_over(kv, in, options, asked, Promising{64}), one);
              EXPECT_EQ(weights_over(kv, in, options, {.mass_heads = heads, .last_queries = last, .lse = false}).mass,
                        one.mass);
            }
        });
  }
}

TEST_P(KeyMasses, OfWorkThatIsTooLargeToBeSplitHaveTheSameBits) {
  // more than 64 MiB of weights, if items were split
  const Inputs in({8, 8, 8}, 1, 700, 3200, 75, {.coarse = false});
  const auto cache = cache_of<f16>(in);
  const Asked asked{.mass_heads = 8};
  EXPECT_EQ(weights_over(cache, in, {}, asked, Promising{64}), weights_over(cache, in, {}, asked));
}

TEST_P(KeyMasses, AddUpOverTheChunksOfAPrompt) {
  const Index tokens = 140;
  const Inputs in({4, 2, 8}, 1, tokens, tokens, 76, {.coarse = false});
  const auto cache = cache_of<float>(in);
  const std::vector<float> whole = weights_over(cache, in, {}, {.mass_heads = 2}).mass;
  for (const Index chunk : {1, 30, 64}) {
    std::vector<float> sums(whole.size(), 0.0f), out(in.q.size());
    for (Index t = 0; t < tokens; t += chunk) {
      const Index count = std::min(chunk, tokens - t);
      const std::vector<Index> length{t + count};
      Outputs outputs(View<float>(out.data(), count, 4, 8));
      outputs.mass = {View<float>(sums.data(), tokens + kRoom, 2, 1), true};
      Attention<>{in.heads}(View<const float>(in.q.data() + t * 32, count, 4, 8), cache, outputs,
                            {.key_lengths = length});
    }
    for (std::size_t i = 0; i < sums.size(); ++i) {
      // sums of multiples of 2^-23 are exact below 2
      if (whole[i] < 2) {
        EXPECT_EQ(sums[i], whole[i]) << i << ", chunks of " << chunk;
      } else {
        EXPECT_NEAR(sums[i], whole[i], whole[i] * 0x1p-24f * static_cast<float>(ceil_div(tokens, chunk) + 1));
      }
    }
  }
}

TEST_P(KeyMasses, AreAddedToWhatWasThereOrSet) {
  for (const Index queries : {1, 150}) {
    const Inputs in({4, 2, 8}, 1, queries, 200, 77);
    const auto cache = cache_of<float>(in);
    const std::vector<float> set = weights_over(cache, in, {}, {.mass_heads = 4}).mass;
    const std::vector<float> added = weights_over(cache, in, {}, {.mass_heads = 4, .add = true}, Serial{}, 0.5f).mass;
    for (std::size_t i = 0; i < set.size(); ++i) EXPECT_EQ(added[i], 0.5f + set[i]);
  }
}

TEST_P(KeyMasses, NanInHiddenKeysAndValuesIsNotSeen) {
  for (const Index queries : {1, 5, 140})
    for (const Index keys : {300, 2200}) {
      const Inputs clean({4, 2, 8}, 1, queries, keys, 78);
      Inputs bad = clean;
      const Options options{.window = 40, .num_sink_tokens = 2};
      for (Index t = 2; t < keys - queries - 40; ++t)
        for (const Index h : {0, 1}) {
          std::fill_n(bad.key(0, t, h), 8, kNan);
          std::fill_n(bad.value(0, t, h), 8, kNan);
        }
      for (const Source source : {Source::cache, Source::packed_rows})
        with_source(bad, {.source = source}, [&](const auto& kv) {
          for (const Index heads : {2, 4})
            EXPECT_EQ(weights_over(kv, bad, options, {.mass_heads = heads}, Promising{3}),
                      weights_over(cache_of<float>(clean), clean, options, {.mass_heads = heads}))
                << queries << " queries, " << keys << " keys";
        });
    }
}

TEST_P(KeyMasses, ANanPaysNanToTheKeysThatItsQueriesSee) {
  const Index keys = 400;
  for (const Index queries : {2, 100})
    for (const Index heads : {2, 4}) {
      Inputs in({4, 2, 8}, 1, queries, keys, 79);
      const Index bad = keys - 1;  // seen by the last query alone
      std::fill_n(in.key(0, bad, 1), 8, kNan);
      std::fill_n(in.value(0, 3, 0), 8, kNan);  // of a value shows in outputs alone
      const Options options{.window = 150};
      const std::vector<float> mass = weights_over(cache_of<float>(in), in, options, {.mass_heads = heads}).mass;
      const std::vector<float> others =
          weights_over(cache_of<float>(in), in, options, {.mass_heads = heads, .last_queries = 0}).mass;
      for (Index t = 0; t < keys + kRoom; ++t)
        for (Index h = 0; h < heads; ++h) {
          const auto at = static_cast<std::size_t>(t * heads + h);
          EXPECT_EQ(std::isnan(mass[at]), h * 2 / heads == 1 && t < keys && t > keys - 1 - 150) << t << ", head " << h;
          EXPECT_EQ(others[at], 0.0f);
        }
    }
}

HEADWISE_FOR_EVERY_ISA(KeyMasses);

TEST(KeyMassesOf, AnyGroupingAreThoseOfItsHeads) {
  const Inputs in({4, 2, 8}, 1, 60, 100, 80, {.coarse = false});
  const auto cache = cache_of<float>(in);
  const HeadMap cyclic = HeadMap::cyclic(4, 2);
  const std::vector<Index> boundaries{0, 3, 4}, lone{0, 4, 4};
  const auto expect_sums = [&](const Options& options, const std::array<Index, 4>& kv_head_of) {
    const std::vector<float> by_head = weights_over(cache, in, options, {.mass_heads = 4}).mass;
    const std::vector<float> by_group = weights_over(cache, in, options, {.mass_heads = 2}).mass;
    for (Index t = 0; t < 100 + kRoom; ++t) {
      std::array<double, 2> sums{};
      for (Index h = 0; h < 4; ++h)
        sums[static_cast<std::size_t>(kv_head_of[static_cast<std::size_t>(h)])] +=
            static_cast<double>(by_head[static_cast<std::size_t>(t * 4 + h)]);
      for (Index g = 0; g < 2; ++g)  // each head's sum was rounded to f32
        EXPECT_NEAR(static_cast<double>(by_group[static_cast<std::size_t>(t * 2 + g)]),
                    sums[static_cast<std::size_t>(g)], 6 * 0x1p-24 * sums[static_cast<std::size_t>(g)]);
    }
  };
  expect_sums({}, {0, 0, 1, 1});
  expect_sums({.head_map = &cyclic}, {0, 1, 0, 1});
  expect_sums({.group_boundaries = boundaries}, {0, 0, 0, 1});
  expect_sums({.group_boundaries = lone}, {0, 0, 0, 0});
}

TEST(KeyMassesOf, RaggedBatchesAreThoseOfEachSequence) {
  ThreadPool pool(3);
  const RaggedBatch batch({4, 2, 8}, {{260, 300}, {1, 2100}, {0, 30}, {7, 9}, {1, 1}, {1, 0}});
  const auto cache = cache_of<float>(batch.keys);
  for (const std::optional<Index> last : {std::optional<Index>{}, std::optional<Index>{4}}) {
    const Asked asked{.mass_heads = 2, .last_queries = last};
    const Weights all = weights_of(batch.queries, batch.keys, asked, 0, [&](auto q, const Outputs& outputs) {
      const Attention<> attend(batch.queries.heads);
      attend(attend.plan(q.tokens(), cache, batch.over_all({}), pool), q, cache, outputs, pool);
    });
    const Index of_sequence = (batch.keys.key_tokens + kRoom) * 2;
    for (Index b = 0; b < 6; ++b) {
      const Inputs in = batch.alone(b);
      const std::vector<float> one = weights_over(cache_of<float>(in), in, {}, asked).mass;
      for (Index i = 0; i < of_sequence; ++i)
        ASSERT_EQ(all.mass[static_cast<std::size_t>(b * of_sequence + i)],
                  i < in.key_tokens * 2 ? one[static_cast<std::size_t>(i)] : 0.0f)
            << "sequence " << b << ", " << i;
    }
  }
}

TEST(KeyMassesOf, SequencesThatShareAPrefixAreThoseOfEachAlone) {
  const RaggedBatch batch({4, 2, 8}, {{1, 2200}, {2, 2100}, {1, 2050}});
  const SharedTiles<float> source(batch, {{0, 2048}, {0, 2048}, {0, 1024}});
  const auto masses = [&](std::optional<bool> share, const auto& executor) {
    Options options = batch.over_all({});
    options.share_prefix = share;
    return weights_of(batch.queries, batch.keys, {.mass_heads = 4}, 0, [&](auto q, const Outputs& outputs) {
      Attention<>{batch.queries.heads}(q, source, outputs, options, executor);
    });
  };
  const Weights apart = masses(false, Serial{});
  EXPECT_EQ(masses(true, Serial{}), apart);
  EXPECT_EQ(masses(true, Promising{5}), apart);
}

}  // namespace
}  // namespace headwise
