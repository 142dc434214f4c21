// SPDX-License-Identifier: MIT
// int8 and int4 met as integers: every number against its definition in plain loops, with rows of integers in place of
// digits and 64-bit sums.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "headwise/core/quantize.hpp"
#include "headwise/headwise.hpp"
#include "tests/kernel/tables.hpp"

namespace headwise {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();
constexpr float kRange = 32639.0f;

/// A row as integers: round(x / unit), the largest of which is 32639.
struct Integers {
  std::vector<std::int64_t> v;
  float unit;

  explicit Integers(const std::vector<float>& x) {
    float largest = 0;
    for (const float e : x) largest = std::isnan(e) ? kInf : std::max(largest, std::fabs(e));
    largest = std::max(largest, 0x1p-110f);
    unit = largest < kInf ? largest * (1 / kRange) : kNan;
    const float inverse = kRange / largest;
    // nearest integer of the exact product, which a double holds
    for (const float e : x) v.push_back(std::isnan(unit) ? 0 : std::llrint(static_cast<double>(e) * inverse));
  }
};

/// 64 tokens of one head in a cache.
template <class T>
struct CachedTile {
  static constexpr Storage kStorage = Stored<T>::storage;
  static constexpr Index kGroup = kStorage == Storage::int4 ? kScaleDims : kMaxHeadDim;
  static constexpr int kZero = kStorage == Storage::int4 ? kInt4Zero : kInt8Zero;
  KvCache<T> cache;
  TilePointers tile;
  Index dim, value_dim;

  CachedTile(Index k, Index v, std::mt19937& random) : cache(Heads<>(1, 1, k, v), 64), dim(k), value_dim(v) {
    std::normal_distribution<float> normal;
    std::vector<float> keys(static_cast<std::size_t>(64 * k)), values(static_cast<std::size_t>(64 * v));
    for (auto* x : {&keys, &values})
      for (float& e : *x) e = normal(random);
    cache.append(View<const float>(keys.data(), 64, 1, k), View<const float>(values.data(), 64, 1, v));
    tile = cache.layer().tile(0, 0, 0);
  }

  static std::int64_t code(const void* codes, Index index) {
    const auto* bytes = static_cast<const std::uint8_t*>(codes);
    if constexpr (kStorage == Storage::int8) return bytes[index] - kZero;
    // byte j of a lane holds elements j and j + 4
    const int byte = bytes[index / 8 * 4 + index % 4];
    return (index % 8 < 4 ? byte & 15 : byte >> 4) - kZero;
  }
  std::int64_t key(Index t, Index d) const { return code(tile.keys, key_index(kStorage, dim, t, d)); }
  std::int64_t value(Index t, Index d) const { return code(tile.values, value_index(kStorage, value_dim, t, d)); }
  float key_scale(Index t, Index d) const {
    return load_element(static_cast<const char*>(tile.keys) + key_code_bytes(kStorage, dim), Storage::bf16,
                        scale_index(kStorage, t, d));
  }
  /// To be read and changed.
  char* value_scale(Index t, Index d) const {
    return static_cast<char*>(const_cast<void*>(tile.values)) + value_code_bytes(kStorage, value_dim) +
           2 * scale_index(kStorage, t, d);
  }
};

class DigitDot : public testing::EveryTable {
 protected:
  /// The emulation runs on vectors without an FMA: 2^-23 of the terms' magnitudes apart from the definition.
  void expect_equal(float got, float want, double magnitude) const {
    if (GetParam() == "emulated_digit_dot")
      ASSERT_NEAR(got, want, magnitude * 0x1p-22);
    else
      ASSERT_EQ(got, want);
  }
};

struct alignas(64) Line {
  char bytes[64];
};

template <class T, class Check>
void check_scores(const TileKernels& kernels, Check expect_equal) {
  constexpr int s = static_cast<int>(CachedTile<T>::kStorage);
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (const Index dim : {1, 8, 24, 40, 64, 80, 128, 512, 576}) {
    const CachedTile<T> cached(dim, 8, random);
    for (const Index rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 96}) {
      const Index padded = padded_head_dim(dim), bytes = row_bytes(Operand::digits, padded);
      ASSERT_LE(bytes, 4 * padded);
      std::vector<Line> prepared(static_cast<std::size_t>(ceil_div(rows * bytes, 64)));
      std::vector<std::vector<float>> q;
      for (Index r = 0; r < rows; ++r) {
        q.emplace_back(static_cast<std::size_t>(dim));
        for (float& e : q.back()) e = normal(random);
        kernels.prepare_row(q.back().data(), Storage::f32, dim, padded, 1.0f, Operand::digits,
                            prepared[0].bytes + r * bytes);
      }
      std::vector<float> scores(static_cast<std::size_t>(rows * 64), kNan);
      ASSERT_FALSE(kernels.scores[s]({prepared.data(), cached.tile.keys, scores.data(), rows, padded, 64, nullptr, {}},
                                     nullptr));
      for (Index r = 0; r < rows; ++r) {
        const Integers row(q[static_cast<std::size_t>(r)]);
        for (Index t = 0; t < 64; ++t) {
          float sum = 0, magnitude = 0;
          for (Index d = 0; d < dim;) {
            std::int64_t dot = 0;
            const float scale = cached.key_scale(t, d) * 0x1p-24f;
            for (const Index end = std::min(dim, d + CachedTile<T>::kGroup); d < end; ++d)
              dot += cached.key(t, d) * row.v[static_cast<std::size_t>(d)];
            sum = std::fma(static_cast<float>(dot), scale, sum);
            magnitude += std::fabs(static_cast<float>(dot) * scale);
          }
          const float unit = row.unit * 0x1p24f;
          expect_equal(scores[static_cast<std::size_t>(r * 64 + t)], sum * unit, magnitude * unit);
          if (::testing::Test::HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST_P(DigitDot, ScoresAreExactSumsOfCodesAndIntegersTimesTheirScales) {
  const auto check = [this](float got, float want, double magnitude) { expect_equal(got, want, magnitude); };
  check_scores<int8>(*kernels, check);
  check_scores<int4>(*kernels, check);
}

template <class T, class Check>
void check_sums(const TileKernels& kernels, Check expect_equal) {
  constexpr int s = static_cast<int>(CachedTile<T>::kStorage);
  std::mt19937 random(2);
  std::uniform_real_distribution<float> uniform(0, 1);
  for (const Index dim : {1, 16, 20, 40, 64, 80, 128, 512, 576}) {
    const CachedTile<T> cached(8, dim, random);
    for (const Index rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 96})
      for (const Index tokens : {1, 9, 63, 64}) {
        const Index padded = padded_value_dim(dim);
        std::vector<float> weights(static_cast<std::size_t>(rows * 64), 0.0f);
        for (Index r = 0; r < rows; ++r)
          for (Index t = 0; t < tokens; ++t)
            if (r % 5 != 4)  // the others see no token
              weights[static_cast<std::size_t>(r * 64 + t)] = std::exp2(-10 * uniform(random));
        std::vector<float> output(static_cast<std::size_t>(rows * padded), 0.5f);
        kernels.weighted_sum[s]({weights.data(), cached.tile.values, output.data(), rows, padded, tokens, nullptr, {}});
        for (Index r = 0; r < rows; ++r)
          for (Index first = 0; first < dim; first += CachedTile<T>::kGroup) {
            std::vector<float> scaled;
            for (Index t = 0; t < 64; ++t)
              scaled.push_back(weights[static_cast<std::size_t>(r * 64 + t)] *
                               load_element(cached.value_scale(t, first), Storage::bf16, 0));
            const Integers row(scaled);
            for (Index d = first; d < std::min(dim, first + CachedTile<T>::kGroup); ++d) {
              std::int64_t dot = 0;
              for (Index t = 0; t < 64; ++t) dot += cached.value(t, d) * row.v[static_cast<std::size_t>(t)];
              const float want = std::fma(static_cast<float>(dot), row.unit, 0.5f);
              expect_equal(output[static_cast<std::size_t>(r * padded + d)], want, 1 + std::fabs(want));
              if (::testing::Test::HasFatalFailure()) return;
            }
          }
      }
  }
}

TEST_P(DigitDot, WeightedSumsAreExactSumsOfCodesAndIntegersTimesTheRowsUnit) {
  const auto check = [this](float got, float want, double magnitude) { expect_equal(got, want, magnitude); };
  check_sums<int8>(*kernels, check);
  check_sums<int4>(*kernels, check);
}

TEST_P(DigitDot, AQueryThatIsNotFiniteGivesNanAndOneOfZerosGivesZero) {
  std::mt19937 random(3);
  const CachedTile<int8> int8_tile(40, 8, random);
  const CachedTile<int4> int4_tile(40, 8, random);
  for (const float bad : {0.0f, kNan, -kNan, kInf, -kInf})
    for (const bool is_int8 : {true, false}) {
      std::vector<float> q(40, bad == 0.0f ? 0.0f : 1.0f);
      q[37] = bad;
      alignas(64) char row[4 * 40];
      float scores[64];
      kernels->prepare_row(q.data(), Storage::f32, 40, 40, 1.0f, Operand::digits, row);
      kernels->scores[static_cast<int>(is_int8 ? Storage::int8 : Storage::int4)](
          {row, is_int8 ? int8_tile.tile.keys : int4_tile.tile.keys, scores, 1, 40, 64, nullptr, {}}, nullptr);
      for (const float x : scores) ASSERT_TRUE(bad == 0.0f ? x == 0.0f : std::isnan(x)) << bad << " gave " << x;
    }
}

template <class T>
void check_poisoned_scale(const TileKernels& kernels, std::mt19937& random) {
  constexpr int s = static_cast<int>(CachedTile<T>::kStorage);
  const CachedTile<T> cached(8, 80, random);
  const std::uint16_t nan = 0x7fc0;
  std::memcpy(cached.value_scale(17, 40), &nan, 2);
  EXPECT_FALSE(kernels.all_finite[s](cached.tile.values, 80));
  std::vector<float> weights(64, 0.25f), output(80, 0.0f);
  kernels.weighted_sum[s]({weights.data(), cached.tile.values, output.data(), 1, 80, 64, nullptr, {}});
  for (Index d = 0; d < 80; ++d)
    ASSERT_EQ(std::isnan(output[static_cast<std::size_t>(d)]), s == static_cast<int>(Storage::int8) || d / 32 == 1)
        << d;
}

TEST_P(DigitDot, AScaleThatIsNanGivesNanInAllThatSharesIt) {
  std::mt19937 random(4);
  check_poisoned_scale<int8>(*kernels, random);
  check_poisoned_scale<int4>(*kernels, random);
}

INSTANTIATE_TEST_SUITE_P(Kernels, DigitDot, ::testing::ValuesIn(testing::digit_table_names()),
                         [](const auto& table) { return table.param; });

}  // namespace
}  // namespace headwise
