// SPDX-License-Identifier: MIT
#pragma once

#include "headwise/cache/tile_source.hpp"
#include "headwise/core/tile_layout.hpp"

namespace scaling {

using headwise::Index;

/// The first `tokens` tokens of a source that begins at tile `first` of another one, which it goes round: one cache of
/// full tiles serves every length, and from ever new places. Refers to it.
template <headwise::TileSource S>
class Rotated {
 public:
  Rotated(const S& source, Index first, Index tokens)
      : source_(source), first_(first), tokens_(tokens), tiles_(source.num_tokens(0) / headwise::kTileTokens) {}

  headwise::TileFormat format() const { return source_.format(); }
  Index num_sequences() const { return 1; }
  Index num_tokens(Index) const { return tokens_; }
  headwise::TilePointers tile(Index, Index kv_head, Index index) const {
    const Index tile = first_ + index;
    return source_.tile(0, kv_head, tile < tiles_ ? tile : tile - tiles_);
  }

 private:
  const S& source_;
  Index first_, tokens_, tiles_;
};

}  // namespace scaling
