// SPDX-License-Identifier: MIT
#pragma once

#include <cstring>
#include <span>
#include <vector>

#include "headwise/cache/tile_memory.hpp"
#include "headwise/cache/tile_source.hpp"
#include "headwise/core/error.hpp"
#include "headwise/core/heads.hpp"
#include "headwise/core/tile_layout.hpp"

namespace headwise {

/// Heads and dimensions of K and V of one layer.
struct LayerShape {
  Index num_kv_heads;
  Index head_dim;
  Index value_dim = 0;  ///< 0: head_dim
  friend bool operator==(const LayerShape&, const LayerShape&) = default;
};

namespace detail {

/// The tiles of one layer: [sequence][kv_head][tile]{K tile | V tile}.
struct LayerTiles {
  LayerShape shape;      // value_dim resolved
  Index tile_bytes = 0;  // of one tile, K and V
  Index max_tokens = 0;  // of each sequence
  Index tiles_per_head = 0;
  std::vector<Index> tokens;  // [sequence] stored
  TileMemory memory;

  Index num_sequences() const { return std::ssize(tokens); }
  Index& count(Index sequence) { return tokens[static_cast<std::size_t>(sequence)]; }
  Index count(Index sequence) const { return tokens[static_cast<std::size_t>(sequence)]; }
  Index offset(Index sequence, Index kv_head, Index tile) const {
    return ((sequence * shape.num_kv_heads + kv_head) * tiles_per_head + tile) * tile_bytes;
  }
  std::byte* tile(Index sequence, Index kv_head, Index i) { return memory.data() + offset(sequence, kv_head, i); }
  const std::byte* tile(Index sequence, Index kv_head, Index i) const {
    return memory.data() + offset(sequence, kv_head, i);
  }

  /// An empty layer. Throws std::invalid_argument where its bytes do not fit in 63 bits, std::bad_alloc where they are
  /// not to be had.
  static LayerTiles make(Storage storage, const LayerShape& shape, Index num_sequences, Index max_tokens) {
    LayerTiles layer;
    layer.shape = shape;
    layer.tile_bytes = headwise::tile_bytes(storage, shape.head_dim, shape.value_dim);
    layer.max_tokens = max_tokens;
    layer.tiles_per_head = ceil_div(max_tokens, kTileTokens);
    Index bytes = layer.tile_bytes;
    const bool fits = !__builtin_mul_overflow(bytes, layer.tiles_per_head, &bytes) &&
                      !__builtin_mul_overflow(bytes, shape.num_kv_heads, &bytes) &&
                      !__builtin_mul_overflow(bytes, num_sequences, &bytes);
    require(fits, "max_tokens (", max_tokens, ") of ", num_sequences, " sequences and ", shape.num_kv_heads,
            " KV heads of ", shape.head_dim, " + ", shape.value_dim, " dims must take less than 2^63 bytes");
    layer.tokens.assign(static_cast<std::size_t>(num_sequences), 0);
    layer.memory = TileMemory(bytes);
    return layer;
  }

  /// The same tokens in memory for `new_max_tokens` of each sequence.
  LayerTiles copy(Storage storage, Index new_max_tokens) const {
    LayerTiles result = make(storage, shape, num_sequences(), new_max_tokens);
    for (Index b = 0; b < num_sequences(); ++b) {
      result.count(b) = count(b);
      const Index used = ceil_div(count(b), kTileTokens) * tile_bytes;
      for (Index g = 0; g < shape.num_kv_heads && used > 0; ++g)
        std::memcpy(result.tile(b, g, 0), tile(b, g, 0), static_cast<std::size_t>(used));
    }
    return result;
  }
};

}  // namespace detail

template <class T>
class KvCache;

/// One layer of a KvCache as a source of tiles. Refers to the cache, which must outlive it; appends show through it.
template <class T>
class CacheLayer {
 public:
  TileFormat format() const {
    const LayerShape& shape = tiles_->shape;
    return {storage_of<T>, storage_of<T>, shape.num_kv_heads, shape.head_dim, shape.value_dim};
  }
  Index num_sequences() const { return tiles_->num_sequences(); }
  Index num_tokens(Index sequence) const { return tiles_->count(sequence); }
  TilePointers tile(Index sequence, Index kv_head, Index index) const {
    const std::byte* keys = tiles_->tile(sequence, kv_head, index);
    return {keys, keys + key_tile_bytes(storage_of<T>, tiles_->shape.head_dim)};
  }

 private:
  friend class KvCache<T>;
  explicit CacheLayer(const detail::LayerTiles& tiles) : tiles_(&tiles) {}

  const detail::LayerTiles* tiles_;
};

static_assert(TileSource<CacheLayer<float>>);

}  // namespace headwise
