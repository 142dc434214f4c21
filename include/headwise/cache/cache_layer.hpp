// SPDX-License-Identifier: MIT
#pragma once

#include "headwise/cache/cache_options.hpp"
#include "headwise/cache/layer_tiles.hpp"
#include "headwise/cache/tile_source.hpp"
#include "headwise/core/tile_layout.hpp"

namespace headwise {

template <CacheStorage K, CacheStorage V>
class KvCache;

/// One layer of a KvCache as a source of tiles. Refers to the cache, which must outlive it; appends show through it.
class CacheLayer {
 public:
  TileFormat format() const { return tiles_->format(); }
  Index num_sequences() const { return tiles_->num_sequences(); }
  Index num_tokens(Index sequence) const { return tiles_->num_tokens(sequence); }
  TilePointers tile(Index sequence, Index kv_head, Index index) const {
    const std::byte* keys = tiles_->tile(sequence, kv_head, index);
    return {keys, keys + tiles_->format().key_bytes()};
  }
  /// What was done to the keys, and is to be done to queries.
  KeyTransform key_transform() const { return tiles_->key_transform(); }
  /// Which tokens are still there.
  TokenRange kept(Index sequence) const { return tiles_->kept(sequence); }

 private:
  template <CacheStorage K, CacheStorage V>
  friend class KvCache;
  explicit CacheLayer(const detail::LayerTiles& tiles) : tiles_(&tiles) {}

  const detail::LayerTiles* tiles_;
};

static_assert(TileSource<CacheLayer>);

}  // namespace headwise
