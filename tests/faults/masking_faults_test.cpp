// SPDX-License-Identifier: MIT
// Faults of masks, of where queries stand and of what is added to scores.
#include <limits>

#include "tests/attention/oracle.hpp"

namespace headwise {
namespace {

using namespace testing;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();

// pytorch 101967: a NaN in a key or value that the mask hides made the output NaN
TEST(MaskingFaults, ANanThatTheMaskHidesDoesNotReachTheOutput) {
  const Inputs clean({4, 2, 16}, 1, 3, 130);
  std::vector<std::uint8_t> seen(3 * 130, 1);
  Inputs poisoned = clean;
  for (const Index t : {0, 63, 64, 129}) {
    for (Index i = 0; i < 3; ++i) seen[static_cast<std::size_t>(i * 130 + t)] = 0;
    for (Index g = 0; g < 2; ++g) {
      *poisoned.key(0, t, g) = kNan;
      *poisoned.value(0, t, g) = kNan;
    }
  }
  const Options options{.causal = false, .mask = Mask(seen.data(), 3, 130)};
  for (const Source source : kAllSources)
    EXPECT_EQ(run(poisoned, {.source = source}, options), run(clean, {.source = source}, options)) << name_of(source);
}

/// Rows [first, queries) of the mask see nothing; the others see all.
std::vector<std::uint8_t> rows_that_see(Index first, Index queries, Index keys) {
  std::vector<std::uint8_t> seen(static_cast<std::size_t>(queries * keys), 0);
  std::fill_n(seen.begin(), first * keys, std::uint8_t{1});
  return seen;
}

void expect_empty_rows(const Results& results, Index first, Index queries, Index heads, Index dim) {
  for (Index r = first * heads; r < queries * heads; ++r) {
    EXPECT_EQ(results.lse[static_cast<std::size_t>(r)], -kInfinity);
    for (Index d = 0; d < dim; ++d) EXPECT_EQ(results.output[static_cast<std::size_t>(r * dim + d)], 0);
  }
}

// pytorch 103963: a boolean mask with rows of nothing gave NaN
TEST(MaskingFaults, ARowThatABooleanMaskHidesWhollyIsZero) {
  const Inputs in({2, 1, 8}, 1, 8, 8);
  const auto seen = rows_that_see(4, 8, 8);
  const Options options{.causal = false, .mask = Mask(seen.data(), 8, 8)};
  expect_defined(in, {}, options);
  expect_empty_rows(run(in, {}, options), 4, 8, 2, 8);
}

// pytorch 103749: rows of padding, of False alone, gave NaN, though the rows before them were right
TEST(MaskingFaults, PaddedQueriesAreZeroAndLeaveTheOthersAsTheyAre) {
  const Inputs in({2, 2, 8}, 1, 6, 10);
  auto seen = rows_that_see(0, 6, 10);
  for (std::size_t i = 0; i < 5; ++i)
    for (std::size_t t = 0; t <= i; ++t) seen[i * 10 + t] = 1;
  const Options options{.scale = 0.125f, .causal = false, .mask = Mask(seen.data(), 6, 10)};
  expect_defined(in, {}, options);
  expect_empty_rows(run(in, {}, options), 5, 6, 2, 8);
}

// pytorch 109517: rows that are the lowest finite number throughout gave NaN: they are as good as a row of zeros
TEST(MaskingFaults, ARowOfTheLowestFiniteNumbersIsAnOrdinarySoftmax) {
  const Inputs in({2, 1, 16}, 1, 2, 150);
  std::vector<float> lowest(2 * 150, std::numeric_limits<float>::lowest());
  std::fill_n(lowest.begin(), 150, 0.0f);
  const Results results = run(in, {}, {.causal = false, .mask = Mask(lowest.data(), 2, 150)});
  for (const float x : results.output) EXPECT_TRUE(std::isfinite(x));
  float largest = 0;
  for (std::size_t i = 32; i < 64; ++i) largest = std::max(largest, std::abs(results.output[i]));
  EXPECT_GT(largest, 0);
}

// mlx 2608: in a batch, a sequence whose keys are all padding gave NaN
TEST(MaskingFaults, ASequenceOfPaddingAloneIsZeroInABatch) {
  const Inputs in({4, 2, 8}, 2, 3, 70);
  const Index lengths[] = {70, 0};
  const Options options{.causal = false, .key_lengths = lengths};
  expect_defined(in, {}, options);
  const Results results = run(in, {}, options);
  for (std::size_t i = results.output.size() / 2; i < results.output.size(); ++i) EXPECT_EQ(results.output[i], 0);
}

// onnxruntime 29020: causal stood at the first keys on one device and at the last ones on another, where there are fewer
// queries than keys
TEST(MaskingFaults, CausalStandsAtTheLastKeysForEverySourceAndIsa) {
  const Isa before = current_isa();
  for (const Isa isa : available_isas()) {
    set_isa(isa);
    for (const Index queries : {1, 5, 70})
      for (const Source source : kAllSources) expect_defined(Inputs({4, 2, 16}, 1, queries, 70), {.source = source});
  }
  set_isa(before);
}

// onnxruntime 24017: a bias for all heads, [batch][1][query][key], was read at a wrong place from the second sequence on
TEST(MaskingFaults, ABiasIsBroadcastOverHeadsInEverySequence) {
  const Inputs in({6, 2, 16}, 3, 5, 130);
  std::vector<float> bias(3 * 6 * 5 * 130);
  for (std::size_t i = 0; i < bias.size(); ++i) bias[i] = static_cast<float>(i % 97) / 16 - 3;
  for (const Index sequences : {1, 3})
    for (const Index heads : {1, 6})
      for (const Index queries : {1, 5})
        expect_defined(in, {}, {.causal = false, .mask = Mask(bias.data(), sequences, heads, queries, 130)});
}

}  // namespace
}  // namespace headwise
