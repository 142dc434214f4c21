// SPDX-License-Identifier: MIT
// Values that are the first dimensions of the keys (TileFormat::values_in_keys): a K tile to a V tile, once for all rows.

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
  HEADWISE_UNROLL for (int i = 0; i < N; ++i) {
    v[i] = V{};
    if (i < count) std::memcpy(&v[i], in + i * stride, sizeof(V));
    v[i] = Change::of(v[i]);
  }
  transpose(v);
  HEADWISE_UNROLL for (int i = 0; i < N; ++i) std::memcpy(out + i * out_stride, &v[i], sizeof(V));
}

/// f32: per block [dim][16 tokens] → panels [token][dim].
inline void values_of_f32_keys(const void* keys, Index head_dim, Index value_dim, void* values) {
#if defined(__x86_64__)
  using V = std::conditional_t<kLanes == 16, Words16, Words4>;
#else
  using V = Words4;
#endif
  constexpr Index N = sizeof(V) / 4, kRow = kBlockTokens * 4;
  const Index dims = padded_head_dim(head_dim);
  for (Index d = 0; d < padded_value_dim(value_dim); d += N) {
    const Index width = panel_dims(value_dim, d) * 4;
    char* const panel = static_cast<char*>(values) + d / kPanelDims * kPanelDims * kTileTokens * 4 + d % kPanelDims * 4;
    for (Index t = 0; t < kTileTokens; t += N)
      transpose_rows<Unchanged<V>, V>(
          static_cast<const char*>(keys) + (t / kBlockTokens * dims + d) * kRow + t % kBlockTokens * 4, kRow, dims - d,
          panel + t * width, width);
  }
}

#if defined(HEADWISE_BF16_DOT)
typedef std::uint16_t Halves32 __attribute__((vector_size(64)));
typedef std::uint64_t Longs8 __attribute__((vector_size(64)));

/// {a, b}{c, d} → {a, c}{b, d}: of two tokens, pairs of dims to pairs of tokens.
struct PairsOfTokens {
  static HEADWISE_INLINE Longs8 of(Longs8 v) { return (Longs8)swap_middle((Halves32)v, Units<Halves32>{}); }

 private:
  template <std::size_t... I>
  static HEADWISE_INLINE Halves32 swap_middle(Halves32 v, std::index_sequence<I...>) {
    return __builtin_shufflevector(v, v, (I / 4 * 4 + I % 2 * 2 + I / 2 % 2)...);
  }
};

/// bf16: per block [pair of dims][16 tokens]{pair} → panels [pair of tokens][dim]{pair}, 16 dims of 16 tokens at a time.
inline void values_of_bf16_keys(const void* keys, Index head_dim, Index value_dim, void* values) {
  constexpr Index kRow = kBlockTokens * 4, kDims = 16;
  const Index pairs = padded_head_dim(head_dim) / 2;
  for (Index d = 0; d < padded_value_dim(value_dim); d += kDims) {
    const Index width = panel_dims(value_dim, d) * 4;
    char* const panel = static_cast<char*>(values) + d / kPanelDims * kPanelDims * kTileTokens * 2 + d % kPanelDims * 4;
    for (Index t = 0; t < kTileTokens; t += kBlockTokens)
      transpose_rows<PairsOfTokens, Longs8>(static_cast<const char*>(keys) + (t / kBlockTokens * pairs + d / 2) * kRow,
                                            kRow, pairs - d / 2, panel + t / 2 * width, width);
  }
}
#endif
