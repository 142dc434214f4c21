// SPDX-License-Identifier: MIT
// The caller's row-major memory to tiles, and tiles of narrow storage to f32 tiles: data movement only.

/// Interleaves two 16-byte vectors: the low or the high halves of both.
template <class V>
HEADWISE_INLINE V interleave_low(V a, V b) {
  if constexpr (sizeof(a[0]) == 4)
    return __builtin_shufflevector(a, b, 0, 4, 1, 5);
  else
    return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
}
template <class V>
HEADWISE_INLINE V interleave_high(V a, V b) {
  if constexpr (sizeof(a[0]) == 4)
    return __builtin_shufflevector(a, b, 2, 6, 3, 7);
  else
    return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
}

typedef std::uint32_t Words4 __attribute__((vector_size(16)));
typedef std::uint16_t Words8 __attribute__((vector_size(16)));

/// An N × N block of units (N = 16 bytes / unit): out[u·out_stride + t] = in[t][u]. Strides in bytes.
/// log2 N rounds of perfect shuffles transpose N vectors of N units.
template <class V>
HEADWISE_INLINE void transpose_block(const char* in, Index in_stride, char* out, Index out_stride) {
  constexpr int N = sizeof(V) / sizeof(V{}[0]);
  V v[N], w[N];
  HEADWISE_UNROLL for (int t = 0; t < N; ++t) std::memcpy(&v[t], in + t * in_stride, sizeof(V));
  HEADWISE_UNROLL for (int round = 1; round < N; round *= 2) {
    HEADWISE_UNROLL for (int i = 0; i < N / 2; ++i) {
      w[2 * i] = interleave_low(v[i], v[i + N / 2]);
      w[2 * i + 1] = interleave_high(v[i], v[i + N / 2]);
    }
    HEADWISE_UNROLL for (int i = 0; i < N; ++i) v[i] = w[i];
  }
  HEADWISE_UNROLL for (int u = 0; u < N; ++u) std::memcpy(out + u * out_stride, &v[u], sizeof(V));
}

/// A unit is what stays together: one element, or a pair of bf16. K: [token][unit] → per block [unit][16 tokens].
template <class Step>
void pack_keys(const void* rows, Index stride, Index tokens, Index head_dim, void* tile) {
  constexpr Index kUnitBytes = Step::kLaneBytes;
  using V = std::conditional_t<kUnitBytes == 4, Words4, Words8>;
  constexpr Index N = sizeof(V) / kUnitBytes;
  const Index units = padded_head_dim(head_dim) / Step::kKappa, whole_units = head_dim / Step::kKappa / N * N;
  const Index whole_tokens = tokens / N * N, bytes = size_of(Step::kStorage);
  auto* out = static_cast<char*>(tile);
  const auto* in = static_cast<const char*>(rows);
  if (tokens < kTileTokens || head_dim % 8 != 0)
    std::memset(tile, 0, static_cast<std::size_t>(key_tile_bytes(Step::kStorage, head_dim)));
  for (Index t = 0; t < whole_tokens; t += N) {
    char* block = out + (t / kBlockTokens * units * kBlockTokens + t % kBlockTokens) * kUnitBytes;
    for (Index u = 0; u < whole_units; u += N)
      transpose_block<V>(in + t * stride + u * kUnitBytes, stride, block + u * kBlockTokens * kUnitBytes,
                         kBlockTokens * kUnitBytes);
  }
  for (Index t = 0; t < tokens; ++t)
    for (Index d = t < whole_tokens ? whole_units * Step::kKappa : 0; d < head_dim; ++d)
      std::memcpy(out + key_index(Step::kStorage, head_dim, t, d) * bytes, in + t * stride + d * bytes,
                  static_cast<std::size_t>(bytes));
}

/// V: [token][dim] → panels; rows of a panel are copied, pairs of bf16 rows interleaved.
template <class Step>
void pack_values(const void* rows, Index stride, Index tokens, Index value_dim, void* tile) {
  constexpr Index kBytes = size_of(Step::kStorage), kChunk = 16 / kBytes;
  const Index whole_tokens = tokens / Step::kKappa * Step::kKappa, whole_dims = value_dim / kChunk * kChunk;
  auto* out = static_cast<char*>(tile);
  const auto* in = static_cast<const char*>(rows);
  if (tokens < kTileTokens || value_dim % 16 != 0)
    std::memset(tile, 0, static_cast<std::size_t>(value_tile_bytes(Step::kStorage, value_dim)));
  for (Index t = 0; t < whole_tokens; t += Step::kKappa)
    for (Index d = 0; d < whole_dims; d += kChunk) {
      char* to = out + value_index(Step::kStorage, value_dim, t, d) * kBytes;
      const char* from = in + t * stride + d * kBytes;
      if constexpr (Step::kKappa == 1) {
        std::memcpy(to, from, 16);
      } else {
        Words8 a, b;
        std::memcpy(&a, from, 16);
        std::memcpy(&b, from + stride, 16);
        const Words8 low = interleave_low(a, b), high = interleave_high(a, b);
        std::memcpy(to, &low, 16);
        std::memcpy(to + 16, &high, 16);
      }
    }
  for (Index t = 0; t < tokens; ++t)
    for (Index d = t < whole_tokens ? whole_dims : 0; d < value_dim; ++d)
      std::memcpy(out + value_index(Step::kStorage, value_dim, t, d) * kBytes, in + t * stride + d * kBytes,
                  static_cast<std::size_t>(kBytes));
}

/// `steps` steps of `width` lanes each, to kKappa rows of `width` floats per step.
template <class Step>
HEADWISE_INLINE void widen(const char* in, Index steps, Index width, float* out) {
  for (Index s = 0; s < steps; ++s, out += width * Step::kKappa)
    for (Index lane = 0; lane < width; lane += kLanes) {
      const char* at = in + (s * width + lane) * Step::kLaneBytes;
      if constexpr (Step::kStorage == Storage::bf16) {
        const I pair = load_bits(at);
        store(out + lane, (F)(pair << 16));
        store(out + width + lane, (F)(pair & static_cast<std::int32_t>(0xffff0000u)));
      } else {
        store(out + lane, load_as_f32(at, Step::kStorage, 0));
      }
    }
}

template <class Step>
void widen_keys(const void* tile, Index head_dim, float* out) {
  widen<Step>(static_cast<const char*>(tile), kTileTokens / kBlockTokens * padded_head_dim(head_dim) / Step::kKappa,
              kBlockTokens, out);
}

template <class Step>
void widen_values(const void* tile, Index value_dim, float* out) {
  const auto* in = static_cast<const char*>(tile);
  for (Index d = 0; d < padded_value_dim(value_dim); d += kPanelDims)
    widen<Step>(in + d * kTileTokens * size_of(Step::kStorage), kTileTokens / Step::kKappa, panel_dims(value_dim, d),
                out + d * kTileTokens);
}

/// 0·x is 0 for finite x and NaN otherwise.
template <class Step>
bool all_finite(const void* values, Index value_dim) {
  const Index count = kTileTokens * padded_value_dim(value_dim);
  F probe = zero();
  for (Index i = 0; i < count; i += kLanes) probe = fma(load_as_f32(values, Step::kStorage, i), zero(), probe);
  return !any(not_le(probe, zero()));
}
