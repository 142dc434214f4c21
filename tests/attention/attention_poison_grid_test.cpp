// SPDX-License-Identifier: MIT
// What no query sees shows in nothing that a call gives, and a NaN that is seen shows where it was seen and nowhere else:
// under every option, from every kind of cache and storage, in outputs, log-sum-exps, scores, weights and masses.
#include <limits>

#include "tests/attention/every_source.hpp"
#include "tests/attention/some_options.hpp"
#include "tests/attention/visibility.hpp"
#include "tests/attention/weights.hpp"

namespace headwise {
namespace {

using namespace testing;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();
constexpr Index kKeys = 200, kDim = 24, kHeads = 4, kKvHeads = 2;

/// What a call can be asked for after masks; sources take turns.
constexpr Asked kEverything[] = {{.stage = ScoreStage::biased, .mass_heads = 2},
                                 {.stage = ScoreStage::weights, .mass_heads = 4}};

class PoisonGrid : public EveryIsa {};

/// Values are the first dimensions of keys in the latent caches, whose inputs are the same but for that.
Inputs latent(Inputs in) {
  for (Index t = 0; t < in.key_tokens; ++t)
    for (Index g = 0; g < kKvHeads; ++g) std::copy_n(in.key(0, t, g), kDim, in.value(0, t, g));
  return in;
}

/// What calls over every source give, in order.
std::vector<Weights> all_weights(const Inputs& in, const Options& options) {
  std::vector<Weights> result;
  const auto add = [&](const auto& source, const std::string&) {
    const std::size_t turn = result.size() + static_cast<std::size_t>(in.query_tokens == 1);
    result.push_back(weights_over(source, in, options, kEverything[turn % 2]));
  };
  with_every_source(in, add);
  with_every_source(in, add, true);
  return result;
}

TEST_P(PoisonGrid, OfEveryKeyAndValueThatIsHiddenFromAllShowsInNothing) {
  for (const Index queries : {Index{1}, Index{40}}) {
    const SomeOptions some(queries, kKeys);
    const Inputs clean = latent(Inputs({kHeads, kKvHeads, kDim}, 1, queries, kKeys, 21));
    Index cases = 0;  // that hide some key from all
    for (const auto& [name, options] : some.cases()) {
      const Visibility sees(clean, options);
      Inputs bad = clean;
      Index hidden = 0;
      for (Index g = 0; g < kKvHeads; ++g)
        for (Index t = 0; t < kKeys; ++t) {
          if (sees.by_any(g, t)) continue;
          ++hidden;
          const float poison = t % 3 == 0 ? kNan : t % 3 == 1 ? kInfinity : -kInfinity;
          std::fill_n(bad.key(0, t, g), kDim, poison);
          std::fill_n(bad.value(0, t, g), kDim, poison);
        }
      if (hidden == 0) continue;
      ++cases;
      ASSERT_EQ(all_weights(bad, options), all_weights(clean, options)) << name << ", " << queries << " queries";
    }
    EXPECT_GE(cases, 15);
  }
}

/// Row r (token · heads + head) of something with `size` numbers per row.
std::span<const float> row_of(const std::vector<float>& numbers, Index r, Index size) {
  return std::span(numbers).subspan(static_cast<std::size_t>(r * size), static_cast<std::size_t>(size));
}
bool same(std::span<const float> a, std::span<const float> b) {
  return std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}
bool all_nan(std::span<const float> numbers) {
  return std::all_of(numbers.begin(), numbers.end(), [](float x) { return std::isnan(x); });
}

/// Of a call with a NaN in key `at` of KV head 1: the rows that see it are NaN throughout, their masses too; others are as
/// they were.
void expect_nan_of_key(const Weights& bad, const Weights& clean, const Visibility& sees, const Asked& asked,
                       Index queries, Index at) {
  for (Index r = 0; r < queries * kHeads; ++r) {
    const Index h = r % kHeads, i = r / kHeads;
    const auto scores = row_of(bad.scores, r, kKeys + kRoom), was = row_of(clean.scores, r, kKeys + kRoom);
    if (h < 2 || !sees(h, i, at)) {
      ASSERT_TRUE(same(row_of(bad.results.output, r, kDim), row_of(clean.results.output, r, kDim))) << "row " << r;
      ASSERT_TRUE(same(row_of(bad.results.lse, r, 1), row_of(clean.results.lse, r, 1))) << "row " << r;
      ASSERT_TRUE(same(scores, was)) << "row " << r;
      continue;
    }
    ASSERT_TRUE(all_nan(row_of(bad.results.output, r, kDim))) << "row " << r;
    ASSERT_TRUE(std::isnan(bad.results.lse[static_cast<std::size_t>(r)])) << "row " << r;
    for (Index t = 0; t < kKeys; ++t) {
      const bool nan = asked.stage == ScoreStage::weights ? sees(h, i, t) : t == at;
      ASSERT_EQ(std::isnan(scores[static_cast<std::size_t>(t)]), nan) << "row " << r << ", key " << t;
    }
  }
  for (Index t = 0; t < kKeys + kRoom; ++t)
    for (Index m = 0; m < asked.mass_heads; ++m) {
      bool nan = false;  // of some row of this head that sees both
      for (Index r = 0; r < queries * kHeads; ++r) {
        const Index h = r % kHeads, i = r / kHeads;
        nan |=
            h >= 2 && (asked.mass_heads == kKvHeads ? h / 2 : h) == m && t < kKeys && sees(h, i, at) && sees(h, i, t);
      }
      ASSERT_EQ(std::isnan(bad.mass[static_cast<std::size_t>(t * asked.mass_heads + m)]), nan)
          << "mass of key " << t << ", head " << m;
    }
}

TEST_P(PoisonGrid, OfAVisibleKeyReachesAllThatRowsGiveThatSeeIt) {
  for (const Index queries : {Index{1}, Index{40}}) {
    const SomeOptions some(queries, kKeys);
    const Inputs clean({kHeads, kKvHeads, kDim}, 1, queries, kKeys, 22);
    for (const auto& [name, options] : some.cases()) {
      const Visibility sees(clean, options);
      const Index at = queries == 1 ? 165 : 130;
      if (!sees.by_any(1, at)) continue;
      Inputs bad = clean;
      bad.key(0, at, 1)[5] = kNan;
      std::vector<Weights> was;
      const auto asked = [&](std::size_t source) -> const Asked& {
        return kEverything[(source + static_cast<std::size_t>(queries)) % 2];
      };
      with_every_source(clean, [&](const auto& source, const std::string&) {
        was.push_back(weights_over(source, clean, options, asked(was.size())));
      });
      std::size_t number = 0;
      with_every_source(bad, [&](const auto& source, const std::string& of) {
        if (HasFatalFailure()) return;
        SCOPED_TRACE(name + ", " + of + ", " + std::to_string(queries) + " queries");
        const Asked& what = asked(number);
        expect_nan_of_key(weights_over(source, bad, options, what), was[number++], sees, what, queries, at);
      });
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(PoisonGrid, OfAVisibleValueReachesTheOutputsOfRowsThatSeeItAlone) {
  for (const Index queries : {Index{1}, Index{40}}) {
    const SomeOptions some(queries, kKeys);
    const Inputs clean({kHeads, kKvHeads, kDim}, 1, queries, kKeys, 23);
    for (const auto& [name, options] : some.cases()) {
      const Visibility sees(clean, options);
      constexpr Index kAt = 165;
      if (!sees.by_any(1, kAt)) continue;
      Inputs bad = clean;
      bad.value(0, kAt, 1)[5] = kNan;
      std::vector<Weights> was;
      with_every_source(clean, [&](const auto& source, const std::string&) {
        was.push_back(weights_over(source, clean, options, kEverything[0]));
      });
      auto before = was.begin();
      with_every_source(bad, [&](const auto& source, const std::string& of) {
        const Weights got = weights_over(source, bad, options, kEverything[0]), &had = *before++;
        for (Index r = 0; r < queries * kHeads && !HasFatalFailure(); ++r) {
          const auto row = row_of(got.results.output, r, kDim), had_row = row_of(had.results.output, r, kDim);
          const bool seen = r % kHeads >= 2 && sees(r % kHeads, r / kHeads, kAt);
          const bool shared = of.find("int") != of.npos;  // integers: the NaN is in the scale of the value's dimensions
          for (std::size_t d = 0; d < row.size(); ++d)    // of which all but those it reaches keep their bits
            ASSERT_TRUE(seen && (d == 5 || shared) ? std::isnan(row[d])
                                                   : same(row.subspan(d, 1), had_row.subspan(d, 1)))
                << name << ", " << of << ", row " << r << ", dim " << d;
        }
        ASSERT_TRUE(same(got.results.lse, had.results.lse)) << name << ", " << of;
        ASSERT_TRUE(same(got.scores, had.scores)) << name << ", " << of;
        ASSERT_TRUE(same(got.mass, had.mass)) << name << ", " << of;
      });
      if (HasFatalFailure()) return;
    }
  }
}

HEADWISE_FOR_EVERY_ISA(PoisonGrid);

}  // namespace
}  // namespace headwise
