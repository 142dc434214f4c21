// SPDX-License-Identifier: MIT
// Offsets beyond 32 bits in masks, scores, masses and log-sum-exps, and pages beyond 2^31 elements.
#include <new>

#include "tests/attention/weights.hpp"
#include "tests/support/reserved.hpp"

#if defined(__linux__)

namespace headwise {
namespace {

using namespace testing;

constexpr Index kApart = (Index{1} << 31) + 64;  // elements between two neighbours
constexpr Index kTokens = 3, kKeys = 3, kHeads = 2;

Inputs small_inputs() { return Inputs({kHeads, 1, 16}, 1, kTokens, kKeys, 51); }

/// Strides of [token][head][key] of which one, far, is kApart.
Strides far_strides(int far) {
  Strides strides{0, 64, 16, 1};
  (far == 0 ? strides.token : far == 1 ? strides.head : strides.dim) = kApart;
  return strides;
}

TEST(AttentionLarge, MasksBeyond32BitsAreReadWhereTheirElementsLie) {
  const Inputs in = small_inputs();
  const auto cache = cache_of<float>(in);
  const auto hidden = [](Index h, Index i, Index t) { return (h + 2 * i + t) % 3 == 1; };
  const Reserved memory(8 * (kKeys * kApart + 4096));
  if (!memory) GTEST_SKIP() << "skipped: no address space of 52 GB";
  // all three from one memory, one after another; each element is written before it is read
  for (const int far : {0, 1, 2}) {
    const Strides at = far_strides(far);
    const MaskStrides strides{0, at.head, at.token, at.dim};
    const auto expect_same = [&](const Mask& mask, std::string_view what) {
      std::vector<float> packed;
      for (Index h = 0; h < kHeads; ++h)
        for (Index i = 0; i < kTokens; ++i)
          for (Index t = 0; t < kKeys; ++t)
            packed.push_back(hidden(h, i, t) ? -std::numeric_limits<float>::infinity() : 0.0f);
      EXPECT_EQ(run_over(cache, in, {.causal = false, .mask = mask}),
                run_over(cache, in, {.causal = false, .mask = Mask(packed.data(), kHeads, kTokens, kKeys)}))
          << what << ", far " << far;
    };
    const auto fill = [&](auto* elements, auto seen, auto not_seen) {
      for (Index h = 0; h < kHeads; ++h)
        for (Index i = 0; i < kTokens; ++i)
          for (Index t = 0; t < kKeys; ++t)
            elements[h * at.head + i * at.token + t * at.dim] = hidden(h, i, t) ? not_seen : seen;
      return elements;
    };
    const auto view = [&](auto* elements) { return Mask(elements, 1, kHeads, kTokens, kKeys, strides); };
    expect_same(view(fill(memory.data<float>(), 0.0f, -std::numeric_limits<float>::infinity())), "f32");
    expect_same(view(fill(memory.data<f16>(), f16(0.0f), f16(-std::numeric_limits<float>::infinity()))), "f16");
    expect_same(view(fill(memory.data<std::uint8_t>(), std::uint8_t{1}, std::uint8_t{0})), "bytes");
    if (far == 2) continue;  // bits of a row are in one word
    auto* const words = memory.data<std::uint64_t>();
    for (Index h = 0; h < kHeads; ++h)
      for (Index i = 0; i < kTokens; ++i) {
        std::uint64_t& word = words[h * at.head + i * at.token] = 0;
        for (Index t = 0; t < kKeys; ++t) word |= std::uint64_t{!hidden(h, i, t)} << t;
      }
    expect_same(Mask::of_bits(words, 1, kHeads, kTokens, kKeys, strides), "bits");
  }
}

TEST(AttentionLarge, ScoresMassesAndLogSumExpsBeyond32BitsAreWrittenWhereTheyBelong) {
  const Inputs in = small_inputs();
  const auto cache = cache_of<float>(in);
  const Weights expected = weights_over(cache, in, {}, {.stage = ScoreStage::weights, .mass_heads = kHeads});
  const Index bytes = 4 * (kKeys * kApart + 4096);
  const Reserved scores(bytes), mass(bytes), lse(bytes);
  if (!scores || !mass || !lse) GTEST_SKIP() << "skipped: no address space of 3 × 26 GB";
  for (const int far : {0, 1, 2}) {
    const Strides at = far_strides(far);
    std::vector<float> out(in.q.size());
    const View<float> scores_view(scores.data(), 1, kTokens, kHeads, kKeys, at),
        lse_view(lse.data(), 1, kTokens, kHeads, 1, at),
        mass_view(mass.data(), 1, kKeys, kHeads, 1, Strides{0, at.token, at.head, 1});
    Outputs outputs(View<float>(out.data(), kTokens, kHeads, 16), lse_view);
    outputs.scores = {scores_view, ScoreStage::weights};
    outputs.mass = MassOutput(mass_view);
    Attention<>{in.heads}(View<const float>(in.q.data(), kTokens, kHeads, 16), cache, outputs);
    EXPECT_EQ(out, expected.results.output);
    for (Index i = 0; i < kTokens; ++i)
      for (Index h = 0; h < kHeads; ++h) {
        const auto row = static_cast<std::size_t>(i * kHeads + h);
        EXPECT_EQ(lse_view(0, i, h, 0), expected.results.lse[row]);
        for (Index t = 0; t < kKeys; ++t)
          EXPECT_EQ(scores_view(0, i, h, t), expected.scores[row * (kKeys + kRoom) + static_cast<std::size_t>(t)]);
        EXPECT_EQ(mass_view(0, i, h, 0), expected.mass[row]);  // as many keys as tokens
      }
  }
}

TEST(AttentionLarge, PagesBeyond2To31ElementsFindTheirTokens) {
  // four pages of 2^30 elements each, of a sequence each
  constexpr Index kPage = Index{1} << 20;
  const Inputs in({2, 1, 512}, 1, 2, 100, 52);
  const View<const float> k(in.k.data(), 100, 1, 512), v(in.v.data(), 100, 1, 512);
  try {
    PagedCache<f16> pages(in.heads, 4, {.page_tokens = kPage});
    std::vector<SequenceId> ids;
    for (int i = 0; i < 4; ++i) {
      ids.push_back(pages.create());
      pages.append(0, ids.back(), k, v);
    }
    const auto distance = static_cast<const char*>(pages.layer(0, ids).tile(3, 0, 0).keys) -
                          static_cast<const char*>(pages.layer(0, ids).tile(0, 0, 0).keys);
    EXPECT_EQ(std::abs(distance), 3 * kPage * 1024 * 2);
    const Results expected = run(in, {.storage = Storage::f16});
    for (const SequenceId& id : ids) EXPECT_EQ(run_over(pages.layer(0, std::span(&id, 1)), in), expected);
    pages.evict(ids[3], 0, 1);
    const std::vector<SequenceId> moved{ids[3]};
    Inputs rest = in;
    rest.key_tokens = 99;
    rest.k.erase(rest.k.begin(), rest.k.begin() + 512);
    rest.v.erase(rest.v.begin(), rest.v.begin() + 512);
    EXPECT_EQ(run_over(pages.layer(0, moved), rest), run(rest, {.storage = Storage::f16}));
  } catch (const std::bad_alloc&) {
    GTEST_SKIP() << "skipped: this system gives no 8 GB of memory, even unused";
  }
}

}  // namespace
}  // namespace headwise
#endif
