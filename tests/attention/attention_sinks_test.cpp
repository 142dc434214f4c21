// SPDX-License-Identifier: MIT
// Sink tokens: the first keys stay visible when a window has left them behind. The definition, the same bits however a
// prompt is cut, and nothing between sinks and window is touched.
#include <array>

#include "tests/attention/oracle.hpp"
#include "tests/support/tile_sources.hpp"

namespace headwise {
namespace {

using namespace testing;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr std::array<Index, 6> kSinks{1, 4, 63, 64, 65, 1025};

/// The results of query tokens [from, in.query_tokens), `chunk` at a time, each after the keys up to its own.
template <class S>
Results in_chunks(const S& source, const Inputs& in, const Options& options, Index chunk, Index from = 0) {
  Results all;
  for (Index t = from; t < in.query_tokens; t += chunk) {
    const Index count = std::min(chunk, in.query_tokens - t);
    const std::vector<Index> length{in.key_tokens - in.query_tokens + t + count};
    Options of_chunk = options;
    of_chunk.key_lengths = length;
    append_to(all, run_over(source, some_queries(in, t, count), of_chunk));
  }
  return all;
}

bool is_visible(Index key, Index p, const Options& options) {
  return key <= p && (key > p - *options.window || key < options.num_sink_tokens);
}

class Sinks : public EveryIsa {};

TEST_P(Sinks, AreSeenAsTheDefinitionSays) {
  for (const Index sinks : {0, 1, 4, 63, 64, 65, 300})
    for (const Index window : {0, 1, 5, 64, 100, 1000})
      for (const auto& [queries, keys] : {std::pair<Index, Index>{1, 200}, {90, 250}, {40, 40}, {70, 60}})
        for (const Source source : {Source::cache, Source::packed_rows}) {
          const Inputs in({4, 2, 8}, 1, queries, keys, 51);
          expect_defined(in, {.source = source}, {.window = window, .num_sink_tokens = sinks});
          if (HasFatalFailure()) return;
        }
}

TEST_P(Sinks, AreSeenAsTheDefinitionSaysOverSeveralSegments) {
  for (const Index sinks : kSinks)
    for (const Index window : {1, 5, 64, 1000, 3000})
      for (const Index queries : {1, 6}) {
        const Inputs in({4, 2, 8}, 1, queries, 5000, 52);
        expect_defined(in, {}, {.window = window, .num_sink_tokens = sinks});
        expect_defined(in, {.storage = Storage::bf16}, {.window = window, .num_sink_tokens = sinks});
        if (HasFatalFailure()) return;
      }
}

TEST_P(Sinks, ObeyEveryOtherMask) {
  const std::vector<Index> lengths{150, 3, 40, 0};
  const Inputs in({4, 2, 8}, 4, 45, 150, 53);
  for (const Index window : {0, 1, 20})
    for (const Index sinks : {2, 30, 70, 200}) {
      expect_defined(in, {}, {.window = window, .num_sink_tokens = sinks, .key_lengths = lengths});
      for (const Index right : {0, 3, 30, 500})
        expect_defined(in, {},
                       {.causal = false,
                        .window = window,
                        .num_sink_tokens = sinks,
                        .window_right = right,
                        .key_lengths = lengths});
      if (HasFatalFailure()) return;
    }
}

TEST_P(Sinks, KeepTheDistancesThatBiasesSee) {
  const std::array<float, 4> slopes{0.5f, 0.01f, 0.0f, 0.125f};
  const Inputs in({4, 2, 8}, 1, 20, 400, 54);
  expect_defined(in, {}, {.window = 30, .num_sink_tokens = 5, .softcap = 5.0f, .alibi_slopes = slopes});
}

TEST_P(Sinks, OfAWindowThatHidesNothingChangeNothing) {
  const Inputs in({4, 2, 8}, 1, 30, 1500, 55, {.coarse = false});
  const Results plain = run(in);
  EXPECT_EQ(run(in, {}, {.num_sink_tokens = 70}), plain);
  EXPECT_EQ(run(in, {}, {.window = 1500, .num_sink_tokens = 4}), plain);
  EXPECT_EQ(run(in, {}, {.window = 100, .num_sink_tokens = 1400}), plain);
  EXPECT_EQ(run(in, {}, {.window = 100, .num_sink_tokens = std::numeric_limits<Index>::max()}), plain);
}

TEST_P(Sinks, GiveTheSameBitsHoweverAPromptIsCut) {
  const Index tokens = 400;
  for (const Storage storage : {Storage::f32, Storage::bf16}) {
    const Inputs in({4, 1, 16}, 1, tokens, tokens, 56, {.coarse = false});
    with_source(in, {.storage = storage}, [&](const auto& source) {
      for (const Index sinks : {0, 1, 4, 63, 64, 65, 130})
        for (const Index window : {1, 5, 64, 150}) {
          const Options options{.window = window, .num_sink_tokens = sinks};
          const Results at_once = run_over(source, in, options);
          for (const Index chunk : {1, 7, 64, 100})
            EXPECT_EQ(in_chunks(source, in, options, chunk), at_once)
                << "chunks of " << chunk << ", " << sinks << " sinks, window of " << window;
          if (HasFailure()) return;
        }
    });
  }
}

TEST_P(Sinks, GiveTheSameBitsOverSeveralSegmentsForAnyCutAndThreads) {
  ThreadPool two(2), three(3);
  const Inputs in({2, 1, 8}, 1, 150, 5200, 57, {.coarse = false});
  const auto cache = cache_of<float>(in);
  for (const Index sinks : kSinks)
    for (const Index window : {1, 5, 64, 1000, 3000, 3100}) {
      const Options options{.window = window, .num_sink_tokens = sinks};
      const Results at_once = run_over(cache, in, options);
      EXPECT_EQ(run_over(cache, in, options, two), at_once) << sinks << " sinks, window of " << window;
      EXPECT_EQ(run_over(cache, in, options, three), at_once) << sinks << " sinks, window of " << window;
      for (const Index chunk : {1, 40})
        EXPECT_EQ(in_chunks(cache, in, options, chunk), at_once) << sinks << " sinks, window of " << window;
      const Inputs last = some_queries(in, 149, 1);
      EXPECT_EQ(run_over(cache, last, options, three), run_over(cache, last, options)) << sinks << ", " << window;
    }
}

TEST_P(Sinks, NanBetweenSinksAndWindowChangesNothing) {
  for (const Index keys : {Index{300}, Index{3300}})
    for (const Index queries : {1, 5})
      for (const Index sinks : {1, 4, 64, 65})
        for (const Index window : {1, 5, 64, 100}) {
          const Options options{.window = window, .num_sink_tokens = sinks};
          const Inputs clean({4, 2, 8}, 1, queries, keys, 58);
          Inputs bad = clean;
          for (Index t = 0; t < keys; ++t) {
            bool visible = false;
            for (Index p = keys - queries; p < keys; ++p) visible = visible || is_visible(t, p, options);
            if (visible) continue;
            for (const Index h : {0, 1}) {
              std::fill_n(bad.key(0, t, h), 8, kNan);
              std::fill_n(bad.value(0, t, h), 8, kNan);
            }
          }
          for (const Source source : {Source::cache, Source::packed_rows})
            EXPECT_EQ(run(bad, {.source = source}, options), run(clean, {.source = source}, options))
                << sinks << " sinks, window of " << window << ", " << keys << " keys";
        }
}

HEADWISE_FOR_EVERY_ISA(Sinks);

TEST(SinkTiles, BetweenSinksAndWindowAreNeverAskedFor) {
  for (const auto& [queries, keys] : {std::pair<Index, Index>{1, 5200}, {9, 5200}, {130, 1500}, {200, 200}}) {
    const Inputs in({2, 1, 8}, 1, queries, keys, 59);
    const auto cache = cache_of<float>(in);
    const auto layer = cache.layer();
    for (const Index threads : {1, 3}) {
      ThreadPool pool(threads);
      for (const Index sinks : {0, 1, 4, 63, 64, 65, 1024, 1025, 1100})
        for (const Index window : {0, 1, 5, 64, 65, 1000, 3000}) {
          const Options options{.window = window, .num_sink_tokens = sinks};
          const CountingSource counting(layer);
          std::vector<float> out(in.q.size());
          Attention<>{in.heads}(View<const float>(in.q.data(), queries, 2, 8), counting,
                                View<float>(out.data(), queries, 2, 8), options, pool);
          EXPECT_EQ(counting.beyond(), 0);
          for (Index tile = 0; tile < ceil_div(keys, kTileTokens); ++tile) {
            bool seen = false;
            for (Index t = tile * 64; t < std::min(keys, tile * 64 + 64); ++t)
              for (const Index p : {keys - queries, std::clamp(t, keys - queries, keys - 1), keys - 1})
                seen = seen || is_visible(t, p, options);
            EXPECT_EQ(counting.calls(0, 0, tile) > 0, seen) << "tile " << tile << ", " << sinks << " sinks, window of "
                                                            << window << ", " << queries << " of " << keys;
          }
        }
    }
  }
}

TEST(SinkTiles, OfDecodingDoNotGrowWithTheKeys) {
  const auto tiles = [](Index keys) {
    const Inputs in({2, 1, 8}, 1, 1, keys, 60);
    const auto cache = cache_of<float>(in);
    const auto layer = cache.layer();
    const CountingSource counting(layer);
    std::vector<float> out(in.q.size());
    Attention<>{in.heads}(View<const float>(in.q.data(), 1, 2, 8), counting, View<float>(out.data(), 1, 2, 8),
                          {.window = 128, .num_sink_tokens = 4});
    return counting.calls();
  };
  EXPECT_EQ(tiles(640), 3);
  EXPECT_EQ(tiles(6400), 3);
}

}  // namespace
}  // namespace headwise
