// SPDX-License-Identifier: MIT
// What a query does not see never reaches its output, whatever it is; what it sees goes where arithmetic takes it.
#include <limits>
#include <string>

#include "tests/attention/oracle.hpp"

namespace headwise {
namespace {

using namespace testing;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();

class Poison : public EveryIsa {};

/// Rows of query token t.
bool same_token(const Results& a, const Results& b, const Inputs& in, Index token) {
  const Index rows = in.heads.num_heads(), dim = in.heads.value_dim();
  return std::memcmp(&a.output[static_cast<std::size_t>(token * rows * dim)],
                     &b.output[static_cast<std::size_t>(token * rows * dim)],
                     static_cast<std::size_t>(rows * dim) * sizeof(float)) == 0 &&
         std::memcmp(&a.lse[static_cast<std::size_t>(token * rows)], &b.lse[static_cast<std::size_t>(token * rows)],
                     static_cast<std::size_t>(rows) * sizeof(float)) == 0;
}

TEST_P(Poison, InAKeyOrValueReachesTheQueriesThatSeeItAndNoOther) {
  struct Case {
    Options options;
    Index queries, keys, poisoned;
  };
  const std::vector<Index> sixty{60};
  const Case cases[] = {
      {{}, 5, 100, 98},              // the last tile, seen by some of the queries
      {{}, 130, 130, 70},            // prefill, over several tiles
      {{}, 130, 130, 0},             // seen by all
      {{.window = 10}, 1, 100, 50},  // before the window, in the window's tile or not
      {{.window = 10}, 1, 100, 89},
      {{.window = 40}, 100, 200, 130},  // enters and leaves the window
      {{.causal = false, .window = 3, .window_right = 4}, 90, 90, 45},
      {{.key_lengths = sixty}, 7, 100, 60},  // behind the end, in its tile or not
      {{.key_lengths = sixty}, 7, 100, 99},
      {{.softcap = 3.0f}, 5, 100, 97},
      {{}, 2, 2100, 100},  // must survive the merging of segments
      {{.window = 1000}, 2, 2100, 1500},
  };
  for (const auto& [options, queries, keys, poisoned] : cases)
    for (const bool in_values : {false, true})
      for (const float poison : {kNan, kInfinity, -kInfinity}) {
        const Inputs clean({4, 2, 24}, 1, queries, keys, 31);
        Inputs bad = clean;
        (in_values ? bad.value(0, poisoned, 1) : bad.key(0, poisoned, 1))[5] = poison;
        const Expected by_definition(bad, options);
        for (const Storage storage : kAllStorages)
          for (const Source source : {Source::cache, Source::packed_rows}) {
            const Route route{.source = source, .storage = storage};
            const Results expected = run(clean, route, options), actual = run(bad, route, options);
            by_definition.check(actual, route, in_values ? "poisoned value" : "poisoned key");
            if (HasFatalFailure()) return;
            const Index end = options.key_lengths.empty() ? keys : options.key_lengths[0];
            const VisibleKeys visible(options, end);  // proven against brute force in tests/score
            for (Index t = 0; t < queries; ++t) {
              const Interval seen = visible(end - queries + t);
              if (poisoned >= seen.begin && poisoned < seen.end) continue;
              ASSERT_TRUE(same_token(actual, expected, clean, t))
                  << (in_values ? "value " : "key ") << poison << " at " << poisoned << " of " << keys
                  << " reached token " << t << ", " << testing::name_of(source) << " of " << headwise::name_of(storage);
            }
          }
      }
}

TEST_P(Poison, InAQueryStaysInItsRow) {
  for (const Storage storage : kAllStorages)
    for (const float poison : {kNan, kInfinity}) {
      const Inputs clean({8, 2, 24}, 1, 9, 100, 32);
      Inputs bad = clean;
      bad.query(0, 4, 3)[7] = poison;
      const Results expected = run(clean, {.storage = storage}), actual = run(bad, {.storage = storage});
      for (Index t = 0; t < 9; ++t)
        for (Index h = 0; h < 8; ++h)
          for (Index d = 0; d < 24; ++d) {
            const auto i = static_cast<std::size_t>((t * 8 + h) * 24 + d);
            if (t == 4 && h == 3) {
              EXPECT_TRUE(std::isnan(actual.output[i]));
            } else {
              EXPECT_EQ(actual.output[i], expected.output[i]);
            }
          }
    }
}

TEST_P(Poison, OfEveryUnseenTokenAtOnceChangesNothing) {
  const Inputs clean({4, 2, 24, 40}, 3, 2, 300, 33);
  const std::vector<Index> lengths{10, 130, 200};
  Inputs bad = clean;
  for (Index b = 0; b < 3; ++b)
    for (Index t = 0; t < 300; ++t) {
      const Index end = lengths[static_cast<std::size_t>(b)];
      if (t < end && t > end - 1 - 20 - 1) continue;  // two queries with a window of 20
      for (Index g = 0; g < 2; ++g) {
        std::fill_n(bad.key(b, t, g), 24, t % 3 == 0 ? kNan : t % 3 == 1 ? kInfinity : -kInfinity);
        std::fill_n(bad.value(b, t, g), 40, t % 3 == 0 ? kNan : t % 3 == 1 ? kInfinity : -kInfinity);
      }
    }
  for (const Options& options : {Options{.window = 20}, Options{.window = 20, .softcap = 4.0f}})
    for (const Storage storage : kAllStorages)
      for (const Source source : kAllSources) {
        Options limited = options;
        limited.key_lengths = lengths;
        EXPECT_EQ(run(bad, {.source = source, .storage = storage}, limited),
                  run(clean, {.source = source, .storage = storage}, limited))
            << testing::name_of(source) << " of " << headwise::name_of(storage);
      }
}

TEST_P(Poison, LeftInACachesMemoryIsGoneWhenItIsUsedAgain) {
  const Inputs clean({4, 2, 24}, 1, 3, 70, 34);
  Inputs bad = clean;
  bad.key_tokens = 200;
  bad.k.assign(200 * 2 * 24, kNan);
  bad.v.assign(200 * 2 * 24, kInfinity);
  for (const Storage storage : kAllStorages)
    with_type(storage, [&]<class T>() {
      KvCache<T> cache(clean.heads, 200);
      const auto append = [&](const Inputs& in, Index tokens) {
        cache.append(View<const float>(in.k.data(), tokens, 2, 24), View<const float>(in.v.data(), tokens, 2, 24));
      };
      append(bad, 200);
      cache.clear();
      append(clean, 70);
      EXPECT_EQ(run_over(cache, clean), run(clean, {.storage = storage}));
      append(bad, 20);
      cache.truncate(70);
      EXPECT_EQ(run_over(cache, clean), run(clean, {.storage = storage}));
    });
}

TEST_P(Poison, OfMinusInfinityInAScoreTakesTheKeyAway) {
  // one positive query element meets −inf: the score is −inf, and the key is as if it were not there
  for (const Storage storage : kAllStorages)
    for (const Index keys : {Index{20}, Index{100}, Index{1300}}) {
      Inputs in({2, 1, 16}, 1, 1, keys, 35);
      for (Index h = 0; h < 2; ++h) in.query(0, 0, h)[3] = 1;
      for (Index t = 0; t < keys; ++t)
        if (t % 3 == 0 || t >= keys - 10 || (keys > 1100 && t >= 64 && t < 1100)) in.key(0, t, 0)[3] = -kInfinity;
      expect_defined(in, {.storage = storage});
      if (HasFatalFailure()) return;
    }
}

TEST_P(Poison, OfMinusInfinityInAllScoresLeavesZeroWithLseMinusInfinity) {
  for (const Storage storage : kAllStorages) {
    Inputs in({2, 1, 16}, 1, 1, 1300, 36);
    for (Index h = 0; h < 2; ++h) in.query(0, 0, h)[3] = 1;
    for (Index t = 0; t < 1300; ++t) in.key(0, t, 0)[3] = -kInfinity;
    const Results results = run(in, {.storage = storage});
    for (const float x : results.output) EXPECT_EQ(x, 0.0f);
    for (const float x : results.lse) EXPECT_EQ(x, -kInfinity);
  }
}

TEST_P(Poison, InAVisibleKeySurvivesAnySplitOfTheKeys) {
  ThreadPool pool(7);
  for (const Index poisoned : {Index{0}, Index{1023}, Index{1024}, Index{4000}, Index{4999}}) {
    Inputs in({2, 1, 16}, 1, 1, 5000, 37);
    in.key(0, poisoned, 0)[0] = kNan;
    const Results results = run(in, {}, {}, pool);
    for (const float x : results.output) EXPECT_TRUE(std::isnan(x)) << poisoned;
    for (const float x : results.lse) EXPECT_TRUE(std::isnan(x)) << poisoned;
  }
}

HEADWISE_FOR_EVERY_ISA(Poison);

}  // namespace
}  // namespace headwise
