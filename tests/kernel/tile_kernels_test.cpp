// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "tests/kernel/tables.hpp"

namespace headwise {
namespace {

constexpr Storage kEvery[] = {Storage::f32, Storage::f16, Storage::bf16};
constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();

struct alignas(64) Line {
  char bytes[64];
};
/// Aligned bytes, filled with a pattern that reads as NaN in every storage type.
struct Tile {
  explicit Tile(Index bytes) : lines(static_cast<std::size_t>(ceil_div(bytes, 64))) {
    std::memset(lines.data(), 0xff, lines.size() * 64);
  }
  void* data() { return lines.data(); }
  std::vector<Line> lines;
};

std::vector<char> random_rows(Storage storage, Index count, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<char> rows(static_cast<std::size_t>(count * size_of(storage)) + 1);
  for (Index i = 0; i < count; ++i) store_element(rows.data() + 1, storage, i, normal(random));
  return rows;  // the elements start at byte 1: misaligned on purpose
}

/// Rows one behind another as the pack kernels take them, with addresses of nothing behind them.
struct RowList {
  RowList(const char* first, Index stride, Index tokens) {
    for (Index t = 0; t < tokens; ++t) rows[static_cast<std::size_t>(t)] = first + t * stride;
  }
  const char* const* data() const { return rows.data(); }
  std::array<const char*, kTileTokens + kRowsAhead> rows{};
};

class TileKernelsTest : public testing::EveryTable {};

TEST_P(TileKernelsTest, PackedKeysLieWhereTheLayoutSaysAndPaddingIsZero) {
  std::mt19937 random(1);
  for (const Storage storage : kEvery)
    for (const Index dim : {1, 2, 3, 7, 8, 13, 16, 46, 64, 80, 128, 511})
      for (const Index tokens : {1, 2, 3, 15, 16, 17, 63, 64}) {
        const Index stride = (dim + 3) * size_of(storage) + 1;
        std::vector<char> rows = random_rows(storage, tokens * (dim + 4), random);
        Tile tile(key_tile_bytes(storage, dim));
        kernels->pack_keys[static_cast<int>(storage)](RowList(rows.data() + 1, stride, tokens).data(), tokens, dim,
                                                      tile.data());
        for (Index t = 0; t < kTileTokens; ++t)
          for (Index d = 0; d < padded_head_dim(dim); ++d) {
            const float got = load_element(tile.data(), storage, key_index(storage, dim, t, d));
            const float want = t < tokens && d < dim ? load_element(rows.data() + 1 + t * stride, storage, d) : 0.0f;
            ASSERT_TRUE(got == want || (std::isnan(got) && std::isnan(want)))
                << name_of(storage) << " dim " << dim << " tokens " << tokens << " at " << t << ", " << d;
          }
      }
}

TEST_P(TileKernelsTest, PackedValuesLieWhereTheLayoutSaysAndPaddingIsZero) {
  std::mt19937 random(2);
  for (const Storage storage : kEvery)
    for (const Index dim : {1, 2, 3, 7, 8, 13, 16, 46, 48, 64, 80, 128, 511})
      for (const Index tokens : {1, 2, 3, 15, 16, 17, 63, 64}) {
        const Index stride = (dim + 3) * size_of(storage) + 1;
        std::vector<char> rows = random_rows(storage, tokens * (dim + 4), random);
        Tile tile(value_tile_bytes(storage, dim));
        kernels->pack_values[static_cast<int>(storage)](RowList(rows.data() + 1, stride, tokens).data(), tokens, dim,
                                                        tile.data());
        for (Index t = 0; t < kTileTokens; ++t)
          for (Index d = 0; d < padded_value_dim(dim); ++d) {
            const float got = load_element(tile.data(), storage, value_index(storage, dim, t, d));
            const float want = t < tokens && d < dim ? load_element(rows.data() + 1 + t * stride, storage, d) : 0.0f;
            ASSERT_TRUE(got == want || (std::isnan(got) && std::isnan(want)))
                << name_of(storage) << " dim " << dim << " tokens " << tokens << " at " << t << ", " << d;
          }
      }
}

TEST_P(TileKernelsTest, RowsMayLieAnywhere) {
  std::mt19937 random(12);
  for (const Storage storage : kEvery)
    for (const Index dim : {5, 16, 46, 128})
      for (const Index tokens : {1, 7, 33, 64}) {
        const Index bytes = dim * size_of(storage);
        const std::vector<char> rows = random_rows(storage, kTileTokens * dim, random);
        RowList list(rows.data() + 1, bytes, tokens);
        std::shuffle(list.rows.begin(), list.rows.begin() + tokens, random);
        Tile keys(key_tile_bytes(storage, dim)), values(value_tile_bytes(storage, dim));
        kernels->pack_keys[static_cast<int>(storage)](list.data(), tokens, dim, keys.data());
        kernels->pack_values[static_cast<int>(storage)](list.data(), tokens, dim, values.data());
        for (Index t = 0; t < tokens; ++t)
          for (Index d = 0; d < dim; ++d) {
            const float want = load_element(list.data()[t], storage, d);
            ASSERT_EQ(load_element(keys.data(), storage, key_index(storage, dim, t, d)), want);
            ASSERT_EQ(load_element(values.data(), storage, value_index(storage, dim, t, d)), want);
          }
      }
}

TEST_P(TileKernelsTest, AWidenedTileIsTheSameTileInF32) {
  std::mt19937 random(3);
  for (const Storage storage : {Storage::f16, Storage::bf16})
    for (const Index dim : {5, 16, 46, 64, 80, 128}) {
      const std::vector<char> rows = random_rows(storage, kTileTokens * dim, random);
      const RowList list(rows.data() + 1, dim * size_of(storage), 64);
      Tile tile(key_tile_bytes(storage, dim)), wide(key_tile_bytes(Storage::f32, dim));
      kernels->pack_keys[static_cast<int>(storage)](list.data(), 64, dim, tile.data());
      kernels->widen_keys[static_cast<int>(storage)](tile.data(), dim, static_cast<float*>(wide.data()));
      for (Index t = 0; t < kTileTokens; ++t)
        for (Index d = 0; d < dim; ++d)
          ASSERT_EQ(load_element(wide.data(), Storage::f32, key_index(Storage::f32, dim, t, d)),
                    load_element(rows.data() + 1, storage, t * dim + d));
      Tile values(value_tile_bytes(storage, dim)), wide_values(value_tile_bytes(Storage::f32, dim));
      kernels->pack_values[static_cast<int>(storage)](list.data(), 64, dim, values.data());
      kernels->widen_values[static_cast<int>(storage)](values.data(), dim, static_cast<float*>(wide_values.data()));
      for (Index t = 0; t < kTileTokens; ++t)
        for (Index d = 0; d < dim; ++d)
          ASSERT_EQ(load_element(wide_values.data(), Storage::f32, value_index(Storage::f32, dim, t, d)),
                    load_element(rows.data() + 1, storage, t * dim + d));
    }
}

TEST_P(TileKernelsTest, ATileIsFiniteUntilOneElementIsNot) {
  for (const Storage storage : kEvery)
    for (const Index dim : {5, 64}) {
      Tile tile(value_tile_bytes(storage, dim));
      const Index count = kTileTokens * padded_value_dim(dim);
      for (Index i = 0; i < count; ++i) store_element(tile.data(), storage, i, i % 2 ? 60000.0f : -1.0f);
      const auto finite = [&] { return kernels->all_finite[static_cast<int>(storage)](tile.data(), dim); };
      EXPECT_TRUE(finite());
      for (const Index at : {Index{0}, Index{17}, count - 1})
        for (const float bad : {kNan, kInf, -kInf}) {
          store_element(tile.data(), storage, at, bad);
          EXPECT_FALSE(finite()) << name_of(storage) << " at " << at;
          store_element(tile.data(), storage, at, 1.0f);
        }
      EXPECT_TRUE(finite());
    }
}

TEST_P(TileKernelsTest, RowsAreConvertedScaledAndPaddedExactlyAsSingleElementsAre) {
  std::mt19937 random(4);
  const float specials[] = {0.0f, -0.0f, kInf, -kInf, kNan, 1e-40f, 6e-8f, 65504.0f, 65520.0f, 3.3e38f, 1.00390625f};
  for (const Storage storage : kEvery)
    for (const Index dim : {1, 3, 4, 8, 15, 16, 17, 46, 128}) {
      std::vector<char> q = random_rows(storage, dim, random);
      for (Index i = 0; i < dim; i += 3)
        store_element(q.data() + 1, storage, i, specials[static_cast<std::size_t>(i / 3) % 11]);
      for (const Operand operand : {Operand::f32, Operand::bf16_pair}) {
        const Storage kept = operand == Operand::f32 ? Storage::f32 : Storage::bf16;
        Tile row(padded_head_dim(dim) * 4);
        kernels->prepare_row(q.data() + 1, storage, dim, padded_head_dim(dim), 0.75f, operand, row.data());
        for (Index d = 0; d < padded_head_dim(dim); ++d) {
          float want = d < dim ? load_element(q.data() + 1, storage, d) * 0.75f : 0.0f;
          if (kept == Storage::bf16) want = from_bf16_bits(to_bf16_bits(want));
          const float got = load_element(row.data(), kept, d);
          ASSERT_TRUE(got == want || (std::isnan(got) && std::isnan(want))) << d << ": " << got << " for " << want;
        }
      }
      std::vector<float> sums(static_cast<std::size_t>(dim));
      for (Index d = 0; d < dim; ++d) sums[static_cast<std::size_t>(d)] = load_element(q.data() + 1, storage, d);
      for (const Storage to : kEvery) {
        std::vector<char> out(static_cast<std::size_t>(dim * size_of(to)) + 2, 'x');
        kernels->finish_row(sums.data(), dim, 0.75f, out.data() + 1, to);
        for (Index d = 0; d < dim; ++d) {
          char one[4];
          store_element(one, to, 0, sums[static_cast<std::size_t>(d)] * 0.75f);
          const float got = load_element(out.data() + 1, to, d), want = load_element(one, to, 0);
          ASSERT_TRUE(got == want || (std::isnan(got) && std::isnan(want))) << name_of(to) << " " << d;
        }
        EXPECT_EQ(out.back(), 'x');
        EXPECT_EQ(out.front(), 'x');
      }
    }
}

TEST_P(TileKernelsTest, SoftcapIsTanhWithinItsStatedError) {
  alignas(64) float scores[128];
  for (const float cap : {0.5f, 30.0f, 50.0f}) {
    std::vector<float> in;
    for (int i = 0; i < 128; ++i) in.push_back(static_cast<float>(i - 64) * cap / 12);
    in[0] = -kInf;
    in[1] = kInf;
    in[2] = kNan;
    in[3] = -1e30f;
    std::copy(in.begin(), in.end(), scores);
    ScoreTransform softcap{};
    softcap.inverse_cap = 1 / cap;
    softcap.cap = cap;
    kernels->softcap(softcap, scores, 2, 64);
    EXPECT_EQ(scores[0], -cap);
    EXPECT_EQ(scores[1], cap);
    EXPECT_TRUE(std::isnan(scores[2]));
    for (std::size_t i = 3; i < 128; ++i)
      EXPECT_NEAR(scores[i], cap * std::tanh(static_cast<double>(in[i]) / cap), cap * 0x1p-21) << in[i];
  }
}

/// f32 rows as `scores` meets them.
std::vector<float> grouped(const TileKernels& kernels, std::vector<float> queries, Index rows) {
  const Index dim = std::ssize(queries) / rows;
  std::vector<float> scratch(static_cast<std::size_t>(16 * dim));
  if (kernels.group_rows) kernels.group_rows(queries.data(), rows, dim, scratch.data());
  return queries;
}

/// Scores of f32 rows of 8 dimensions and a tile of keys, transformed.
std::vector<float> transformed(const TileKernels& kernels, const std::vector<float>& plain_queries,
                               const std::vector<float>& keys, const ScoreTransform& how) {
  const Index rows = std::ssize(plain_queries) / 8;
  const std::vector<float> queries = grouped(kernels, plain_queries, rows);
  std::vector<float> scores(static_cast<std::size_t>(rows * 64));
  kernels.scores[static_cast<int>(Storage::f32)](
      {queries.data(), keys.data(), scores.data(), rows, 8, 64, nullptr, {}, &how}, nullptr);
  return scores;
}

TEST_P(TileKernelsTest, AScoreHasTheSameBitsWhateverRowsAreBesideIt) {
  std::mt19937 random(9);
  std::normal_distribution<float> normal;
  for (const Index dim : {8, 16, 24, 128, 136, 576}) {
    constexpr Index kMost = 40;
    std::vector<float> queries(static_cast<std::size_t>(kMost * dim)), keys(static_cast<std::size_t>(64 * dim));
    for (std::vector<float>* numbers : {&queries, &keys})
      for (float& x : *numbers) x = normal(random);
    const auto of_rows = [&](Index first, Index rows) {
      const std::vector<float> some(queries.begin() + first * dim, queries.begin() + (first + rows) * dim);
      const std::vector<float> as_met = grouped(*kernels, some, rows);
      std::vector<float> scores(static_cast<std::size_t>(rows * 64));
      kernels->scores[static_cast<int>(Storage::f32)](
          {as_met.data(), keys.data(), scores.data(), rows, dim, 64, nullptr, {keys.data(), 64 * dim * 4}}, nullptr);
      return scores;
    };
    std::vector<float> alone;
    for (Index r = 0; r < kMost; ++r)
      for (const float score : of_rows(r, 1)) alone.push_back(score);
    for (Index t = 0; t < 64; ++t) {
      double sum = 0, magnitude = 0;
      for (Index d = 0; d < dim; ++d) {
        const double term = static_cast<double>(queries[static_cast<std::size_t>(d)]) *
                            keys[static_cast<std::size_t>(key_index(Storage::f32, dim, t, d))];
        sum += term;
        magnitude += std::abs(term);
      }
      // each addition rounds by half a unit of at most the magnitude
      ASSERT_NEAR(alone[static_cast<std::size_t>(t)], sum, magnitude * static_cast<double>(dim) * 0x1p-24) << dim;
    }
    for (Index rows = 1; rows <= kMost; ++rows) {
      const std::vector<float> together = of_rows(0, rows);
      ASSERT_EQ(0, std::memcmp(together.data(), alone.data(), together.size() * 4)) << rows << " rows, dim " << dim;
    }
  }
}

TEST_P(TileKernelsTest, ASumHasTheSameBitsWhateverRowsAreBesideItAndWhereverItLies) {
  std::mt19937 random(10);
  std::normal_distribution<float> normal;
  for (const Index dim : {16, 32, 48, 512}) {
    constexpr Index kMost = 40;
    std::vector<float> weights(kMost * 64), values(static_cast<std::size_t>(64 * dim));
    for (std::vector<float>* numbers : {&weights, &values})
      for (float& x : *numbers) x = normal(random);
    // rows `stride` floats apart, with 7 between them
    const auto of_rows = [&](Index first, Index rows, Index stride) {
      std::vector<float> output(static_cast<std::size_t>(rows * stride), 7.0f);
      for (Index r = 0; r < rows; ++r) std::fill_n(output.begin() + r * stride, dim, 0.25f);
      kernels->weighted_sum[static_cast<int>(Storage::f32)]({weights.data() + first * 64,
                                                             values.data(),
                                                             output.data(),
                                                             rows,
                                                             dim,
                                                             64,
                                                             nullptr,
                                                             {values.data(), 64 * dim * 4},
                                                             stride == dim ? 0 : stride});
      return output;
    };
    std::vector<float> alone;
    for (Index r = 0; r < kMost; ++r)
      for (const float sum : of_rows(r, 1, dim)) alone.push_back(sum);
    for (Index rows = 1; rows <= kMost; ++rows)
      for (const Index stride : {dim, dim + 16}) {
        const std::vector<float> together = of_rows(0, rows, stride);
        for (Index r = 0; r < rows; ++r)
          for (Index d = 0; d < stride; ++d)
            ASSERT_EQ(together[static_cast<std::size_t>(r * stride + d)],
                      d < dim ? alone[static_cast<std::size_t>(r * dim + d)] : 7.0f)
                << rows << " rows, dim " << dim << ", stride " << stride << " at " << r << ", " << d;
      }
  }
}

TEST_P(TileKernelsTest, AlibiSubtractsSlopeTimesDistance) {
  const std::vector<float> query(8), keys(64 * 8);  // scores 0
  for (const Index first : {-70, -20, 0, 5}) {
    ScoreRowInfo row{};
    row.position = 1000;
    row.slope = 0.25f;
    ScoreTransform alibi{};
    alibi.rows = &row;
    alibi.alibi = true;
    alibi.first = 1000 + first;
    const std::vector<float> scores = transformed(*kernels, query, keys, alibi);
    for (Index j = 0; j < 64; ++j)
      EXPECT_EQ(scores[static_cast<std::size_t>(j)], -0.25f * std::abs(static_cast<float>(first + j)));
  }
}

TEST_P(TileKernelsTest, ABiasIsTheOneOfEachDistanceUpToItsEnds) {
  const std::vector<float> query(8), keys(64 * 8);
  std::vector<float> bias;  // of distances −10 … 10 + 63
  for (int d = -10; d <= 73; ++d) bias.push_back(static_cast<float>(d * d));
  ScoreRowInfo row{};
  row.position = 500;
  row.bias = bias.data() + 10;
  ScoreTransform how{};
  how.rows = &row;
  how.bias = true;
  how.bias_begin = -10;
  how.bias_end = 10;
  how.bias_factor = 0.5f;
  for (const Index distance : {-200, -10, 0, 3, 10, 11, 100}) {
    how.first = 500 + distance;
    const std::vector<float> scores = transformed(*kernels, query, keys, how);
    for (Index j = 0; j < 64; ++j) {
      const Index d = std::clamp<Index>(distance, -10, 10) + j;
      EXPECT_EQ(scores[static_cast<std::size_t>(j)], 0.5f * static_cast<float>(d * d)) << distance << " " << j;
    }
  }
}

TEST_P(TileKernelsTest, ATransformedRowHasTheSameBitsWhateverRowsAreBesideIt) {
  std::mt19937 generator(8);
  std::normal_distribution<float> normal;
  std::vector<float> queries(20 * 8), keys(64 * 8), bias(200);
  for (std::vector<float>* numbers : {&queries, &keys, &bias})
    for (float& x : *numbers) x = normal(generator);
  std::vector<ScoreRowInfo> rows;  // far enough for distances that f32 does not hold
  for (Index r = 0; r < 20; ++r)
    rows.push_back({0, r, 20'000'003 + r, 1e-7f * static_cast<float>(r + 1), bias.data() + 100});
  ScoreTransform how{kernels->softcap, rows.data(), 0.5f, 2.0f, true, true, -100, 36, 1.0f, 64};
  std::vector<std::vector<float>> alone;
  for (Index r = 0; r < 20; ++r) {
    how.rows = rows.data() + r;
    alone.push_back(transformed(*kernels, {queries.begin() + r * 8, queries.begin() + (r + 1) * 8}, keys, how));
  }
  how.rows = rows.data();
  for (Index count = 2; count <= 20; ++count) {
    const std::vector<float> together =
        transformed(*kernels, {queries.begin(), queries.begin() + count * 8}, keys, how);
    for (Index r = 0; r < count; ++r)
      EXPECT_TRUE(std::equal(alone[static_cast<std::size_t>(r)].begin(), alone[static_cast<std::size_t>(r)].end(),
                             together.begin() + r * 64))
          << r << " of " << count;
  }
}

TEST_P(TileKernelsTest, ScaledScoresTellOfHiddenOnes) {
  alignas(64) float scores[128];
  for (const Index hidden : {-1, 0, 77, 127}) {
    for (int i = 0; i < 128; ++i) scores[i] = static_cast<float>(i);
    if (hidden >= 0) scores[hidden] = -kInf;
    EXPECT_EQ(kernels->scale_scores(scores, 128, 1.5f), hidden >= 0);
    for (Index i = 0; i < 128; ++i) EXPECT_EQ(scores[i], i == hidden ? -kInf : 1.5f * static_cast<float>(i));
  }
}

TEST_P(TileKernelsTest, WeightsArePowersOfTwoWithinOneUlpAndHiddenOnesAreZero) {
  // one row per range of x = score − max; max is 0
  alignas(64) float scores[64], max[1] = {0}, sum[kMaxLanes] = {}, tile_sum[kMaxLanes], weights[64];
  for (const Operand operand : {Operand::f32, Operand::bf16_pair}) {
    if (!kernels->fuses(Storage::bf16, operand)) continue;
    const double error = operand == Operand::f32 ? 0x1p-23 : 0x1p-8 + 0x1p-23;
    for (int range = 0; range < 130; ++range) {
      for (int j = 0; j < 63; ++j) scores[j] = -static_cast<float>(range) + static_cast<float>(j) / 63 + 11;
      scores[63] = -kInf;
      ASSERT_FALSE(kernels->softmax(scores, 1, {max, sum, tile_sum, weights, operand}));
      for (int j = 0; j < 64; ++j) {
        const double want = std::exp2(static_cast<double>(scores[j]));
        const float got = load_element(weights, operand == Operand::f32 ? Storage::f32 : Storage::bf16, j);
        if (scores[j] > -125)
          ASSERT_NEAR(got, want, want * error) << scores[j];
        else
          ASSERT_LE(got, 0x1p-124) << scores[j];
        if (scores[j] < -150) {
          ASSERT_EQ(got, 0.0f);
        }
      }
    }
  }
}

TEST_P(TileKernelsTest, ARowIsRescaledOnlyWhenItsOwnScoresExceedTheLazyRange) {
  constexpr Index kRows = 4, kDim = 16;
  alignas(64) float scores[kRows * 64], max[kRows] = {0, 0, -kInf, 0}, sum[kRows * kMaxLanes] = {},
                                        tile_sum[kRows * kMaxLanes];
  alignas(64) float output[kRows * kDim];
  alignas(64) float weights[kRows * 64];
  std::fill_n(scores, kRows * 64, 1.0f);
  std::fill_n(output, kRows * kDim, 8.0f);
  scores[0 * 64 + 5] = 12.0f;               // at the end of the range: stays
  scores[1 * 64 + 5] = 13.0f;               // beyond: rescaled by 2^-13
  std::fill_n(scores + 2 * 64, 64, -kInf);  // sees no key yet
  scores[3 * 64 + 9] = kNan;
  for (Index r = 0; r < kRows; ++r) sum[r * kMaxLanes] = r == 2 ? 0.0f : 4.0f;
  const SoftmaxState state{max, sum, tile_sum, weights, Operand::f32};
  ASSERT_TRUE(kernels->softmax(scores, kRows, state));
  kernels->rescale(scores, kRows, state, output, kDim);
  const auto total = [&](Index r) {
    double s = 0;
    for (Index i = 0; i < kMaxLanes; ++i) s += sum[r * kMaxLanes + i];
    return s;
  };
  EXPECT_EQ(max[0], 0.0f);
  EXPECT_EQ(output[0], 8.0f);
  EXPECT_NEAR(total(0), 4 + 63 * 2 + 4096, 1e-2);
  EXPECT_EQ(max[1], 13.0f);
  EXPECT_EQ(output[kDim], 8.0f * 0x1p-13f);
  EXPECT_NEAR(total(1), (4 + 63 * 2) * 0x1p-13 + 1, 1e-6);
  EXPECT_EQ(max[2], -kInf);
  EXPECT_EQ(output[2 * kDim], 8.0f);
  EXPECT_EQ(total(2), 0.0);
  for (int j = 0; j < 64; ++j) EXPECT_EQ(weights[2 * 64 + j], 0.0f);
  EXPECT_TRUE(std::isnan(total(3)));
}

HEADWISE_FOR_EVERY_TABLE(TileKernelsTest);

}  // namespace
}  // namespace headwise
