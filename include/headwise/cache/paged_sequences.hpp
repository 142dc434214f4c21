// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <span>

#include "headwise/cache/cache_options.hpp"
#include "headwise/cache/check.hpp"
#include "headwise/cache/page_moves.hpp"
#include "headwise/cache/page_store.hpp"
#include "headwise/cache/sequence_slots.hpp"
#include "headwise/cache/token_store.hpp"
#include "headwise/core/error.hpp"

namespace headwise {

template <CacheStorage K, CacheStorage V>
class PagedCache;

/// Some sequences of a PagedCache as saving and restoring see them: a TokenStore in which sequence b is ids[b]. Refers to
/// the cache and to the caller's ids, which must outlive it.
class PagedSequences {
 public:
  Index num_sequences() const { return std::ssize(ids_); }
  Index num_storages() const { return store_->num_storages(); }
  TileFormat storage_format(Index storage) const { return at(storage).format(); }
  KeyTransform storage_transform(Index storage) const { return at(storage).key_transform(); }
  TokenRange kept(Index storage, Index sequence) const {
    at(storage);
    return {0, 0, table(sequence).tokens[static_cast<std::size_t>(storage)]};
  }
  const std::byte* stored_tile(Index storage, Index sequence, Index kv_head, Index index) const {
    const Index tokens = kept(storage, sequence).end, heads = at(storage).format().num_kv_heads;
    require(kv_head >= 0 && kv_head < heads, "kv_head (", kv_head, ") must be 0 to num_kv_heads - 1 (", heads - 1, ")");
    require(index >= 0 && index < ceil_div(tokens, kTileTokens), "index (", index, ") of a tile must be one of the ",
            ceil_div(tokens, kTileTokens), " that hold tokens");
    return store_->tile(storage, table(sequence), kv_head, index);
  }

  /// As TokenStore says; pages hold all tokens from the first on, so `ranges` must have no gap. Throws OutOfPages too.
  template <class Fill>
  void restore_sequence(Index sequence, std::span<const TokenRange> ranges, Fill fill) {
    detail::PageTable& to = table(sequence);
    detail::check_ranges(ranges, num_storages(), detail::kMaxTokens);
    Index most = 0;
    for (std::size_t s = 0; s < ranges.size(); ++s) {
      require(ranges[s].begin == ranges[s].sinks, "ranges[", s, "] (sinks ", ranges[s].sinks, ", begin ",
              ranges[s].begin, ") must have no gap: a PagedCache holds all tokens from the first on");
      most = std::max(most, ranges[s].end);
    }
    if (most > 0) store_->make_writable({&to, 0, most});
    for (Index s = 0; s < num_storages(); ++s) {
      Index& stored = to.tokens[static_cast<std::size_t>(s)];
      stored = ranges[static_cast<std::size_t>(s)].end;
      for (Index g = 0; g < at(s).format().num_kv_heads; ++g)
        for (Index i = 0; i < ceil_div(stored, kTileTokens); ++i) fill(s, g, i, store_->tile(s, to, g, i));
      detail::clear_rest(*store_, s, to, stored);
    }
    to.intact = detail::PageTable{}.intact;
    store_->shrink(to, store_->pages_of(most));
  }

 private:
  template <CacheStorage K, CacheStorage V>
  friend class PagedCache;
  PagedSequences(detail::PageStore& store, detail::SequenceSlots& sequences, std::span<const SequenceId> ids)
      : store_(&store), sequences_(&sequences), ids_(ids) {}

  const detail::PageTiles& at(Index storage) const {
    require(storage >= 0 && storage < num_storages(), "storage (", storage, ") must be 0 to num_storages - 1 (",
            num_storages() - 1, ")");
    return store_->tiles(storage);
  }
  detail::PageTable& table(Index sequence) const {
    require(sequence >= 0 && sequence < num_sequences(), "sequence (", sequence, ") must be 0 to num_sequences - 1 (",
            num_sequences() - 1, ")");
    return sequences_->at(ids_[static_cast<std::size_t>(sequence)]);
  }

  detail::PageStore* store_;
  detail::SequenceSlots* sequences_;
  std::span<const SequenceId> ids_;
};

static_assert(TokenStore<PagedSequences>);

}  // namespace headwise
