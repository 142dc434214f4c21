// SPDX-License-Identifier: MIT
// The figures were made by running ROPE_INIT_FUNCTIONS of Hugging Face transformers 5.23.0
// (src/transformers/modeling_rope_utils.py) in double precision on the configurations named here.
#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "headwise/position/rope.hpp"

namespace headwise {
namespace {

using Figures = std::vector<std::pair<std::size_t, double>>;  // pair → radians per token

void expect_frequencies(std::span<const double> got, const Figures& expected) {
  for (const auto& [pair, value] : expected) {
    ASSERT_LT(pair, got.size());
    EXPECT_NEAR(got[pair], value, 1e-13 * value) << "pair " << pair;
  }
}

std::vector<double> frequencies_at(const Rope& rope, Index length) {
  std::vector<double> result(rope.frequencies().size());
  detail::rope_frequencies(rope.options().scaling, rope.options().base, length, result);
  return result;
}

TEST(RopeFrequencies, FallGeometricallyWithoutScaling) {
  const Rope rope(64, {.base = 1e4});
  ASSERT_EQ(rope.frequencies().size(), 32u);
  expect_frequencies(rope.frequencies(), {{0, 1.0}, {1, 0.74989420933245587}, {16, 0.01}, {31, 0.0001333521432163324}});
  EXPECT_EQ(rope.attention_factor(), 1.0);
}

TEST(RopeFrequencies, OfLinearScalingAreThoseOfTransformers) {
  const Rope rope(64, {.base = 1e5, .scaling = LinearScaling{4.0}});
  expect_frequencies(rope.frequencies(), {{0, 0.25},
                                          {1, 0.17445764621496659},
                                          {10, 0.0068460490856609027},
                                          {17, 0.00055168351727114743},
                                          {31, 3.5825314255924068e-06}});
  EXPECT_EQ(rope.attention_factor(), 1.0);
}

TEST(RopeFrequencies, OfPartialRotaryUseTheRotaryDimension) {
  const Rope rope(80, {.base = 1e4, .rotary_dim = 32, .scaling = LinearScaling{2.5}});
  ASSERT_EQ(rope.frequencies().size(), 16u);
  expect_frequencies(rope.frequencies(),
                     {{0, 0.4}, {1, 0.22493653007613962}, {10, 0.001264911064067352}, {15, 7.1131176401556902e-05}});
}

TEST(RopeFrequencies, OfDynamicNtkArePlainUpToTheOriginalContext) {
  const Rope rope(64, {.base = 1e4, .scaling = DynamicNtkScaling{2.0, 2048}});
  const Figures plain = {{0, 1.0}, {1, 0.74989420933245587}, {17, 0.0074989420933245588}, {31, 0.0001333521432163324}};
  expect_frequencies(rope.frequencies(), plain);
  expect_frequencies(frequencies_at(rope, 1), plain);
  expect_frequencies(frequencies_at(rope, 2048), plain);
}

TEST(RopeFrequencies, OfDynamicNtkFollowTheLengthBeyondTheOriginalContext) {
  const Rope rope(64, {.base = 1e4, .scaling = DynamicNtkScaling{2.0, 2048}});
  expect_frequencies(frequencies_at(rope, 2049), {{0, 1.0}, {1, 0.74987059805195178}, {31, 0.00013322204356441405}});
  expect_frequencies(frequencies_at(rope, 3000),
                     {{1, 0.73416004017874181}, {17, 0.0052292887331159988}, {31, 6.9105564095913152e-05}});
  expect_frequencies(frequencies_at(rope, 8192),
                     {{1, 0.70426932521655328}, {17, 0.002579640218836032}, {31, 1.9050306173761771e-05}});
}

TEST(RopeFrequencies, OfYarnAreThoseOfTransformers) {  // Qwen2.5 with its long-context setting
  const Rope rope(128, {.base = 1e6, .scaling = YarnScaling{.factor = 4.0, .original_max_position = 32768}});
  expect_frequencies(rope.frequencies(), {{0, 1.0},
                                          {1, 0.80584218776148187},
                                          {16, 0.031622776601683791},
                                          {32, 0.00060294117647058821},
                                          {33, 0.00045032357551376927},
                                          {42, 2.8869549617236455e-05},
                                          {63, 3.1023444018792988e-07}});
  EXPECT_DOUBLE_EQ(rope.attention_factor(), 1.1386294361119891);
}

TEST(RopeFrequencies, OfYarnWithoutTruncationAreThoseOfTransformers) {  // gpt-oss
  const Rope rope(
      64, {.base = 150000.0, .scaling = YarnScaling{.factor = 32.0, .original_max_position = 4096, .truncate = false}});
  expect_frequencies(rope.frequencies(), {{0, 1.0},
                                          {8, 0.050813274815461475},
                                          {10, 0.019335001126540362},
                                          {16, 0.00045648391922324086},
                                          {17, 0.00012931870124506317},
                                          {31, 3.0235114281192144e-07}});
  EXPECT_DOUBLE_EQ(rope.attention_factor(), 1.3465735902799727);
}

TEST(RopeFrequencies, OfYarnWithDeepSeeksScalesAreThoseOfTransformers) {
  const Rope rope(64, {.base = 1e4,
                       .scaling = YarnScaling{
                           .factor = 40.0, .original_max_position = 4096, .mscale = 0.707, .mscale_all_dim = 1.0}});
  expect_frequencies(rope.frequencies(), {{8, 0.1},
                                          {16, 0.0054999999999999997},
                                          {17, 0.0035619974943291656},
                                          {21, 0.00041499039849078969},
                                          {31, 3.3338035804083101e-06}});
  EXPECT_DOUBLE_EQ(rope.attention_factor(), 0.92104235531633993);
}

TEST(RopeFrequencies, OfYarnTakeItsBetasAndAttentionFactor) {
  const Rope rope(32, {.base = 1e4,
                       .scaling = YarnScaling{.factor = 8.0,
                                              .original_max_position = 1024,
                                              .beta_fast = 16.0,
                                              .beta_slow = 2.0,
                                              .attention_factor = 1.25}});
  expect_frequencies(
      rope.frequencies(),
      {{4, 0.1}, {5, 0.043932916030496018}, {8, 0.00125}, {9, 0.00070292665648793637}, {15, 2.2228492625486534e-05}});
  EXPECT_EQ(rope.attention_factor(), 1.25);
}

TEST(RopeFrequencies, OfLlama31AreThoseOfTransformers) {
  const Rope rope(128, {.base = 5e5, .scaling = Llama3Scaling{.factor = 8.0, .original_max_position = 8192}});
  expect_frequencies(rope.frequencies(), {{0, 1.0},
                                          {1, 0.81461723385654472},
                                          {21, 0.013490419890226748},
                                          {32, 0.00052484616099295468},
                                          {33, 0.00031269375038406517},
                                          {42, 2.2748928601828186e-05},
                                          {63, 3.0689259889145111e-07}});
}

TEST(RopeFrequencies, OfLlama32AreThoseOfTransformers) {
  const Rope rope(64, {.base = 5e5, .scaling = Llama3Scaling{.factor = 32.0, .original_max_position = 8192}});
  expect_frequencies(rope.frequencies(), {{10, 0.016560440080994446},
                                          {16, 0.00042955679655936815},
                                          {17, 9.7082878026276702e-05},
                                          {21, 5.6872321504570466e-06},
                                          {31, 9.4183067254349113e-08}});
}

// The figures of the last two scalings are those formulas of transformers, evaluated with 40 digits.
LongRopeScaling two_lists() {
  return {.short_factors = {1, 1.05, 1.1, 1.2, 1.25, 1.5, 2, 2.5},
          .long_factors = {1.07, 1.12, 1.42, 2.13, 5.91, 16.12, 37.48, 64.5},
          .original_max_position = 4096,
          .factor = 32};
}

TEST(RopeFrequencies, OfLongRopeAreOfTheShortFactorsUpToTheOriginalContextAndOfTheLongOnesBeyond) {
  const Rope rope(16, {.scaling = two_lists()});
  const Figures small = {{0, 1.0}, {1, 0.30116930096841707}, {4, 0.008}, {7, 0.00012649110640673517}};
  expect_frequencies(rope.frequencies(), small);
  expect_frequencies(frequencies_at(rope, 4096), small);
  expect_frequencies(
      frequencies_at(rope, 4097),
      {{0, 0.93457943925233639}, {1, 0.28234621965789098}, {4, 0.0016920473773265651}, {7, 4.9027560622765571e-6}});
  EXPECT_TRUE(rope.depends_on_length());
  EXPECT_DOUBLE_EQ(rope.attention_factor(), 1.1902380714238083);  // Phi-3's, of 4096 tokens to 131072
}

TEST(RopeFrequencies, OfLongRopeTakeItsAttentionFactorAndOfOneListServeEveryLength) {
  LongRopeScaling scaling = two_lists();
  scaling.attention_factor = 1.25;
  scaling.short_factors = scaling.long_factors;
  const Rope rope(16, {.scaling = scaling});
  EXPECT_EQ(rope.attention_factor(), 1.25);
  EXPECT_FALSE(rope.depends_on_length());
  expect_frequencies(rope.frequencies(), {{1, 0.28234621965789098}, {7, 4.9027560622765571e-6}});
}

TEST(RopeFrequencies, OfProportionalRopeAreOfTheWholeHeadAndLeaveTheOtherPairsAlone) {  // Gemma 4's global layers
  const Rope rope(512, {.base = 1e6, .scaling = ProportionalScaling{.proportion = 0.25}});
  ASSERT_EQ(rope.frequencies().size(), 256u);
  EXPECT_EQ(rope.num_pairs(), 64);
  expect_frequencies(rope.frequencies(),
                     {{0, 1.0}, {1, 0.9474635256553754}, {32, 0.17782794100389228}, {63, 0.033376246942920385}});
  for (std::size_t i = 64; i < 256; ++i) EXPECT_EQ(rope.frequencies()[i], 0.0);
  EXPECT_EQ(rope.attention_factor(), 1.0);
}

TEST(RopeFrequencies, OfProportionalRopeRoundThePairsDownAndTakeAFactor) {
  const Rope rope(64, {.base = 1e6, .scaling = ProportionalScaling{.proportion = 0.3, .factor = 8}});
  EXPECT_EQ(rope.num_pairs(), 9);
  expect_frequencies(rope.frequencies(), {{0, 0.125}, {1, 0.081172703947026414}});
  EXPECT_EQ(Rope(64, {.scaling = ProportionalScaling{.proportion = 0}}).num_pairs(), 0);
}

TEST(RopeFrequencies, OfAFactorOfOneArePlain) {
  const Rope plain(64, {.base = 1e4});
  const RopeScaling scalings[] = {LinearScaling{},
                                  DynamicNtkScaling{.original_max_position = 16},
                                  YarnScaling{.original_max_position = 4096},
                                  Llama3Scaling{.original_max_position = 8192},
                                  ProportionalScaling{},
                                  LongRopeScaling{.short_factors = std::vector<double>(32, 1.0),
                                                  .long_factors = std::vector<double>(32, 1.0),
                                                  .original_max_position = 4096}};
  for (const RopeScaling& scaling : scalings) {
    const Rope rope(64, {.base = 1e4, .scaling = scaling});
    EXPECT_EQ(rope.attention_factor(), 1.0);
    for (std::size_t i = 0; i < 32; ++i)
      EXPECT_NEAR(rope.frequencies()[i], plain.frequencies()[i], 1e-15 * plain.frequencies()[i]) << scaling.index();
  }
}

}  // namespace
}  // namespace headwise
