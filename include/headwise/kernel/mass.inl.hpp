// SPDX-License-Identifier: MIT
// Sums of weights over rows, key by key, as integers: exact, so no order of summation shows.

/// out[i] = 2^(a[i] − b[i]) over `count` (a multiple of 16) floats; the difference at most 127.
inline void exp2_difference(const float* a, const float* b, Index count, float* out) {
  for (Index i = 0; i < count; i += kLanes) store(out + i, exp2(load(a + i) - load(b + i)));
}

/// A number of 0 … 2^23 plus this one is rounded to an integer, which the lower bits then hold.
inline constexpr float kRoundingShift = 0x1p23f;
inline constexpr std::uint32_t kRoundingBits = 0x4b000000;

HEADWISE_INLINE U rounded_bits(F weight, F factor) { return (U)fma(weight, factor, splat(kRoundingShift)); }

HEADWISE_INLINE void store_sums(U sums, std::uint32_t all_shifts, std::uint32_t* to) {
  const U mass = sums - all_shifts;
  std::memcpy(to, &mass, sizeof mass);
}

inline void add_mass_of_pairs(const MassArgs& args, std::uint32_t all_shifts) {
  constexpr int kVectors = kTileTokens / 2 / kLanes;
  U even[kVectors]{}, odd[kVectors]{};
  for (Index r = 0; r < args.rows; ++r) {
    const F factor = splat(args.factors[r * args.step]);
    const auto* row = static_cast<const std::uint16_t*>(args.weights) + r * args.step * kTileTokens;
    HEADWISE_UNROLL for (int v = 0; v < kVectors; ++v) {
      const U pairs = (U)load_bits(row + 2 * v * kLanes);
      even[v] += rounded_bits((F)(pairs << 16), factor);
      odd[v] += rounded_bits((F)(pairs & 0xffff0000u), factor);
    }
  }
  std::uint32_t halves[2][kTileTokens / 2];
  for (int v = 0; v < kVectors; ++v) {
    store_sums(even[v], all_shifts, halves[0] + v * kLanes);
    store_sums(odd[v], all_shifts, halves[1] + v * kLanes);
  }
  for (Index t = 0; t < kTileTokens; ++t) args.mass[t] = halves[t % 2][t / 2];
}

inline void add_mass(const MassArgs& args) {
  const std::uint32_t all_shifts = static_cast<std::uint32_t>(args.rows) * kRoundingBits;
  if (args.operand == Operand::bf16_pair) return add_mass_of_pairs(args, all_shifts);
  constexpr int kVectors = kTileTokens / kLanes < 8 ? kTileTokens / kLanes : 8;
  for (Index t = 0; t < kTileTokens; t += kVectors * kLanes) {
    U sums[kVectors]{};
    for (Index r = 0; r < args.rows; ++r) {
      const F factor = splat(args.factors[r * args.step]);
      const float* row = static_cast<const float*>(args.weights) + r * args.step * kTileTokens + t;
      HEADWISE_UNROLL for (int v = 0; v < kVectors; ++v) sums[v] += rounded_bits(load(row + v * kLanes), factor);
    }
    for (int v = 0; v < kVectors; ++v) store_sums(sums[v], all_shifts, args.mass + t + v * kLanes);
  }
}
