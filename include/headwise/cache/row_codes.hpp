// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "headwise/core/heads.hpp"
#include "headwise/core/quantize.hpp"
#include "headwise/core/storage.hpp"
#include "headwise/core/tile_layout.hpp"

// A row of K or V as a tile of some storage type holds it: its bits or codes, one after another, and its scales. What is
// `noinline` here and in tile_rows.hpp is called with a whole row or block, from several places, for seven types.

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

/// Rows are worked on in chunks, of arrays of their own: a constant count and no pointers that may alias are what
/// compilers make vectors of at -O2. Padded dimensions are whole chunks.
inline constexpr Index kChunk = 8;

/// f(in, out) for each chunk of `count` numbers, which it turns from floats to T or back.
template <class From, class To, class F>
inline void for_each_chunk(const From* from, Index count, To* to, F f) {
  for (Index d = 0; d < count; d += kChunk) {
    From in[kChunk];
    To out[kChunk];
    std::memcpy(in, from + d, sizeof in);
    f(in, out);
    std::memcpy(to + d, out, sizeof out);
  }
}

/// Whether all numbers are between the smallest normal one of f16 and 2^16.
inline bool all_normal_f16(const float* in) {
  std::int32_t outside = 0;
  for (Index i = 0; i < kChunk; ++i) {
    const std::int32_t magnitude = std::bit_cast<std::int32_t>(in[i]) & 0x7fffffff;
    outside |= (magnitude < 0x38800000 ? 1 : 0) | (magnitude >= 0x47800000 ? 1 : 0);
  }
  return outside == 0;
}

/// Floats of a chunk to a type without scales.
template <Storage S>
inline void encode_chunk(const float* in, Bits<S>* out) {
  if constexpr (S == Storage::f16) {
    if (all_normal_f16(in)) {
      for (Index i = 0; i < kChunk; ++i) {
        const auto bits = std::bit_cast<std::uint32_t>(in[i]), magnitude = bits & 0x7fffffffu;
        const std::uint32_t half = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
        out[i] = static_cast<std::uint16_t>(((bits >> 16) & 0x8000u) | half);
      }
      return;
    }
  }
  const auto convert = [&](Index i) { out[i] = convert_bits<Storage::f32, S>(std::bit_cast<std::uint32_t>(in[i])); };
  if constexpr (S == Storage::bf16) {
#pragma GCC unroll 1  // g++ takes the loop apart otherwise, before it could make vectors of it
    for (Index i = 0; i < kChunk; ++i) convert(i);
  } else {
    for (Index i = 0; i < kChunk; ++i) convert(i);
  }
}

/// The largest magnitude of `count` numbers, as bits: as integers, magnitudes are ordered, NaN above all.
inline std::uint32_t largest_magnitude(const float* row, Index count) {
  std::int32_t largest[kChunk] = {};
  for (Index d = 0; d < count; d += kChunk) {
    std::int32_t bits[kChunk];
    std::memcpy(bits, row + d, sizeof bits);
    for (Index i = 0; i < kChunk; ++i) largest[i] = std::max(largest[i], bits[i] & 0x7fffffff);
  }
  std::int32_t most = 0;  // no branch that depends on the numbers: a wrong guess takes as long as ten of them
  for (const std::int32_t x : largest) most = std::max(most, x);
  return static_cast<std::uint32_t>(most);
}
/// Whether one of `count` numbers has these bits.
inline bool has_bits(const float* row, Index count, std::uint32_t wanted) {
  std::uint32_t found[kChunk] = {};
  for (Index d = 0; d < count; d += kChunk) {
    std::uint32_t bits[kChunk];
    std::memcpy(bits, row + d, sizeof bits);
    for (Index i = 0; i < kChunk; ++i) found[i] |= bits[i] == wanted ? 1u : 0u;
  }
  std::uint32_t any = 0;
  for (const std::uint32_t x : found) any |= x;
  return any != 0;
}

/// `padded` numbers to codes and, where the type has them, scales.
template <Storage S>
[[gnu::noinline]] inline void encode_row(const float* row, Index padded, Bits<S>* codes, std::uint16_t* scales) {
  if constexpr (S == Storage::f32) {
    std::memcpy(codes, row, static_cast<std::size_t>(padded) * sizeof(float));
  } else if constexpr (!has_scales(S)) {
    for_each_chunk(row, padded, codes, encode_chunk<S>);
  } else {
    const Index group = scale_group<S>(padded);
    for (Index begin = 0; begin < padded; begin += group, ++scales) {
      const Index count = std::min(group, padded - begin);
      const std::uint32_t largest = largest_magnitude(row + begin, count);
      if constexpr (S == Storage::int8)
        *scales = int8_scale(std::bit_cast<float>(largest));
      else  // of both signs at once, the positive one
        *scales =
            int4_scale(std::bit_cast<float>(largest | std::uint32_t{!has_bits(row + begin, count, largest)} << 31));
      const float scale = from_bf16_bits(*scales);
      if (scale == 0 || !(std::fabs(scale) <= std::numeric_limits<float>::max())) {
        std::fill_n(codes + begin, count, static_cast<std::uint8_t>(S == Storage::int8 ? kInt8Zero : kInt4Zero));
        continue;
      }
      for_each_chunk(row + begin, count, codes + begin, [scale](const float* in, std::uint8_t* out) {
        for (Index i = 0; i < kChunk; ++i)
          out[i] = S == Storage::int8 ? to_int8_code(in[i], scale) : to_int4_code(in[i], scale);
      });
    }
  }
}

/// f16 or bf16 to floats.
template <Storage S>
inline void widen_chunk(const std::uint16_t* in, float* out) {
  if constexpr (S == Storage::f16) {
    std::uint32_t special = 0;  // exponents of subnormal numbers, or of infinity and NaN
    for (Index i = 0; i < kChunk; ++i) {
      const std::uint32_t exponent = in[i] & 0x7c00u;
      special |= (exponent == 0 ? 1u : 0u) | (exponent == 0x7c00u ? 1u : 0u);
    }
    if (special == 0) {
      for (Index i = 0; i < kChunk; ++i)
        out[i] = std::bit_cast<float>((std::uint32_t{in[i] & 0x8000u} << 16) |
                                      ((std::uint32_t{in[i] & 0x7fffu} << 13) + 0x38000000u));
      return;
    }
  }
  for (Index i = 0; i < kChunk; ++i) out[i] = S == Storage::f16 ? from_f16_bits(in[i]) : from_bf16_bits(in[i]);
}

/// The numbers that `count` codes stand for.
template <Storage S>
[[gnu::noinline]] inline void decode_row(const Bits<S>* codes, const std::uint16_t* scales, Index count, float* row) {
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
  std::memcpy(&lane, codes, sizeof lane);
  if constexpr (S == Storage::int4) {
    LaneBits<S> high;
    std::memcpy(&high, codes + 4, sizeof high);
    lane |= high << 4;  // codes are below 16
  }
  return lane;
}
template <Storage S>
inline void from_lane(LaneBits<S> lane, Bits<S>* codes) {
  if constexpr (S == Storage::int4) {
    const LaneBits<S> low = lane & 0x0f0f0f0fu, high = lane >> 4 & 0x0f0f0f0fu;
    std::memcpy(codes, &low, sizeof low);
    std::memcpy(codes + 4, &high, sizeof high);
  } else {
    std::memcpy(codes, &lane, sizeof lane);
  }
}

}  // namespace headwise::detail
