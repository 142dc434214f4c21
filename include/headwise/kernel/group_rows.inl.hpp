// SPDX-License-Identifier: MIT
// Queries as the register tiles of scores meet them: where an ISA multiplies by a number in memory, the rows of a tile side
// by side.

/// kLanes elements of `count` rows, at most as many, to `out`, [element][row]; what a vector holds beyond the rows is
/// overwritten next.
HEADWISE_INLINE void group_elements(const char* in, Index row_bytes, Index count, char* out) {
  F v[kLanes];
  HEADWISE_UNROLL for (int i = 0; i < kLanes; ++i) {
    v[i] = zero();
    if (i < count) std::memcpy(&v[i], in + i * row_bytes, sizeof(F));
  }
  transpose(v);
  HEADWISE_UNROLL for (int i = 0; i < kLanes; ++i) std::memcpy(out + i * count * 4, &v[i], sizeof(F));
}

inline void group_rows(void* queries, Index rows, Index elements, void* scratch) {
  char* group = static_cast<char*>(queries);
  char* const out = static_cast<char*>(scratch);
  for (Index row = 0, count; row < rows; row += count, group += count * elements * 4) {
    count = score_rows_at_once(rows - row, rows);
    if (count <= kSmallRows) continue;
    Index e = 0;
    for (; e + kLanes <= elements; e += kLanes) group_elements(group + e * 4, elements * 4, count, out + e * count * 4);
    for (; e < elements; ++e)
      for (Index i = 0; i < count; ++i) std::memcpy(out + (e * count + i) * 4, group + (i * elements + e) * 4, 4);
    std::memcpy(group, out, static_cast<std::size_t>(count * elements * 4));
  }
}
