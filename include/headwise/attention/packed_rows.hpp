// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstring>

#include "headwise/attention/problem.hpp"
#include "headwise/cache/kv_rows.hpp"
#include "headwise/kernel/dispatch.hpp"

namespace headwise::detail {

/// Row `t` of an array with any dim stride, element by element: dense memory goes through the pack kernels instead.
inline void gather_row(const ConstArray& array, Index b, Index t, Index h, void* out) {
  const auto* row = static_cast<const char*>(array.row(b, t, h));
  const auto bytes = static_cast<std::size_t>(size_of(array.storage));
  for (Index d = 0; d < array.dim; ++d)
    std::memcpy(static_cast<char*>(out) + static_cast<std::size_t>(d) * bytes,
                row + d * array.strides.dim * size_of(array.storage), bytes);
}

using PackKernel = void (*)(const void* rows, Index stride, Index tokens, Index dim, void* tile);

/// Tokens [first, first + count) of a KV head of the caller's memory to one tile; tokens beyond are not read. `dense` has
/// room for a tile's rows.
inline void pack_rows(const ConstArray& array, PackKernel pack, Index b, Index first, Index count, Index h, void* tile,
                      void* dense) {
  const Index bytes = size_of(array.storage);
  if (array.strides.dim == 1 || array.dim == 1) {
    pack(array.row(b, first, h), array.strides.token * bytes, count, array.dim, tile);
    return;
  }
  const Index stride = array.dim * bytes;
  for (Index t = 0; t < count; ++t) gather_row(array, b, first + t, h, static_cast<char*>(dense) + t * stride);
  pack(dense, stride, count, array.dim, tile);
}

/// The rows of tile `index` of an array, or of its last tile, where `index` is beyond.
inline AheadArgs rows_of(const ConstArray& array, Index b, Index h, Index index) {
  const Index bytes = size_of(array.storage), last = (array.tokens - 1) / kTileTokens;
  return {array.row(b, std::min(index, last) * kTileTokens, h), 0, array.dim * bytes, array.strides.token * bytes};
}

/// Bytes of scratch that packing one of K and V may use: a tile, and a tile's rows made dense.
inline Index pack_scratch_bytes(const TileFormat& format) {
  return 2 * std::max(key_tile_bytes(format.key_storage, format.head_dim),
                      value_tile_bytes(format.value_storage, format.value_dim));
}

/// What differs between keys and values: the array, the kernels that pack it, and the bytes of a tile of it.
template <const ConstArray& (KvRows::*kArray)() const, PackKernel (TileKernels::*kPack)[kStorages],
          Index (*kTileBytes)(Storage, Index)>
struct PackedRows {
  static const void* pack(const void* self, Index sequence, Index kv_head, Index index, Index keys, void* scratch) {
    const ConstArray& array = (static_cast<const KvRows*>(self)->*kArray)();
    const Index first = index * kTileTokens;
    pack_rows(array, (tile_kernels().*kPack)[static_cast<int>(array.storage)], sequence, first,
              std::min(kTileTokens, keys - first), kv_head, scratch,
              static_cast<char*>(scratch) + kTileBytes(array.storage, array.dim));
    return scratch;
  }
  static AheadArgs rows(const void* self, Index sequence, Index kv_head, Index index) {
    return rows_of((static_cast<const KvRows*>(self)->*kArray)(), sequence, kv_head, index);
  }
};
using PackedKeys = PackedRows<&KvRows::keys, &TileKernels::pack_keys, key_tile_bytes>;
using PackedValues = PackedRows<&KvRows::values, &TileKernels::pack_values, value_tile_bytes>;

inline SourceRef source_ref(const KvRows& rows) {
  const ConstArray &k = rows.keys(), &v = rows.values();
  return {&rows,
          {k.storage, v.storage, k.heads, k.dim, v.dim},
          k.sequences,
          [](const void* self, Index) { return static_cast<const KvRows*>(self)->keys().tokens; },
          nullptr,
          PackedKeys::pack,
          PackedValues::pack,
          PackedKeys::rows,
          PackedValues::rows};
}

}  // namespace headwise::detail
