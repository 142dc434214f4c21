// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "headwise/core/storage.hpp"
#include "llama/file/tensor_type.hpp"

// Blocks of each storage type as floats. Numbers are little-endian. In the formulas q is a code, d a step, m an offset.
// A nibble array of n bytes holds 2n codes: the low halves are codes 0 … n-1, the high halves codes n … 2n-1.
namespace llama::block {

inline std::uint16_t half_bits(const std::byte* at) {
  std::uint16_t bits;
  std::memcpy(&bits, at, sizeof bits);
  return bits;
}
inline float half(const std::byte* at) { return headwise::from_f16_bits(half_bits(at)); }
inline int bits(std::byte from, int shift, int count) { return (static_cast<int>(from) >> shift) & ((1 << count) - 1); }

inline void f32(const std::byte* in, float* out) { std::memcpy(out, in, sizeof *out); }
inline void f16(const std::byte* in, float* out) { *out = half(in); }
inline void bf16(const std::byte* in, float* out) { *out = headwise::from_bf16_bits(half_bits(in)); }

/// [d f16][16 × 2 nibbles]; x = d·(q − 8).
inline void q4_0(const std::byte* in, float* out) {
  const float d = half(in);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(bits(in[2 + i], 0, 4) - 8);
    out[i + 16] = d * static_cast<float>(bits(in[2 + i], 4, 4) - 8);
  }
}

/// [d f16][m f16][16 × 2 nibbles]; x = d·q + m.
inline void q4_1(const std::byte* in, float* out) {
  const float d = half(in), m = half(in + 2);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(bits(in[4 + i], 0, 4)) + m;
    out[i + 16] = d * static_cast<float>(bits(in[4 + i], 4, 4)) + m;
  }
}

/// Code i of a block of 5-bit codes: a nibble, and above it bit i of the 32-bit word at `high`.
inline int five_bits(const std::byte* nibbles, const std::byte* high, int i) {
  return bits(nibbles[i % 16], i < 16 ? 0 : 4, 4) | (bits(high[i / 8], i % 8, 1) << 4);
}

/// [d f16][fifth bits u32][16 × 2 nibbles]; x = d·(q − 16).
inline void q5_0(const std::byte* in, float* out) {
  const float d = half(in);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(five_bits(in + 6, in + 2, i) - 16);
}

/// [d f16][m f16][fifth bits u32][16 × 2 nibbles]; x = d·q + m.
inline void q5_1(const std::byte* in, float* out) {
  const float d = half(in), m = half(in + 2);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(five_bits(in + 8, in + 4, i)) + m;
}

/// [d f16][32 × i8]; x = d·q.
inline void q8_0(const std::byte* in, float* out) {
  const float d = half(in);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(static_cast<std::int8_t>(in[2 + i]));
}

/// [d f16][m f16][12 bytes: eight 6-bit scales s and eight 6-bit offsets o][128 × 2 nibbles]; sub-block j of 32 has
/// x = (d·s[j])·q − m·o[j]. Each run of 32 nibble bytes holds two sub-blocks, low halves then high.
/// Scales and offsets 0–3 are the low 6 bits of bytes 0–3 and 4–7; 4–7 have their low 4 bits in bytes 8–11 (scale low
/// half, offset high half) and their top 2 bits at the top of bytes 0–3 and 4–7.
inline void q4_k(const std::byte* in, float* out) {
  const float d = half(in), m = half(in + 2);
  const std::byte* packed = in + 4;
  const std::byte* nibbles = in + 16;
  for (int j = 0; j < 8; ++j) {
    const int scale = j < 4 ? bits(packed[j], 0, 6) : bits(packed[j + 4], 0, 4) | (bits(packed[j - 4], 6, 2) << 4);
    const int offset = j < 4 ? bits(packed[j + 4], 0, 6) : bits(packed[j + 4], 4, 4) | (bits(packed[j], 6, 2) << 4);
    const float step = d * static_cast<float>(scale), base = m * static_cast<float>(offset);
    for (int i = 0; i < 32; ++i)
      out[32 * j + i] = step * static_cast<float>(bits(nibbles[32 * (j / 2) + i], j % 2 * 4, 4)) - base;
  }
}

/// [128 × 2 nibbles][64 × 4 upper bit pairs][16 × i8 scales s][d f16]; 6-bit codes, x = (d·s[i/16])·(q − 32).
/// Each half of 128 has 64 nibble bytes and 32 pair bytes of its own: quarter k (32 codes) takes nibble bytes
/// 32·(k mod 2) …, low halves for k < 2, high for k ≥ 2, and pair k of each pair byte.
inline void q6_k(const std::byte* in, float* out) {
  const float d = half(in + 208);
  for (int i = 0; i < 256; ++i) {
    const int part = i / 128, quarter = i % 128 / 32, lane = i % 32;
    const int low = bits(in[64 * part + 32 * (quarter % 2) + lane], quarter / 2 * 4, 4);
    const int high = bits(in[128 + 32 * part + lane], 2 * quarter, 2);
    const float step = d * static_cast<float>(static_cast<std::int8_t>(in[192 + i / 16]));
    out[i] = step * static_cast<float>((low | (high << 4)) - 32);
  }
}

}  // namespace llama::block

namespace llama {

/// The `count` numbers that `in` holds in that format as floats; count is a multiple of format.elements, `in` has
/// count / format.elements · format.bytes bytes at any alignment.
inline void dequantize(const BlockFormat& format, const std::byte* in, Index count, float* out) {
  const auto each = [&](auto&& one) {
    for (Index i = 0; i < count; i += format.elements, in += format.bytes) one(in, out + i);
  };
  switch (format.type) {
    case TensorType::f32:
      return each(block::f32);
    case TensorType::f16:
      return each(block::f16);
    case TensorType::bf16:
      return each(block::bf16);
    case TensorType::q4_0:
      return each(block::q4_0);
    case TensorType::q4_1:
      return each(block::q4_1);
    case TensorType::q5_0:
      return each(block::q5_0);
    case TensorType::q5_1:
      return each(block::q5_1);
    case TensorType::q8_0:
      return each(block::q8_0);
    case TensorType::q4_k:
      return each(block::q4_k);
    case TensorType::q6_k:
      return each(block::q6_k);
  }
}

}  // namespace llama
