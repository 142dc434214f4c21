// SPDX-License-Identifier: MIT
// Weights that sums took, relative to maxima of their own, become those of the softmax; summed over rows, key by key, as
// integers: exact, so that no order of summation shows.

/// A number of 0 … 2^23 plus this one is rounded to an integer, which the lower bits then hold.
inline constexpr float kRoundingShift = 0x1p23f;
inline constexpr std::uint32_t kRoundingBits = 0x4b000000;

HEADWISE_INLINE U rounded_bits(F weight, F factor) { return (U)fma(weight, factor, splat(kRoundingShift)); }

template <bool kPairs>
HEADWISE_INLINE F load_weights(const char* row, Index token) {
  if constexpr (kPairs)
    return load_bf16(row + 2 * token);
  else
    return load(reinterpret_cast<const float*>(row) + token);
}

/// Sums of `rows` weights of kLanes keys to where they go.
template <MassTo kTo>
HEADWISE_INLINE void deliver_mass(U units, Index rows, char* to) {
  if constexpr (kTo == MassTo::sum) {
    std::uint32_t lanes[kLanes];
    std::uint64_t sums[kLanes];
    std::memcpy(lanes, &units, sizeof lanes);
    std::memcpy(sums, to, sizeof sums);
    for (int i = 0; i < kLanes; ++i) sums[i] += lanes[i];
    std::memcpy(to, sums, sizeof sums);
  } else {
    // below 2^31 a signed conversion is the same, and one instruction everywhere
    F mass = (rows < 256 ? __builtin_convertvector((I)units, F) : __builtin_convertvector(units, F)) * splat(kMassUnit);
    if constexpr (kTo == MassTo::add) {
      F held;
      std::memcpy(&held, to, sizeof held);
      mass = held + mass;
    }
    std::memcpy(to, &mass, sizeof mass);
  }
}

/// Of a tile's weights, rows h, h + heads, … to `to`; `factors` make them multiples of the unit. Those two tiles on are
/// asked for: of many rows they have left L2 by now (int8, 96 rows: 9 → 6 % of a prefill).
template <bool kPairs, MassTo kTo>
HEADWISE_INLINE void add_head_mass(const MassArgs& args, const char* weights, const float* factors, Index h, char* to) {
  constexpr int kVectors = kTileTokens / kLanes < 8 ? kTileTokens / kLanes : 8;
  constexpr Index kBytes = kPairs ? 2 : 4, kRowBytes = kBytes * kTileTokens;
  const Index rows = (args.rows - h + args.heads - 1) / args.heads, bytes = kTo == MassTo::sum ? 8 : 4;
  const std::uint32_t shifts = static_cast<std::uint32_t>(rows) * kRoundingBits;
  for (Index t = 0; t < kTileTokens; t += kVectors * kLanes) {
    U sums[kVectors]{};
    for (Index r = h; r < args.rows; r += args.heads) {
      const F factor = splat(factors[r]);
      const char* const row = weights + r * kRowBytes;
      HEADWISE_UNROLL for (Index i = 0; i < kVectors * kLanes * kBytes; i += 64)
          __builtin_prefetch(row + 2 * args.tile_bytes + t * kBytes + i);
      HEADWISE_UNROLL for (int v = 0; v < kVectors; ++v) sums[v] +=
          rounded_bits(load_weights<kPairs>(row, t + v * kLanes), factor);
    }
    HEADWISE_UNROLL for (int v = 0; v < kVectors; ++v)
        deliver_mass<kTo>(sums[v] - shifts, rows, to + bytes * (t + v * kLanes));
  }
}

template <bool kPairs, MassTo kTo>
void add_mass_to(const MassArgs& args) {
  alignas(64) float factors[kMostMassRows + 1];
  const char *weights = static_cast<const char*>(args.weights), *max = reinterpret_cast<const char*>(args.max);
  for (Index first = 0; first < args.tiles * kTileTokens; first += kTileTokens) {
    for (Index r = 0; r < args.rows; r += kLanes) {
      const F below = load(reinterpret_cast<const float*>(max) + r) - load(args.row_max + r);
      store(factors + r, exp2(below) * (load(args.row_factor + r) * splat(1 / kMassUnit)));
    }
    for (Index h = 0; h < std::min(args.heads, args.rows); ++h) {
      char* const to = static_cast<char*>(args.masses[h]) + (kTo == MassTo::sum ? 8 : 4) * first;
      if constexpr (kTo != MassTo::sum) {  // a stream for each head, of one tile at a time
        for (Index i = 0; i < 4 * kTileTokens; i += 64) __builtin_prefetch(to + 8 * kTileTokens + i, 1);
      }
      if (args.keys - first >= kTileTokens) {
        add_head_mass<kPairs, kTo>(args, weights, factors, h, to);
      } else if constexpr (kTo != MassTo::sum) {  // what lies behind the last key is not of this head
        float last[kTileTokens]{};
        const auto there = static_cast<std::size_t>(4 * (args.keys - first));
        std::memcpy(last, to, there);
        add_head_mass<kPairs, kTo>(args, weights, factors, h, reinterpret_cast<char*>(last));
        std::memcpy(to, last, there);
      }
    }
    weights += args.tile_bytes;
    max += args.tile_bytes;
  }
}

template <bool kPairs>
void add_mass_of(const MassArgs& args) {
  if (args.to == MassTo::sum) return add_mass_to<kPairs, MassTo::sum>(args);
  args.to == MassTo::add ? add_mass_to<kPairs, MassTo::add>(args) : add_mass_to<kPairs, MassTo::set>(args);
}

inline void add_mass(const MassArgs& args) {
  args.operand == Operand::bf16_pair ? add_mass_of<true>(args) : add_mass_of<false>(args);
}

inline void softmax_weights(const float* scores, Index rows, const float* max, const float* factor, float* weights) {
  for (Index r = 0; r < rows; ++r, scores += kTileTokens, weights += kTileTokens) {
    int exponent = 0;
    const float fraction = std::frexp(factor[r], &exponent);  // a factor may be what brings a weight into range
    for (Index t = 0; t < kTileTokens; t += kLanes) {
      const F x = (load(scores + t) - splat(max[r])) + splat(static_cast<float>(exponent));
      store(weights + t, exp2(x) * splat(fraction));
    }
  }
}

/// A block of N by N.
template <class V>
HEADWISE_INLINE void transpose_float_block(const float* from, Index from_stride, char* to, Index to_bytes, bool adds) {
  typedef float Floats __attribute__((vector_size(sizeof(V))));
  constexpr int N = sizeof(V) / 4;
  V v[N];
  HEADWISE_UNROLL for (int i = 0; i < N; ++i) {
    std::memcpy(&v[i], from + i * from_stride, sizeof(V));
    // both are as large as a level of the caches: what comes a few blocks later is asked for
    __builtin_prefetch(from + i * from_stride + kTileTokens);
    __builtin_prefetch(to + (N + i) * to_bytes, 1);
  }
  transpose(v);
  HEADWISE_UNROLL for (int i = 0; i < N; ++i) {
    if (adds) {
      Floats sum;
      std::memcpy(&sum, to + i * to_bytes, sizeof sum);
      v[i] = (V)(sum + (Floats)v[i]);
    }
    std::memcpy(to + i * to_bytes, &v[i], sizeof(V));
  }
}

/// As many whole blocks as there are of rows [first, …); returns where these end.
template <class V>
HEADWISE_INLINE Index transpose_float_rows(const float* from, Index from_stride, Index first, Index rows, Index columns,
                                           char* to, Index to_bytes, bool adds) {
  constexpr Index N = sizeof(V) / 4;
  const Index end = first + (rows - first) / N * N;
  for (Index c = 0; c < columns; c += N)
    for (Index r = first; r < end; r += N)
      transpose_float_block<V>(from + r * from_stride + c, from_stride, to + c * to_bytes + 4 * r, to_bytes, adds);
  return end;
}

inline void transpose_floats(const float* from, Index from_stride, Index rows, Index columns, void* to, Index to_stride,
                             bool adds) {
  char* const out = static_cast<char*>(to);
  const Index whole = columns / 16 * 16;
  Index row = 0;
#if defined(__x86_64__)
  if constexpr (kLanes == 16)
    row = transpose_float_rows<Words16>(from, from_stride, row, rows, whole, out, 4 * to_stride, adds);
#endif
  row = transpose_float_rows<Words4>(from, from_stride, row, rows, whole, out, 4 * to_stride, adds);
  for (Index c = 0; c < columns; ++c)
    for (Index r = c < whole ? row : 0; r < rows; ++r) {
      float sum = 0;
      char* const at = out + 4 * (c * to_stride + r);
      if (adds) std::memcpy(&sum, at, 4);
      sum += from[r * from_stride + c];
      std::memcpy(at, &sum, 4);
    }
}
