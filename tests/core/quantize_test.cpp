// SPDX-License-Identifier: MIT
// What the codes of narrow storage types mean, against naive searches over all of them.
#include "headwise/core/quantize.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "headwise/cache/row_codes.hpp"
#include "headwise/core/heads.hpp"

namespace headwise {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kMax = std::numeric_limits<float>::max();

/// The definition of a small float: sign, exponent, mantissa, in double.
double value_of(int mantissa_bits, int bias, int code) {
  const int magnitude = code & 0x7f, exponent = magnitude >> mantissa_bits;
  const double fraction = std::ldexp(magnitude & ((1 << mantissa_bits) - 1), -mantissa_bits);
  const double x = exponent == 0 ? std::ldexp(fraction, 1 - bias) : std::ldexp(1 + fraction, exponent - bias);
  return code & 0x80 ? -x : x;
}

struct SmallFloat {
  const char* name;
  int mantissa_bits, bias, largest;  // code of the largest finite number
  std::uint8_t (*encode)(float);
  float (*decode)(std::uint8_t);
};
std::uint8_t encode_e4m3(float x) { return to_e4m3_bits(x); }
std::uint8_t encode_e5m2(float x) { return to_e5m2_bits(x); }
float decode_e4m3(std::uint8_t x) { return from_e4m3_bits(x); }
float decode_e5m2(std::uint8_t x) { return from_e5m2_bits(x); }
const SmallFloat kSmallFloats[] = {{"e4m3", 3, 7, 0x7e, encode_e4m3, decode_e4m3},
                                   {"e5m2", 2, 15, 0x7b, encode_e5m2, decode_e5m2}};

/// The nearest number to a finite x, of two the one with the even code, by looking at all of them.
int nearest(const SmallFloat& type, float x) {
  const double magnitude = std::abs(static_cast<double>(x));
  if (magnitude >= value_of(type.mantissa_bits, type.bias, type.largest))
    return type.largest | (std::signbit(x) ? 0x80 : 0);
  int best = 0;
  double least = kInf;
  for (int code = 0; code <= type.largest; ++code) {
    const double distance = std::abs(value_of(type.mantissa_bits, type.bias, code) - magnitude);
    if (distance < least || (distance == least && code % 2 == 0)) {
      least = distance;
      best = code;
    }
  }
  return best | (std::signbit(x) ? 0x80 : 0);
}

TEST(SmallFloats, EveryCodeMeansItsNumberAndIsReachedFromIt) {
  for (const SmallFloat& type : kSmallFloats)
    for (int code = 0; code < 256; ++code) {
      const float x = type.decode(static_cast<std::uint8_t>(code));
      if ((code & 0x7f) > type.largest) {
        const bool infinite = type.bias == 15 && (code & 0x7f) == 0x7c;
        EXPECT_TRUE(infinite ? std::isinf(x) : std::isnan(x)) << type.name << " " << code;
        EXPECT_EQ(std::signbit(x), code >= 0x80 && (infinite || std::signbit(x)));
        continue;
      }
      EXPECT_EQ(static_cast<double>(x), value_of(type.mantissa_bits, type.bias, code)) << type.name << " " << code;
      EXPECT_EQ(type.encode(x), code) << type.name;
    }
}

TEST(SmallFloats, RoundToTheNearestTiesToEvenAndStopAtTheLargest) {
  for (const SmallFloat& type : kSmallFloats) {
    std::vector<float> numbers{0.0f, 0x1p-149f, 0x1p-126f, kMax, 448.0f, 464.0f, 465.0f, 57344.0f, 61440.0f, 65536.0f};
    for (int code = 0; code < type.largest; ++code) {
      // every number, every tie between two, and their neighbours
      const float low = type.decode(static_cast<std::uint8_t>(code)),
                  high = type.decode(static_cast<std::uint8_t>(code + 1));
      const float tie = low + (high - low) / 2;
      for (const float x : {low, tie, std::nextafter(tie, 0.0f), std::nextafter(tie, kInf), std::nextafter(low, kInf)})
        numbers.push_back(x);
    }
    std::mt19937 random(3);
    for (int i = 0; i < 3000; ++i) {
      const auto bits = static_cast<std::uint32_t>(random());
      float x;
      std::memcpy(&x, &bits, sizeof x);
      if (std::isfinite(x)) numbers.push_back(std::fabs(x));
    }
    for (const float x : numbers)
      for (const float y : {x, -x}) ASSERT_EQ(type.encode(y), nearest(type, y)) << type.name << " " << y;
  }
}

TEST(SmallFloats, InfinityAndNanStayWhatTheyCan) {
  for (const float sign : {1.0f, -1.0f}) {
    EXPECT_TRUE(std::isnan(from_e4m3_bits(to_e4m3_bits(sign * kInf))));
    EXPECT_TRUE(std::isnan(from_e4m3_bits(to_e4m3_bits(sign * kNan))));
    EXPECT_EQ(from_e5m2_bits(to_e5m2_bits(sign * kInf)), sign * kInf);
    EXPECT_TRUE(std::isnan(from_e5m2_bits(to_e5m2_bits(sign * kNan))));
  }
}

// --- int8 and int4: rows ---

/// A row stored and read back.
template <Storage S>
std::vector<float> stored(const std::vector<float>& row) {
  const Index padded = padded_head_dim(std::ssize(row));
  std::vector<float> source(static_cast<std::size_t>(padded), 0.0f), result(row.size());
  std::copy(row.begin(), row.end(), source.begin());
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(padded));
  std::uint16_t scales[detail::kMaxRowScales];
  detail::encode_row<S>(source.data(), padded, codes.data(), scales);
  detail::decode_row<S>(codes.data(), scales, std::ssize(row), result.data());
  // code · scale is a float: the same in double
  for (std::size_t d = 0; d < row.size(); ++d) {
    const double scale = static_cast<double>(from_bf16_bits(scales[S == Storage::int4 ? d / kScaleDims : 0]));
    const double exact = (codes[d] - (S == Storage::int4 ? kInt4Zero : kInt8Zero)) * scale;
    EXPECT_TRUE(static_cast<double>(result[d]) == exact || (std::isnan(exact) && std::isnan(result[d])));
  }
  return result;
}

std::vector<float> random_row(std::size_t count, float size, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<float> row(count);
  for (float& x : row) x = normal(random) * size;
  return row;
}

template <Storage S>
class Scaled : public ::testing::Test {};

/// Errors of one group are at most epsilon times its largest magnitude; `least` is what the smallest scales add.
template <Storage S>
void expect_bounds(const std::vector<float>& row, double least = 0) {
  const auto have = stored<S>(row);
  const std::size_t group = S == Storage::int4 ? kScaleDims : row.size();
  for (std::size_t begin = 0; begin < row.size(); begin += group) {
    const std::size_t end = std::min(begin + group, row.size());
    double largest = 0;
    for (std::size_t d = begin; d < end; ++d) largest = std::max(largest, std::abs(static_cast<double>(row[d])));
    for (std::size_t d = begin; d < end; ++d)
      ASSERT_LE(std::abs(static_cast<double>(have[d]) - static_cast<double>(row[d])), epsilon_of(S) * largest + least)
          << name_of(S) << " " << row[d] << " of " << largest;
  }
}

template <Storage S>
void expect_rows_within_bounds() {
  std::mt19937 random(5);
  for (const float size : {1.0f, 1e-20f, 1e30f, 0x1p-120f, 3.0f})
    for (const std::size_t count : {1u, 7u, 8u, 31u, 32u, 33u, 64u, 100u, 128u, 512u})
      for (int i = 0; i < 20; ++i) expect_bounds<S>(random_row(count, size, random));
  // all magnitudes of the largest between two powers of two, each sign
  for (int i = 0; i < 512; ++i) {
    const float x = 1 + static_cast<float>(i) / 512;
    expect_bounds<S>({x, -x, x / 2, -x / 3, 0.0f});
    expect_bounds<S>({-x, x * 0.999f, -x * 0.9f});
    expect_bounds<S>({-x, x});
  }
  // denormal numbers: scales are multiples of 2^-133, rounded, and a number of int4 counts up to 8 of them
  for (const float size : {0x1p-149f, 0x1p-140f, 0x1p-134f, 0x1p-130f, 0x1p-126f, 0x1p-122f})
    for (int i = 0; i < 20; ++i) expect_bounds<S>(random_row(40, size, random), 0x1p-130);
}

TEST(Int8Rows, AreWithinTheStatedErrorOfTheirLargest) { expect_rows_within_bounds<Storage::int8>(); }
TEST(Int4Rows, AreWithinTheStatedErrorOfTheirLargestOf32) { expect_rows_within_bounds<Storage::int4>(); }

template <Storage S>
void expect_edges() {
  const std::vector<float> zeros(40, 0.0f);
  EXPECT_EQ(stored<S>(zeros), zeros);
  // largest floats stay finite, and near: the scale ends below 2^121 or 2^125
  for (const float x : {kMax, -kMax, kMax * 0.99f}) {
    const auto have = stored<S>({x, -x, x / 2, 0.0f});
    for (std::size_t d = 0; d < 4; ++d) EXPECT_TRUE(std::isfinite(have[d])) << x;
    EXPECT_NEAR(have[0] / x, 1, 0.0125 + epsilon_of(S));
    EXPECT_NEAR(have[2] / x, 0.5, epsilon_of(S));
    EXPECT_EQ(have[3], 0.0f);
  }
  // what is not finite makes its group NaN, and no other
  for (const float bad : {kNan, kInf, -kInf}) {
    std::vector<float> row(64, 1.0f);
    row[40] = bad;
    const auto have = stored<S>(row);
    for (std::size_t d = 0; d < 64; ++d) EXPECT_EQ(std::isnan(have[d]), S == Storage::int8 || d >= 32) << d;
  }
}
TEST(Int8Rows, OfZerosOfTheLargestAndOfWhatIsNotFinite) { expect_edges<Storage::int8>(); }
TEST(Int4Rows, OfZerosOfTheLargestAndOfWhatIsNotFinite) { expect_edges<Storage::int4>(); }

TEST(Int8Rows, RoundToTheNearestMultipleOfTheirScale) {
  std::mt19937 random(6);
  for (int i = 0; i < 50; ++i) {
    const auto row = random_row(64, 1, random), have = stored<Storage::int8>(row);
    float largest = 0;
    for (const float x : row) largest = std::max(largest, std::fabs(x));
    const double scale = static_cast<double>(from_bf16_bits(int8_scale(largest)));
    EXPECT_GE(scale * 127, static_cast<double>(largest) * (1 - 0x1p-24));
    EXPECT_LE(scale * 127, static_cast<double>(largest) * (1 + 0x1p-7));
    for (std::size_t d = 0; d < row.size(); ++d)  // division and rounding may both be a float's rounding away
      EXPECT_LE(std::abs(static_cast<double>(have[d]) - static_cast<double>(row[d])), scale / 2 * (1 + 0x1p-15));
  }
}

TEST(Int4Rows, StoreTheirLargestAsTheCodeWithoutACounterpart) {
  EXPECT_EQ(stored<Storage::int4>({4, -3.5f, 1, 0.5f}), (std::vector<float>{4, -3.5f, 1, 0.5f}));
  EXPECT_EQ(stored<Storage::int4>({-4, 3.5f, 1, 0.5f}), (std::vector<float>{-4, 3.5f, 1, 0.5f}));
  EXPECT_EQ(stored<Storage::int4>({-4, 4}), (std::vector<float>{-3.5f, 4}));  // of both signs, the positive one
}

}  // namespace
}  // namespace headwise
