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

/// Bytes of scratch that SourceRef::tile may use: a tile, and a tile's rows made dense.
inline Index tile_scratch_bytes(const TileFormat& format) {
  const Index keys = key_tile_bytes(format.key_storage, format.head_dim);
  const Index values = value_tile_bytes(format.value_storage, format.value_dim);
  return keys + values + std::max(keys, values);
}

inline SourceRef source_ref(const KvRows& rows) {
  const TileFormat format{rows.keys().storage, rows.values().storage, rows.keys().heads, rows.keys().dim,
                          rows.values().dim};
  return {&rows, format, rows.keys().sequences,
          [](const void* self, Index) { return static_cast<const KvRows*>(self)->keys().tokens; },
          [](const void* self, Index sequence, Index kv_head, Index index, Index keys, void* scratch) {
            const auto& source = *static_cast<const KvRows*>(self);
            const ConstArray &k = source.keys(), &v = source.values();
            const TileKernels& kernels = tile_kernels();
            char* values = static_cast<char*>(scratch) + key_tile_bytes(k.storage, k.dim);
            char* dense = values + value_tile_bytes(v.storage, v.dim);
            const Index first = index * kTileTokens, count = std::min(kTileTokens, keys - first);
            pack_rows(k, kernels.pack_keys[static_cast<int>(k.storage)], sequence, first, count, kv_head, scratch,
                      dense);
            pack_rows(v, kernels.pack_values[static_cast<int>(v.storage)], sequence, first, count, kv_head, values,
                      dense);
            return TilePointers{scratch, values};
          }};
}

}  // namespace headwise::detail
