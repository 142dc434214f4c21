// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "headwise/core/index.hpp"
#include "headwise/core/storage.hpp"

// What the codes of narrow storage types mean.
//   e4m3, e5m2  the 8-bit floats of the Open Compute Project (OFP8, 2023): rounded to nearest, ties to even; finite numbers
//               beyond the largest (448, 57344) become the largest. e4m3 has no infinity, which becomes NaN.
//   int8        code − 128 units of the token's scale, −127 … 127
//   int4        code − 8 units of the scale of its token and 32 dimensions, −8 … 7
// Scales are bf16 and never so large that a number overflows, so code · scale is a float without rounding: stored numbers are exact floats for every type. A group
// with an infinity or a NaN has the scale NaN: all of it reads as NaN.

namespace headwise {

/// Code that stands for 0.
inline constexpr int kInt8Zero = 128, kInt4Zero = 8;

namespace detail {

/// The nearest integer of |x| <= 2^22, ties to even, without a call.
constexpr std::int32_t round_to_int(float x) {
  constexpr float kShift = 12582912.0f;  // 1.5·2^23: the last bit of the sum counts ones
  return std::bit_cast<std::int32_t>(x + kShift) - std::bit_cast<std::int32_t>(kShift);
}

/// std::clamp by value, which compilers make vectors of.
constexpr float limit(float x, float low, float high) {
  const float above = x < low ? low : x;
  return above > high ? high : above;
}

/// Code of |x| in a float of `Mantissa` bits below the point and an exponent biased by `Bias`, at most `largest`.
template <int Mantissa, int Bias>
constexpr std::uint32_t to_small_float(float magnitude, std::uint32_t largest) {
  constexpr int kDrop = 23 - Mantissa;
  constexpr std::uint32_t kLeast = std::uint32_t{128 - Bias} << 23;  // the smallest normal number
  constexpr float kUnits = std::bit_cast<float>(std::uint32_t{126 + Bias + Mantissa} << 23);  // of subnormals, inverse
  // both are computed, for compilers to make vectors of it
  const auto bits = std::bit_cast<std::uint32_t>(magnitude);
  const float small = std::bit_cast<float>(std::min(bits, kLeast));
  const auto subnormal = static_cast<std::uint32_t>(round_to_int(small * kUnits));
  const std::uint32_t rounded = bits + ((1u << (kDrop - 1)) - 1u) + ((bits >> kDrop) & 1u);
  const std::uint32_t normal = std::min((rounded - (std::uint32_t{127 - Bias} << 23)) >> kDrop, largest);
  return bits < kLeast ? subnormal : normal;
}

template <int Mantissa, int Bias>
constexpr float from_small_float(std::uint32_t magnitude) {
  const std::uint32_t exponent = magnitude >> Mantissa, mantissa = magnitude & ((1u << Mantissa) - 1u);
  if (exponent == 0) {
    constexpr float kUnit = std::bit_cast<float>(std::uint32_t{128 - Bias - Mantissa} << 23);
    return static_cast<float>(mantissa) * kUnit;
  }
  return std::bit_cast<float>(((exponent + (127 - Bias)) << 23) | (mantissa << (23 - Mantissa)));
}

}  // namespace detail

constexpr std::uint8_t to_e4m3_bits(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  const std::uint32_t finite = detail::to_small_float<3, 7>(std::bit_cast<float>(magnitude), 0x7eu);
  return static_cast<std::uint8_t>((bits >> 24 & 0x80u) | (magnitude >= 0x7f800000u ? 0x7fu : finite));
}
constexpr float from_e4m3_bits(std::uint8_t code) {
  const std::uint32_t magnitude = code & 0x7fu;
  const float x =
      magnitude == 0x7fu ? std::numeric_limits<float>::quiet_NaN() : detail::from_small_float<3, 7>(magnitude);
  return code & 0x80u ? -x : x;
}

constexpr std::uint8_t to_e5m2_bits(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  const std::uint32_t finite = detail::to_small_float<2, 15>(std::bit_cast<float>(magnitude), 0x7bu);
  const std::uint32_t special = magnitude > 0x7f800000u ? 0x7eu : 0x7cu;
  return static_cast<std::uint8_t>((bits >> 24 & 0x80u) | (magnitude >= 0x7f800000u ? special : finite));
}
constexpr float from_e5m2_bits(std::uint8_t code) {
  return from_f16_bits(static_cast<std::uint16_t>(code << 8));  // its upper byte
}

/// bf16 bits of the largest scales: the largest code times one is a float, and larger numbers become it.
inline constexpr std::uint16_t kInt8LargestScale = 0x7bffu, kInt4LargestScale = 0x7dffu;  // below 2^121, 2^125

/// bf16 bits of the scale of numbers whose largest magnitude is `largest` (not finite: NaN): max/127, rounded up.
constexpr std::uint16_t int8_scale(float largest) {
  if (!(largest <= std::numeric_limits<float>::max())) return 0x7fc0u;
  const auto bits = std::bit_cast<std::uint32_t>(largest / 127.0f);
  return std::min(static_cast<std::uint16_t>((bits + 0xffffu) >> 16), kInt8LargestScale);
}
/// Code of x in units of `scale`, which is above 0 and finite.
constexpr std::uint8_t to_int8_code(float x, float scale) {
  return static_cast<std::uint8_t>(detail::round_to_int(detail::limit(x / scale, -127.0f, 127.0f)) + kInt8Zero);
}
constexpr float from_int8_code(std::uint8_t code, float scale) {
  return static_cast<float>(int{code} - kInt8Zero) * scale;
}

/// bf16 bits of the scale of numbers of which `largest` is the one of largest magnitude, with its sign (not finite: NaN):
/// it has the code 0, the one code without a counterpart, so its scale is of the other sign.
constexpr std::uint16_t int4_scale(float largest) {
  const std::uint32_t magnitude = std::bit_cast<std::uint32_t>(largest) & 0x7fffffffu;
  if (magnitude >= 0x7f800000u) return 0x7fc0u;
  std::uint16_t scale = to_bf16_bits(largest / -8.0f);
  if ((scale & 0x7fffu) > kInt4LargestScale) --scale;
  return (scale & 0x7fffu) == 0 && magnitude != 0 ? static_cast<std::uint16_t>(scale | 1u) : scale;  // never to nothing
}
/// Code of x in units of `scale`, which is finite and not 0.
constexpr std::uint8_t to_int4_code(float x, float scale) {
  return static_cast<std::uint8_t>(detail::round_to_int(detail::limit(x / scale, -8.0f, 7.0f)) + kInt4Zero);
}
constexpr float from_int4_code(std::uint8_t code, float scale) {
  return static_cast<float>(int{code} - kInt4Zero) * scale;
}

/// Numbers of 8-bit floats and of int8 and int4 with a scale each: what a cache is told to store, as in KvCache<int8>.
/// They are names, not arithmetic types.
struct e4m3 {
  std::uint8_t bits = 0;
};
struct e5m2 {
  std::uint8_t bits = 0;
};
struct int8 {
  std::uint8_t code = kInt8Zero;
};
struct int4 {
  std::uint8_t code = kInt4Zero;
};

/// What a cache of T stores: an element type of arrays, or one of the above.
template <class T>
struct Stored;
template <ElementType T>
struct Stored<T> : Element<T> {};
template <>
struct Stored<e4m3> {
  static constexpr Storage storage = Storage::e4m3;
};
template <>
struct Stored<e5m2> {
  static constexpr Storage storage = Storage::e5m2;
};
template <>
struct Stored<int8> {
  static constexpr Storage storage = Storage::int8;
};
template <>
struct Stored<int4> {
  static constexpr Storage storage = Storage::int4;
};
template <class T>
concept Storable = requires { Stored<T>::storage; };

}  // namespace headwise
