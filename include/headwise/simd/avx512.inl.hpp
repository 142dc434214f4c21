// SPDX-License-Identifier: MIT
// Vector operations (simd/operations.hpp) on AVX-512: 32 registers of 16 lanes. Masked forms stand where g++ 12 warns about the undefined source operand of the unmasked ones.

inline constexpr Isa kIsa = Isa::avx512;
inline constexpr int kLanes = 16;
// 12 rows × 2 partials are 24 accumulators, enough to hide the FMA's latency at both ends: at one row two chains still
// deliver 32 bytes a cycle
inline constexpr int kScorePartials = 2, kScoreVectors = 1, kScoreBigRows = 12, kScoreMiddleRows = 8;
inline constexpr bool kBroadcastsInPlace = true;
inline constexpr int kSumAccumulators = 8, kSumBigRows = 12;
inline constexpr Index kWidenRows = kStreamRows + 1;

typedef float F __attribute__((vector_size(64)));
typedef std::int32_t I __attribute__((vector_size(64)));
typedef std::uint32_t U __attribute__((vector_size(64)));

struct M {
  __mmask16 bits;
  friend HEADWISE_INLINE M operator|(M a, M b) { return {static_cast<__mmask16>(a.bits | b.bits)}; }
  friend HEADWISE_INLINE M operator&(M a, M b) { return {static_cast<__mmask16>(a.bits & b.bits)}; }
};

HEADWISE_INLINE F load(const float* p) { return (F)_mm512_loadu_ps(p); }
HEADWISE_INLINE void store(float* p, F v) { _mm512_storeu_ps(p, (__m512)v); }
HEADWISE_INLINE I load_bits(const void* p) { return (I)_mm512_loadu_si512(p); }
HEADWISE_INLINE F splat(float x) { return (F)_mm512_set1_ps(x); }
HEADWISE_INLINE F zero() { return F{}; }
HEADWISE_INLINE F fma(F a, F b, F c) { return (F)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
HEADWISE_INLINE F accumulate(F acc, F a, F b) { return fma(a, b, acc); }
HEADWISE_INLINE F accumulate(F acc, const float* a, F b) {
  // left to themselves, compilers load a number that is used twice, and copy sums to other registers
  asm("vfmadd231ps %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(b), "m"(*a));
  return acc;
}
HEADWISE_INLINE F max(F a, F b) { return (F)_mm512_mask_max_ps((__m512)a, 0xffff, (__m512)a, (__m512)b); }
HEADWISE_INLINE F min(F a, F b) { return (F)_mm512_mask_min_ps((__m512)a, 0xffff, (__m512)a, (__m512)b); }
HEADWISE_INLINE F reciprocal(F x) {
  // one step of Newton's from 2^-14; a division takes as long as all of a softcap else
  const F y = (F)_mm512_maskz_rcp14_ps(0xffff, (__m512)x);
  return fma(y, fma(-x, y, splat(1.0f)), y);
}
HEADWISE_INLINE M none() { return {0}; }
HEADWISE_INLINE M lanes_of(const std::uint64_t& word, Index first) {
  M m;
  std::memcpy(&m.bits, reinterpret_cast<const char*>(&word) + first / 8, sizeof m.bits);
  return m;
}
HEADWISE_INLINE M not_le(F a, F b) { return {_mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_NLE_UQ)}; }
HEADWISE_INLINE F select(M m, F a, F b) { return (F)_mm512_mask_blend_ps(m.bits, (__m512)b, (__m512)a); }
HEADWISE_INLINE std::uint64_t bits_of(M m) { return m.bits; }
HEADWISE_INLINE bool any(M m) { return m.bits != 0; }

typedef float Half8 __attribute__((vector_size(32)));
typedef float Quarter4 __attribute__((vector_size(16)));
HEADWISE_INLINE Half8 low_half(F v) { return __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7); }
HEADWISE_INLINE Half8 high_half(F v) { return __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15); }
HEADWISE_INLINE float reduce_add(F v) {
  const Half8 h = low_half(v) + high_half(v);
  const Quarter4 q = __builtin_shufflevector(h, h, 0, 1, 2, 3) + __builtin_shufflevector(h, h, 4, 5, 6, 7);
  return (q[0] + q[2]) + (q[1] + q[3]);
}
HEADWISE_INLINE float reduce_max(F v) {
  const Half8 h = (Half8)_mm256_max_ps((__m256)low_half(v), (__m256)high_half(v));
  const Quarter4 q = (Quarter4)_mm_max_ps((__m128)__builtin_shufflevector(h, h, 0, 1, 2, 3),
                                          (__m128)__builtin_shufflevector(h, h, 4, 5, 6, 7));
  const float a = q[0] > q[2] ? q[0] : q[2], b = q[1] > q[3] ? q[1] : q[3];
  return a > b ? a : b;
}
// one instruction each: vreduceps is 0 for infinities, vscalefps takes the floor of its argument and reaches 0 by itself
HEADWISE_INLINE F fraction(F x) {
  return (F)_mm512_mask_reduce_ps((__m512)x, 0xffff, (__m512)x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}
HEADWISE_INLINE F scale_exp2(F p, F x) { return (F)_mm512_mask_scalef_ps((__m512)p, 0xffff, (__m512)p, (__m512)x); }
HEADWISE_INLINE F pin(F v) {
  asm("" : "+v"(v));
  return v;
}
template <int E>
HEADWISE_INLINE F byte_to_float(I v) {
  // one shuffle: to the low byte of its lane, zeros above
  constexpr int z = 0x80, order = E | z << 8 | z << 16 | z << 24;
  const __m512i lanes = _mm512_set4_epi32(order + 12, order + 8, order + 4, order);
  return (F)_mm512_maskz_cvtepi32_ps(0xffff, _mm512_shuffle_epi8((__m512i)v, lanes));
}
HEADWISE_INLINE I look_up(I table, I index) { return (I)_mm512_shuffle_epi8((__m512i)table, (__m512i)index); }
HEADWISE_INLINE F load_f16(const void* p) {
  return (F)_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(static_cast<const __m256i*>(p)));
}
HEADWISE_INLINE void store_f16(void* p, F v) {
  _mm256_storeu_si256(static_cast<__m256i*>(p),
                      _mm512_maskz_cvtps_ph(0xffff, (__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
/// v[i][j] → v[j][i], within quarters of the vectors and then of whole quarters: shuffles across a vector, which compilers
/// make of the rounds of kernel/transpose.inl.hpp, take a copy each besides.
HEADWISE_INLINE void transpose(F (&v)[16]) {
  __m512 w[16];
  HEADWISE_UNROLL for (int i = 0; i < 16; i += 2) {
    w[i] = _mm512_maskz_unpacklo_ps(0xffff, (__m512)v[i], (__m512)v[i + 1]);
    w[i + 1] = _mm512_maskz_unpackhi_ps(0xffff, (__m512)v[i], (__m512)v[i + 1]);
  }
  HEADWISE_UNROLL for (int i = 0; i < 16; i += 4) HEADWISE_UNROLL for (int half = 0; half < 2; ++half) {
    const __m512d a = (__m512d)w[i + half], b = (__m512d)w[i + 2 + half];
    v[i + 2 * half] = (F)_mm512_maskz_unpacklo_pd(0xff, a, b);
    v[i + 2 * half + 1] = (F)_mm512_maskz_unpackhi_pd(0xff, a, b);
  }
  // quarter q of v[4j + c] holds element 4q + c of rows 4j … 4j + 3
  constexpr int kEven = 0x88, kOdd = 0xdd;
  HEADWISE_UNROLL for (int c = 0; c < 4; ++c) {
    const __m512 a = (__m512)v[c], b = (__m512)v[4 + c], d = (__m512)v[8 + c], e = (__m512)v[12 + c];
    const __m512 even = _mm512_maskz_shuffle_f32x4(0xffff, a, b, kEven);
    const __m512 odd = _mm512_maskz_shuffle_f32x4(0xffff, a, b, kOdd);
    const __m512 even_behind = _mm512_maskz_shuffle_f32x4(0xffff, d, e, kEven);
    const __m512 odd_behind = _mm512_maskz_shuffle_f32x4(0xffff, d, e, kOdd);
    w[c] = _mm512_maskz_shuffle_f32x4(0xffff, even, even_behind, kEven);
    w[4 + c] = _mm512_maskz_shuffle_f32x4(0xffff, odd, odd_behind, kEven);
    w[8 + c] = _mm512_maskz_shuffle_f32x4(0xffff, even, even_behind, kOdd);
    w[12 + c] = _mm512_maskz_shuffle_f32x4(0xffff, odd, odd_behind, kOdd);
  }
  HEADWISE_UNROLL for (int i = 0; i < 16; ++i) v[i] = (F)w[i];
}
