// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstring>

#include "headwise/attention/problem.hpp"
#include "headwise/cache/kv_blocks.hpp"
#include "headwise/cache/kv_rows.hpp"
#include "headwise/core/checked.hpp"
#include "headwise/kernel/dispatch.hpp"

namespace headwise::detail {

/// A row of an array with any dim stride, element by element: dense memory goes through the pack kernels instead.
inline void gather_elements(const ConstArray& array, const char* row, void* out) {
  const auto bytes = static_cast<std::size_t>(size_of(array.storage));
  for (Index d = 0; d < array.dim; ++d)
    std::memcpy(static_cast<char*>(out) + static_cast<std::size_t>(d) * bytes,
                row + d * array.strides.dim * size_of(array.storage), bytes);
}

/// The row of token `t` and head `h`.
inline void gather_row(const ConstArray& array, Index b, Index t, Index h, void* out) {
  gather_elements(array, static_cast<const char*>(array.row(b, t, h)), out);
}

using PackKernel = void (*)(const char* const* rows, Index tokens, Index dim, void* tile);

/// Where a token's row lies in arrays of the caller's, and how many tokens from it on lie one behind another.
struct RowPlace {
  Index sequence, token, run;
};
inline RowPlace place_of(const KvRows& rows, Index b, Index token) { return {b, token, rows.keys().tokens - token}; }
inline RowPlace place_of(const KvBlocks& blocks, Index b, Index token) {
  const Index size = blocks.block_size(), slot = token % size;
  return {blocks.block_of(b, token), slot, std::min(size - slot, blocks.num_tokens(b) - token)};
}
inline Index tokens_of(const KvRows& rows, Index) { return rows.keys().tokens; }
inline Index tokens_of(const KvBlocks& blocks, Index b) { return blocks.num_tokens(b); }

/// The rows of a tile of a KV head and of those behind it, as the pack kernels take them.
class RowList {
 public:
  /// Tokens from `first` on; the last again where there are no more.
  template <class S>
  RowList(const S& source, const ConstArray& array, Index b, Index first, Index h) {
    const Index end = std::min(kRows, tokens_of(source, b) - first);
    require_index(first >= 0 && end > 0, "tile of tokens from ", first, " on of sequence ", b, " (of ",
                  tokens_of(source, b), " tokens) must begin with one of these");
    Index listed = 0;
    while (listed < end) {
      const RowPlace place = place_of(source, b, first + listed);
      require_index(place.run > 0, "lengths of sequence ", b, " have changed during the call");
      const Index stop = std::min(end, listed + place.run);
      list(array.row(place.sequence, place.token, h), array.strides.token * size_of(array.storage), listed, stop);
      listed = stop;
    }
    list(rows_[listed - 1], 0, listed, kRows);
  }
  /// Of `count` rows that lie dense.
  RowList(const void* rows, Index stride, Index count) {
    list(rows, stride, 0, count);
    list(rows, 0, count, kRows);
  }

  const char* const* data() const { return rows_; }

 private:
  static constexpr Index kRows = kTileTokens + kRowsAhead;

  void list(const void* row, Index stride, Index begin, Index end) {
    const char* at = static_cast<const char*>(row);
    for (Index i = begin; i < end; ++i) rows_[i] = at + (i - begin) * stride;
  }

  const char* rows_[static_cast<std::size_t>(kRows)];
};

/// Tokens [first, first + count) of a KV head of the caller's memory to one tile; tokens beyond are not read. `dense` has
/// room for a tile's rows.
template <class S>
void pack_rows(const S& source, const ConstArray& array, PackKernel pack, Index b, Index first, Index count, Index h,
               void* tile, void* dense) {
  const RowList rows(source, array, b, first, h);
  if (array.strides.dim == 1 || array.dim == 1) return pack(rows.data(), count, array.dim, tile);
  const Index stride = array.dim * size_of(array.storage);
  for (Index t = 0; t < count; ++t) gather_elements(array, rows.data()[t], static_cast<char*>(dense) + t * stride);
  pack(RowList(dense, stride, count).data(), count, array.dim, tile);
}

/// The rows of tile `index`, or of the last tile, where `index` is beyond: what packing it will read. None where they lie
/// in shorter runs than are asked for at a time.
template <class S>
AheadArgs rows_of(const S& source, const ConstArray& array, Index b, Index h, Index index) {
  const Index bytes = size_of(array.storage), last = tokens_of(source, b) - 1;
  if (array.tokens < kBlockTokens) return {array.data, 0};
  require_index(last >= 0, "sequence ", b, " (of no tokens any more) must have rows to fetch");
  AheadArgs ahead{nullptr, 0, array.dim * bytes, array.strides.token * bytes};
  for (Index i = 0; i < kTileTokens / kBlockTokens; ++i) {
    const Index token = std::min(index, last / kTileTokens) * kTileTokens + i * kBlockTokens;
    const RowPlace place = place_of(source, b, std::min(token, last));
    ahead.rows[i] = static_cast<const char*>(array.row(place.sequence, place.token, h));
  }
  return ahead;
}

/// Bytes of scratch that packing one of K and V may use: a tile, and a tile's rows made dense.
inline Index pack_scratch_bytes(const TileFormat& format) {
  return 2 * std::max(key_tile_bytes(format.key_storage, format.head_dim),
                      value_tile_bytes(format.value_storage, format.value_dim));
}

/// The head of K or of V that a KV head reads, where one of them has fewer heads than there are KV heads.
template <class S>
Index head_of(const S& source, const ConstArray& array, Index kv_head) {
  return kv_head * array.heads / std::max(source.keys().heads, source.values().heads);
}

/// What differs between keys and values: the array, the kernels that pack it, and the bytes of a tile of it.
template <class S, const ConstArray& (S::*kArray)() const, PackKernel (TileKernels::*kPack)[kStorages],
          Index (*kTileBytes)(Storage, Index)>
struct PackedRows {
  static const void* pack(const void* self, Index sequence, Index kv_head, Index index, Index keys, void* scratch) {
    const S& source = *static_cast<const S*>(self);
    const ConstArray& array = (source.*kArray)();
    const Index first = index * kTileTokens;
    pack_rows(source, array, (tile_kernels().*kPack)[static_cast<int>(array.storage)], sequence, first,
              std::min(kTileTokens, keys - first), head_of(source, array, kv_head), scratch,
              static_cast<char*>(scratch) + kTileBytes(array.storage, array.dim));
    return scratch;
  }
  static AheadArgs rows(const void* self, Index sequence, Index kv_head, Index index) {
    const S& source = *static_cast<const S*>(self);
    const ConstArray& array = (source.*kArray)();
    return rows_of(source, array, sequence, head_of(source, array, kv_head), index);
  }
};

template <class S>
SourceRef packed_source_ref(const S& source, Index sequences) {
  using Keys = PackedRows<S, &S::keys, &TileKernels::pack_keys, key_tile_bytes>;
  using Values = PackedRows<S, &S::values, &TileKernels::pack_values, value_tile_bytes>;
  const ConstArray &k = source.keys(), &v = source.values();
  return {
      &source,      {k.storage, v.storage, std::max(k.heads, v.heads), k.dim, v.dim},
      sequences,    [](const void* self, Index sequence) { return tokens_of(*static_cast<const S*>(self), sequence); },
      nullptr,      Keys::pack,
      Values::pack, Keys::rows,
      Values::rows};
}

inline SourceRef source_ref(const KvRows& rows) { return packed_source_ref(rows, rows.keys().sequences); }
inline SourceRef source_ref(const KvBlocks& blocks) { return packed_source_ref(blocks, blocks.num_sequences()); }

}  // namespace headwise::detail
