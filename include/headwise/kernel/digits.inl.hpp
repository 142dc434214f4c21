// SPDX-License-Identifier: MIT
// Rows as digits: how float rows meet codes in integer products. A row x becomes integers v = round(x / unit) of at most
// kDigitRange, its own largest magnitude's, and these two signed digits, v = 256·upper + lower. Sums of codes · digits are
// exact, so no order of summation shows; what is lost is half a unit per number, 2^-16 of the row's largest.

inline constexpr float kDigitRange = 32639.0f;  // 256·127 + 127
/// Sums of codes · integers are brought down by this, and units up: a sum times a scale is then no larger than it needs be.
inline constexpr float kSumShift = 0x1p-24f;

/// 1 / unit and unit of a row. Where the largest magnitude is not finite the unit is NaN, and so is all that is computed
/// with the row; for rows of zeros any unit serves.
struct DigitScale {
  float unit, inverse;

  HEADWISE_INLINE explicit DigitScale(float largest) {
    constexpr float kLeast = 0x1p-110f;  // keeps the inverse finite; lesser rows lose digits
    constexpr float kUnit = 1.0f / kDigitRange;
    const float magnitude = largest < kLeast ? kLeast : largest;
    // of NaN neither comparison holds
    unit = magnitude <= std::numeric_limits<float>::max() ? magnitude * kUnit : std::numeric_limits<float>::quiet_NaN();
    inverse = kDigitRange / magnitude;
  }
};

inline constexpr int kDigitVectors = 32 / kLanes;  // of a block of 32 numbers

/// A query row of `dim` numbers (a multiple of 8, at most kMaxHeadDim):
///   [dim/4]{upper ×4, lower ×4}, the unit / kSumShift, then where sums start so that they come out as of codes less their zero:
///   −128·Σv for int8, and for int4 −8·Σv of each 32 dimensions.
struct DigitRow {
  const char* row;
  Index dim;

  HEADWISE_INLINE float unit() const {
    float x;
    std::memcpy(&x, row + 2 * dim, sizeof x);
    return x;
  }
  HEADWISE_INLINE const char* int8_start() const { return row + 2 * dim + 4; }
  HEADWISE_INLINE const char* int4_start(Index group) const { return row + 2 * dim + 8 + 4 * group; }
};

/// `prepare_row` of every operand, digits too.
inline void prepare_digit_row(const void* q, Storage storage, Index dim, Index padded, float factor, Operand operand,
                              void* row) {
  if (operand != Operand::digits) return prepare_row(q, storage, dim, padded, factor, operand, row);
  alignas(64) float x[kMaxHeadDim];
  alignas(64) char digits[64];
  prepare_row(q, storage, dim, padded, factor, Operand::f32, x);
  const Index whole = round_up(padded, 32);
  for (Index d = padded; d < whole; ++d) x[d] = 0;
  F top = zero();
  M nan = none();
  for (Index d = 0; d < whole; d += kLanes) {
    const F v = load(x + d);
    top = max_magnitude(top, v);
    nan = nan | not_le(v, splat(std::numeric_limits<float>::infinity()));
  }
  const DigitScale scale(any(nan) ? std::numeric_limits<float>::quiet_NaN() : reduce_max(top));
  auto* out = static_cast<char*>(row);
  char* const rest = out + 2 * padded;
  std::uint32_t total = 0;
  for (Index d = 0; d < whole; d += 32) {
    F block[kDigitVectors];
    HEADWISE_UNROLL for (int i = 0; i < kDigitVectors; ++i) block[i] = load(x + d + i * kLanes);
    const I sums = store_digits(digits, block, splat(scale.inverse));
    const std::uint32_t sum = static_cast<std::uint32_t>(reduce_add(sums)) - 32 * 128;
    std::memcpy(out + 2 * d, digits, static_cast<std::size_t>(2 * std::min<Index>(32, padded - d)));
    const std::uint32_t start = 0u - sum * kInt4Zero;
    std::memcpy(rest + 8 + d / 8, &start, 4);
    total += sum;
  }
  const float unit = scale.unit / kSumShift;
  std::memcpy(rest, &unit, 4);
  const std::uint32_t start = 0u - total * kInt8Zero;
  std::memcpy(rest + 4, &start, 4);
}

/// MR rows' weights of a tile, times the scales of its tokens, as digits.
template <int MR>
struct WeightDigits {
  static constexpr Index kRowBytes = 2 * kTileTokens;
  alignas(64) char digits[MR * kRowBytes];
  float unit[MR];
  std::int32_t start[MR];

  HEADWISE_INLINE void make(const float* weights, const char* scales, int zero_code) {
    constexpr int kVectors = kTileTokens / kLanes;
    F scale[kVectors];
    M nan = none();
    HEADWISE_UNROLL for (int t = 0; t < kVectors; ++t) {
      scale[t] = load_scales(scales + 2 * t * kLanes);
      nan = nan | not_le(scale[t], splat(std::numeric_limits<float>::infinity()));
    }
    const float factor = any(nan) ? std::numeric_limits<float>::quiet_NaN() : 1.0f;
    make_rows<(MR < 4 ? MR : 4)>(0, weights, scale, factor, zero_code);
    if constexpr (MR > 4) make_rows<MR - 4>(4, weights, scale, factor, zero_code);
  }

 private:
  /// A NaN among the weights is one in their sum, by which the row's output will be divided: it needs no care here.
  template <int N, int V>
  HEADWISE_INLINE void make_rows(int first, const float* weights, const F (&scale)[V], float factor, int zero_code) {
    F x[N][V], top[4];
    HEADWISE_UNROLL for (int i = 0; i < 4; ++i) top[i] = zero();
    HEADWISE_UNROLL for (int i = 0; i < N; ++i) HEADWISE_UNROLL for (int t = 0; t < V; ++t) {
      x[i][t] = load(weights + (first + i) * kTileTokens + t * kLanes) * scale[t];
      top[i] = max_magnitude(top[i], x[i][t]);
    }
    float largest[4];
    if constexpr (N == 1)
      largest[0] = reduce_max(top[0]);
    else
      reduce_max(top, largest);
    I sum[4]{};
    HEADWISE_UNROLL for (int i = 0; i < N; ++i) {
      const DigitScale row(largest[i]);
      unit[first + i] = row.unit * factor;
      HEADWISE_UNROLL for (int t = 0; t < V; t += kDigitVectors) {
        F block[kDigitVectors];
        HEADWISE_UNROLL for (int j = 0; j < kDigitVectors; ++j) block[j] = x[i][t + j];
        sum[i] = (I)((U)sum[i] +
                     (U)store_digits(digits + (first + i) * kRowBytes + 2 * t * kLanes, block, splat(row.inverse)));
      }
    }
    std::int32_t sums[4];
    if constexpr (N == 1)
      sums[0] = reduce_add(sum[0]);
    else
      reduce_add(sum, sums);
    HEADWISE_UNROLL for (int i = 0; i < N; ++i) start[first + i] =
        (128 * static_cast<int>(kTileTokens) - sums[i]) * zero_code;
  }
};
