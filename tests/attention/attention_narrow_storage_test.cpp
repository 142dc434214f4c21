// SPDX-License-Identifier: MIT
// Attention over 8-bit floats, int8 and int4 is attention over the numbers that they stand for: bit for bit what a cache
// of floats gives that holds the same numbers, however rows are cut and spread over threads. Where an ISA meets int8 and
// int4 as integers, queries and weights are rounded to digits of them: near to those bits, but equally the same always.
#include <functional>
#include <limits>
#include <string>

#include "headwise/parallel/thread_pool.hpp"
#include "tests/attention/run.hpp"

namespace headwise {
namespace {

using namespace testing;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

/// The same bits, or both NaN.
void expect_same(const Results& got, const Results& want, const std::string& what) {
  const auto compare = [&](const std::vector<float>& a, const std::vector<float>& b) {
    ASSERT_EQ(a.size(), b.size());
    for (std::size_t i = 0; i < a.size(); ++i)
      ASSERT_TRUE(std::memcmp(&a[i], &b[i], sizeof(float)) == 0 || (std::isnan(a[i]) && std::isnan(b[i])))
          << what << " at " << i << ": " << a[i] << " for " << b[i];
  };
  compare(got.output, want.output);
  compare(got.lse, want.lse);
}

/// How far integers of 16 bits may take results from those of floats (kernel/digits.inl.hpp): half a unit of 1/32639 of
/// the largest per number of a query, and per weight of a tile.
struct DigitError {
  double output = 0, lse = 0;

  DigitError(const Inputs& in, const Options& options) {
    const auto largest = [](const std::vector<float>& x) {
      double result = 0;
      for (const float e : x) result = std::isnan(e) ? result : std::max(result, std::fabs(static_cast<double>(e)));
      return result;
    };
    const double dim = static_cast<double>(in.heads.head_dim()), half = 0.5 / 32639, least = 0x1p-110;
    const double factor = options.softcap > 0 ? 1 / std::sqrt(dim) : 1.4427 / std::sqrt(dim);
    const double query = std::max(largest(in.q) * factor, least) * half;
    lse = dim * query * largest(in.k) + 1e-6;
    // a score that is off by x takes its weight off by x of it, and the sum of weights as well; a tile's 64 weights are
    // each off by half a unit of the largest, which is no more than their sum
    output =
        largest(in.v) * (2 * lse + 64 * half * 1.01) + 64 * 127 * half * least * static_cast<double>(in.key_tokens);
  }
};

void expect_near(const Results& got, const Results& want, const DigitError& error, const std::string& what) {
  const auto compare = [&](const std::vector<float>& a, const std::vector<float>& b, double tolerance) {
    ASSERT_EQ(a.size(), b.size());
    for (std::size_t i = 0; i < a.size(); ++i)
      ASSERT_TRUE(a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i])) ||
                  std::fabs(static_cast<double>(a[i]) - b[i]) <= tolerance + 1e-6 * std::fabs(b[i]))
          << what << " at " << i << ": " << a[i] << " for " << b[i] << " within " << tolerance;
  };
  compare(got.output, want.output, error.output);
  compare(got.lse, want.lse, error.lse);
}

bool met_as_integers(Storage storage) {
  return detail::tile_kernels().operand[static_cast<int>(storage)] == Operand::digits;
}

/// The inputs in a cache of K and V, and in a cache of floats that holds the numbers which that one stores.
template <class K, class V>
struct Pair {
  KvCache<K, V> narrow;
  KvCache<float> wide;

  explicit Pair(const Inputs& in)
      : narrow(in.heads, in.key_tokens, {.num_sequences = in.sequences}),
        wide(in.heads, in.key_tokens, {.num_sequences = in.sequences}) {
    const Index kv_heads = in.heads.num_kv_heads(), dim = in.heads.head_dim(), value_dim = in.heads.value_dim();
    narrow.append(View<const float>(in.k.data(), in.sequences, in.key_tokens, kv_heads, dim),
                  View<const float>(in.v.data(), in.sequences, in.key_tokens, kv_heads, value_dim));
    Inputs read = in;
    for (Index b = 0; b < in.sequences; ++b)
      for (Index t = 0; t < in.key_tokens; ++t)
        for (Index g = 0; g < kv_heads; ++g) {
          narrow.read_key(0, b, t, g, {read.key(b, t, g), static_cast<std::size_t>(dim)});
          narrow.read_value(0, b, t, g, {read.value(b, t, g), static_cast<std::size_t>(value_dim)});
        }
    wide.append(View<const float>(read.k.data(), in.sequences, in.key_tokens, kv_heads, dim),
                View<const float>(read.v.data(), in.sequences, in.key_tokens, kv_heads, value_dim));
  }

  void check(const Inputs& in, const Options& options, const std::string& what) const {
    const Results want = run_over(wide.layer(), in, options), got = run_over(narrow.layer(), in, options);
    if (met_as_integers(Stored<K>::storage) || met_as_integers(Stored<V>::storage))
      expect_near(got, want, DigitError(in, options), what);
    else
      expect_same(got, want, what);
    ThreadPool pool(3);
    expect_same(run_over(narrow.layer(), in, options, pool), got, what + " on threads");
  }
};

/// Calls f.template operator()<K, V>() for every type and for pairs of different ones.
template <class F>
void for_pairs(F f) {
  f.template operator()<e4m3, e4m3>("e4m3");
  f.template operator()<e5m2, e5m2>("e5m2");
  f.template operator()<int8, int8>("int8");
  f.template operator()<int4, int4>("int4");
  f.template operator()<int8, int4>("int8, int4");
  f.template operator()<int4, e4m3>("int4, e4m3");
  f.template operator()<f16, int8>("f16, int8");
  f.template operator()<e5m2, f16>("e5m2, f16");
  f.template operator()<float, int4>("f32, int4");
  f.template operator()<int4, float>("int4, f32");
}

class NarrowStorage : public EveryIsa {};

TEST_P(NarrowStorage, GivesTheBitsOfTheNumbersItStandsForAtEveryShape) {
  struct Shape {
    Heads<> heads;
    Index queries, keys;
  };
  const Shape shapes[] = {
      {{1, 1, 8}, 1, 1},        {{3, 1, 24, 40}, 1, 63},     {{4, 2, 64}, 1, 65},      {{8, 1, 128}, 1, 200},
      {{5, 1, 80, 48}, 1, 130}, {{2, 1, 512, 500}, 1, 70},   {{7, 1, 33, 17}, 1, 100}, {{6, 2, 72, 96}, 2, 128},
      {{9, 1, 64}, 1, 129},     {{4, 1, 13, 130}, 19, 1030}, {{1, 1, 40}, 130, 130},   {{2, 2, 16}, 3, 3},
  };
  for (const auto& [heads, queries, keys] : shapes) {
    const Inputs in(heads, 2, queries, keys, 7, {.coarse = false});
    for_pairs([&]<class K, class V>(const char* name) {
      Pair<K, V>(in).check(in, {},
                           std::string(name) + " heads " + std::to_string(heads.num_heads()) + " dims " +
                               std::to_string(heads.head_dim()) + ", " + std::to_string(heads.value_dim()));
    });
    if (HasFatalFailure()) return;
  }
}

TEST_P(NarrowStorage, GivesTheBitsOfTheNumbersItStandsForUnderEveryMask) {
  const std::vector<Index> lengths{71, 150};
  const std::vector<float> slopes{0.5f, 0.25f, 0.125f, 0.0625f};
  const Options options[] = {{.causal = false},        {.window = 10},    {.window = 100},
                             {.key_lengths = lengths}, {.softcap = 3.0f}, {.alibi_slopes = slopes}};
  for (const Index queries : {1, 3, 40}) {
    const Inputs in({4, 2, 24, 56}, 2, queries, 150, 8, {.coarse = false});
    for_pairs([&]<class K, class V>(const char* name) {
      const Pair<K, V> pair(in);
      for (std::size_t i = 0; i < std::size(options); ++i)
        pair.check(in, options[i], std::string(name) + " options " + std::to_string(i));
    });
    if (HasFatalFailure()) return;
  }
}

TEST_P(NarrowStorage, GivesARowTheSameBitsInAPromptAndAlone) {
  const Inputs in({6, 2, 40, 64}, 1, 150, 150, 9, {.coarse = false});
  for_pairs([&]<class K, class V>(const char* name) {
    const Pair<K, V> pair(in);
    const Results prompt = run_over(pair.narrow.layer(), in);
    const std::size_t rows = 6, width = rows * 64;
    for (const Index token : {0, 1, 63, 64, 100, 149}) {
      Inputs one = in;
      one.query_tokens = 1;
      const std::size_t t = static_cast<std::size_t>(token);
      one.q.assign(in.q.begin() + token * 6 * 40, in.q.begin() + (token + 1) * 6 * 40);
      const std::vector<Index> lengths{token + 1};
      const Results alone = run_over(pair.narrow.layer(), one, {.key_lengths = lengths});
      ASSERT_EQ(0, std::memcmp(alone.output.data(), prompt.output.data() + t * width, width * sizeof(float)))
          << name << " token " << token;
      ASSERT_EQ(0, std::memcmp(alone.lse.data(), prompt.lse.data() + t * rows, rows * sizeof(float)));
    }
  });
}

TEST_P(NarrowStorage, PoisonReachesTheQueriesThatSeeItAndNoOther) {
  for (const Index queries : {1, 5, 120})
    for (const Index poisoned : {30, 98})
      for (const bool in_values : {false, true}) {
        Inputs in({4, 2, 24, 40}, 1, queries, 120, 10, {.coarse = false});
        (in_values ? in.value(0, poisoned, 1) : in.key(0, poisoned, 1))[5] = kNan;
        const std::vector<Index> lengths{97};
        const Options options[] = {{}, {.window = 20}, {.key_lengths = lengths}};
        for_pairs([&]<class K, class V>(const char* name) {
          const Pair<K, V> pair(in);
          for (const Options& o : options) {
            if (!o.key_lengths.empty() && queries > 97) continue;
            pair.check(in, o, std::string(name) + " poisoned");
          }
          const bool hidden = poisoned == 98 && queries < 97;
          if (!hidden) return;
          for (const float x : run_over(pair.narrow.layer(), in, {.key_lengths = lengths}).output)
            ASSERT_FALSE(std::isnan(x)) << name;
        });
        if (HasFatalFailure()) return;
      }
}

TEST_P(NarrowStorage, HoldsTheLargestAndTheSmallestNumbers) {
  for (const float magnitude : {3.4028235e38f, 3.0e38f, 1e30f, 1e-30f, 1e-40f}) {
    Inputs in({2, 1, 32, 48}, 1, 2, 70, 11, {.coarse = false});
    for (float& x : in.q) x *= 0x1p-100f;
    for (float& x : in.k) x = std::clamp(x / 4, -1.0f, 1.0f) * magnitude;
    for (float& x : in.v) x = std::clamp(x / 4, -1.0f, 1.0f) * magnitude;
    for_pairs([&]<class K, class V>(const char* name) {
      Pair<K, V>(in).check(in, {}, std::string(name) + " magnitude " + std::to_string(magnitude));
    });
    if (HasFatalFailure()) return;
  }
}

HEADWISE_FOR_EVERY_ISA(NarrowStorage);

}  // namespace
}  // namespace headwise
