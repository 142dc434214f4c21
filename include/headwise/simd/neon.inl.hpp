// SPDX-License-Identifier: MIT
// Vector operations (simd/operations.hpp) on AArch64 Advanced SIMD: 32 registers of 4 lanes.

inline constexpr Isa kIsa = Isa::neon;
inline constexpr int kLanes = 4;
inline constexpr int kScorePartials = 1, kScoreVectors = 4, kScoreBigRows = 6, kScoreMiddleRows = 4;
inline constexpr bool kBroadcastsInPlace = false;
inline constexpr int kSumAccumulators = 16, kSumBigRows = 12;
inline constexpr Index kWidenRows = kStreamRows + 1;

typedef float F __attribute__((vector_size(16)));
typedef std::int32_t I __attribute__((vector_size(16)));
typedef std::uint32_t U __attribute__((vector_size(16)));
typedef I M;

HEADWISE_INLINE F load(const float* p) { return (F)vld1q_f32(p); }
HEADWISE_INLINE void store(float* p, F v) { vst1q_f32(p, (float32x4_t)v); }
HEADWISE_INLINE I load_bits(const void* p) {
  I v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
HEADWISE_INLINE F splat(float x) { return (F)vdupq_n_f32(x); }
HEADWISE_INLINE F zero() { return F{}; }
HEADWISE_INLINE F fma(F a, F b, F c) { return (F)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
HEADWISE_INLINE F accumulate(F acc, F a, F b) { return fma(a, b, acc); }
HEADWISE_INLINE F max(F a, F b) { return (F)vmaxq_f32((float32x4_t)a, (float32x4_t)b); }
HEADWISE_INLINE F min(F a, F b) { return (F)vminq_f32((float32x4_t)a, (float32x4_t)b); }
HEADWISE_INLINE F reciprocal(F x) { return splat(1.0f) / x; }
HEADWISE_INLINE M none() { return M{}; }
HEADWISE_INLINE M lanes_of(const std::uint64_t& word, Index first) {
  const I each = {1, 2, 4, 8};
  return ((I{} + static_cast<std::int32_t>(word >> first & 15)) & each) == each;
}
HEADWISE_INLINE M not_le(F a, F b) { return ~(M)vcleq_f32((float32x4_t)a, (float32x4_t)b); }
HEADWISE_INLINE F select(M m, F a, F b) { return (F)(((I)a & (I)m) | ((I)b & ~(I)m)); }
HEADWISE_INLINE std::uint64_t bits_of(M m) { return vaddvq_u32((uint32x4_t)((U)m & U{1, 2, 4, 8})); }
HEADWISE_INLINE bool any(M m) { return vmaxvq_u32((uint32x4_t)m) != 0; }
HEADWISE_INLINE float reduce_add(F v) { return (v[0] + v[2]) + (v[1] + v[3]); }
HEADWISE_INLINE float reduce_max(F v) { return vmaxvq_f32((float32x4_t)v); }
HEADWISE_INLINE F floor_exp2(F x) { return (F)vrndmq_f32((float32x4_t)max(splat(-126.0f), x)); }
HEADWISE_INLINE F fraction(F x) { return max(splat(-126.0f), x) - floor_exp2(x); }
HEADWISE_INLINE F scale_exp2(F p, F x) {
  const F n = floor_exp2(x);
  return (F)((I)((U)p + ((U)(I)vcvtq_s32_f32((float32x4_t)n) << 23)) & not_le(x, splat(-126.0f)));
}
HEADWISE_INLINE F pin(F v) {
  asm("" : "+w"(v));
  return v;
}
template <int E>
HEADWISE_INLINE F byte_to_float(I v) {
  return (F)vcvtq_f32_u32((uint32x4_t)((U)v >> 8 * E & 0xff));
}
HEADWISE_INLINE I look_up(I table, I index) {
  return (I)vqtbl1q_u8((uint8x16_t)table, (uint8x16_t)(index & static_cast<std::int32_t>(0x8f8f8f8fu)));
}
HEADWISE_INLINE F load_f16(const void* p) {
  float16x4_t h;
  std::memcpy(&h, p, sizeof h);
  return (F)vcvt_f32_f16(h);
}
HEADWISE_INLINE void store_f16(void* p, F v) {
  const float16x4_t h = vcvt_f16_f32((float32x4_t)v);
  std::memcpy(p, &h, sizeof h);
}
