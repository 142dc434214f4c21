// SPDX-License-Identifier: MIT
// Combinations that nobody thought of: shapes, lengths, options, types and layouts drawn at random, the same ones on
// every run, against the definition.
#include <algorithm>
#include <random>
#include <string>

#include "tests/attention/oracle.hpp"

namespace headwise {
namespace {

using namespace testing;

/// Draws from mt19937 itself: what standard distributions make of it differs between libraries.
class Dice {
 public:
  explicit Dice(unsigned seed) : generator_(seed) {}
  Index between(Index low, Index high) {
    return low + static_cast<Index>(generator_() % static_cast<std::uint32_t>(high - low + 1));
  }
  bool one_in(Index n) { return between(1, n) == 1; }
  template <class T, std::size_t N>
  T any(const T (&list)[N]) {
    return list[static_cast<std::size_t>(between(0, static_cast<Index>(N) - 1))];
  }

 private:
  std::mt19937 generator_;
};

HeadMap any_map(Dice& dice, Index num_heads, Index num_kv_heads) {
  std::vector<Index> map(static_cast<std::size_t>(num_heads));
  for (Index& g : map) g = dice.between(0, num_kv_heads - 1);
  return HeadMap::arbitrary(map, num_kv_heads);
}

/// Of each sequence.
std::vector<Index> any_boundaries(Dice& dice, Index sequences, Index num_heads, Index num_kv_heads) {
  std::vector<Index> result;
  for (Index b = 0; b < sequences; ++b) {
    std::vector<Index> own{0, num_heads};
    while (std::ssize(own) <= num_kv_heads) own.push_back(dice.between(0, num_heads));
    std::sort(own.begin(), own.end());
    result.insert(result.end(), own.begin(), own.end());
  }
  return result;
}

std::vector<float> random_bias(Dice& dice, Index count) {
  std::vector<float> result;
  for (Index i = 0; i < count; ++i) result.push_back(static_cast<float>(dice.between(-64, 64)) / 16);
  return result;
}

class Random : public EveryIsa {};

TEST_P(Random, CombinationsGiveWhatTheDefinitionSays) {
  constexpr Index kDims[] = {1, 3, 8, 16, 31, 46, 64, 80, 96, 128, 200};
  ThreadPool pool(3);
  for (unsigned seed = 0; seed < 120; ++seed) {
    Dice dice(seed);
    const Index num_heads = dice.between(1, 12), num_kv_heads = dice.between(1, num_heads);
    const Heads<> heads(num_heads, num_kv_heads, dice.any(kDims), dice.any(kDims));
    const Index keys = dice.one_in(8) ? dice.between(900, 1400) : dice.between(0, 260);
    const Index queries = keys > 500 ? dice.between(1, 4) : dice.one_in(3) ? dice.between(20, 90) : dice.between(1, 8);
    const Inputs in(heads, dice.between(1, 3), queries, keys, seed);
    const HeadMap map = any_map(dice, num_heads, num_kv_heads);

    Options options;
    options.causal = !dice.one_in(3);
    if (dice.one_in(3)) options.window = dice.between(0, keys + 5);
    if (dice.one_in(4)) options.window_right = dice.between(0, keys + 5);
    if (dice.one_in(4)) options.softcap = static_cast<float>(dice.between(1, 40)) / 4;
    if (dice.one_in(4)) options.scale = static_cast<float>(dice.between(-20, 60)) / 64;
    std::vector<float> slopes;
    for (Index h = 0; h < num_heads; ++h) slopes.push_back(static_cast<float>(dice.between(-1, 16)) / 32);
    if (dice.one_in(4)) options.alibi_slopes = slopes;
    std::vector<Index> key_lengths, query_lengths;
    for (Index b = 0; b < in.sequences; ++b) {
      key_lengths.push_back(dice.between(0, keys));
      query_lengths.push_back(dice.between(0, queries));
    }
    if (dice.one_in(3)) options.key_lengths = key_lengths;
    if (dice.one_in(3)) options.query_lengths = query_lengths;

    const RelativeBias bias(random_bias(dice, num_heads * 8), num_heads,
                            {.num_buckets = 8, .max_distance = dice.between(5, 60), .bidirectional = dice.one_in(2)});
    if (dice.one_in(4)) options.relative_bias = &bias;
    const std::vector<Index> boundaries = any_boundaries(dice, in.sequences, num_heads, num_kv_heads);
    if (dice.one_in(4)) options.group_boundaries = boundaries;

    const Expected expected(in, options, &map);
    const Route route{.source = dice.any(kAllSources),
                      .storage = dice.any(kAllStorages),
                      .queries = dice.any(kAllStorages),
                      .outputs = dice.any(kAllStorages),
                      .query_layout = dice.any(kAllLayouts),
                      .output_layout = dice.any(kAllLayouts)};
    const std::string what = "seed " + std::to_string(seed);
    const Results serial = run(in, route, options, Serial{}, &map);
    expected.check(serial, route, what);
    EXPECT_EQ(run(in, route, options, pool, &map), serial) << what;
    if (HasFailure()) return;
  }
}

HEADWISE_FOR_EVERY_ISA(Random);

}  // namespace
}  // namespace headwise
