// SPDX-License-Identifier: MIT
// Queries as the register tiles of scores meet them: where an ISA multiplies by a number in memory, the rows of a tile side
// by side.

/// Elements e … e + 15 of `count` rows to `out`, [element][row]; what a vector holds beyond the rows is overwritten next.
template <class V>
HEADWISE_INLINE void group_elements(const char* in, Index row_bytes, Index count, char* out) {
  constexpr int N = sizeof(V) / 4;
  V v[N];
  HEADWISE_UNROLL for (int i = 0; i < N; ++i) {
    v[i] = V{};
    if (i < count) std::memcpy(&v[i], in + i * row_bytes, sizeof(V));
  }
  transpose(v);
  HEADWISE_UNROLL for (int i = 0; i < N; ++i) std::memcpy(out + i * count * 4, &v[i], sizeof(V));
}

template <class V>
void group_rows(void* queries, Index rows, Index elements, void* scratch) {
  constexpr Index N = sizeof(V) / 4;
  static_assert(kScoreBigRows <= N);
  char* group = static_cast<char*>(queries);
  char* const out = static_cast<char*>(scratch);
  for (Index row = 0, count; row < rows; row += count, group += count * elements * 4) {
    count = score_rows_at_once(rows - row, rows);
    if (count <= kSmallRows) continue;
    Index e = 0;
    for (; e + N <= elements; e += N) group_elements<V>(group + e * 4, elements * 4, count, out + e * count * 4);
    for (; e < elements; ++e)
      for (Index i = 0; i < count; ++i) std::memcpy(out + (e * count + i) * 4, group + (i * elements + e) * 4, 4);
    std::memcpy(group, out, static_cast<std::size_t>(count * elements * 4));
  }
}
