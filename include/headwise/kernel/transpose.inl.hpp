// SPDX-License-Identifier: MIT
// Transposition by perfect shuffles: of the caller's rows, and of keys that are values too.

typedef std::uint32_t Words4 __attribute__((vector_size(16)));
typedef std::uint16_t Halves8 __attribute__((vector_size(16)));
#if defined(__x86_64__)
typedef std::uint32_t Words16 __attribute__((vector_size(64)));
typedef std::uint16_t Halves16 __attribute__((vector_size(32)));
#endif

/// {a0, b0, a1, b1, …} of the low or the high halves of two vectors.
template <class V, std::size_t... I>
HEADWISE_INLINE V interleave_low(V a, V b, std::index_sequence<I...>) {
  return __builtin_shufflevector(a, b, (I / 2 + I % 2 * sizeof...(I))...);
}
template <class V, std::size_t... I>
HEADWISE_INLINE V interleave_high(V a, V b, std::index_sequence<I...>) {
  return __builtin_shufflevector(a, b, (I / 2 + (1 + I % 2 * 2) * sizeof...(I) / 2)...);
}
template <class V>
using Units = std::make_index_sequence<sizeof(V) / sizeof(V{}[0])>;

/// v[t][u] → v[u][t], N vectors of N units, in log2 N rounds of perfect shuffles.
template <class V, int N>
HEADWISE_INLINE void transpose(V (&v)[N]) {
  static_assert(N == sizeof(V) / sizeof(V{}[0]));
  V w[N];
  HEADWISE_UNROLL for (int round = 1; round < N; round *= 2) {
    HEADWISE_UNROLL for (int i = 0; i < N / 2; ++i) {
      w[2 * i] = interleave_low(v[i], v[i + N / 2], Units<V>{});
      w[2 * i + 1] = interleave_high(v[i], v[i + N / 2], Units<V>{});
    }
    HEADWISE_UNROLL for (int i = 0; i < N; ++i) v[i] = w[i];
  }
}
