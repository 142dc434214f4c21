// SPDX-License-Identifier: MIT
// What masks that are no intervals hide never reaches an output: not in K or V, nor in the mask's own memory.
#include <limits>

#include "tests/attention/mask_oracle.hpp"
#include "tests/attention/oracle.hpp"
#include "tests/attention/some_masks.hpp"

namespace headwise {
namespace {

using namespace testing;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();

class MaskPoison : public EveryIsa {};

/// Whether any query that the reference lets see key t of KV head g.
bool is_seen(const Inputs& in, const Options& options, Index g, Index t) {
  reference::Parameters parameters = parameters_of(options);
  const Index heads = in.heads.num_heads(), group = heads / in.heads.num_kv_heads();
  add_masks(parameters, options, {in.query_tokens, in.key_tokens, heads, in.heads.num_kv_heads(), 1, 1}, 0, 0);
  for (Index i = 0; i < in.query_tokens; ++i)
    for (Index h = g * group; h < (g + 1) * group; ++h) {
      if (reference::hides(parameters, in.key_tokens - in.query_tokens + i, t)) continue;
      if (parameters.visible && !parameters.visible(h, i, t)) continue;
      if (parameters.added && parameters.added(h, i, t) == -std::numeric_limits<double>::infinity()) continue;
      return true;
    }
  return false;
}

/// The results are the same bits whatever stands in keys and values that no query sees.
void expect_no_leak(const Inputs& clean, const Options& options, std::string_view what) {
  Inputs bad = clean;
  Index hidden = 0;
  for (Index g = 0; g < clean.heads.num_kv_heads(); ++g)
    for (Index t = 0; t < clean.key_tokens; ++t) {
      if (is_seen(clean, options, g, t)) continue;
      ++hidden;
      const float poison = t % 3 == 0 ? kNan : t % 3 == 1 ? kInfinity : -kInfinity;
      std::fill_n(bad.key(0, t, g), clean.heads.head_dim(), poison);
      std::fill_n(bad.value(0, t, g), clean.heads.value_dim(), poison);
    }
  ASSERT_GT(hidden, 0) << what;
  for (const Storage storage : kAllStorages)
    for (const Source source : {Source::cache, Source::packed_rows, Source::odd_rows}) {
      const Route route{.source = source, .storage = storage};
      ASSERT_EQ(run(bad, route, options), run(clean, route, options))
          << what << ", " << testing::name_of(source) << " of " << headwise::name_of(storage);
    }
}

TEST_P(MaskPoison, InKeysAndValuesThatAMaskHidesFromAllNeverLeaks) {
  for (const Index queries : {Index{1}, Index{2}, Index{60}})
    for (const MaskElements elements : kAllMaskElements) {
      const Inputs in({4, 2, 24, 40}, 1, queries, 300, 81);
      const SomeMask mask(elements, {1, 1, queries == 60 ? 1 : queries, 300}, 82);
      expect_no_leak(in, {.mask = mask.view()}, name_of(elements));
      expect_no_leak(in, {.causal = false, .softcap = 3.0f, .mask = mask.view()}, name_of(elements));
      if (HasFatalFailure()) return;
    }
}

TEST_P(MaskPoison, InAKeyOrValueReachesTheQueriesThatSeeItAndNoOther) {
  for (const Index queries : {Index{5}, Index{70}})
    for (const MaskElements elements : {MaskElements::boolean, MaskElements::f32})
      for (const Index poisoned : {Index{0}, Index{70}, Index{129}})
        for (const bool in_values : {false, true})
          for (const float poison : {kNan, kInfinity}) {
            const Inputs clean({4, 2, 24}, 1, queries, 130, 83);
            const SomeMask mask(elements, {1, 4, queries, 130}, 84);
            const Options options{.causal = false, .mask = mask.view()};
            Inputs bad = clean;
            (in_values ? bad.value(0, poisoned, 1) : bad.key(0, poisoned, 1))[5] = poison;
            const Results expected = run(clean, {}, options), actual = run(bad, {}, options);
            Expected(bad, options).check(actual, {});
            if (HasFatalFailure()) return;
            for (Index t = 0; t < queries; ++t)
              for (Index h = 0; h < 4; ++h) {
                const bool sees = h >= 2 && std::isfinite(mask_element(mask.view(), 0, h, t, poisoned));
                if (sees) continue;
                const auto at = static_cast<std::size_t>((t * 4 + h) * 24);
                ASSERT_EQ(std::memcmp(&actual.output[at], &expected.output[at], 24 * sizeof(float)), 0)
                    << "token " << t << " head " << h;
              }
          }
}

TEST_P(MaskPoison, OfValuesInOneSegmentLeavesItsOthersAsTheyAre) {
  // the segment is summed again where sums tell of it: by few rows and many, from every place that values come from
  struct Place {
    Index key, keys;
  };
  for (const Index queries : {Index{1}, Index{3}, Index{130}})
    for (const Place place : {Place{0, 2300}, {1030, 2300}, {2047, 2300}, {2200, 2300}, {1030, 1060}}) {
      const Index poisoned = place.key;
      const Inputs clean({4, 2, 24}, 1, queries, place.keys, 90);
      const auto odd_heads = [&](Index, Index head, Index, Index key) { return key != poisoned || head == 1; };
      const Options options{.causal = false, .mask_function = MaskFunction(odd_heads)};
      Inputs bad = clean;
      bad.value(0, poisoned, 0)[5] = kNan;
      bad.value(0, poisoned, 1)[7] = -kInfinity;
      for (const Storage storage : {Storage::f32, Storage::bf16, Storage::int8})
        for (const Source source : {Source::cache, Source::packed_rows}) {
          if (source != Source::cache && !is_element(storage)) continue;
          const Route route{.source = source, .storage = storage};
          const Results expected = run(clean, route, options), actual = run(bad, route, options);
          for (std::size_t i = 0; i < expected.output.size(); ++i) {
            const bool sees_it = i / 24 % 4 == 1;
            if (!sees_it) {
              ASSERT_EQ(actual.output[i], expected.output[i]) << headwise::name_of(storage) << " at " << i;
            } else if (storage != Storage::int8) {  // which stores other numbers beside a NaN
              ASSERT_EQ(std::isnan(actual.output[i]), i % 24 == 5);
            }
          }
        }
    }
}

TEST_P(MaskPoison, InTheMaskItselfBehindWhatOtherOptionsHideNeverLeaks) {
  const Inputs in({4, 2, 24}, 1, 70, 200, 85);
  std::vector<float> clean(70 * 200), bad;
  for (std::size_t i = 0; i < clean.size(); ++i) clean[i] = static_cast<float>(i % 7) / 4;
  bad = clean;
  for (Index i = 0; i < 70; ++i)
    for (Index t = 0; t < 200; ++t)
      if (t > 130 + i || t <= 130 + i - 50) bad[static_cast<std::size_t>(i * 200 + t)] = t % 2 ? kNan : kInfinity;
  const Options with_clean{.window = 50, .mask = Mask(clean.data(), 70, 200)},
      with_bad{.window = 50, .mask = Mask(bad.data(), 70, 200)};
  for (const Source source : {Source::cache, Source::packed_rows})
    EXPECT_EQ(run(in, {.source = source}, with_bad), run(in, {.source = source}, with_clean));
}

TEST_P(MaskPoison, OfAVisibleNanOrInfinityInTheMaskGoesWhereArithmeticTakesIt) {
  const Inputs in({2, 1, 16}, 1, 3, 100, 86);
  for (const float poison : {kNan, kInfinity}) {
    std::vector<float> mask(300, 0.25f);
    mask[100 + 70] = poison;  // of the second row
    expect_defined(in, {}, {.causal = false, .mask = Mask(mask.data(), 3, 100)});
  }
}

TEST_P(MaskPoison, BehindMinusInfinityInAnAdditiveMaskIsNotSeen) {
  // the score there is NaN before the mask's −inf is added
  Inputs bad({2, 1, 16}, 1, 3, 100, 87);
  const Inputs clean = bad;
  std::vector<float> mask(300, 0.0f);
  for (Index i = 0; i < 3; ++i) mask[static_cast<std::size_t>(i * 100 + 40)] = -kInfinity;
  std::fill_n(bad.key(0, 40, 0), 16, kNan);
  std::fill_n(bad.value(0, 40, 0), 16, kNan);
  const Options options{.mask = Mask(mask.data(), 3, 100)};
  EXPECT_EQ(run(bad, {}, options), run(clean, {}, options));
}

TEST_P(MaskPoison, InKeysAndValuesBesideADraftTreeOrATileSetNeverLeaks) {
  const Inputs in({4, 2, 24}, 1, 6, 300, 88);
  const std::vector<Index> parents{-1, 0, 0, 1, 2, 2};
  const DraftTree tree = DraftTree::from_parents(parents);
  // a token of the tree that all but one node hide; and tiles that none may see
  TileSet tiles({.tiles = 5});
  for (const Index tile : {1, 4}) tiles.insert(0, 0, 0, tile);
  expect_no_leak(in, {.tile_set = &tiles}, "tile set");
  expect_no_leak(in, {.tree_mask = tree.mask(), .tile_set = &tiles}, "tree and tile set");
  if (HasFatalFailure()) return;
  Inputs bad = in;
  for (Index g = 0; g < 2; ++g) {
    std::fill_n(bad.key(0, 294 + 3, g), 24, kNan);
    std::fill_n(bad.value(0, 294 + 3, g), 24, kInfinity);
  }
  const Options options{.tree_mask = tree.mask()};
  const Results expected = run(in, {}, options), actual = run(bad, {}, options);
  const Results plain = run(in);
  EXPECT_NE(expected, plain);
  for (Index node = 0; node < 6; ++node)
    for (std::size_t i = 0; i < 4 * 24; ++i) {
      const std::size_t at = static_cast<std::size_t>(node) * 4 * 24 + i;
      if (node == 3)
        EXPECT_TRUE(std::isnan(actual.output[at]));
      else
        EXPECT_EQ(actual.output[at], expected.output[at]);
    }
}

TEST_P(MaskPoison, BehindAMaskFunctionNeverLeaks) {
  const Inputs in({4, 2, 24}, 1, 40, 200, 89);
  const auto odd = [](Index, Index, Index key) { return key % 2 == 1; };
  expect_no_leak(in, {.mask_function = MaskFunction(odd)}, "function");
}

HEADWISE_FOR_EVERY_ISA(MaskPoison);

}  // namespace
}  // namespace headwise
