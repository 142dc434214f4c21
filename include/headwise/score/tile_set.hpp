// SPDX-License-Identifier: MIT
#pragma once

#include <bit>
#include <cstdint>
#include <span>
#include <vector>

#include "headwise/core/checked.hpp"
#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"
#include "headwise/core/tile_layout.hpp"

namespace headwise {

/// For whom a TileSet has lists of their own; 1 serves all.
struct TileSetShape {
  Index tiles = 0;                   ///< that a list may hold: those of the longest sequence
  Index sequences = 1;               ///< 1, or those of the call
  Index kv_heads = 1;                ///< 1, or those of the call
  Index query_blocks = 1;            ///< 1, or as many as the query tokens of the longest sequence need
  Index block_tokens = kTileTokens;  ///< query tokens of a block, counted within the sequence
  friend bool operator==(const TileSetShape&, const TileSetShape&) = default;

  Index lists() const { return sequences * kv_heads * query_blocks; }
};

/// Block-sparse attention: the tiles of 64 keys (64i … 64i + 63) that the queries of each sequence, KV head and block of
/// query tokens may see, beside what the other options say. No query sees a token of another tile, and a tile that none
/// sees is never read and costs nothing. Kept as one bit per tile.
class TileSet {
 public:
  TileSet() : TileSet(TileSetShape{}) {}

  /// No tile. Throws std::invalid_argument on an impossible size.
  explicit TileSet(const TileSetShape& shape) { reset(shape); }

  /// From lists one behind another (CSR), list ((sequence · kv_heads) + kv_head) · query_blocks + block being
  /// tiles[offsets[list]] … tiles[offsets[list + 1] − 1], ascending. Throws std::invalid_argument where offsets fall or are
  /// not one more than the lists, where a list is not sorted, repeats a tile or holds one that the shape does not.
  TileSet(const TileSetShape& shape, std::span<const Index> offsets, std::span<const Index> tiles) : TileSet(shape) {
    const Index lists = shape.lists();
    require(std::ssize(offsets) == lists + 1, "offsets (", offsets.size(),
            " numbers) of a TileSet must hold one more than its lists (", lists, ")");
    require(offsets.front() == 0, "offsets[0] (", offsets.front(), ") of a TileSet must be 0");
    require(offsets.back() == std::ssize(tiles), "offsets[", lists, "] (", offsets.back(),
            ") of a TileSet must be the number of tiles (", tiles.size(), ")");
    for (Index list = 0; list < lists; ++list) {
      const Index begin = offsets[static_cast<std::size_t>(list)], end = offsets[static_cast<std::size_t>(list) + 1];
      require(end >= begin && end <= std::ssize(tiles), "offsets[", list + 1, "] (", end,
              ") of a TileSet must be the offset before it (", begin, ") to the number of tiles (", tiles.size(), ")");
      for (Index i = begin; i < end; ++i) {
        const Index tile = tiles[static_cast<std::size_t>(i)];
        require(tile >= 0 && tile < shape.tiles, "tiles[", i, "] (", tile, ") of a TileSet must be 0 to ",
                shape.tiles - 1);
        if (i > begin)
          require(tile > tiles[static_cast<std::size_t>(i) - 1], "tiles[", i, "] (", tile,
                  ") of a TileSet must be above the tile before it in its list (",
                  tiles[static_cast<std::size_t>(i) - 1], ")");
        insert_in(list, tile);
      }
    }
  }

  /// Empty, of another shape, in the memory it has.
  void reset(const TileSetShape& shape) {
    constexpr Index kMost = Index{1} << 40;
    const auto check = [&](Index size, Index least, const char* name) {
      require(size >= least && size <= kMost, name, " (", size, ") of a TileSet must be ", least, " to ", kMost);
    };
    check(shape.tiles, 0, "tiles");
    check(shape.sequences, 1, "sequences");
    check(shape.kv_heads, 1, "kv_heads");
    check(shape.query_blocks, 1, "query_blocks");
    check(shape.block_tokens, 1, "block_tokens");
    const Index words = ceil_div(shape.tiles, kTileTokens);
    Index all = words;
    bool fits = true;
    for (const Index size : {shape.sequences, shape.kv_heads, shape.query_blocks})
      fits &= !__builtin_mul_overflow(all, size, &all) && all <= kMost;
    require(fits, "lists of a TileSet of ", shape.sequences, " sequences, ", shape.kv_heads, " KV heads and ",
            shape.query_blocks, " blocks of queries must be less than 2^40 words of tiles");
    shape_ = shape;
    words_ = words;
    bits_.assign(static_cast<std::size_t>(all), 0);
  }

  const TileSetShape& shape() const { return shape_; }

  /// Adds a tile to the list of a sequence, KV head and block of queries, each below the shape's. Throws
  /// std::invalid_argument otherwise.
  void insert(Index sequence, Index kv_head, Index block, Index tile) {
    const auto check = [](Index i, Index size, const char* name) {
      require(i >= 0 && i < size, name, " (", i, ") must be 0 to ", size - 1, " of the TileSet");
    };
    check(sequence, shape_.sequences, "sequence");
    check(kv_head, shape_.kv_heads, "kv_head");
    check(block, shape_.query_blocks, "block");
    check(tile, shape_.tiles, "tile");
    insert_in(list_of(sequence, kv_head, block), tile);
  }

  /// Whether query token `token` of a sequence may see a tile through a KV head.
  bool contains(Index sequence, Index kv_head, Index token, Index tile) const {
    if (tile < 0 || tile >= shape_.tiles) return false;
    return list_for(sequence, kv_head, token)[tile / kTileTokens] >> (tile % kTileTokens) & 1;
  }

  /// The tiles of a list, as numbers.
  std::vector<Index> tiles(Index sequence, Index kv_head, Index block = 0) const {
    std::vector<Index> result;
    for (Index tile = 0; tile < shape_.tiles; ++tile)
      if (contains(sequence, kv_head, block * shape_.block_tokens, tile)) result.push_back(tile);
    return result;
  }

  /// The bits of the list that query token `token` of a sequence goes by for a KV head: of tile i, bit i mod 64 of word
  /// i / 64, of num_words() words.
  const std::uint64_t* list_for(Index sequence, Index kv_head, Index token) const {
    const auto or_first = [](Index i, Index size, const char* name) {
      return size == 1 ? 0 : detail::checked_index(i, size, name);
    };
    return bits_.data() + words_ * list_of(or_first(sequence, shape_.sequences, "sequence of the tile set"),
                                           or_first(kv_head, shape_.kv_heads, "KV head of the tile set"),
                                           or_first(token / shape_.block_tokens, shape_.query_blocks,
                                                    "block of queries of the tile set"));
  }
  Index num_words() const { return words_; }

 private:
  Index list_of(Index sequence, Index kv_head, Index block) const {
    return (sequence * shape_.kv_heads + kv_head) * shape_.query_blocks + block;
  }
  void insert_in(Index list, Index tile) {
    bits_[static_cast<std::size_t>(list * words_ + tile / kTileTokens)] |= std::uint64_t{1} << (tile % kTileTokens);
  }

  TileSetShape shape_;
  Index words_ = 0;
  std::vector<std::uint64_t> bits_;  // [sequence][KV head][block][word]
};

}  // namespace headwise
