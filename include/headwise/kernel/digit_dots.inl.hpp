// SPDX-License-Identifier: MIT
// The micro-kernel of integer products: rows as digits (kernel/digits.inl.hpp) · vectors of codes, keys and values alike.
// A unit is what 8 dimensions of a key, or 8 tokens of a value's dimension, take: two products' worth.

struct CodesInt8 {
  static constexpr Storage kStorage = Storage::int8;
  static constexpr int kZero = kInt8Zero, kSteps = 2;  // steps of a unit in memory
  static constexpr Index kScaleGroup = kMaxHeadDim;    // dimensions that share a scale

  static HEADWISE_INLINE void load(const char* b, Index step_bytes, I& first, I& second) {
    first = load_bits(b);
    second = load_bits(b + step_bytes);
  }
  static HEADWISE_INLINE const char* start(const DigitRow& row, Index) { return row.int8_start(); }
};

struct CodesInt4 {
  static constexpr Storage kStorage = Storage::int4;
  static constexpr int kZero = kInt4Zero, kSteps = 1;
  static constexpr Index kScaleGroup = kScaleDims;

  static HEADWISE_INLINE void load(const char* b, Index, I& first, I& second) {
    const U both = (U)load_bits(b);
    first = (I)(both & 0x0f0f0f0fu);
    second = (I)(both >> 4 & 0x0f0f0f0fu);
  }
  static HEADWISE_INLINE const char* start(const DigitRow& row, Index group) { return row.int4_start(group); }
};

/// Lines of one part of AheadArgs, one by one. What lies ahead of codes is a tile, never rows apart.
class LinesAhead {
 public:
  HEADWISE_INLINE LinesAhead(const AheadArgs& all, Index part, Index parts, Index requests)
      : next_(static_cast<const char*>(all.begin) + all.bytes * part / parts), step_(all.bytes / (parts * requests)) {}
  HEADWISE_INLINE void request() {
    __builtin_prefetch(next_, 0, 2);
    next_ += step_;
  }

 private:
  const char* next_;
  Index step_;
};

/// Where codes lie: from one unit, step (of int8) and vector to the next.
struct CodeStrides {
  Index unit, step, vector;
};

/// dots[i][j] = start[i] + Σ codes · integers over `units`. A few rows take two partial sums per digit, to have enough
/// products under way.
template <class Codes, int MR, int NV>
HEADWISE_INLINE void digit_dots(const char* a, Index a_stride, const char* b, const CodeStrides& strides, Index units,
                                LinesAhead& ahead, const char* const (&start)[MR], I (&dots)[MR][NV]) {
  constexpr int P = MR * NV <= 2 ? 2 : 1, kRequests = Codes::kSteps * NV;
  I upper[P][MR][NV], lower[P][MR][NV];
  HEADWISE_UNROLL for (int p = 0; p < P; ++p) HEADWISE_UNROLL for (int i = 0; i < MR; ++i)
      HEADWISE_UNROLL for (int j = 0; j < NV; ++j) {
    upper[p][i][j] = I{};
    lower[p][i][j] = p == 0 ? splat_bits(start[i]) : I{};
  }
  for (; units > 0; --units) {
    I codes[2][NV];
    HEADWISE_UNROLL for (int r = 0; r < kRequests; ++r) ahead.request();
    HEADWISE_UNROLL for (int j = 0; j < NV; ++j)
        Codes::load(b + j * strides.vector, strides.step, codes[0][j], codes[1][j]);
    HEADWISE_UNROLL for (int h = 0; h < 2; ++h) HEADWISE_UNROLL for (int i = 0; i < MR; ++i) {
      const char* digits = a + i * a_stride + 8 * h;
      constexpr int kPartial = P - 1;
      const I high = splat_bits(digits), low = splat_bits(digits + 4);
      HEADWISE_UNROLL for (int j = 0; j < NV; ++j) upper[h & kPartial][i][j] =
          dot_digits(upper[h & kPartial][i][j], codes[h][j], high);
      HEADWISE_UNROLL for (int j = 0; j < NV; ++j) lower[h & kPartial][i][j] =
          dot_digits(lower[h & kPartial][i][j], codes[h][j], low);
    }
    a += 16;
    b += strides.unit;
  }
  HEADWISE_UNROLL for (int i = 0; i < MR; ++i) HEADWISE_UNROLL for (int j = 0; j < NV; ++j) {
    U high = (U)upper[0][i][j], low = (U)lower[0][i][j];
    if constexpr (P == 2) {
      high += (U)upper[1][i][j];
      low += (U)lower[1][i][j];
    }
    dots[i][j] = (I)((high << 8) + low);
  }
}
