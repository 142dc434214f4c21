// SPDX-License-Identifier: MIT
// Values that are the first dimensions of the keys (TileFormat::values_in_keys): a K tile to a V tile, panel by panel, once
// for all rows.

template <class V>
struct Unchanged {
  static HEADWISE_INLINE V of(V v) { return v; }
};

/// N vectors of V, `stride` bytes apart, of which `count` are there and the rest 0, transposed to `out`, `out_stride` apart.
/// Each is changed first.
template <class Change, class V>
HEADWISE_INLINE void transpose_rows(const char* in, Index stride, Index count, char* out, Index out_stride) {
  constexpr int N = sizeof(V) / sizeof(V{}[0]);
  V v[N];
  if (count >= N) [[likely]] {
    HEADWISE_UNROLL for (int i = 0; i < N; ++i) std::memcpy(&v[i], in + i * stride, sizeof(V));
  } else {
    HEADWISE_UNROLL for (int i = 0; i < N; ++i) {
      v[i] = V{};
      if (i < count) std::memcpy(&v[i], in + i * stride, sizeof(V));
    }
  }
  HEADWISE_UNROLL for (int i = 0; i < N; ++i) v[i] = Change::of(v[i]);
  transpose(v);
  HEADWISE_UNROLL for (int i = 0; i < N; ++i) std::memcpy(out + i * out_stride, &v[i], sizeof(V));
}

/// f32: per block [dim][16 tokens] → panels [token][dim].
inline void values_of_f32_keys(const void* keys, Index head_dim, Index value_dim, Index dim, void* panel) {
#if defined(__x86_64__)
  using V = std::conditional_t<kLanes == 16, F, Words4>;
#else
  using V = Words4;
#endif
  constexpr Index N = sizeof(V) / 4, kRow = kBlockTokens * 4;
  const Index dims = padded_head_dim(head_dim), width = panel_dims(value_dim, dim);
  for (Index d = 0; d < width; d += N)
    for (Index t = 0; t < kTileTokens; t += N)
      transpose_rows<Unchanged<V>, V>(
          static_cast<const char*>(keys) + (t / kBlockTokens * dims + dim + d) * kRow + t % kBlockTokens * 4, kRow,
          dims - dim - d, static_cast<char*>(panel) + (t * width + d) * 4, width * 4);
}

#if defined(HEADWISE_BF16_DOT)
typedef std::uint16_t PairHalves __attribute__((vector_size(4 * kLanes)));
typedef std::uint64_t PairLongs __attribute__((vector_size(4 * kLanes)));

/// {a, b}{c, d} → {a, c}{b, d}: of two tokens, pairs of dims to pairs of tokens.
struct PairsOfTokens {
  static HEADWISE_INLINE PairLongs of(PairLongs v) {
    return (PairLongs)swap_middle((PairHalves)v, Units<PairHalves>{});
  }

 private:
  template <std::size_t... I>
  static HEADWISE_INLINE PairHalves swap_middle(PairHalves v, std::index_sequence<I...>) {
    return __builtin_shufflevector(v, v, (I / 4 * 4 + I % 2 * 2 + I / 2 % 2)...);
  }
};

/// bf16: per block [pair of dims][16 tokens]{pair} → panels [pair of tokens][dim]{pair}, kLanes dims of as many tokens at a
/// time.
inline void values_of_bf16_keys(const void* keys, Index head_dim, Index value_dim, Index dim, void* panel) {
  constexpr Index kRow = kBlockTokens * 4;
  const Index pairs = padded_head_dim(head_dim) / 2, width = panel_dims(value_dim, dim);
  for (Index d = 0; d < width; d += kLanes)
    for (Index t = 0; t < kTileTokens; t += kLanes)
      transpose_rows<PairsOfTokens, PairLongs>(
          static_cast<const char*>(keys) + (t / kBlockTokens * pairs + (dim + d) / 2) * kRow + t % kBlockTokens * 4,
          kRow, pairs - (dim + d) / 2, static_cast<char*>(panel) + (t / 2 * width + d) * 4, width * 4);
}
#endif
