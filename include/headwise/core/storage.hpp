// SPDX-License-Identifier: MIT
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <type_traits>

#include "headwise/core/index.hpp"

// Bit-compatible with our types and accepted wherever a pointer is; only their names are needed here.
namespace Eigen {
struct half;
struct bfloat16;
}  // namespace Eigen

namespace headwise {

/// How numbers are stored. The first three are also the types of a caller's arrays; the rest are for caches, and what
/// they mean is said in core/quantize.hpp.
enum class Storage : std::uint8_t { f32, f16, bf16, e4m3, e5m2, int8, int4 };
inline constexpr int kStorages = 7;

constexpr std::string_view name_of(Storage storage) {
  constexpr std::string_view names[kStorages] = {"f32", "f16", "bf16", "e4m3", "e5m2", "int8", "int4"};
  return names[static_cast<int>(storage)];
}
/// Whether a caller's array may have elements of this type.
constexpr bool is_element(Storage storage) { return storage <= Storage::bf16; }
/// Whether codes of it count units of a scale that several numbers share.
constexpr bool has_scales(Storage storage) { return storage == Storage::int8 || storage == Storage::int4; }
constexpr Index bits_of(Storage storage) {
  constexpr Index bits[kStorages] = {32, 16, 16, 8, 8, 8, 4};
  return bits[static_cast<int>(storage)];
}
/// Bytes of one number of a type with whole ones: all but int4.
constexpr Index size_of(Storage storage) { return bits_of(storage) / 8; }

/// The largest error of one rounding: relative to the number (normal ones), or, of int8 and int4, to the largest
/// magnitude that shares its scale.
constexpr double epsilon_of(Storage storage) {
  // int8: half of max/127, its scale rounded up by at most 2^-7. int4: a number of the other sign than the largest may
  // fall a whole unit of max/8 short, whose scale is rounded by 2^-8
  constexpr double epsilons[kStorages] = {0x1p-24,         0x1p-11, 0x1p-8, 0x1p-4, 0x1p-3, (1 + 0x1p-7) / 254,
                                          (1 + 0x1p-3) / 8};
  return epsilons[static_cast<int>(storage)];
}

/// bfloat16 bits of x, rounded to nearest, ties to even; NaN stays NaN, overflow gives infinity.
constexpr std::uint16_t to_bf16_bits(float x) {
  // both are computed, for compilers to make vectors of it
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t quiet = (bits >> 16) | 0x40u, rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return static_cast<std::uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
}
constexpr float from_bf16_bits(std::uint16_t bits) { return std::bit_cast<float>(std::uint32_t{bits} << 16); }

/// IEEE binary16 bits of x, rounded to nearest, ties to even; subnormals kept, overflow gives infinity, NaN stays NaN.
constexpr std::uint16_t to_f16_bits(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
  std::uint32_t half = 0;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u | ((magnitude >> 13) & 0x3ffu);  // quiet NaN, payload kept
  } else if (magnitude >= 0x47800000u) {
    half = 0x7c00u;  // 2^16 and above
  } else if (magnitude >= 0x38800000u) {
    half = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;  // rounding may carry into infinity
  } else if (magnitude >= 0x33000000u) {
    // subnormal: the value in units of 2^-24, with `shift` bits to drop
    const std::uint32_t shift = 126u - (magnitude >> 23), mantissa = (magnitude & 0x7fffffu) | 0x800000u;
    const std::uint32_t rest = mantissa & ((1u << shift) - 1u), tie = 1u << (shift - 1u);
    half = mantissa >> shift;
    if (rest > tie || (rest == tie && (half & 1u))) ++half;
  }
  return static_cast<std::uint16_t>(sign | half);
}
constexpr float from_f16_bits(std::uint16_t bits) {
  const std::uint32_t sign = std::uint32_t{bits & 0x8000u} << 16, exponent = (bits >> 10) & 0x1fu,
                      mantissa = bits & 0x3ffu;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa ? 0x400000u | (mantissa << 13) : 0u));
  return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (mantissa << 13));
}

/// bfloat16: a float's upper 16 bits. Storage only; convert to float to compute.
struct bf16 {
  std::uint16_t bits = 0;
  bf16() = default;
  explicit constexpr bf16(float x) : bits(to_bf16_bits(x)) {}
  explicit constexpr operator float() const { return from_bf16_bits(bits); }
};

/// IEEE binary16. Storage only; convert to float to compute.
struct f16 {
  std::uint16_t bits = 0;
  f16() = default;
  explicit constexpr f16(float x) : bits(to_f16_bits(x)) {}
  explicit constexpr operator float() const { return from_f16_bits(bits); }
};

/// Element<T>::storage for every type a view may point to: float, f16, bf16, Eigen::half, Eigen::bfloat16.
template <class T>
struct Element;
template <>
struct Element<float> {
  static constexpr Storage storage = Storage::f32;
};
template <>
struct Element<f16> {
  static constexpr Storage storage = Storage::f16;
};
template <>
struct Element<bf16> {
  static constexpr Storage storage = Storage::bf16;
};
template <>
struct Element<Eigen::half> : Element<f16> {};
template <>
struct Element<Eigen::bfloat16> : Element<bf16> {};

template <class T>
concept ElementType = requires { Element<std::remove_const_t<T>>::storage; };
template <ElementType T>
inline constexpr Storage storage_of = Element<std::remove_const_t<T>>::storage;

/// Element `index` of an array of `storage` as float, and back. Unaligned and type-agnostic: the scalar edge of the
/// library, used where single elements are touched.
inline float load_element(const void* data, Storage storage, Index index) {
  const auto* at = static_cast<const char*>(data) + index * size_of(storage);
  if (storage == Storage::f32) {
    float x;
    std::memcpy(&x, at, sizeof x);
    return x;
  }
  std::uint16_t bits;
  std::memcpy(&bits, at, sizeof bits);
  return storage == Storage::f16 ? from_f16_bits(bits) : from_bf16_bits(bits);
}
inline void store_element(void* data, Storage storage, Index index, float x) {
  auto* at = static_cast<char*>(data) + index * size_of(storage);
  if (storage == Storage::f32) {
    std::memcpy(at, &x, sizeof x);
    return;
  }
  const std::uint16_t bits = storage == Storage::f16 ? to_f16_bits(x) : to_bf16_bits(x);
  std::memcpy(at, &bits, sizeof bits);
}

}  // namespace headwise
