// SPDX-License-Identifier: MIT
// Vector operations (simd/operations.hpp) on AVX2 with FMA and F16C: 16 registers of 8 lanes.

inline constexpr Isa kIsa = Isa::avx2;
inline constexpr int kLanes = 8;
// 6 × 2 accumulators, 2 vectors of B and a broadcast fill the 16 registers; two partials would halve the tile
inline constexpr int kScorePartials = 1, kScoreVectors = 2, kScoreBigRows = 6, kScoreMiddleRows = 4;
inline constexpr bool kBroadcastsInPlace = false;
inline constexpr int kSumAccumulators = 8, kSumBigRows = 6;
inline constexpr Index kWidenRows = kStreamRows + 1;

typedef float F __attribute__((vector_size(32)));
typedef std::int32_t I __attribute__((vector_size(32)));
typedef std::uint32_t U __attribute__((vector_size(32)));
typedef I M;

HEADWISE_INLINE F load(const float* p) { return (F)_mm256_loadu_ps(p); }
HEADWISE_INLINE void store(float* p, F v) { _mm256_storeu_ps(p, (__m256)v); }
HEADWISE_INLINE I load_bits(const void* p) { return (I)_mm256_loadu_si256(static_cast<const __m256i*>(p)); }
HEADWISE_INLINE F splat(float x) { return (F)_mm256_set1_ps(x); }
HEADWISE_INLINE F zero() { return F{}; }
HEADWISE_INLINE F fma(F a, F b, F c) { return (F)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
HEADWISE_INLINE F accumulate(F acc, F a, F b) {
  // compilers overwrite other operands than the sum where they see fit, and 16 registers have no room for the copies
  asm("vfmadd231ps %2, %1, %0" : "+x"(acc) : "x"(a), "x"(b));
  return acc;
}
HEADWISE_INLINE F max(F a, F b) { return (F)_mm256_max_ps((__m256)a, (__m256)b); }
HEADWISE_INLINE F min(F a, F b) { return (F)_mm256_min_ps((__m256)a, (__m256)b); }
HEADWISE_INLINE F reciprocal(F x) { return splat(1.0f) / x; }
HEADWISE_INLINE M none() { return M{}; }
HEADWISE_INLINE M lanes_of(const std::uint64_t& word, Index first) {
  const I each = {1, 2, 4, 8, 16, 32, 64, 128};
  return ((I)_mm256_set1_epi8(reinterpret_cast<const char*>(&word)[first / 8]) & each) == each;
}
HEADWISE_INLINE M not_le(F a, F b) { return (M)_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_NLE_UQ); }
HEADWISE_INLINE F select(M m, F a, F b) { return (F)(((I)a & (I)m) | ((I)b & ~(I)m)); }
HEADWISE_INLINE std::uint64_t bits_of(M m) { return static_cast<std::uint32_t>(_mm256_movemask_ps((__m256)m)); }
HEADWISE_INLINE bool any(M m) { return _mm256_movemask_ps((__m256)m) != 0; }
HEADWISE_INLINE float reduce_add(F v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
HEADWISE_INLINE float reduce_max(F v) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
HEADWISE_INLINE F floor_exp2(F x) { return (F)_mm256_floor_ps((__m256)max(splat(-126.0f), x)); }
HEADWISE_INLINE F fraction(F x) { return max(splat(-126.0f), x) - floor_exp2(x); }
HEADWISE_INLINE F scale_exp2(F p, F x) {
  const F n = floor_exp2(x);
  return (F)((I)((U)p + ((U)(I)_mm256_cvtps_epi32((__m256)n) << 23)) & not_le(x, splat(-126.0f)));
}
HEADWISE_INLINE F pin(F v) {
  asm("" : "+x"(v));
  return v;
}
template <int E>
HEADWISE_INLINE F byte_to_float(I v) {
  typedef char Bytes __attribute__((vector_size(32)));
  constexpr char z = -128, a = E, b = 4 + E, c = 8 + E, d = 12 + E;  // to the low byte of its lane, zeros above
  const Bytes order = {a, z, z, z, b, z, z, z, c, z, z, z, d, z, z, z, a, z, z, z, b, z, z, z, c, z, z, z, d, z, z, z};
  return (F)_mm256_cvtepi32_ps(_mm256_shuffle_epi8((__m256i)v, (__m256i)order));
}
HEADWISE_INLINE I look_up(I table, I index) { return (I)_mm256_shuffle_epi8((__m256i)table, (__m256i)index); }
HEADWISE_INLINE F load_f16(const void* p) {
  return (F)_mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(p)));
}
HEADWISE_INLINE void store_f16(void* p, F v) {
  _mm_storeu_si128(static_cast<__m128i*>(p), _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
}
