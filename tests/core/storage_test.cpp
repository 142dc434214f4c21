// SPDX-License-Identifier: MIT
#include "headwise/core/storage.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>

namespace headwise {
namespace {

// Independent of the code under test: the value of a pattern from sign, exponent and fraction, in double.
double value_of(unsigned bits, int exponent_bits, int fraction_bits) {
  const unsigned fraction = bits & ((1u << fraction_bits) - 1u);
  const int exponent = static_cast<int>((bits >> fraction_bits) & ((1u << exponent_bits) - 1u));
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const double sign = (bits >> (exponent_bits + fraction_bits)) & 1u ? -1.0 : 1.0;
  if (exponent == (1 << exponent_bits) - 1)
    return fraction ? std::numeric_limits<double>::quiet_NaN() : sign * std::numeric_limits<double>::infinity();
  if (exponent == 0) return sign * std::ldexp(fraction, 1 - bias - fraction_bits);
  return sign * std::ldexp(fraction + (1u << fraction_bits), exponent - bias - fraction_bits);
}

struct Half {
  static constexpr const char* name = "f16";
  static constexpr unsigned infinity = 0x7c00;
  static double value(unsigned bits) { return value_of(bits, 5, 10); }
  static unsigned to(float x) { return to_f16_bits(x); }
  static float from(unsigned bits) { return from_f16_bits(static_cast<std::uint16_t>(bits)); }
};
struct Brain {
  static constexpr const char* name = "bf16";
  static constexpr unsigned infinity = 0x7f80;
  static double value(unsigned bits) { return value_of(bits, 8, 7); }
  static unsigned to(float x) { return to_bf16_bits(x); }
  static float from(unsigned bits) { return from_bf16_bits(static_cast<std::uint16_t>(bits)); }
};

struct Name {
  template <class T>
  static std::string GetName(int) {
    return T::name;
  }
};

template <class T>
class SixteenBits : public ::testing::Test {};
using Types = ::testing::Types<Half, Brain>;
TYPED_TEST_SUITE(SixteenBits, Types, Name);

TYPED_TEST(SixteenBits, EveryPatternHasTheValueItsFieldsSay) {
  for (unsigned bits = 0; bits < 0x10000u; ++bits) {
    const double expected = TypeParam::value(bits);
    const float actual = TypeParam::from(bits);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(actual)) << bits;
    } else {
      ASSERT_EQ(static_cast<double>(actual), expected) << bits;
    }
    ASSERT_EQ(std::signbit(actual), (bits & 0x8000u) != 0) << bits;
  }
}

TYPED_TEST(SixteenBits, EveryPatternComesBackFromFloat) {
  for (unsigned bits = 0; bits < 0x10000u; ++bits) {
    const float x = TypeParam::from(bits);
    const unsigned back = TypeParam::to(x);
    if (std::isnan(x)) {
      ASSERT_TRUE(std::isnan(TypeParam::value(back))) << bits;
      ASSERT_EQ(back & 0x8000u, bits & 0x8000u) << bits;
    } else {
      ASSERT_EQ(back, bits);
    }
  }
}

TYPED_TEST(SixteenBits, EveryMidpointRoundsToTheEvenNeighbourAndItsNeighboursToTheNearest) {
  for (unsigned sign : {0u, 0x8000u})
    for (unsigned low = 0; low < TypeParam::infinity; ++low) {
      const unsigned high = low + 1;
      // the midpoint to infinity is where the next finite value would be: below it rounds down, from it on up
      const double upper =
          high == TypeParam::infinity ? 2 * TypeParam::value(low) - TypeParam::value(low - 1) : TypeParam::value(high);
      const double midpoint = (TypeParam::value(low) + upper) / 2;
      const float exact = static_cast<float>(midpoint);
      ASSERT_EQ(static_cast<double>(exact), midpoint) << low;
      const float below = std::nextafter(exact, 0.0f);
      const float above = std::nextafter(exact, std::numeric_limits<float>::infinity());
      const auto round = [sign](float x) { return TypeParam::to(sign ? -x : x); };
      ASSERT_EQ(round(exact), sign | (low % 2 == 0 ? low : high)) << low;
      ASSERT_EQ(round(below), sign | low) << low;
      ASSERT_EQ(round(above), sign | high) << low;
    }
}

TYPED_TEST(SixteenBits, WhatIsTooLargeBecomesInfinityAndWhatIsTooSmallZeroWithItsSign) {
  constexpr float huge = std::numeric_limits<float>::max(), tiny = std::numeric_limits<float>::denorm_min();
  constexpr float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(TypeParam::to(huge), TypeParam::infinity);
  EXPECT_EQ(TypeParam::to(-huge), TypeParam::infinity | 0x8000u);
  EXPECT_EQ(TypeParam::to(infinity), TypeParam::infinity);
  EXPECT_EQ(TypeParam::to(-infinity), TypeParam::infinity | 0x8000u);
  EXPECT_EQ(TypeParam::to(tiny), 0u);
  EXPECT_EQ(TypeParam::to(-tiny), 0x8000u);
}

TYPED_TEST(SixteenBits, EveryNanPayloadStaysNan) {
  // also payloads whose set bits are all dropped by the narrowing
  for (unsigned shift = 0; shift < 23; ++shift)
    for (unsigned sign : {0u, 0x80000000u}) {
      const unsigned narrowed = TypeParam::to(std::bit_cast<float>(sign | 0x7f800000u | (1u << shift)));
      EXPECT_TRUE(std::isnan(TypeParam::value(narrowed))) << shift;
    }
}

TEST(Storage, FloatSubnormalsRoundToTheNearestBf16Subnormal) {
  EXPECT_EQ(to_bf16_bits(std::bit_cast<float>(0x00018000u)), 0x0002u);  // tie, to even
  EXPECT_EQ(to_bf16_bits(std::bit_cast<float>(0x00008000u)), 0x0000u);  // tie, to even
  EXPECT_EQ(to_bf16_bits(std::bit_cast<float>(0x00008001u)), 0x0001u);
}

TEST(Storage, EpsilonBoundsOneRoundingOfNormalNumbers) {
  for (const Storage storage : {Storage::f32, Storage::f16, Storage::bf16}) {
    double worst = 0;
    for (int i = 0; i < 20000; ++i) {
      const float x = 1.0f + static_cast<float>(i) * 0x1p-14f;
      float stored = 0;
      store_element(&stored, storage, 0, x);
      const double rounded = static_cast<double>(load_element(&stored, storage, 0));
      worst = std::max(worst, std::abs(rounded - static_cast<double>(x)) / static_cast<double>(x));
    }
    EXPECT_LE(worst, epsilon_of(storage)) << name_of(storage);
    if (storage != Storage::f32) {
      EXPECT_GT(worst, epsilon_of(storage) * 0.9) << name_of(storage);
    }
  }
}

TEST(Storage, ElementsLoadAndStoreAtAnyAddress) {
  for (const Storage storage : {Storage::f32, Storage::f16, Storage::bf16})
    for (std::size_t shift = 0; shift < 4; ++shift) {
      std::array<char, 64> memory{};
      for (Index i = 0; i < 8; ++i) store_element(memory.data() + shift, storage, i, static_cast<float>(i) - 2.5f);
      for (Index i = 0; i < 8; ++i)
        EXPECT_EQ(load_element(memory.data() + shift, storage, i), static_cast<float>(i) - 2.5f);
    }
}

TEST(Storage, TypesNameTheirStorage) {
  static_assert(storage_of<float> == Storage::f32 && storage_of<const float> == Storage::f32);
  static_assert(storage_of<f16> == Storage::f16 && storage_of<Eigen::half> == Storage::f16);
  static_assert(storage_of<bf16> == Storage::bf16 && storage_of<const Eigen::bfloat16> == Storage::bf16);
  static_assert(!ElementType<double> && !ElementType<int>);
  static_assert(sizeof(f16) == 2 && sizeof(bf16) == 2);
  EXPECT_EQ(name_of(Storage::f32), "f32");
  EXPECT_EQ(name_of(Storage::f16), "f16");
  EXPECT_EQ(name_of(Storage::bf16), "bf16");
}

TEST(Storage, ConversionsRunAtCompileTime) {
  static_assert(f16(1.0f).bits == 0x3c00 && static_cast<float>(f16(0.5f)) == 0.5f);
  static_assert(bf16(-2.0f).bits == 0xc000 && static_cast<float>(bf16(-2.0f)) == -2.0f);
  EXPECT_EQ(f16{}.bits, 0);
  EXPECT_EQ(bf16{}.bits, 0);
}

}  // namespace
}  // namespace headwise
