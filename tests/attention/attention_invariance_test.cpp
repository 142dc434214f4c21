// SPDX-License-Identifier: MIT
// The bits of a result depend on the row's own query, keys and options, and on the ISA: not on threads, on what else is
// in the batch, on how a prompt was cut, on where K and V come from.
#include <array>
#include <string>

#include "tests/attention/run.hpp"

namespace headwise {
namespace {

using namespace testing;

constexpr std::array<float, 8> kSlopes{0.5f, 0.25f, 0.125f, 0.0625f, 1.0f, 0.0f, 0.01f, 0.75f};

struct Case {
  const char* name;
  Options options;
};
std::vector<Case> cases() {
  return {{"causal", {}},
          {"window", {.window = 70}},
          {"softcap", {.softcap = 4.0f}},
          {"alibi", {.alibi_slopes = kSlopes}},
          {"large scores", {.scale = 4.0f}}};
}

/// Precise numbers: coarse ones would hide differences of rounding.
Inputs precise(const Heads<>& heads, Index sequences, Index queries, Index keys, unsigned seed) {
  return Inputs(heads, sequences, queries, keys, seed, {.coarse = false});
}

class Invariance : public EveryIsa {};

TEST_P(Invariance, TwoRunsGiveTheSameBits) {
  const Inputs in = precise({8, 2, 64}, 2, 9, 1200, 1);
  for (const Storage storage : kAllStorages) EXPECT_EQ(run(in, {.storage = storage}), run(in, {.storage = storage}));
}

TEST_P(Invariance, AnyNumberOfThreadsGivesTheSameBits) {
  ThreadPool one(1), two(2), three(3), seven(7);
  struct Shape {
    Heads<> heads;
    Index sequences, queries, keys;
  };
  // decode that is split along the keys, decode of a batch, append, prefill, prefill with rows shared out
  for (const auto& [heads, sequences, queries, keys] :
       {Shape{{8, 1, 64}, 1, 1, 4200}, Shape{{8, 2, 64}, 1, 1, 3000}, Shape{{8, 8, 32}, 3, 1, 1100},
        Shape{{8, 2, 48}, 1, 5, 2100}, Shape{{8, 2, 64}, 1, 150, 150}, Shape{{8, 1, 32}, 1, 40, 60}})
    for (const Storage storage : kAllStorages)
      for (const auto& [name, options] : cases()) {
        const Inputs in = precise(heads, sequences, queries, keys, 2);
        with_source(in, {.storage = storage}, [&](const auto& source) {
          const Results serial = run_over(source, in, options);
          EXPECT_EQ(run_over(source, in, options, one), serial) << name;
          EXPECT_EQ(run_over(source, in, options, two), serial) << name;
          EXPECT_EQ(run_over(source, in, options, three), serial) << name;
          EXPECT_EQ(run_over(source, in, options, seven), serial) << name;
        });
        if (HasFailure()) return;
      }
}

/// An executor that promises much, then runs everything backwards on one thread.
struct Backwards {
  Index concurrency() const { return 6; }
  template <class F>
  void parallel_for(Index n, F&& f) const {
    for (Index i = n; i-- > 0;) f(i);
  }
};

TEST_P(Invariance, AnyOrderOfWorkGivesTheSameBits) {
  const Inputs in = precise({8, 2, 64}, 1, 2, 4000, 3);
  EXPECT_EQ(run(in, {}, {}, Backwards{}), run(in));
}

TEST_P(Invariance, ASequenceGivesTheSameBitsInAnyBatch) {
  const std::vector<Index> keys{130, 7, 90, 64}, queries{3, 5, 1, 4};
  const Inputs all = precise({8, 2, 64}, 4, 5, 130, 4);
  for (const Storage storage : kAllStorages)
    for (const auto& [name, options] : cases()) {
      Options batch_options = options;
      batch_options.key_lengths = keys;
      batch_options.query_lengths = queries;
      ThreadPool pool(3);
      const Results batch = run(all, {.storage = storage}, batch_options, pool);
      for (Index b = 0; b < 4; ++b) {
        const Index tokens = queries[static_cast<std::size_t>(b)];
        Inputs one = precise({8, 2, 64}, 1, tokens, keys[static_cast<std::size_t>(b)], 5);
        std::copy_n(all.q.begin() + b * 5 * 8 * 64, one.q.size(), one.q.begin());
        std::copy_n(all.k.begin() + b * 130 * 2 * 64, one.k.size(), one.k.begin());
        std::copy_n(all.v.begin() + b * 130 * 2 * 64, one.v.size(), one.v.begin());
        const Results alone = run(one, {.storage = storage}, options);
        Results in_batch;
        in_batch.output.assign(batch.output.begin() + b * 5 * 8 * 64, batch.output.begin() + (b * 5 + tokens) * 8 * 64);
        in_batch.lse.assign(batch.lse.begin() + b * 5 * 8, batch.lse.begin() + (b * 5 + tokens) * 8);
        EXPECT_EQ(in_batch, alone) << name << ", sequence " << b;
      }
    }
}

TEST_P(Invariance, APromptGivesTheSameBitsHoweverItIsCut) {
  for (const auto& [heads, tokens] :
       {std::pair<Heads<>, Index>{{8, 2, 64}, 300}, {{8, 8, 32}, 200}, {{2, 1, 80, 48}, 1150}})
    for (const Storage storage : kAllStorages)
      for (const auto& [name, options] : cases()) {
        if (tokens > 1000 && !options.alibi_slopes.empty()) continue;  // long prompts: fewer cases
        const Inputs in = precise(heads, 1, tokens, tokens, 6);
        const Results at_once = run(in, {.storage = storage}, options);
        const Index key_row = heads.num_kv_heads() * heads.head_dim(),
                    value_row = heads.num_kv_heads() * heads.value_dim();
        for (const Index chunk : {Index{1}, Index{7}, Index{64}, Index{100}}) {
          if (tokens > 1000 && chunk < 64) continue;
          with_type(storage, [&]<class T>() {
            KvCache<T> cache(heads, tokens);
            Results chunked;
            for (Index t = 0; t < tokens; t += chunk) {
              const Index n = std::min(chunk, tokens - t);
              cache.append(View<const float>(in.k.data() + t * key_row, n, heads.num_kv_heads(), heads.head_dim()),
                           View<const float>(in.v.data() + t * value_row, n, heads.num_kv_heads(), heads.value_dim()));
              append_to(chunked, run_over(cache, some_queries(in, t, n), options));
            }
            EXPECT_EQ(chunked, at_once) << name << ", " << tokens << " tokens in chunks of " << chunk << ", "
                                        << headwise::name_of(storage);
          });
          if (HasFailure()) return;
        }
      }
}

TEST_P(Invariance, WindowsThatBeginInDifferentSegmentsGiveTheBitsOfEachQueryAlone) {
  // keys are summed in segments of 1024: with these windows the first queries of a call see one segment more than the last
  for (const auto& [window, keys] : {std::pair<Index, Index>{3500, 4543}, {3500, 6000}, {5200, 6244}, {1030, 5130}}) {
    const Inputs in = precise({2, 1, 8}, 1, 40, keys, 11);
    const auto cache = cache_of<float>(in);
    ThreadPool pool(3);
    const Results together = run_over(cache, in, {.window = window});
    EXPECT_EQ(run_over(cache, in, {.window = window}, pool), together);
    Results apart;
    for (Index t = 0; t < 40; ++t) {
      const std::vector<Index> length{keys - 39 + t};
      append_to(apart, run_over(cache, some_queries(in, t, 1), {.window = window, .key_lengths = length}));
    }
    EXPECT_EQ(apart, together) << "window of " << window << ", " << keys << " keys";
  }
}

TEST_P(Invariance, ARowGivesTheSameBitsWithAnyNumberOfRowsBesideIt) {
  // without causality all queries see all keys, so each can be asked alone
  for (const Storage storage : kAllStorages)
    for (const Index heads : {Index{1}, Index{3}, Index{8}, Index{40}}) {
      const Inputs in = precise({heads, 1, 64}, 1, 13, 150, 7);
      Results apart;
      for (Index t = 0; t < 13; ++t)
        append_to(apart, with_source(in, {.storage = storage}, [&](const auto& source) {
                    return run_over(source, some_queries(in, t, 1), {.causal = false});
                  }));
      EXPECT_EQ(apart, run(in, {.storage = storage}, {.causal = false})) << heads << " heads";
    }
}

TEST_P(Invariance, TheCallersMemoryGivesTheSameBitsAsTheCache) {
  for (const Heads<>& heads : {Heads<>{8, 2, 64}, Heads<>{5, 5, 46}, Heads<>{6, 2, 80, 33}})
    for (const Index queries : {Index{1}, Index{6}, Index{60}})
      for (const Storage storage : kAllStorages) {
        const Inputs in(heads, 2, queries, 200, 8, {.coarse = false, .storage = storage});
        const Results cache = run(in, {.storage = storage});
        for (const Source source : kAllSources)
          EXPECT_EQ(run(in, {.source = source, .storage = storage}), cache)
              << testing::name_of(source) << " of " << headwise::name_of(storage);
      }
}

TEST_P(Invariance, SharedHeadsGiveTheSameBitsAsRepeatedOnes) {
  for (const Index group : {Index{1}, Index{2}, Index{4}, Index{8}})
    for (const Storage storage : kAllStorages)
      for (const Index queries : {Index{1}, Index{20}}) {
        const Index kv_heads = 8 / group;
        const Inputs shared = precise({8, kv_heads, 64}, 1, queries, 150, 9);
        Inputs repeated = precise({8, 8, 64}, 1, queries, 150, 9);
        repeated.q = shared.q;
        for (Index t = 0; t < 150; ++t)
          for (Index h = 0; h < 8; ++h) {
            std::copy_n(shared.k.begin() + (t * kv_heads + h / group) * 64, 64, repeated.key(0, t, h));
            std::copy_n(shared.v.begin() + (t * kv_heads + h / group) * 64, 64, repeated.value(0, t, h));
          }
        EXPECT_EQ(run(shared, {.storage = storage}), run(repeated, {.storage = storage})) << "groups of " << group;
      }
}

TEST_P(Invariance, ACacheCutBackGivesTheSameBitsAsOneThatNeverWentFurther) {
  const Inputs in = precise({8, 2, 64}, 1, 1, 170, 10);
  Inputs prefix = in;
  prefix.key_tokens = 75;
  const auto fresh = run_over(cache_of<bf16>(prefix), in);
  auto cache = cache_of<bf16>(in);
  cache.truncate(75);
  EXPECT_EQ(run_over(cache, in), fresh);
  // and key_lengths do without changing the cache
  const std::vector<Index> lengths{75};
  EXPECT_EQ(run(in, {.storage = Storage::bf16}, {.key_lengths = lengths}), fresh);
}

HEADWISE_FOR_EVERY_ISA(Invariance);

}  // namespace
}  // namespace headwise
