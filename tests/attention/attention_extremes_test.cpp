// SPDX-License-Identifier: MIT
// Rows of the largest numbers that a storage type has: as long as scores are in the range of f32, which they are summed in,
// nothing overflows.
#include <cmath>
#include <limits>

#include "tests/attention/oracle.hpp"

namespace headwise {
namespace {

using namespace testing;

constexpr float kMost = std::numeric_limits<float>::max();
constexpr Index kDim = 16, kKeys = 200;

class Extremes : public EveryIsa {};

struct Largest {
  Storage storage;
  float number;
};
constexpr Largest kLargest[] = {{Storage::f32, kMost},    {Storage::f16, 65504.0f},  {Storage::bf16, 0x1.fep127f},
                                {Storage::e4m3, 448.0f},  {Storage::e5m2, 57344.0f}, {Storage::int8, 0x1.fep127f},
                                {Storage::int4, 0x1p127f}};
constexpr Largest kQueries[] = {{Storage::f32, kMost}, {Storage::f16, 65504.0f}, {Storage::bf16, 0x1.fep127f}};

/// The inputs in a cache of these storage types.
KvCache<> cache_with(const Inputs& in, Storage keys, Storage values) {
  const LayerShape shape{.num_kv_heads = 1, .head_dim = kDim};
  KvCache<> cache(std::span(&shape, 1), kKeys, {.key_storage = keys, .value_storage = values});
  cache.append(View<const float>(in.k.data(), kKeys, 1, kDim), View<const float>(in.v.data(), kKeys, 1, kDim));
  return cache;
}

/// Whether a key has the sign of the queries.
bool agrees(Index t) { return t % 5 == 0 || (t > 80 && t < 120); }

/// The mean of the values of the keys 0 … p that count.
template <class Counts>
double mean(Inputs& in, Index p, Index d, Counts counts) {
  double sum = 0, number = 0;
  for (Index t = 0; t <= p; ++t)
    if (counts(t)) {
      sum += static_cast<double>(in.value(0, t, 0)[d]);
      ++number;
    }
  return sum / number;
}

TEST_P(Extremes, KeysOfTheLargestNumbersGiveTheMeanOverThoseThatAgreeWithTheQuery) {
  for (const Largest& keys : kLargest)
    for (const Largest& queries : kQueries)
      for (const Index tokens : {Index{1}, Index{40}}) {
        // no score beyond 2^125
        const double bound = std::ldexp(1.0, 125) / (kDim * static_cast<double>(keys.number));
        const float q = std::min(queries.number, std::ldexp(1.0f, std::ilogb(bound)));
        if (queries.storage == Storage::f16 && q < 0x1p-14f) continue;  // no f16 is small enough
        Inputs in({2, 1, kDim}, 1, tokens, kKeys, 61);
        std::fill(in.q.begin(), in.q.end(), q);
        for (Index t = 0; t < kKeys; ++t) std::fill_n(in.key(0, t, 0), kDim, agrees(t) ? keys.number : -keys.number);
        const KvCache<> cache = cache_with(in, keys.storage, Storage::f32);
        std::vector<float> stored(kDim);
        cache.read_key(0, 0, 0, 0, stored);
        ASSERT_TRUE(std::isfinite(stored[0]) && stored[0] >= 0.99f * keys.number) << headwise::name_of(keys.storage);
        const Results got = run_over(cache.layer(), in, {.scale = 1.0f}, Serial{},
                                     {.queries = queries.storage, .outputs = Storage::f32});
        for (Index i = 0; i < tokens; ++i) {
          const Index p = kKeys - tokens + i;
          double agreeing = 0;
          for (Index t = 0; t <= p; ++t) agreeing += agrees(t);
          const double score = kDim * static_cast<double>(q) * static_cast<double>(stored[0]);
          for (Index h = 0; h < 2; ++h) {
            const auto row = static_cast<std::size_t>(i * 2 + h);
            // queries and digits are rounded to 2^-8 at the worst
            EXPECT_NEAR(static_cast<double>(got.lse[row]), score + std::log(agreeing), score * 0x1p-8)
                << headwise::name_of(keys.storage) << ", queries " << headwise::name_of(queries.storage);
            for (Index d = 0; d < kDim; ++d)
              ASSERT_NEAR(static_cast<double>(got.output[row * kDim + static_cast<std::size_t>(d)]),
                          mean(in, p, d, agrees), 1e-5)
                  << headwise::name_of(keys.storage) << ", queries " << headwise::name_of(queries.storage);
          }
        }
      }
}

TEST_P(Extremes, QueriesOfTheLargestNumbersMeetSmallKeysAsOthersDo) {
  for (const Index tokens : {Index{1}, Index{40}}) {
    Inputs in({2, 1, kDim}, 1, tokens, kKeys, 62);
    for (std::size_t i = 0; i < in.q.size(); ++i) in.q[i] = i % 3 == 0 ? -kMost : kMost;
    for (float& x : in.k) x *= 0x1p-120f;
    for (const Source source : {Source::cache, Source::packed_rows})
      expect_defined(in, {.source = source}, {.scale = 0x1p-8f});
  }
}

TEST_P(Extremes, ValuesOfTheLargestNumbersGiveTheirMean) {
  for (const Largest& values : kLargest)
    for (const Index tokens : {Index{1}, Index{40}}) {
      const float v = values.number;  // keys are 0, weights equal: a plain sum would overflow
      Inputs in({2, 1, kDim}, 1, tokens, kKeys, 63);
      std::fill(in.k.begin(), in.k.end(), 0.0f);
      for (Index t = 0; t < kKeys; ++t) std::fill_n(in.value(0, t, 0), kDim, t % 4 == 0 ? -v : v);
      const KvCache<> cache = cache_with(in, Storage::f32, values.storage);
      for (Index t = 0; t < kKeys; ++t) cache.read_value(0, 0, t, 0, {in.value(0, t, 0), kDim});
      const Results got = run_over(cache.layer(), in);
      for (Index i = 0; i < tokens; ++i)
        for (Index d = 0; d < 2 * kDim; ++d) {
          const double expected = mean(in, kKeys - tokens + i, d % kDim, [](Index) { return true; });
          ASSERT_NEAR(static_cast<double>(got.output[static_cast<std::size_t>(i * 2 * kDim + d)]) / v, expected / v,
                      1e-4)  // weights of digits are rounded to 2^-15
              << headwise::name_of(values.storage);
        }
    }
}

TEST_P(Extremes, ValuesOfTheLargestFloatOverManySegmentsGiveTheirMean) {
  // of several heads, tokens and segments; rows of one head alone have large values
  constexpr Index kMany = 3000;
  for (const Index tokens : {Index{1}, Index{70}}) {
    Inputs in({4, 2, kDim}, 1, tokens, kMany, 64);
    for (float& x : in.k) x *= 0.01f;  // weights of 1/3000 each, but for a percent
    for (Index t = 0; t < kMany; ++t) std::fill_n(in.value(0, t, 1), kDim, t % 8 == 0 ? -kMost : kMost);
    for (const Source source : {Source::cache, Source::packed_rows}) {
      const Results got = run(in, {.source = source}), other = [&] {
        Inputs moderate = in;
        for (Index t = 0; t < kMany; ++t) std::fill_n(moderate.value(0, t, 1), kDim, 1.0f);
        return run(moderate, {.source = source});
      }();
      for (Index i = 0; i < tokens; ++i)
        for (Index h = 0; h < 4; ++h)
          for (Index d = 0; d < kDim; ++d) {
            const auto at = static_cast<std::size_t>((i * 4 + h) * kDim + d);
            if (h < 2)
              ASSERT_EQ(got.output[at], other.output[at]);  // not a bit of a row hangs on others
            else
              ASSERT_NEAR(static_cast<double>(got.output[at]) / static_cast<double>(kMost), 0.75, 0.01);
          }
    }
  }
}

TEST_P(Extremes, ValuesOfTheLargestFloatHaveTheSameBitsOnAnyThreadsAndInAnyChunks) {
  constexpr Index kMany = 1500, kTokens = 90;
  Inputs in({4, 2, kDim}, 1, kTokens, kMany, 65);
  for (Index t = 0; t < kMany; t += 3) std::fill_n(in.value(0, t, 1), kDim, t % 2 == 0 ? -kMost : kMost);
  const Results whole = run(in, {});
  ThreadPool pool(3);
  EXPECT_EQ(run(in, {}, {}, pool).output, whole.output);
  std::vector<float> last(whole.output.end() - 4 * kDim, whole.output.end());
  for (const float x : whole.output) ASSERT_TRUE(std::isfinite(x));
  in.q.erase(in.q.begin(), in.q.end() - 4 * kDim);
  Inputs alone = in;
  alone.query_tokens = 1;
  EXPECT_EQ(run(alone, {}).output, last);
}

TEST_P(Extremes, ANanBesideValuesOfTheLargestFloatIsOfItsDimensionAlone) {
  // rows of one head see both: the NaN does not take from them what the others have
  constexpr Index kMany = 700;
  for (const Index tokens : {Index{1}, Index{40}}) {
    Inputs in({4, 2, kDim}, 1, tokens, kMany, 66);
    std::fill(in.k.begin(), in.k.end(), 0.0f);
    Inputs bad = in;
    for (const Index head : {Index{0}, Index{1}})
      for (Index t = 0; t < kMany; ++t)
        std::fill_n(bad.value(0, t, head), kDim / 2, t % 2 == 0 ? kMost : 0.5f * kMost);
    bad.value(0, 3, 1)[kDim - 1] = std::numeric_limits<float>::quiet_NaN();
    const Results got = run(bad, {}), had = run(in, {});
    for (std::size_t row = 0; row < got.lse.size(); ++row)
      for (std::size_t d = 0; d < kDim; ++d) {
        const float x = got.output[row * kDim + d], was = had.output[row * kDim + d];
        if (row % 4 < 2) {  // the other head
          const float expected = d < kDim / 2 ? 0.75f : was, unit = d < kDim / 2 ? kMost : 1.0f;
          ASSERT_NEAR(static_cast<double>(x / unit), static_cast<double>(expected), 0.01);
        } else if (d >= kDim / 2) {
          ASSERT_TRUE(d == kDim - 1 ? std::isnan(x) : x == was) << "dim " << d;
        }
      }
    for (std::size_t row = 0; row < got.lse.size(); ++row) ASSERT_NEAR(got.lse[row], had.lse[row], 1e-5);
    for (std::size_t row = 2; row < got.lse.size(); row += 4) ASSERT_EQ(got.lse[row], had.lse[row]);
  }
}

TEST_P(Extremes, ScoresBeyondF32MakeTheirRowNanOrCountAsHidden) {
  for (const Index tokens : {Index{1}, Index{40}}) {
    const Inputs in({4, 2, kDim}, 1, tokens, kKeys, 67);
    Inputs large = in;
    std::fill_n(large.key(0, 7, 0), kDim, 0x1p100f);
    for (Index i = 0; i < tokens; ++i) {
      std::fill_n(large.q.begin() + i * 4 * kDim, kDim, 0x1p40f);
      std::fill_n(large.q.begin() + (i * 4 + 1) * kDim, kDim, -0x1p40f);
    }
    Inputs hidden = large;
    std::fill_n(hidden.key(0, 7, 0), kDim, 0.0f);
    std::vector<std::uint8_t> others(static_cast<std::size_t>(kKeys), 1);
    others[7] = 0;
    const Mask mask(others.data(), 1, kKeys);
    const Results got = run(large, {}), without = run(hidden, {}, {.mask = mask}), had = run(in, {});
    for (std::size_t row = 0; row < got.lse.size(); ++row)
      for (std::size_t d = 0; d < kDim; ++d) {
        const float x = got.output[row * kDim + d];
        if (row % 4 == 0)  // above
          ASSERT_TRUE(std::isnan(x) && std::isnan(got.lse[row]));
        else  // below; the other KV head
          ASSERT_EQ(x, (row % 4 == 1 ? without : had).output[row * kDim + d]) << "row " << row << ", dim " << d;
      }
  }
}

HEADWISE_FOR_EVERY_ISA(Extremes);

}  // namespace
}  // namespace headwise
