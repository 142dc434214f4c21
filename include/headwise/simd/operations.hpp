// SPDX-License-Identifier: MIT
#pragma once

// The contract of simd/<isa>.inl.hpp: each of those files defines the names below inside its region and namespace, and
// kernel/*.inl.hpp is written over them alone. They are GNU vector types, so + - * and comparisons work on them.
//
//   kIsa                           the Isa
//   kLanes                         f32 lanes of a vector: 4, 8 or 16
//   F, I, U                        vector of kLanes float, std::int32_t, std::uint32_t
//   M, none(), a | b, a & b, any(m)  lane mask
//   lanes_of(word, first)          M: bits first … first + kLanes − 1 of a word of 64, `first` a multiple of kLanes
//   bits_of(m)                     the same the other way, as the lowest bits of an std::uint64_t
//   load(p) store(p, v)            kLanes floats, unaligned
//   load_bits(p)                   kLanes 32-bit words, unaligned
//   load_f16(p)                    kLanes binary16 → F            store_f16(p, v)   rounds to nearest even
//   byte_to_float<E>(v)            byte E of every lane of v: 0 … 255
//   look_up(table, index)          per byte of index: 0 where its high bit is set, else entry index mod 16 of the table of
//                                  16 bytes that every 16 bytes of `table` are
//   splat(x) zero()                all lanes x, 0
//   fma(a, b, c)                   a·b + c; one rounding, except on the baseline (no FMA there): two
//   accumulate(acc, a, b)          acc + a·b, as fma; meant to stay in acc's register. Where kBroadcastsInPlace, a may be a
//                                  `const float*`: the number there in all lanes, in one instruction
//   max(a, b) min(a, b)            NaN where b is NaN
//   reciprocal(x)                  1/x within 2 ulp, for x of 1 … 2^126; NaN for NaN
//   select(m, a, b)                a in the lanes of m, b in the others
//   not_le(a, b)                   M: lanes where a <= b does not hold; true where either is NaN
//   reduce_add(v) reduce_max(v)    one fixed order of additions
//   fraction(x)                    x − n of an integer n that leaves 0 … 1; finite for −∞, NaN for NaN; x <= 127
//   scale_exp2(p, x)               p·2^n with the same n, for p of 1 … 2; 0 where x <= −126 or thereabouts; NaN stays NaN
//   transpose(F (&)[16])           of 16 lanes: v[i][j] → v[j][i]
//   pin(v)                         v, kept in a register: stops the compiler from folding one load into many FMAs
//
// Register tiles, chosen by the number of registers and the latency of an FMA:
//   kScorePartials                 partial sums of a score: dimension d goes to partial d mod kScorePartials; part of the
//                                  summation order, hence of the result's bits
//   kScoreVectors                  vectors of tokens per pass
//   kScoreBigRows, kScoreMiddleRows  the register tiles of prefill, by kScoreVectors
//   kSumAccumulators               accumulators of a weighted sum of up to kSmallRows rows
//   kWidenRows                     from this many rows on, tiles of narrow types are widened to f32 first (8 rows of bf16 on
//                                  AVX-512: 70 % of the roofline in registers, 52 % a tile at a time); 1 or kStreamRows + 1
//   kSumBigRows                    rows of the weighted sum's register tile of prefill, by two vectors
//
// An ISA that multiplies pairs of bf16 (simd/bf16_dot.inl.hpp) is included with HEADWISE_BF16_DOT defined and also defines
//   splat_pair(p)                  I: the 32 bits at p in all lanes
//   dot_bf16(acc, a, b)            acc + a.even·b.even + a.odd·b.odd per lane; a may be an address as for accumulate
//   narrow_bf16(p, v)              store kLanes bf16, rounded to nearest even
//
// An ISA that multiplies 8-bit integers (simd/digit_dot.inl.hpp) also defines
//   kDigitBigRows                  rows of prefill's register tile, by two vectors and two digits
//   splat_bits(p)                  I: the 32 bits at p in all lanes
//   dot_digits(acc, codes, digits) acc + Σ of the lane's four unsigned codes · signed digits, modulo 2^32
//   load_scales(p)                 kLanes bf16 → F
//   to_float(v)                    I → F, rounded to nearest even
//   max_magnitude(a, b)            max(|a|, |b|); of NaN the other, or NaN
//   reduce_add(v)                  std::int32_t of an I
//   reduce_max(rows, out) reduce_add(rows, out)  of four vectors, F or I, at once; no NaN
//   store_digits(p, x, inverse)    x: F[32 / kLanes]. The integers v nearest to x·inverse, of magnitude up to 32639, as digits
//                                  v = 256·upper + lower to [8]{upper ×4, lower ×4} of signed bytes; returns sums of
//                                  v + 128 over the 32 numbers, in any lanes. Where v is no such integer: something

namespace headwise {

/// Rows of the small register tiles: 1 … kSmallRows.
inline constexpr int kSmallRows = 4;

}  // namespace headwise
