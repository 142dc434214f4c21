// SPDX-License-Identifier: MIT
// The caller's row-major memory to tiles: data movement only.

/// An N × N block of units from byte `at` of N rows on: out[u·out_stride + t] = rows[t][at + u]. Strides in bytes. Rows
/// kRowsAhead further are asked for meanwhile.
template <class V>
HEADWISE_INLINE void transpose_block(const char* const* rows, Index at, char* out, Index out_stride) {
  constexpr int N = sizeof(V) / sizeof(V{}[0]);
  V v[N];
  HEADWISE_UNROLL for (int t = 0; t < N; ++t) {
    __builtin_prefetch(rows[t + kRowsAhead] + at, 0, 3);
    std::memcpy(&v[t], rows[t] + at, sizeof(V));
  }
  transpose(v);
  HEADWISE_UNROLL for (int u = 0; u < N; ++u) std::memcpy(out + u * out_stride, &v[u], sizeof(V));
}

/// Units [from, …) of tokens [0, tokens) in blocks of V's size, as many as are whole; returns where they end.
template <class V>
HEADWISE_INLINE Index transpose_units(const char* const* rows, Index tokens, Index from, Index units, Index all_units,
                                      char* out) {
  constexpr Index N = sizeof(V) / sizeof(V{}[0]), kUnitBytes = sizeof(V{}[0]);
  const Index end = from + (units - from) / N * N;
  for (Index t = 0; t < tokens; t += N) {
    char* block = out + (t / kBlockTokens * all_units * kBlockTokens + t % kBlockTokens) * kUnitBytes;
    for (Index u = from; u < end; u += N)
      transpose_block<V>(rows + t, u * kUnitBytes, block + u * kBlockTokens * kUnitBytes, kBlockTokens * kUnitBytes);
  }
  return end;
}

/// A unit is what stays together: one element, or a pair of bf16. K: [token][unit] → per block [unit][16 tokens].
template <class Step>
void pack_keys(const char* const* rows, Index tokens, Index head_dim, void* tile) {
  constexpr Index kUnitBytes = Step::kLaneBytes;
  using Small = std::conditional_t<kUnitBytes == 4, Words4, Halves8>;
  constexpr Index N = sizeof(Small) / kUnitBytes;
  const Index all_units = padded_head_dim(head_dim) / Step::kKappa, units = head_dim / Step::kKappa;
  const Index whole_tokens = tokens / N * N, bytes = size_of(Step::kStorage);
  auto* out = static_cast<char*>(tile);
  if (tokens < kTileTokens || head_dim % 8 != 0)
    std::memset(tile, 0, static_cast<std::size_t>(key_tile_bytes(Step::kStorage, head_dim)));
  Index whole_units = 0;
#if defined(__x86_64__)
  // whole lines: rows a power of two apart share a set of L1, and are gone before a line is read a second time
  if constexpr (kLanes == 16) {
    using Large = std::conditional_t<kUnitBytes == 4, Words16, Halves16>;
    if (tokens == kTileTokens) whole_units = transpose_units<Large>(rows, tokens, 0, units, all_units, out);
  }
#endif
  whole_units = transpose_units<Small>(rows, whole_tokens, whole_units, units, all_units, out);
  for (Index t = 0; t < tokens; ++t)
    for (Index d = t < whole_tokens ? whole_units * Step::kKappa : 0; d < head_dim; ++d)
      std::memcpy(out + key_index(Step::kStorage, head_dim, t, d) * bytes, rows[t] + d * bytes,
                  static_cast<std::size_t>(bytes));
}

/// `Width` dims of a step's tokens, side by side: one row as it is, two rows of bf16 in pairs.
template <class Step, Index Width>
HEADWISE_INLINE void pack_step(const char* const (&rows)[Step::kKappa], Index at, char* out) {
  constexpr Index kBytes = Width * size_of(Step::kStorage);
  if constexpr (Step::kKappa == 1) {
    std::memcpy(out, rows[0] + at, kBytes);
  } else {
    HEADWISE_UNROLL for (Index i = 0; i < kBytes; i += 16) {
      Halves8 a, b;
      std::memcpy(&a, rows[0] + at + i, 16);
      std::memcpy(&b, rows[1] + at + i, 16);
      const Halves8 low = interleave_low(a, b, Units<Halves8>{}), high = interleave_high(a, b, Units<Halves8>{});
      std::memcpy(out + 2 * i, &low, 16);
      std::memcpy(out + 2 * i + 16, &high, 16);
    }
  }
}

/// V: [token][dim] → panels [step][dim]{tokens of the step}.
template <class Step>
void pack_values(const char* const* rows, Index tokens, Index value_dim, void* tile) {
  constexpr Index kBytes = size_of(Step::kStorage), kHalf = kPanelDims / 2;
  const Index whole_tokens = tokens / Step::kKappa * Step::kKappa, whole_dims = value_dim / kHalf * kHalf;
  auto* out = static_cast<char*>(tile);
  if (tokens < kTileTokens || value_dim % 16 != 0)
    std::memset(tile, 0, static_cast<std::size_t>(value_tile_bytes(Step::kStorage, value_dim)));
  for (Index t = 0; t < whole_tokens; t += Step::kKappa) {
    const char* step[Step::kKappa];  // apart from what is written, which might be the list for all a compiler knows
    HEADWISE_UNROLL for (int i = 0; i < Step::kKappa; ++i) {
      step[i] = rows[t + i];
      const char* soon = rows[t + i + kRowsAhead];
      for (Index line = 0; line < value_dim * kBytes; line += 64) __builtin_prefetch(soon + line, 0, 3);
    }
    Index d = 0;
    for (; d + kPanelDims <= whole_dims; d += kPanelDims)
      pack_step<Step, kPanelDims>(step, d * kBytes, out + (d * kTileTokens + t * kPanelDims) * kBytes);
    // the last 16 dims are half a panel of their own, or of a panel that padding fills
    if (d < whole_dims)
      pack_step<Step, kHalf>(step, d * kBytes, out + (d * kTileTokens + t * panel_dims(value_dim, d)) * kBytes);
  }
  for (Index t = 0; t < tokens; ++t)
    for (Index d = t < whole_tokens ? whole_dims : 0; d < value_dim; ++d)
      std::memcpy(out + value_index(Step::kStorage, value_dim, t, d) * kBytes, rows[t] + d * kBytes,
                  static_cast<std::size_t>(kBytes));
}
