// SPDX-License-Identifier: MIT
// Products of bf16 pairs (simd/operations.hpp) on AVX-512 BF16, after simd/avx512.inl.hpp.

HEADWISE_INLINE I splat_pair(const void* p) {
  std::int32_t bits;
  std::memcpy(&bits, p, sizeof bits);
  I v = (I)_mm512_set1_epi32(bits);
#if defined(__clang__) && __clang_major__ < 17
  asm("" : "+v"(v));  // clang 16's VectorCombine crashes on a 32-bit splat read as bfloat lanes
#endif
  return v;
}
HEADWISE_INLINE F dot_bf16(F acc, I a, I b) {
  return (F)_mm512_dpbf16_ps((__m512)acc, (__m512bh)(__m512i)a, (__m512bh)(__m512i)b);
}
HEADWISE_INLINE F dot_bf16(F acc, const char* a, I b) {
  asm("vdpbf16ps %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(b), "m"(*reinterpret_cast<const std::int32_t*>(a)));
  return acc;
}
HEADWISE_INLINE void narrow_bf16(void* p, F v) {
  _mm256_storeu_si256(static_cast<__m256i*>(p), (__m256i)_mm512_maskz_cvtneps_pbh(0xffff, (__m512)v));
}
