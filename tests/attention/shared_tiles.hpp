// SPDX-License-Identifier: MIT
#pragma once

#include "tests/attention/ragged.hpp"

// Sequences that begin in the tiles of another one.

namespace headwise::testing {

/// The first `tokens` tokens of a sequence are those of sequence `of`, in the very same tiles.
struct Borrowed {
  Index of = 0, tokens = 0;
};

/// The keys and values of a ragged batch, of which each sequence borrows the first whole tiles of another.
template <class T>
class SharedTiles {
 public:
  SharedTiles(const RaggedBatch& batch, std::vector<Borrowed> borrowed)
      : own_(cache_of<T>(batch.keys)), tokens_(batch.key_lengths), borrowed_(std::move(borrowed)) {}

  TileFormat format() const { return own_.layer().format(); }
  Index num_sequences() const { return std::ssize(tokens_); }
  Index num_tokens(Index b) const { return tokens_[static_cast<std::size_t>(b)]; }
  TilePointers tile(Index b, Index kv_head, Index index) const {
    return own_.layer().tile(owner(b, index), kv_head, index);
  }
  Index shared_tokens(Index a, Index b) const {
    Index tile = 0;
    while (kTileTokens * (tile + 1) <= std::min(num_tokens(a), num_tokens(b)) && owner(a, tile) == owner(b, tile))
      ++tile;
    return tile * kTileTokens;
  }

 private:
  Index owner(Index b, Index tile) const {
    const auto& [of, tokens] = borrowed_[static_cast<std::size_t>(b)];
    return kTileTokens * (tile + 1) <= tokens ? of : b;
  }

  KvCache<T> own_;
  std::vector<Index> tokens_;
  std::vector<Borrowed> borrowed_;  // by each sequence
};

}  // namespace headwise::testing
