// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include "headwise/attention/problem.hpp"
#include "headwise/attention/work_item.hpp"
#include "headwise/core/tile_layout.hpp"
#include "headwise/kernel/table.hpp"

namespace headwise::detail {

/// The tiles of one KV head on the way of a work item: where they lie, or where they are packed to, and what the kernels
/// bring into L2 meanwhile.
///
/// The hardware's prefetchers stop at every page and keep too few lines under way for arithmetic and memory to overlap. A
/// few rows walk the stream at its own pace, so what lies a little ahead is asked for (4 rows, f32, one thread of Emerald
/// Rapids: 89 % of the roofline at 8 KiB, 71 at 2 KiB, 67 without), in the next tile where this one ends. Many rows stay
/// with a span of keys for long: the requests are spread over all of them, one phase ahead, the values while the keys are
/// met and the next tile's keys while the values are (32 rows: 56 → 80 %).
/// Where values are made of the keys, both phases ask for the next tile's keys.
/// Of the caller's memory, a few rows ask for what will be packed next: the values, then the next head's or tile's keys.
class TileStream {
 public:
  TileStream(const Problem& call, const WorkItem& item, Index kv_head, void* packed)
      : source_(call.source),
        item_(item),
        kv_head_(kv_head),
        packed_(packed),
        key_bytes_(key_tile_bytes(source_.format.key_storage, source_.format.head_dim)),
        value_bytes_(source_.format.value_bytes()) {}

  /// Whether it asks its source for a tile before that is opened.
  bool asks_ahead() const { return !packs(); }

  /// The keys of a tile, and what comes behind it: tile `next`, if that is before `end`.
  const void* open(Index tile, Index next, Index end, Index keys) {
    index_ = tile;
    next_index_ = next;
    keys_ = keys;
    if (packs()) {
      tile_.keys = source_.pack_keys(source_.self, item_.sequence, kv_head_, tile, keys_, packed_);
      return tile_.keys;
    }
    tile_ = tile == asked_ ? next_ : source_.tile(source_.self, item_.sequence, kv_head_, tile);
    if (next_index_ < end) {
      asked_ = next_index_;
      next_ = source_.tile(source_.self, item_.sequence, kv_head_, asked_);
    } else {
      asked_ = -1;  // the tile that was asked for is not kept: it may be opened again
      next_ = {};
    }
    return tile_.keys;
  }

  /// Its values, which take the place of packed keys.
  const void* values() {
    if (packs()) tile_.values = source_.pack_values(source_.self, item_.sequence, kv_head_, index_, keys_, packed_);
    return tile_.values;
  }

  AheadArgs ahead_of_keys() const {
    if (packs())
      return at_streams_pace() ? source_.rows_of_values(source_.self, item_.sequence, kv_head_, index_)
                               : AheadArgs{tile_.keys, 0};
    if (source_.format.values_in_keys) {
      if (at_streams_pace()) return a_little_ahead(tile_.keys, key_bytes_, next_.keys);
      return {next_.keys, next_.keys ? key_bytes_ / 2 : 0};
    }
    if (at_streams_pace()) return a_little_ahead(tile_.keys, key_bytes_, tile_.values);
    return {tile_.values, value_bytes_};
  }
  AheadArgs ahead_of_values() const {
    if (packs()) {
      if (!at_streams_pace()) return {tile_.values, 0};
      const bool last = kv_head_ + 1 == item_.kv_head + item_.kv_heads;
      return source_.rows_of_keys(source_.self, item_.sequence, last ? item_.kv_head : kv_head_ + 1,
                                  last ? next_index_ : index_);
    }
    if (source_.format.values_in_keys) {  // made of the keys: what is left of the next tile
      if (at_streams_pace() || !next_.keys) return {tile_.keys, 0};
      return {static_cast<const char*>(next_.keys) + key_bytes_ / 2, key_bytes_ / 2};
    }
    if (at_streams_pace()) return a_little_ahead(tile_.values, value_bytes_, next_.keys);
    return {next_.keys, next_.keys ? key_bytes_ : 0};
  }

 private:
  bool packs() const { return !source_.tile; }
  bool at_streams_pace() const { return item_.rows <= kStreamRows; }

  /// While [from, from + bytes) is read: what lies 8 KiB behind, as if `then` came next in memory.
  static AheadArgs a_little_ahead(const void* from, Index bytes, const void* then) {
    constexpr Index kAheadBytes = 8192, kQuarters = kTileTokens / kBlockTokens, kMostOfARow = 512;
    const char* const begin = static_cast<const char*>(from);
    if (then == begin + bytes) return {begin + kAheadBytes, bytes};
    if (!then) return {begin + std::min(kAheadBytes, bytes), std::max<Index>(0, bytes - kAheadBytes)};
    const Index quarter = bytes / kQuarters, shift = std::clamp<Index>(kAheadBytes / quarter, 1, kQuarters);
    if (shift == kQuarters) return {then, bytes};
    const Index row = bytes / kTileTokens;
    if (row > kMostOfARow) return {begin + kAheadBytes, bytes - kAheadBytes};
    AheadArgs ahead{nullptr, 0, row, row};
    for (Index i = 0; i < kQuarters; ++i)
      ahead.rows[i] = i + shift < kQuarters ? begin + (i + shift) * quarter
                                            : static_cast<const char*>(then) + (i + shift - kQuarters) * quarter;
    return ahead;
  }

  const SourceRef& source_;
  const WorkItem& item_;
  Index kv_head_;
  void* packed_;
  Index key_bytes_, value_bytes_;  // of a stored tile
  Index index_ = 0, next_index_ = 0, keys_ = 0, asked_ = -1;
  TilePointers tile_{}, next_{};  // next_ is tile asked_, null where there is none
};

}  // namespace headwise::detail
