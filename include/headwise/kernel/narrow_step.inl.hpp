// SPDX-License-Identifier: MIT
// Steps of the types with 4 or 8 elements a lane: 8-bit floats, and codes that count units of a scale. What they multiply
// are exactly the floats that the numbers stand for (core/quantize.hpp), as if the tile were f32.

/// An 8-bit float of `Mantissa` bits below the point is a bf16 whose bits lie elsewhere and whose exponent is larger by a
/// constant; all of a vector's bytes are converted at once. What a subnormal number needs beyond comes from a table, as a
/// difference by exclusive or. Numbers from kSpecial on have all exponent bits set.
template <Storage S, int Mantissa, int Bias, int Special>
struct FormatFloat8 {
  static constexpr Storage kStorage = S;

  template <int E>
  static HEADWISE_INLINE F element(I lanes) {
    typedef unsigned char Bytes __attribute__((vector_size(sizeof(I))));
    const I magnitude = lanes & 0x7f7f7f7f;
    // subnormal numbers are the last entries of the tables, all others have the high bit set
    const I entry = (I)((U)magnitude + static_cast<std::uint32_t>(every_byte(0x80 - kSubnormals)));
    const I special = (I)((Bytes)magnitude > static_cast<unsigned char>(Special - 1)) & 0x7f7f7f7f;
    const I exponent = ((I)((U)magnitude >> (8 - kUp)) & every_byte(0x7f >> (8 - kUp))) + every_byte(kOffset >> 8);
    const I sign = lanes & every_byte(0x80);
    const I high = ((sign | exponent) ^ look_up(load_bits(kHigh.bytes), entry)) | special;
    const I low = ((magnitude << kUp) & every_byte(0xff & (0xff << kUp))) ^ look_up(load_bits(kLow.bytes), entry);
    // E even: bf16 of bytes 0 and 2; odd: of 1 and 3
    const I pair = E % 2 == 0 ? ((I)((U)high << 8) & kOddBytes) | (low & ~kOddBytes)
                              : (high & kOddBytes) | ((I)((U)low >> 8) & ~kOddBytes);
    return (F)(E < 2 ? (I)((U)pair << 16) : pair & static_cast<std::int32_t>(0xffff0000u));
  }

 private:
  static constexpr int kUp = 7 - Mantissa, kSubnormals = 1 << Mantissa, kOffset = (127 - Bias) << 7;
  static constexpr auto kOddBytes = static_cast<std::int32_t>(0xff00ff00u);
  static constexpr std::int32_t every_byte(int b) {
    return static_cast<std::int32_t>(0x01010101u * static_cast<unsigned>(b));
  }

  struct Table {
    alignas(64) unsigned char bytes[64];
  };
  static constexpr Table table(int shift) {
    Table result{};
    for (int i = 0; i < 64; ++i) {
      const int m = i % 16 - (16 - kSubnormals);
      if (m < 0) continue;
      const auto right = std::bit_cast<std::uint32_t>(
          headwise::detail::from_small_float<Mantissa, Bias>(static_cast<std::uint32_t>(m)));
      const auto as_normal = static_cast<std::uint32_t>(kOffset + (m << kUp));
      result.bytes[i] = static_cast<unsigned char>((right >> 16 ^ as_normal) >> shift);
    }
    return result;
  }
  static constexpr Table kHigh = table(8), kLow = table(0);
};
using FormatE4m3 = FormatFloat8<Storage::e4m3, 3, 7, 0x7f>;
using FormatE5m2 = FormatFloat8<Storage::e5m2, 2, 15, 0x7c>;

// A format says what element E of a lane is before scales: element<E>(lane).
struct FormatInt8 {
  static constexpr Storage kStorage = Storage::int8;
  static constexpr int kZero = kInt8Zero;
  template <int E>
  static HEADWISE_INLINE F element(I lane) {
    return byte_to_float<E>(lane);
  }
};
struct FormatInt4 {
  static constexpr Storage kStorage = Storage::int4;
  static constexpr int kZero = kInt4Zero;
  template <int E>
  static HEADWISE_INLINE F element(I lane) {
    return byte_to_float<E % 4>((E < 4 ? lane : (I)((U)lane >> 4)) & 0x0f0f0f0f);
  }
};

// Scales turn code e of a step into its number: `apply` in one FMA, which has nothing to round; `widen` without one, for
// an ISA that lacks it.

/// Scales of a K tile, of NV vectors of tokens from `token` on, for the dimensions that share the scale of `dim`.
template <class Format, int NV>
struct KeyScales {
  F scale[NV], offset[NV];

  HEADWISE_INLINE KeyScales(const void* keys, Index head_dim, Index token, Index dim) {
    const char* at = static_cast<const char*>(keys) + key_code_bytes(Format::kStorage, head_dim) +
                     2 * scale_index(Format::kStorage, token, dim);
    HEADWISE_UNROLL for (int j = 0; j < NV; ++j) {
      scale[j] = load_bf16(at + 2 * kLanes * j);
      offset[j] = scale[j] * splat(-static_cast<float>(Format::kZero));
    }
  }
  HEADWISE_INLINE F apply(F code, int, int j) const { return fma(code, scale[j], offset[j]); }
  HEADWISE_INLINE F widen(F code, int) const { return (code - splat(static_cast<float>(Format::kZero))) * scale[0]; }
};

/// Scales of the tokens of one step over a V panel.
template <class Format>
struct StepScales {
  const float *scale, *offset;

  HEADWISE_INLINE F apply(F code, int e, int) const { return fma(code, splat(scale[e]), splat(offset[e])); }
  HEADWISE_INLINE F widen(F code, int e) const {
    return (code - splat(static_cast<float>(Format::kZero))) * splat(scale[e]);
  }
};

/// Scales of the panel of a V tile that holds `dim`, one per token.
template <class Format>
struct ValueScales {
  alignas(64) float scale[kTileTokens], offset[kTileTokens];

  HEADWISE_INLINE ValueScales(const void* values, Index value_dim, Index dim) {
    const char* at = static_cast<const char*>(values) + value_code_bytes(Format::kStorage, value_dim) +
                     2 * scale_index(Format::kStorage, 0, dim);
    for (Index t = 0; t < kTileTokens; t += kLanes) {
      const F x = load_bf16(at + 2 * t);
      store(scale + t, x);
      store(offset + t, x * splat(-static_cast<float>(Format::kZero)));
    }
  }
  HEADWISE_INLINE StepScales<Format> of_step(Index token) const { return {scale + token, offset + token}; }
};
template <class F_>
struct StepNarrow {
  using Format = F_;
  static constexpr Storage kStorage = Format::kStorage;
  static constexpr Operand kOperand = Operand::f32;
  static constexpr int kKappa = static_cast<int>(kappa_of(kStorage)), kLaneBytes = 4, kRowElements = kKappa;
  static constexpr bool kManyRows = false, kScaled = has_scales(kStorage);

  /// Codes as they are, of types with scales.
  static HEADWISE_INLINE void load_elements(const char* b, F (&v)[kKappa]) {
    elements(load_bits(b), v, std::make_integer_sequence<int, kKappa>{});
  }

  template <int P, int MR, int NV, class Rows, class Scales = NoScales>
  static HEADWISE_INLINE void run(F (&acc)[P][MR][NV], int, const char* a, const Rows& rows, const char* b,
                                  Index b_stride, const Scales& scales = {}) {
    I lanes[NV];
    HEADWISE_UNROLL for (int j = 0; j < NV; ++j) lanes[j] = load_bits(b + j * b_stride);
    run_elements(acc, a, rows, lanes, scales, std::make_integer_sequence<int, kKappa>{});
  }

 private:
  template <int... E>
  static HEADWISE_INLINE void elements(I lane, F (&v)[kKappa], std::integer_sequence<int, E...>) {
    ((v[E] = Format::template element<E>(lane)), ...);
  }
  template <int P, int MR, int NV, class Rows, class Scales, int... E>
  static HEADWISE_INLINE void run_elements(F (&acc)[P][MR][NV], const char* a, const Rows& rows, const I (&lanes)[NV],
                                           const Scales& scales, std::integer_sequence<int, E...>) {
    // a lane's first element is of an even dimension, so element E goes to partial E mod P: the order of f32
    (run_element<E>(acc[E % P], a, rows, lanes, scales), ...);
  }
  template <int E, int MR, int NV, class Rows, class Scales>
  static HEADWISE_INLINE void run_element(F (&acc)[MR][NV], const char* a, const Rows& rows, const I (&lanes)[NV],
                                          const Scales& scales) {
    F v[NV];
    HEADWISE_UNROLL for (int j = 0; j < NV; ++j) v[j] = scales.apply(Format::template element<E>(lanes[j]), E, j);
    multiply_rows(acc, a, rows, E, v);
  }
};
using StepE4m3 = StepNarrow<FormatE4m3>;
using StepE5m2 = StepNarrow<FormatE5m2>;
using StepInt8 = StepNarrow<FormatInt8>;
using StepInt4 = StepNarrow<FormatInt4>;
