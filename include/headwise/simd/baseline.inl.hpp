// SPDX-License-Identifier: MIT
// Vector operations (simd/operations.hpp) on plain x86-64: SSE2, 16 registers of 4 lanes, no FMA, no f16 conversion.

inline constexpr Isa kIsa = Isa::baseline;
inline constexpr int kLanes = 4;
inline constexpr int kScorePartials = 1, kScoreVectors = 2, kScoreBigRows = 6, kScoreMiddleRows = 4;
inline constexpr bool kBroadcastsInPlace = false;
inline constexpr int kSumAccumulators = 8, kSumBigRows = 6;
inline constexpr Index kWidenRows = 1;  // conversions take many instructions here, so each is made once

typedef float F __attribute__((vector_size(16)));
typedef std::int32_t I __attribute__((vector_size(16)));
typedef std::uint32_t U __attribute__((vector_size(16)));
typedef I M;

HEADWISE_INLINE F load(const float* p) { return (F)_mm_loadu_ps(p); }
HEADWISE_INLINE void store(float* p, F v) { _mm_storeu_ps(p, (__m128)v); }
HEADWISE_INLINE I load_bits(const void* p) { return (I)_mm_loadu_si128(static_cast<const __m128i*>(p)); }
HEADWISE_INLINE F splat(float x) { return (F)_mm_set1_ps(x); }
HEADWISE_INLINE F zero() { return F{}; }
HEADWISE_INLINE F fma(F a, F b, F c) { return a * b + c; }
HEADWISE_INLINE F accumulate(F acc, F a, F b) { return fma(a, b, acc); }
HEADWISE_INLINE F max(F a, F b) { return (F)_mm_max_ps((__m128)a, (__m128)b); }
HEADWISE_INLINE F min(F a, F b) { return (F)_mm_min_ps((__m128)a, (__m128)b); }
HEADWISE_INLINE F reciprocal(F x) { return splat(1.0f) / x; }
HEADWISE_INLINE M none() { return M{}; }
HEADWISE_INLINE M lanes_of(const std::uint64_t& word, Index first) {
  const I each = {1, 2, 4, 8};
  return ((I{} + static_cast<std::int32_t>(word >> first & 15)) & each) == each;
}
HEADWISE_INLINE M not_le(F a, F b) { return (M)_mm_cmpnle_ps((__m128)a, (__m128)b); }
HEADWISE_INLINE F select(M m, F a, F b) { return (F)(((I)a & (I)m) | ((I)b & ~(I)m)); }
HEADWISE_INLINE std::uint64_t bits_of(M m) { return static_cast<std::uint32_t>(_mm_movemask_ps((__m128)m)); }
HEADWISE_INLINE bool any(M m) { return _mm_movemask_ps((__m128)m) != 0; }
HEADWISE_INLINE float reduce_add(F v) { return (v[0] + v[2]) + (v[1] + v[3]); }
HEADWISE_INLINE float reduce_max(F v) {
  const float a = v[0] > v[2] ? v[0] : v[2], b = v[1] > v[3] ? v[1] : v[3];
  return a > b ? a : b;
}
// no floor here; rounding x − ½ to nearest gives it, or one less at some integers
HEADWISE_INLINE I floor_exp2(F x) { return (I)_mm_cvtps_epi32((__m128)(max(splat(-126.0f), x) - splat(0.5f))); }
HEADWISE_INLINE F fraction(F x) { return max(splat(-126.0f), x) - (F)_mm_cvtepi32_ps((__m128i)floor_exp2(x)); }
HEADWISE_INLINE F scale_exp2(F p, F x) { return (F)((I)((U)p + ((U)floor_exp2(x) << 23)) & not_le(x, splat(-126.0f))); }
HEADWISE_INLINE F pin(F v) {
  asm("" : "+x"(v));
  return v;
}
template <int E>
HEADWISE_INLINE F byte_to_float(I v) {
  return (F)_mm_cvtepi32_ps((__m128i)((U)v >> 8 * E & 0xff));
}
HEADWISE_INLINE I look_up(I table, I index) {
  const auto* from = reinterpret_cast<const unsigned char*>(&table);
  unsigned char bytes[sizeof(I)];
  std::memcpy(bytes, &index, sizeof bytes);
  for (auto& b : bytes) b = b & 0x80 ? 0 : from[b & 15];
  std::memcpy(&index, bytes, sizeof bytes);
  return index;
}
HEADWISE_INLINE F load_f16(const void* p) {
  // the exponent moves by 112; one multiplication does it for normal and subnormal numbers alike
  const __m128i h = _mm_unpacklo_epi16(_mm_loadl_epi64(static_cast<const __m128i*>(p)), _mm_setzero_si128());
  const I bits = (I)h, magnitude = bits & 0x7fff;
  const F value = (F)(magnitude << 13) * splat(0x1p112f);
  const I special = (magnitude > 0x7bff) & 0x7f800000;
  return (F)((I)value | special | ((bits & 0x8000) << 16));
}
HEADWISE_INLINE void store_f16(void* p, F v) {
  for (int i = 0; i < kLanes; ++i) {
    const std::uint16_t bits = to_f16_bits(v[i]);
    std::memcpy(static_cast<char*>(p) + 2 * i, &bits, 2);
  }
}
