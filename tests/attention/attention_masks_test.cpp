// SPDX-License-Identifier: MIT
// Boolean, additive and packed-bit masks in the caller's memory: every kind, broadcast and layout is the definition's.
#include "tests/attention/oracle.hpp"
#include "tests/attention/ragged.hpp"
#include "tests/attention/some_masks.hpp"

namespace headwise {
namespace {

using namespace testing;
using Way = SomeMask::Way;

class Masks : public EveryIsa {};

TEST_P(Masks, OfEveryKindAndBroadcastAreTheDefinitions) {
  const Inputs in({4, 2, 24, 16}, 2, 5, 150, 71);
  unsigned seed = 0;
  for (const MaskElements elements : kAllMaskElements)
    for (int broadcast = 0; broadcast < 16; ++broadcast) {
      const MaskShape shape{broadcast & 1 ? 1 : 2, broadcast & 2 ? 1 : 4, broadcast & 4 ? 1 : 5,
                            broadcast & 8 ? 1 : 150};
      const SomeMask mask(elements, shape, ++seed);
      for (const bool causal : {true, false})
        expect_defined(in, {}, {.causal = causal, .mask = mask.view()}, nullptr,
                       name_of(elements) + " mask, broadcast " + std::to_string(broadcast));
      if (HasFatalFailure()) return;
    }
}

TEST_P(Masks, MayLieInMemoryInAnyWay) {
  const Inputs in({4, 2, 24, 16}, 2, 5, 150, 72);
  for (const MaskElements elements : kAllMaskElements)
    for (const Way way : {Way::backwards, Way::every_third}) {
      const SomeMask mask(elements, {2, 4, 5, 150}, 5, way);
      expect_defined(in, {}, {.causal = false, .mask = mask.view()}, nullptr, name_of(elements) + " mask");
      if (HasFatalFailure()) return;
    }
}

TEST_P(Masks, MeetKeysFromEverySource) {
  for (const Index queries : {Index{1}, Index{70}}) {
    const Inputs in({4, 2, 24, 16}, 2, queries, 150, 73);
    for (const MaskElements elements : {MaskElements::boolean, MaskElements::f32}) {
      const SomeMask by_head(elements, {2, 4, queries, 150}, 6), for_all(elements, {1, 1, queries, 150}, 7);
      for (const SomeMask* mask : {&by_head, &for_all})
        for (const Storage storage : kAllStorages)
          for (const Source source : kAllSources)
            expect_defined(in, {.source = source, .storage = storage}, {.causal = false, .mask = mask->view()});
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(Masks, NarrowWhatEverythingElseLetsBeSeen) {
  const std::vector<Index> key_lengths{60, 200}, query_lengths{7, 3};
  const std::vector<float> slopes{0.5f, 0.25f, 0.125f, 0.0625f};
  const Inputs in({4, 2, 24, 16}, 2, 7, 200, 74);
  for (const MaskElements elements : {MaskElements::boolean, MaskElements::bits, MaskElements::f16}) {
    const SomeMask mask(elements, {2, 4, 7, 200}, 8);
    const Options all[] = {
        {.window = 30, .mask = mask.view()},
        {.window = 30, .num_sink_tokens = 5, .mask = mask.view()},
        {.causal = false, .window = 20, .window_right = 9, .mask = mask.view()},
        {.softcap = 2.0f, .alibi_slopes = slopes, .mask = mask.view()},
        {.mask = mask.view(), .key_lengths = key_lengths, .query_lengths = query_lengths},
    };
    for (const Options& options : all) {
      expect_defined(in, {}, options, nullptr, name_of(elements));
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(Masks, OfEveryLengthAreTheDefinitions) {
  for (const Index keys : {1, 63, 64, 65, 1023, 1024, 1025, 2100})
    for (const Index queries : {1, 33}) {
      const Inputs in({2, 1, 16}, 1, queries, keys, 75);
      for (const MaskElements elements : kAllMaskElements) {
        const SomeMask mask(elements, {1, 2, queries, keys}, static_cast<unsigned>(keys));
        expect_defined(in, {}, {.causal = false, .mask = mask.view()}, nullptr, name_of(elements));
        if (HasFatalFailure()) return;
      }
    }
}

TEST_P(Masks, GiveTheSameBitsOnAnyThreadsAndInAnyChunks) {
  const Index keys = 2300, queries = 40;
  const Inputs in({4, 2, 24}, 1, queries, keys, 76);
  for (const MaskElements elements : {MaskElements::boolean, MaskElements::f32}) {
    const SomeMask mask(elements, {1, 4, queries, keys}, 9);
    const Options options{.mask = mask.view()};
    const Results whole = run(in, {}, options);
    for (const Index threads : {2, 7}) {
      ThreadPool pool(threads);
      EXPECT_EQ(run(in, {}, options, pool), whole);
    }
    Results chunks;
    for (Index first = 0; first < queries; first += 13) {
      const Index count = std::min<Index>(13, queries - first), length = keys - queries + first + count;
      Inputs chunk = in;
      chunk.query_tokens = count;
      chunk.q.assign(in.q.begin() + first * 4 * 24, in.q.begin() + (first + count) * 4 * 24);
      const Mask all = mask.view();
      const std::vector<Index> lengths{length};
      // the rows of the chunk
      const auto rows = [&]<class T>(T) {
        return Mask(reinterpret_cast<const T*>(all.row(0, 0, first)), 1, 4, count, keys, {0, queries * keys, keys, 1});
      };
      const Mask part = elements == MaskElements::boolean ? rows(std::uint8_t{}) : rows(float{});
      const Results results = run(chunk, {}, {.mask = part, .key_lengths = lengths});
      chunks.output.insert(chunks.output.end(), results.output.begin(), results.output.end());
      chunks.lse.insert(chunks.lse.end(), results.lse.begin(), results.lse.end());
    }
    EXPECT_EQ(chunks, whole);
  }
}

TEST_P(Masks, OfARaggedBatchCountQueriesWithinTheirSequence) {
  const RaggedBatch batch({4, 2, 24}, {{1, 90}, {70, 130}, {0, 5}, {5, 5}, {3, 1100}}, 77);
  for (const MaskElements elements : kAllMaskElements) {
    const SomeMask mask(elements, {5, 4, 70, 1100}, 10);
    const Mask all = mask.view();
    const Results together = run_over(cache_of<float>(batch.keys), batch.queries, batch.over_all({.mask = all}));
    std::vector<float> output, lse;
    for (Index b = 0; b < 5; ++b) {
      const Inputs alone = batch.alone(b);
      if (alone.query_tokens == 0) continue;
      const MaskStrides strides{0, 70 * all.keys(), all.keys(), 1};
      const auto own = [&]<class T>(T) {
        return Mask(reinterpret_cast<const T*>(all.row(b, 0, 0)), 1, 4, alone.query_tokens, 1100, strides);
      };
      const Mask part = elements == MaskElements::boolean ? own(std::uint8_t{})
                        : elements == MaskElements::bits
                            ? Mask::of_bits(reinterpret_cast<const std::uint64_t*>(all.row(b, 0, 0)), 1, 4,
                                            alone.query_tokens, 1100, {0, 70 * 19, 19, 1})
                        : elements == MaskElements::f32 ? own(float{})
                        : elements == MaskElements::f16 ? own(f16{})
                                                        : own(bf16{});
      const Results results = run(alone, {}, {.mask = part});
      output.insert(output.end(), results.output.begin(), results.output.end());
      lse.insert(lse.end(), results.lse.begin(), results.lse.end());
    }
    EXPECT_EQ(together, (Results{output, lse})) << name_of(elements);
  }
}

TEST_P(Masks, OfTheLowestNumbersAreNumbers) {
  // a row of nothing else weighs all keys alike, since the scores are lost beside it in any precision
  const Inputs in({2, 1, 16}, 1, 3, 130, 78);
  const auto check = [&]<class T>(T, float lowest) {
    std::vector<T> mask(3 * 130, T(lowest));
    mask[130 + 77] = T(0.5f);  // the second row sees one key
    for (Index t = 0; t < 130; ++t)
      mask[static_cast<std::size_t>(2 * 130 + t)] = T(t < 50 ? lowest : lowest / 2);  // the third the last ones
    const Options options{.causal = false, .mask = Mask(mask.data(), 3, 130)};
    const Results results = run(in, {}, options);
    for (Index h = 0; h < 2; ++h)
      for (Index d = 0; d < 16; ++d) {
        double all = 0, last = 0;
        for (Index t = 0; t < 130; ++t) (t < 50 ? all : last) += in.v[static_cast<std::size_t>(t * 16 + d)];
        all += last;
        EXPECT_NEAR(results.output[static_cast<std::size_t>(h * 16 + d)], all / 130, 1e-5);
        EXPECT_NEAR(results.output[static_cast<std::size_t>((2 + h) * 16 + d)],
                    in.v[static_cast<std::size_t>(77 * 16 + d)], 1e-5);
        EXPECT_NEAR(results.output[static_cast<std::size_t>((4 + h) * 16 + d)], last / 80, 1e-5);
      }
    for (std::size_t h = 0; h < 2; ++h) {
      const double low = static_cast<float>(T(lowest));
      EXPECT_NEAR(results.lse[h], low, -low * 0x1p-21);
      EXPECT_NEAR(results.lse[4 + h], low / 2, -low * 0x1p-21);
      EXPECT_LT(std::abs(results.lse[2 + h]), 100);
    }
  };
  check(float{}, std::numeric_limits<float>::lowest());
  check(bf16{}, -3.3e38f);
  check(float{}, -1e37f);
}

TEST_P(Masks, ThatHideARowLeaveZeroWithLseMinusInfinity) {
  for (const Index queries : {Index{1}, Index{100}})
    for (const Storage storage : kAllStorages) {
      const Inputs in({4, 2, 24}, 1, queries, 2100, 79);
      const std::uint8_t none = 0;
      const float hidden = -std::numeric_limits<float>::infinity();
      for (const Mask& mask : {Mask(&none, 1, 1), Mask(&hidden, 1, 1)}) {
        const Results results = run(in, {.storage = storage}, {.mask = mask});
        for (const float x : results.output) ASSERT_EQ(x, 0.0f);
        for (const float x : results.lse) ASSERT_EQ(x, hidden);
      }
    }
}

HEADWISE_FOR_EVERY_ISA(Masks);

}  // namespace
}  // namespace headwise
