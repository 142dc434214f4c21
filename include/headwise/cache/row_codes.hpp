// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "headwise/core/quantize.hpp"
#include "headwise/core/storage.hpp"
#include "headwise/core/tile_layout.hpp"

// A row of K or V as a tile of some storage type holds it: its bits or codes, one after another, and its scales.

namespace headwise::detail {

/// One number: bits of a float type, or a code. int4 has a byte each here.
template <Storage S>
using Bits = std::conditional_t<bits_of(S) == 32, std::uint32_t,
                                std::conditional_t<bits_of(S) == 16, std::uint16_t, std::uint8_t>>;

/// One number of a type without scales to another.
template <Storage From, Storage To>
inline Bits<To> convert_bits(Bits<From> bits) {
  if constexpr (From == To) {
    return bits;
  } else {
    float x;
    if constexpr (From == Storage::f32) x = std::bit_cast<float>(bits);
    if constexpr (From == Storage::f16) x = from_f16_bits(bits);
    if constexpr (From == Storage::bf16) x = from_bf16_bits(bits);
    if constexpr (From == Storage::e4m3) x = from_e4m3_bits(bits);
    if constexpr (From == Storage::e5m2) x = from_e5m2_bits(bits);
    if constexpr (To == Storage::f32) return std::bit_cast<std::uint32_t>(x);
    if constexpr (To == Storage::f16) return to_f16_bits(x);
    if constexpr (To == Storage::bf16) return to_bf16_bits(x);
    if constexpr (To == Storage::e4m3) return to_e4m3_bits(x);
    if constexpr (To == Storage::e5m2) return to_e5m2_bits(x);
  }
}

/// Dimensions that share a scale.
template <Storage S>
constexpr Index scale_group(Index padded) {
  return S == Storage::int4 ? kScaleDims : padded;
}
inline constexpr Index kMaxRowScales = kMaxHeadDim / kScaleDims;

/// `padded` numbers to codes and, where the type has them, scales.
template <Storage S>
inline void encode_row(const float* row, Index padded, Bits<S>* codes, std::uint16_t* scales) {
  if constexpr (!has_scales(S)) {
    for (Index d = 0; d < padded; ++d) codes[d] = convert_bits<Storage::f32, S>(std::bit_cast<std::uint32_t>(row[d]));
  } else {
    const Index group = scale_group<S>(padded);
    for (Index begin = 0; begin < padded; begin += group, ++scales) {
      const Index end = std::min(begin + group, padded);
      // as integers, magnitudes are ordered, NaN above all
      std::uint32_t largest = 0;
      for (Index d = begin; d < end; ++d)
        largest = std::max(largest, std::bit_cast<std::uint32_t>(row[d]) & 0x7fffffffu);
      if constexpr (S == Storage::int8) {
        *scales = int8_scale(std::bit_cast<float>(largest));
      } else {
        bool positive = false;  // of both signs at once, the positive one
        for (Index d = begin; d < end; ++d) positive |= std::bit_cast<std::uint32_t>(row[d]) == largest;
        *scales = int4_scale(std::bit_cast<float>(positive ? largest : largest | 0x80000000u));
      }
      const float scale = from_bf16_bits(*scales);
      const bool none = scale == 0 || !(std::fabs(scale) <= std::numeric_limits<float>::max());
      for (Index d = begin; d < end; ++d) {
        if constexpr (S == Storage::int8)
          codes[d] = none ? kInt8Zero : to_int8_code(row[d], scale);
        else
          codes[d] = none ? kInt4Zero : to_int4_code(row[d], scale);
      }
    }
  }
}

/// The numbers that `count` codes stand for.
template <Storage S>
inline void decode_row(const Bits<S>* codes, const std::uint16_t* scales, Index count, float* row) {
  for (Index d = 0; d < count; ++d) {
    if constexpr (S == Storage::int8)
      row[d] = from_int8_code(codes[d], from_bf16_bits(scales[0]));
    else if constexpr (S == Storage::int4)
      row[d] = from_int4_code(codes[d], from_bf16_bits(scales[d / kScaleDims]));
    else
      row[d] = std::bit_cast<float>(convert_bits<S, Storage::f32>(codes[d]));
  }
}

/// What moves as one piece: the elements of one lane and step. An array of kappa_of(S) codes to the bits of a lane, and back.
template <Storage S>
using LaneBits = std::conditional_t<S == Storage::f16, std::uint16_t, std::uint32_t>;

template <Storage S>
inline LaneBits<S> to_lane(const Bits<S>* codes) {
  LaneBits<S> lane;
  if constexpr (S == Storage::int4) {
    lane = 0;
    for (unsigned e = 0; e < 8; ++e) lane |= std::uint32_t{codes[e]} << (e % 4 * 8 + e / 4 * 4);
  } else {
    std::memcpy(&lane, codes, sizeof lane);
  }
  return lane;
}
template <Storage S>
inline void from_lane(LaneBits<S> lane, Bits<S>* codes) {
  if constexpr (S == Storage::int4)
    for (unsigned e = 0; e < 8; ++e) codes[e] = static_cast<std::uint8_t>(lane >> (e % 4 * 8 + e / 4 * 4) & 15u);
  else
    std::memcpy(codes, &lane, sizeof lane);
}

}  // namespace headwise::detail
