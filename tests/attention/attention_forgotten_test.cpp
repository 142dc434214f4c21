// SPDX-License-Identifier: MIT
// Sources that forget old tokens: what a query does not see may be gone, and one that would see a token that is gone is
// refused before anything is read.
#include <limits>
#include <vector>

#include "tests/attention/run.hpp"
#include "tests/support/errors.hpp"

namespace headwise {
namespace {

using namespace testing;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

/// A cache that keeps the first `sinks` tokens and those from `begin` on: all others are NaN, and tiles of nothing else
/// may not be asked for.
class Forgetful {
 public:
  Forgetful(const Inputs& in, std::vector<TokenRange> kept)
      : cache_(cache_of<float>(poisoned(in, kept))), kept_(kept) {}

  TileFormat format() const { return cache_.layer().format(); }
  Index num_sequences() const { return cache_.num_sequences(); }
  Index num_tokens(Index sequence) const { return cache_.num_tokens(0, sequence); }
  TilePointers tile(Index sequence, Index kv_head, Index index) const {
    const TokenRange kept = this->kept(sequence);
    EXPECT_TRUE(index * kTileTokens < kept.sinks || (index + 1) * kTileTokens > kept.begin) << "tile " << index;
    ++asked_;
    return cache_.layer().tile(sequence, kv_head, index);
  }
  TokenRange kept(Index sequence) const { return kept_[static_cast<std::size_t>(sequence)]; }
  Index asked() const { return asked_; }

 private:
  static Inputs poisoned(Inputs in, const std::vector<TokenRange>& kept) {
    for (Index b = 0; b < in.sequences; ++b)
      for (Index t = kept[static_cast<std::size_t>(b)].sinks; t < kept[static_cast<std::size_t>(b)].begin; ++t)
        for (Index h = 0; h < in.heads.num_kv_heads(); ++h) {
          std::fill_n(in.key(b, t, h), in.heads.head_dim(), kNan);
          std::fill_n(in.value(b, t, h), in.heads.value_dim(), kNan);
        }
    return in;
  }

  KvCache<float> cache_;
  std::vector<TokenRange> kept_;
  mutable Index asked_ = 0;
};

static_assert(TileSource<Forgetful>);

class Forgotten : public EveryIsa {};

TEST_P(Forgotten, TokensThatNoQuerySeesChangeNothing) {
  for (const Index keys : {Index{300}, Index{2300}})
    for (const Index queries : {1, 6, 50})
      for (const Index sinks : {0, 4, 64})
        for (const Index window : {1, 64, 65, 130}) {
          const Inputs in({4, 2, 8}, 1, queries, keys, 61, {.coarse = false});
          const Options options{.window = window, .num_sink_tokens = sinks};
          const Forgetful source(in, {{sinks, keys - queries - window + 1, keys}});
          EXPECT_EQ(run_over(source, in, options), run(in, {}, options))
              << keys << " keys, " << queries << " queries, " << sinks << " sinks, window of " << window;
          if (HasFailure()) return;
        }
}

HEADWISE_FOR_EVERY_ISA(Forgotten);

TEST(ForgottenTokens, ThatAQueryWouldSeeAreRefusedBeforeAnythingIsRead) {
  const Inputs in({2, 1, 8}, 1, 5, 300, 62);
  const Forgetful source(in, {{4, 200, 300}});
  const auto refused = [&](const Options& options, std::initializer_list<std::string_view> parts) {
    expect_error([&] { run_over(source, in, options); }, parts);
    EXPECT_EQ(source.asked(), 0);
  };
  // the first query stands at 295
  refused({.window = 97}, {"window (97) of 5 query tokens of sequence 0", "back to token 199",
                           "tokens 0 to 3 and 200 to 299", "smaller window, or fewer query tokens"});
  refused({}, {"window (unset)", "back to token 4"});
  refused({.window = 300, .num_sink_tokens = 4}, {"window (300)", "back to token 4"});
  refused({.window = 50, .num_sink_tokens = 5},
          {"num_sink_tokens (5)", "at most the first tokens that the cache keeps (4) of sequence 0", "from 200 on"});
  refused({.window = 50, .num_sink_tokens = 250},
          {"token 4", "num_sink_tokens of at most 4"});  // sinks and window touch
  EXPECT_NO_THROW(run_over(source, in, {.window = 96}));
  EXPECT_NO_THROW(run_over(source, in, {.window = 96, .num_sink_tokens = 4}));
}

TEST(ForgottenTokens, AreRefusedByWhatTheQueriesOfTheCallSee) {
  const std::vector<Index> one{1}, short_keys{199}, early{4};
  const Inputs in({2, 1, 8}, 1, 5, 300, 63);
  const Forgetful source(in, {{4, 200, 300}});
  // a single query at 299 sees four keys fewer
  EXPECT_NO_THROW(run_over(source, in, {.window = 100, .query_lengths = one}));
  EXPECT_ANY_THROW(run_over(source, in, {.window = 101, .query_lengths = one}));
  // shorter keys put the queries among what was forgotten, or before it
  EXPECT_ANY_THROW(run_over(source, in, {.window = 1, .key_lengths = short_keys, .query_lengths = one}));
  EXPECT_NO_THROW(run_over(source, in, {.key_lengths = early}));
  EXPECT_NO_THROW(run_over(source, in, {.window = 0}));
}

TEST(ForgottenTokens, NameTheFirstSequenceThatLacksThem) {
  const std::vector<Index> none_of_two{5, 5, 0}, none_of_one{5, 0, 5};
  const Inputs in({2, 1, 8}, 3, 5, 300, 64);
  const Forgetful source(in, {{0, 0, 300}, {0, 250, 300}, {2, 150, 300}});
  expect_error([&] { run_over(source, in, {.window = 90}); },
               {"sequence 1 reaches back to token 206", "only 250 to 299"});
  expect_error([&] { run_over(source, in, {.window = 290, .query_lengths = none_of_one}); },
               {"sequence 2 reaches back to token 6"});
  expect_error([&] { run_over(source, in, {.window = 90, .query_lengths = none_of_two}); }, {"sequence 1"});
  EXPECT_NO_THROW(run_over(source, in, {.window = 90, .query_lengths = none_of_one}));
}

TEST(ForgottenTokens, WereNoneWhereTheKeptPartsTouch) {
  const Inputs in({2, 1, 8}, 1, 5, 300, 65);
  EXPECT_EQ(run_over(Forgetful(in, {{100, 100, 300}}), in), run(in));
  EXPECT_EQ(run_over(Forgetful(in, {{0, 0, 300}}), in), run(in));
}

}  // namespace
}  // namespace headwise
