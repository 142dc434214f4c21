// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <span>

#include "headwise/cache/cache_options.hpp"
#include "headwise/cache/page_store.hpp"
#include "headwise/cache/sequence_slots.hpp"
#include "headwise/cache/tile_source.hpp"
#include "headwise/core/checked.hpp"

namespace headwise {

template <CacheStorage K, CacheStorage V>
class PagedCache;

/// One layer of some sequences of a PagedCache as a source of tiles: sequence b is ids[b]. Refers to the cache and to the
/// caller's ids, which must outlive it; appends show through it.
class PagedLayer {
 public:
  TileFormat format() const { return tiles_->format(); }
  Index num_sequences() const { return std::ssize(ids_); }
  Index num_tokens(Index sequence) const { return table(sequence).tokens[storage_]; }
  TilePointers tile(Index sequence, Index kv_head, Index index) const {
    const Index per_page = tiles_->tiles_per_page();
    const std::byte* const keys = tiles_->tile(table(sequence).page(index / per_page), kv_head, index % per_page);
    return {keys, keys + tiles_->format().key_bytes()};
  }
  /// What was done to the keys, and is to be done to queries.
  KeyTransform key_transform() const { return tiles_->key_transform(); }
  /// Leading tokens that two sequences hold in the very same tiles; a multiple of 64.
  Index shared_tokens(Index a, Index b) const {
    const detail::PageTable &x = table(a), &y = table(b);
    const Index most = std::min(x.tokens[storage_], y.tokens[storage_]) / kTileTokens * kTileTokens;
    const auto end = x.pages.begin() + std::min(x.num_pages(), y.num_pages());
    const Index pages = std::mismatch(x.pages.begin(), end, y.pages.begin()).first - x.pages.begin();
    return std::min(most, pages * tiles_->tiles_per_page() * kTileTokens);
  }

 private:
  template <CacheStorage K, CacheStorage V>
  friend class PagedCache;
  PagedLayer(const detail::PageTiles& tiles, const detail::SequenceSlots& sequences, std::size_t storage,
             std::span<const SequenceId> ids)
      : tiles_(&tiles), sequences_(&sequences), storage_(storage), ids_(ids) {}

  const detail::PageTable& table(Index sequence) const {
    return sequences_->table(detail::checked_at(ids_, sequence, "sequence of a PagedLayer"));
  }

  const detail::PageTiles* tiles_;
  const detail::SequenceSlots* sequences_;
  std::size_t storage_;
  std::span<const SequenceId> ids_;
};

static_assert(TileSource<PagedLayer>);

}  // namespace headwise
