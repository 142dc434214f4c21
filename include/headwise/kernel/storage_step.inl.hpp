// SPDX-License-Identifier: MIT
// One step of the one micro-kernel that serves scores and weighted sums, decode and prefill, every storage type:
//   acc[row][vector] += broadcast(a[row][step]) · b[step][vector]
// A storage type says how many bytes a lane of b has, how many elements a step multiplies and how the row is kept.

/// One part of AheadArgs, asked for by `kTogether` requests at a time; four where the rows lie apart.
template <int kTogether>
class Ahead {
 public:
  HEADWISE_INLINE Ahead(const AheadArgs& all, Index part, Index parts, Index requests) {
    if (all.stride == 0) {
      next_ = static_cast<const char*>(all.begin) + all.bytes * part / parts;
      step_ = all.bytes / (parts * requests);
      jump_ = kTogether * step_;
      flip_ = 0;
    } else {  // rows of one or two jumps
      const Index row = kTileTokens * part / parts;
      next_ = all.rows[row / kBlockTokens] + row % kBlockTokens * all.stride;
      step_ = 64;
      jump_ = all.row_bytes > 256 ? 256 : all.stride;
      flip_ = all.row_bytes > 256 ? 256 ^ (all.stride - 256) : 0;
    }
  }
  /// u counts 0, 1, … kTogether − 1, 0, …
  HEADWISE_INLINE void request(int u) {
    __builtin_prefetch(next_ + u * step_, 0, 2);
    if (u != kTogether - 1) return;
    next_ += jump_;
    jump_ ^= flip_;
  }

 private:
  const char* next_;
  Index step_, jump_, flip_;
};

/// kLanes bf16.
HEADWISE_INLINE F load_bf16(const void* p) {
  typedef std::uint16_t Narrow __attribute__((vector_size(2 * kLanes)));
  Narrow in;
  std::memcpy(&in, p, sizeof in);
  return (F)(__builtin_convertvector(in, U) << 16);
}

/// Of types without scales, in the place of any of these.
struct NoScales {
  HEADWISE_INLINE NoScales of_step(Index) const { return {}; }
  HEADWISE_INLINE F apply(F number, int, int) const { return number; }
  HEADWISE_INLINE F widen(F number, int) const { return number; }
};

/// acc[i][j] += a[i] · v[j], a of one float a row.
template <int MR, int NV>
HEADWISE_INLINE void multiply_rows(F (&acc)[MR][NV], const char* a, Index a_stride, const F (&v)[NV]) {
  HEADWISE_UNROLL for (int i = 0; i < MR; ++i) {
    const F x = splat(*reinterpret_cast<const float*>(a + i * a_stride));
    HEADWISE_UNROLL for (int j = 0; j < NV; ++j) acc[i][j] = accumulate(acc[i][j], x, v[j]);
  }
}

struct StepF32 {
  static constexpr Storage kStorage = Storage::f32;
  static constexpr Operand kOperand = Operand::f32;
  static constexpr int kKappa = 1, kLaneBytes = 4, kRowBytes = 4;  // of b and of a, per step
  static constexpr bool kManyRows = true;  // else more than kStreamRows meet a tile that was widened first
  static constexpr bool kScaled = false;   // else `run` is given the scales, too

  /// The elements of a vector of b, one vector each.
  static HEADWISE_INLINE void load_elements(const char* b, F (&v)[kKappa]) {
    v[0] = load(reinterpret_cast<const float*>(b));
  }

  template <int P, int MR, int NV>
  static HEADWISE_INLINE void run(F (&acc)[P][MR][NV], int step, const char* a, Index a_stride, const char* b,
                                  Index b_stride) {
    F v[NV];
    HEADWISE_UNROLL for (int j = 0; j < NV; ++j) v[j] = pin(load(reinterpret_cast<const float*>(b + j * b_stride)));
    multiply_rows(acc[step % P], a, a_stride, v);
  }
};

struct StepF16 {
  static constexpr Storage kStorage = Storage::f16;
  static constexpr Operand kOperand = Operand::f32;
  static constexpr int kKappa = 1, kLaneBytes = 2, kRowBytes = 4;
  static constexpr bool kManyRows = false, kScaled = false;

  static HEADWISE_INLINE void load_elements(const char* b, F (&v)[kKappa]) { v[0] = load_f16(b); }

  template <int P, int MR, int NV>
  static HEADWISE_INLINE void run(F (&acc)[P][MR][NV], int step, const char* a, Index a_stride, const char* b,
                                  Index b_stride) {
    F v[NV];
    HEADWISE_UNROLL for (int j = 0; j < NV; ++j) v[j] = load_f16(b + j * b_stride);
    multiply_rows(acc[step % P], a, a_stride, v);
  }
};

struct StepBf16 {
  static constexpr Storage kStorage = Storage::bf16;
  static constexpr Operand kOperand = Operand::f32;
  static constexpr int kKappa = 2, kLaneBytes = 4, kRowBytes = 8;
  static constexpr bool kManyRows = false, kScaled = false;

  static HEADWISE_INLINE void load_elements(const char* b, F (&v)[kKappa]) {
    const I pair = load_bits(b);
    v[0] = (F)(pair << 16);
    v[1] = (F)(pair & static_cast<std::int32_t>(0xffff0000u));
  }

  // a pair of bf16 in a 32-bit lane is two floats by a shift and a mask; element e of the pair is dimension
  // 2·step + e, so it goes to partial e mod P: the order of f32
  template <int P, int MR, int NV>
  static HEADWISE_INLINE void run(F (&acc)[P][MR][NV], int, const char* a, Index a_stride, const char* b,
                                  Index b_stride) {
    F even[NV], odd[NV];
    HEADWISE_UNROLL for (int j = 0; j < NV; ++j) {
      F pair[2];
      load_elements(b + j * b_stride, pair);
      even[j] = pair[0];
      odd[j] = pair[1];
    }
    HEADWISE_UNROLL for (int i = 0; i < MR; ++i) {
      const float* x = reinterpret_cast<const float*>(a + i * a_stride);
      HEADWISE_UNROLL for (int j = 0; j < NV; ++j) acc[0][i][j] = accumulate(acc[0][i][j], splat(x[0]), even[j]);
      HEADWISE_UNROLL for (int j = 0; j < NV; ++j) acc[1 % P][i][j] = accumulate(acc[1 % P][i][j], splat(x[1]), odd[j]);
    }
  }
};

#if defined(HEADWISE_BF16_DOT)
struct StepBf16Dot {
  static constexpr Storage kStorage = Storage::bf16;
  static constexpr Operand kOperand = Operand::bf16_pair;
  static constexpr int kKappa = 2, kLaneBytes = 4, kRowBytes = 4;
  static constexpr bool kManyRows = true, kScaled = false;

  template <int P, int MR, int NV>
  static HEADWISE_INLINE void run(F (&acc)[P][MR][NV], int step, const char* a, Index a_stride, const char* b,
                                  Index b_stride) {
    I v[NV];
    HEADWISE_UNROLL for (int j = 0; j < NV; ++j) v[j] = load_bits(b + j * b_stride);
    HEADWISE_UNROLL for (int i = 0; i < MR; ++i) {
      const I x = splat_pair(a + i * a_stride);
      HEADWISE_UNROLL for (int j = 0; j < NV; ++j) acc[step % P][i][j] = dot_bf16(acc[step % P][i][j], x, v[j]);
    }
  }
};
#endif
