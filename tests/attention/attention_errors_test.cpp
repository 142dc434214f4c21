// SPDX-License-Identifier: MIT
// Bad input to attention is named, with its value and what was expected, and nothing is written.
#include <array>

#include "tests/attention/run.hpp"
#include "tests/support/errors.hpp"

namespace headwise {
namespace {

using namespace testing;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// other element types do not compile
template <class T>
concept Viewable = requires { typename View<T>; };
static_assert(Viewable<float> && Viewable<const bf16> && !Viewable<double> && !Viewable<int>);

class AttentionErrors : public ::testing::Test {
 protected:
  // the good call: 2 sequences, 3 queries over 10 keys
  AttentionErrors() : in({6, 2, 16, 24}, 2, 3, 10), cache(cache_of<float>(in)) {}

  View<const float> q(Index sequences = 2, Index tokens = 3, Index heads = 6, Index dim = 16) const {
    return {memory.data(), sequences, tokens, heads, dim};
  }
  View<float> out(Index sequences = 2, Index tokens = 3, Index heads = 6, Index dim = 24) {
    return {output.data(), sequences, tokens, heads, dim};
  }
  View<float> lse(Index sequences = 2, Index tokens = 3, Index heads = 6, Index dim = 1) {
    return {log_sum.data(), sequences, tokens, heads, dim};
  }
  template <class F>
  void expect_untouched_error(F&& f, std::initializer_list<std::string_view> parts) {
    expect_error(f, parts);
    for (const float x : output) ASSERT_EQ(x, 77.0f);
    for (const float x : log_sum) ASSERT_EQ(x, 77.0f);
  }
  void expect_option_error(const Options& options, std::initializer_list<std::string_view> parts) {
    expect_untouched_error([&] { attend(q(), cache, {out(), lse()}, options); }, parts);
  }

  Inputs in;
  KvCache<float> cache;
  Attention<> attend{Heads<>{6, 2, 16, 24}};
  std::vector<float> memory = std::vector<float>(4096, 1.0f);
  std::vector<float> output = std::vector<float>(4096, 77.0f), log_sum = std::vector<float>(4096, 77.0f);
};

TEST_F(AttentionErrors, TheGoodCallIsGood) {
  EXPECT_NO_THROW(attend(q(), cache, {out(), lse()}));
  EXPECT_NE(output[0], 77.0f);
}

TEST_F(AttentionErrors, QueriesThatDoNotFit) {
  expect_untouched_error([&] { attend(q(2, 3, 5), cache, {out(), lse()}); }, {"heads of q (5)", "num_heads (6)"});
  expect_untouched_error([&] { attend(q(2, 3, 6, 17), cache, {out(), lse()}); }, {"dim of q (17)", "head_dim (16)"});
  expect_untouched_error([&] { attend(q(1), cache, {out(1), lse(1)}); }, {"sequences of q (1)", "keys and values (2)"});
}

TEST_F(AttentionErrors, ScoresAndMassesThatDoNotFit) {
  std::vector<float> more(4096, 77.0f);
  const auto expect_score_error = [&](View<float> scores, std::initializer_list<std::string_view> parts) {
    Outputs outputs{out(), lse()};
    outputs.scores = {scores, ScoreStage::weights};
    expect_untouched_error([&] { attend(q(), cache, outputs); }, parts);
  };
  expect_score_error({more.data(), 1, 3, 6, 10}, {"sequences of the scores (1)", "q (2)"});
  expect_score_error({more.data(), 2, 2, 6, 10}, {"tokens of the scores (2)", "q (3)"});
  expect_score_error({more.data(), 2, 3, 2, 10}, {"heads of the scores (2)", "num_heads (6)"});
  expect_score_error({more.data(), 2, 3, 6, 9}, {"dim of the scores (9)", "keys of a sequence (10)"});
  expect_score_error({}, {"sequences of the scores (0)"});
  const auto expect_mass_error = [&](const MassOutput& mass, std::initializer_list<std::string_view> parts) {
    Outputs outputs{out(), lse()};
    outputs.mass = mass;
    expect_untouched_error([&] { attend(q(), cache, outputs); }, parts);
  };
  const auto mass = [&](Index sequences = 2, Index tokens = 10, Index heads = 2, Index dim = 1) {
    return View<float>(more.data(), sequences, tokens, heads, dim);
  };
  expect_mass_error(MassOutput(mass(3)), {"sequences of the mass (3)", "keys and values (2)"});
  expect_mass_error(MassOutput(mass(2, 9)), {"tokens of the mass (9)", "keys of a sequence (10)"});
  expect_mass_error(MassOutput(mass(2, 10, 3)), {"heads of the mass (3)", "num_kv_heads (2)", "num_heads (6)"});
  expect_mass_error(MassOutput(mass(2, 10, 2, 2)), {"dim of the mass (2)", "must be 1"});
  expect_mass_error(MassOutput(mass(), false, -1), {"last_queries of the mass (-1)"});
  expect_mass_error(MassOutput(View<float>()), {"sequences of the mass (0)"});
  for (const float x : more) ASSERT_EQ(x, 77.0f);
}

TEST_F(AttentionErrors, OutputsThatDoNotFit) {
  expect_untouched_error([&] { attend(q(), cache, {out(1), lse()}); }, {"sequences of the output (1)", "q (2)"});
  expect_untouched_error([&] { attend(q(), cache, {out(2, 4), lse()}); }, {"tokens of the output (4)", "q (3)"});
  expect_untouched_error(
      [&] {
        attend(q(), cache, {out(2, 3, 2), lse()});
      },
      {"heads of the output (2)", "num_heads (6)"});
  expect_untouched_error(
      [&] {
        attend(q(), cache, {out(2, 3, 6, 16), lse()});
      },
      {"dim of the output (16)", "value_dim (24)"});
  expect_untouched_error([&] { attend(q(), cache, {out(), lse(3)}); }, {"sequences of lse (3)", "q (2)"});
  expect_untouched_error([&] { attend(q(), cache, {out(), lse(2, 2)}); }, {"tokens of lse (2)", "q (3)"});
  expect_untouched_error([&] { attend(q(), cache, {out(), lse(2, 3, 2)}); }, {"heads of lse (2)", "num_heads (6)"});
  expect_untouched_error([&] { attend(q(), cache, {out(), lse(2, 3, 6, 2)}); }, {"dim of lse (2)", "must be 1"});
}

TEST_F(AttentionErrors, KeysAndValuesThatDoNotFit) {
  const auto with = [&](const Heads<>& heads) {
    const KvCache<bf16> other(heads, 8, {.num_sequences = 2});
    attend(q(), other, {out(), lse()});
  };
  expect_untouched_error([&] { with({6, 3, 16, 24}); }, {"KV heads of the keys and values (3)", "num_kv_heads (2)"});
  expect_untouched_error([&] { with({6, 2, 32, 24}); }, {"dim of the keys (32)", "head_dim (16)"});
  expect_untouched_error([&] { with({6, 2, 16}); }, {"dim of the values (16)", "value_dim (24)"});
}

TEST_F(AttentionErrors, CacheOfSeveralLayersWithoutALayer) {
  const KvCache<float> model(std::vector<LayerShape>{{2, 16, 24}, {2, 16, 24}}, 8, {.num_sequences = 2});
  expect_untouched_error([&] { attend(q(), model, {out(), lse()}); }, {"2 layers", "cache.layer(i)"});
  EXPECT_NO_THROW(attend(q(), model.layer(1), {out(), lse()}));
}

TEST_F(AttentionErrors, RowsWhoseKeysAndValuesDisagree) {
  const float* data = memory.data();
  const View<const float> keys(data, 2, 4, 2, 16);
  expect_error([&] { KvRows(keys, View<const float>(data, 1, 4, 2, 24)); }, {"sequences (1)", "keys (2)"});
  expect_error([&] { KvRows(keys, View<const float>(data, 2, 5, 2, 24)); }, {"tokens (5)", "keys (4)"});
  expect_error([&] { KvRows(keys, View<const float>(data, 2, 4, 3, 24)); }, {"heads (3)", "keys (2)"});
}

TEST_F(AttentionErrors, HeadMapsThatDoNotFit) {
  const HeadMap few = HeadMap::contiguous(4, 2), wide = HeadMap::contiguous(6, 3);
  expect_option_error({.head_map = &few}, {"num_heads of the head map (4)", "num_heads (6)"});
  expect_option_error({.head_map = &wide}, {"num_kv_heads of the head map (3)", "num_kv_heads (2)"});
  expect_error([&] { Attention<>({6, 2, 16}, few); }, {"num_heads of the head map (4)", "num_heads (6)"});
  expect_error([&] { Attention<>({6, 2, 16}, wide); }, {"num_kv_heads of the head map (3)", "num_kv_heads (2)"});
}

TEST_F(AttentionErrors, BoundariesOfGroupsThatAreImpossible) {
  using List = std::vector<Index>;
  const auto expect = [&](const List& boundaries, std::initializer_list<std::string_view> parts) {
    expect_option_error({.group_boundaries = boundaries}, parts);
  };
  expect({0, 6}, {"group_boundaries (2 numbers)", "num_kv_heads + 1 (3)", "each of the 2 sequences"});
  expect({0, 1, 2, 6}, {"group_boundaries (4 numbers)", "num_kv_heads + 1 (3)"});
  expect({0, 1, 6, 0, 1, 6, 0, 1, 6}, {"group_boundaries (9 numbers)", "2 sequences"});
  expect({1, 3, 6}, {"group_boundaries[0] (1)", "must be 0"});
  expect({0, 3, 5}, {"group_boundaries[2] (5)", "num_heads (6)"});
  expect({0, 3, 7}, {"group_boundaries[2] (7)", "num_heads (6)"});
  expect({0, -1, 6}, {"group_boundaries[1] (-1)", "below the boundary before it (0)"});
  expect({0, 7, 6}, {"group_boundaries[2] (6)", "below the boundary before it (7)"});
  expect({0, 3, 6, 1, 3, 6}, {"group_boundaries[3] (1)", "must be 0"});
  expect({0, 3, 6, 0, 3, 4}, {"group_boundaries[5] (4)", "num_heads (6)"});
  const List good{0, 1, 6};
  const HeadMap map = HeadMap::cyclic(6, 2);
  expect_option_error({.head_map = &map, .group_boundaries = good}, {"group_boundaries (3 numbers)", "head_map"});
  EXPECT_NO_THROW(attend(q(), cache, {out(), lse()}, {.group_boundaries = good}));
}

TEST_F(AttentionErrors, HeadCountsThatDoNotDivideNeedAMap) {
  expect_error([] { Attention<>(Heads<>{30, 8, 128}); }, {"num_heads (30)", "multiple of num_kv_heads (8)", "HeadMap"});
  EXPECT_NO_THROW(Attention<>(Heads<>{30, 8, 128}, HeadMap::balanced(30, 8)));
}

TEST_F(AttentionErrors, OptionsThatAreImpossible) {
  expect_option_error({.scale = kNan}, {"scale (nan)", "finite"});
  expect_option_error({.scale = -std::numeric_limits<float>::infinity()}, {"scale (-inf)", "finite"});
  expect_option_error({.window = -1}, {"window (-1)", "at least 0"});
  expect_option_error({.window_right = -2}, {"window_right (-2)", "at least 0"});
  expect_option_error({.softcap = -0.5f}, {"softcap (-0.5)", "at least 0"});
  expect_option_error({.softcap = kNan}, {"softcap (nan)", "at least 0"});
  const std::array<float, 5> five{};
  const std::array<float, 6> bad{0, 0, 0, 0, kNan, 0};
  expect_option_error({.alibi_slopes = five}, {"alibi_slopes (5 slopes)", "per query head (6)"});
  expect_option_error({.alibi_slopes = bad}, {"alibi_slopes[4] (nan)", "finite"});
}

TEST_F(AttentionErrors, LengthsThatAreImpossible) {
  const std::vector<Index> one{1}, negative{3, -1}, long_keys{11, 3}, long_queries{3, 4};
  expect_option_error({.key_lengths = one}, {"key_lengths (1 lengths)", "per sequence (2)"});
  expect_option_error({.key_lengths = negative}, {"key_lengths[1] (-1)", "0 to"});
  expect_option_error({.key_lengths = long_keys}, {"key_lengths[0] (11)", "0 to", "(10)"});
  expect_option_error({.query_lengths = one}, {"query_lengths (1 lengths)", "per sequence (2)"});
  expect_option_error({.query_lengths = negative}, {"query_lengths[1] (-1)", "0 to"});
  expect_option_error({.query_lengths = long_queries}, {"query_lengths[1] (4)", "0 to", "(3)"});
}

TEST_F(AttentionErrors, LengthsAreThoseOfEachSequenceOfTheCache) {
  KvCache<float> uneven(in.heads, 10, {.num_sequences = 2});
  uneven.append(0, 1, View<const float>(memory.data(), 4, 2, 16), View<const float>(memory.data(), 4, 2, 24));
  const std::vector<Index> lengths{0, 5};
  expect_untouched_error(
      [&] {
        attend(q(), uneven, {out(), lse()}, {.key_lengths = lengths});
      },
      {"key_lengths[1] (5)", "(4)"});
}

}  // namespace
}  // namespace headwise
