// SPDX-License-Identifier: MIT
#pragma once

#include "headwise/cache/layer_tiles.hpp"
#include "headwise/cache/tile_source.hpp"
#include "headwise/core/tile_layout.hpp"

namespace headwise {

template <class T>
class KvCache;

/// One layer of a KvCache as a source of tiles. Refers to the cache, which must outlive it; appends show through it.
template <class T>
class CacheLayer {
 public:
  TileFormat format() const {
    const LayerShape& shape = tiles_->shape();
    return {storage_of<T>, storage_of<T>, shape.num_kv_heads, shape.head_dim, shape.value_dim};
  }
  Index num_sequences() const { return tiles_->num_sequences(); }
  Index num_tokens(Index sequence) const { return tiles_->num_tokens(sequence); }
  TilePointers tile(Index sequence, Index kv_head, Index index) const {
    const std::byte* keys = tiles_->tile(sequence, kv_head, index);
    return {keys, keys + key_tile_bytes(storage_of<T>, tiles_->shape().head_dim)};
  }

 private:
  friend class KvCache<T>;
  explicit CacheLayer(const detail::LayerTiles& tiles) : tiles_(&tiles) {}

  const detail::LayerTiles* tiles_;
};

static_assert(TileSource<CacheLayer<float>>);

}  // namespace headwise
