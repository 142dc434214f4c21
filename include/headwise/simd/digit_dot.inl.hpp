// SPDX-License-Identifier: MIT
// Products of unsigned codes and signed digits, both of 8 bits (simd/operations.hpp), on AVX-512 VNNI, after
// simd/avx512.inl.hpp.

inline constexpr int kDigitBigRows = 6;  // by two vectors and two digits: 24 accumulators

HEADWISE_INLINE I splat_bits(const void* p) {
  std::int32_t bits;
  std::memcpy(&bits, p, sizeof bits);
  return (I)_mm512_set1_epi32(bits);
}
// The intrinsic makes g++ 12 copy accumulators around it, and so does assembly bound to an array's element.
HEADWISE_INLINE I dot_digits(I acc, I codes, I digits) {
  I sum = acc;
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(digits));
  return sum;
}
HEADWISE_INLINE F load_scales(const void* p) {
  return (F)((I)_mm512_maskz_cvtepu16_epi32(0xffff, _mm256_loadu_si256(static_cast<const __m256i*>(p))) << 16);
}
HEADWISE_INLINE F to_float(I v) { return (F)_mm512_maskz_cvtepi32_ps(0xffff, (__m512i)v); }
HEADWISE_INLINE F max_magnitude(F a, F b) {
  return (F)_mm512_maskz_range_ps(0xffff, (__m512)a, (__m512)b, 0b1011);  // the larger magnitude, its sign cleared
}

typedef std::int32_t Int8 __attribute__((vector_size(32)));
typedef std::int32_t Int4 __attribute__((vector_size(16)));
HEADWISE_INLINE std::int32_t reduce_add(I v) {
  const Int8 h = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
                 __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
  const Int4 q = __builtin_shufflevector(h, h, 0, 1, 2, 3) + __builtin_shufflevector(h, h, 4, 5, 6, 7);
  const Int4 p = q + __builtin_shufflevector(q, q, 2, 3, 2, 3);
  return p[0] + p[1];
}

// four rows at once: a transposition in 128 bits shares its steps among them
HEADWISE_INLINE void reduce_max(const F (&rows)[4], float (&out)[4]) {
  const auto fold = [](__m512 a, __m512 b) __attribute__((always_inline)) {
    return (__m512)max((F)_mm512_maskz_unpacklo_ps(0xffff, a, b), (F)_mm512_maskz_unpackhi_ps(0xffff, a, b));
  };
  const __m512d a = (__m512d)fold((__m512)rows[0], (__m512)rows[1]),
                b = (__m512d)fold((__m512)rows[2], (__m512)rows[3]);
  const F all = max((F)_mm512_maskz_unpacklo_pd(0xff, a, b), (F)_mm512_maskz_unpackhi_pd(0xff, a, b));
  const Half8 h = (Half8)_mm256_max_ps((__m256)low_half(all), (__m256)high_half(all));
  _mm_storeu_ps(out, _mm_max_ps((__m128)__builtin_shufflevector(h, h, 0, 1, 2, 3),
                                (__m128)__builtin_shufflevector(h, h, 4, 5, 6, 7)));
}
HEADWISE_INLINE void reduce_add(const I (&rows)[4], std::int32_t (&out)[4]) {
  const auto fold = [](I a, I b) __attribute__((always_inline)) {
    return (__m512i)((I)_mm512_maskz_unpacklo_epi32(0xffff, (__m512i)a, (__m512i)b) +
                     (I)_mm512_maskz_unpackhi_epi32(0xffff, (__m512i)a, (__m512i)b));
  };
  const __m512i a = fold(rows[0], rows[1]), b = fold(rows[2], rows[3]);
  const I all = (I)_mm512_maskz_unpacklo_epi64(0xff, a, b) + (I)_mm512_maskz_unpackhi_epi64(0xff, a, b);
  const Int8 h = __builtin_shufflevector(all, all, 0, 1, 2, 3, 4, 5, 6, 7) +
                 __builtin_shufflevector(all, all, 8, 9, 10, 11, 12, 13, 14, 15);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out),
                   (__m128i)(__builtin_shufflevector(h, h, 0, 1, 2, 3) + __builtin_shufflevector(h, h, 4, 5, 6, 7)));
}

HEADWISE_INLINE I store_digits(void* p, const F (&x)[2], F inverse) {
  // added to 1.5·2^23, a number's last bits are those of its nearest integer; 128 more, and the upper byte of 16 is the
  // upper digit, and the lower byte the lower one plus 128
  const F shift = splat(12582912.0f + 128.0f);
  const __m512i low = (__m512i)fma(x[0], inverse, shift), high = (__m512i)((I)fma(x[1], inverse, shift) << 16);
  const __m512i pairs = _mm512_mask_blend_epi16(0xaaaaaaaau, low, high);
  // numbers 4i … 4i + 3 of both vectors meet in 128 bits
  const __m512i apart =
      _mm512_maskz_broadcast_i32x4(0xffff, _mm_setr_epi8(1, 5, 9, 13, 0, 4, 8, 12, 3, 7, 11, 15, 2, 6, 10, 14));
  const __m512i digits = (__m512i)((I)pairs ^ 0x00800080);
  const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
  _mm512_storeu_si512(p, _mm512_maskz_permutexvar_epi64(0xff, order, _mm512_maskz_shuffle_epi8(~0ull, digits, apart)));
  return (I)_mm512_maskz_madd_epi16(0xffff, pairs, _mm512_set1_epi16(1));
}
