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

/// The same where many rows meet what is here, and a tile is in memory alone: what is ahead takes few requests, which take
/// the place of multiply-adds: one at a time, or four where that is not every line.
class TileAhead {
 public:
  HEADWISE_INLINE TileAhead(const AheadArgs& all, Index part, Index parts, Index requests)
      : next_(static_cast<const char*>(all.begin) + all.bytes * part / parts),
        step_(all.bytes / (parts * requests)),
        four_(step_ > 64) {}
  HEADWISE_INLINE void request() {
    __builtin_prefetch(next_, 0, 2);
    if (four_) {
      __builtin_prefetch(next_ + step_ / 4, 0, 2);
      __builtin_prefetch(next_ + step_ / 2, 0, 2);
      __builtin_prefetch(next_ + step_ / 2 + step_ / 4, 0, 2);
    }
    next_ += step_;
  }

 private:
  const char* next_;
  Index step_;
  bool four_;
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

// How the elements of a row lie that one register tile meets, 32 bits each: floats or pairs.

/// One behind another, rows `stride` bytes apart.
struct RowsApart {
  Index stride;

  static constexpr Index step_bytes(Index elements) { return 4 * elements; }
  HEADWISE_INLINE const char* at(const char* a, int row, int element) const { return a + row * stride + 4 * element; }
};
/// Those of MR rows side by side, so that all rows are read at one address: an index costs an instruction more.
template <int MR>
struct RowsTogether {
  static constexpr Index step_bytes(Index elements) { return 4 * MR * elements; }
  HEADWISE_INLINE const char* at(const char* a, int row, int element) const { return a + 4 * (element * MR + row); }
};

/// acc[i][j] += a[i] · v[j], a the element of each row that is a float.
template <int MR, int NV, class Rows>
HEADWISE_INLINE void multiply_rows(F (&acc)[MR][NV], const char* a, const Rows& rows, int element, const F (&v)[NV]) {
  HEADWISE_UNROLL for (int i = 0; i < MR; ++i) {
    const float* const x = reinterpret_cast<const float*>(rows.at(a, i, element));
    if constexpr (kBroadcastsInPlace) {
      HEADWISE_UNROLL for (int j = 0; j < NV; ++j) acc[i][j] = accumulate(acc[i][j], x, v[j]);
    } else {
      const F all = splat(*x);
      HEADWISE_UNROLL for (int j = 0; j < NV; ++j) acc[i][j] = accumulate(acc[i][j], all, v[j]);
    }
  }
}

struct StepF32 {
  static constexpr Storage kStorage = Storage::f32;
  static constexpr Operand kOperand = Operand::f32;
  // elements of a lane that a step multiplies; bytes of a lane of b; 32-bit elements of a row of a
  static constexpr int kKappa = 1, kLaneBytes = 4, kRowElements = 1;
  static constexpr bool kManyRows = true;  // else more than kStreamRows meet a tile that was widened first
  static constexpr bool kScaled = false;   // else `run` is given the scales, too

  /// The elements of a vector of b, one vector each.
  static HEADWISE_INLINE void load_elements(const char* b, F (&v)[kKappa]) {
    v[0] = load(reinterpret_cast<const float*>(b));
  }

  template <int P, int MR, int NV, class Rows>
  static HEADWISE_INLINE void run(F (&acc)[P][MR][NV], int step, const char* a, const Rows& rows, const char* b,
                                  Index b_stride) {
    F v[NV];
    HEADWISE_UNROLL for (int j = 0; j < NV; ++j) v[j] = pin(load(reinterpret_cast<const float*>(b + j * b_stride)));
    multiply_rows(acc[step % P], a, rows, 0, v);
  }
};

struct StepF16 {
  static constexpr Storage kStorage = Storage::f16;
  static constexpr Operand kOperand = Operand::f32;
  static constexpr int kKappa = 1, kLaneBytes = 2, kRowElements = 1;
  static constexpr bool kManyRows = false, kScaled = false;

  static HEADWISE_INLINE void load_elements(const char* b, F (&v)[kKappa]) { v[0] = load_f16(b); }

  template <int P, int MR, int NV, class Rows>
  static HEADWISE_INLINE void run(F (&acc)[P][MR][NV], int step, const char* a, const Rows& rows, const char* b,
                                  Index b_stride) {
    F v[NV];
    HEADWISE_UNROLL for (int j = 0; j < NV; ++j) v[j] = load_f16(b + j * b_stride);
    multiply_rows(acc[step % P], a, rows, 0, v);
  }
};

struct StepBf16 {
  static constexpr Storage kStorage = Storage::bf16;
  static constexpr Operand kOperand = Operand::f32;
  static constexpr int kKappa = 2, kLaneBytes = 4, kRowElements = 2;
  static constexpr bool kManyRows = false, kScaled = false;

  static HEADWISE_INLINE void load_elements(const char* b, F (&v)[kKappa]) {
    const I pair = load_bits(b);
    v[0] = (F)(pair << 16);
    v[1] = (F)(pair & static_cast<std::int32_t>(0xffff0000u));
  }

  // a pair of bf16 in a 32-bit lane is two floats by a shift and a mask; element e of the pair is dimension
  // 2·step + e, so it goes to partial e mod P: the order of f32
  template <int P, int MR, int NV, class Rows>
  static HEADWISE_INLINE void run(F (&acc)[P][MR][NV], int, const char* a, const Rows& rows, const char* b,
                                  Index b_stride) {
    F even[NV], odd[NV];
    HEADWISE_UNROLL for (int j = 0; j < NV; ++j) {
      F pair[2];
      load_elements(b + j * b_stride, pair);
      even[j] = pair[0];
      odd[j] = pair[1];
    }
    multiply_rows(acc[0], a, rows, 0, even);
    multiply_rows(acc[1 % P], a, rows, 1, odd);
  }
};

#if defined(HEADWISE_BF16_DOT)
struct StepBf16Dot {
  static constexpr Storage kStorage = Storage::bf16;
  static constexpr Operand kOperand = Operand::bf16_pair;
  static constexpr int kKappa = 2, kLaneBytes = 4, kRowElements = 1;
  static constexpr bool kManyRows = true, kScaled = false;

  template <int P, int MR, int NV, class Rows>
  static HEADWISE_INLINE void run(F (&acc)[P][MR][NV], int step, const char* a, const Rows& rows, const char* b,
                                  Index b_stride) {
    I v[NV];
    HEADWISE_UNROLL for (int j = 0; j < NV; ++j) v[j] = load_bits(b + j * b_stride);
    HEADWISE_UNROLL for (int i = 0; i < MR; ++i) {
      const char* const x = rows.at(a, i, 0);
      if constexpr (kBroadcastsInPlace) {
        HEADWISE_UNROLL for (int j = 0; j < NV; ++j) acc[step % P][i][j] = dot_bf16(acc[step % P][i][j], x, v[j]);
      } else {
        const I all = splat_pair(x);
        HEADWISE_UNROLL for (int j = 0; j < NV; ++j) acc[step % P][i][j] = dot_bf16(acc[step % P][i][j], all, v[j]);
      }
    }
  }
};
#endif
