// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "headwise/core/index.hpp"
#include "headwise/core/tile_layout.hpp"
#include "headwise/score/interval.hpp"

// What a thread does in one go: some rows against some segments of keys.

namespace headwise::detail {

/// Most rows that walk the tiles together. Decode keeps a whole group up to here, so K and V are read once.
inline constexpr Index kMaxRows = 128;
/// Rows of a prefill row tile: their queries, scores and outputs stay in L2 beside the tile.
inline constexpr Index kPrefillRows = 96;
/// The same where tiles are packed on the way, so that more rows share that work.
inline constexpr Index kPackedPrefillRows = 3 * kPrefillRows;
/// Most rows of any work item.
inline constexpr Index kMostRows = std::max(kMaxRows, kPackedPrefillRows);
/// Tokens of a segment, at absolute positions: each is summed from scratch and merged in order, always, so that it may
/// as well be summed on another thread.
inline constexpr Index kSegmentTokens = 1024;
/// Most adjacent KV heads that walk the caller's own memory together.
inline constexpr Index kMaxHeadsTogether = 8;

/// Most partial sums that are alive while so many segments are summed and merged (attention/merge.hpp): blocks grow towards
/// the middle of the range and shrink towards its end.
constexpr Index merge_depth(Index segments) {
  return std::max<Index>(1, 2 * static_cast<Index>(std::bit_width(static_cast<std::uint64_t>(segments))) - 1);
}

/// To read a tile takes as long as to meet it with about so many rows.
inline constexpr Index kRowsOfReading = 8;

/// Segments [begin, end) but those of a gap, which lies between its ends: what nobody sees between sinks and windows.
struct Segments {
  Index begin = 0, end = 0;
  Interval gap{};

  Index count() const { return end - begin - (gap.end - gap.begin); }
  Index next(Index segment) const { return segment + 1 == gap.begin ? gap.end : segment + 1; }
  /// Partial sums alive while all are summed.
  Index depth() const {
    return gap.end == 0 ? merge_depth(count()) : merge_depth(gap.begin) + merge_depth(end - gap.end);
  }
  /// Those from `first` on.
  Segments from(Index first) const {
    if (first <= begin) return *this;
    if (first < gap.begin) return {first, end, gap};
    first = std::max(first, gap.end);
    return first < end ? Segments{first, end} : Segments{};
  }
  /// Calls f(begin, end) for parts of up to `step` segments, none across the gap.
  template <class F>
  void for_each_part(Index step, F f) const {
    for (Index first = begin, last; first < end; first = next(last - 1)) {
      last = std::min(first + step, first < gap.begin ? gap.begin : end);
      f(first, last);
    }
  }
};

/// The tiles that the rows of a work item may see by a tile set: those the union of the lists of
/// its blocks of queries, for each of its KV heads.
struct ItemTiles {
  const std::uint64_t* first = nullptr;  // of the first KV head; null: all tiles
  Index words = 0;                       // of a list
  Index blocks = 1;                      // lists of a KV head, one behind another, of which a tile may be in any
  Index kv_heads = 1, of_next_head = 0;  // words from the lists of one KV head to those of the next

  bool any() const { return first != nullptr; }
  /// How many of tiles [begin, end), summed over the KV heads.
  Index count(Index begin, Index end) const {
    Index total = 0;
    for (Index g = 0; g < kv_heads; ++g)
      for (Index word = begin / kTileTokens; word * kTileTokens < end; ++word) {
        std::uint64_t bits = 0;
        for (Index b = 0; b < blocks && word < words; ++b) bits |= first[g * of_next_head + b * words + word];
        const Index at = word * kTileTokens;
        if (begin > at) bits &= ~std::uint64_t{0} << (begin - at);
        if (end < at + kTileTokens) bits &= (std::uint64_t{1} << (end - at)) - 1;
        total += std::popcount(bits);
      }
    return total;
  }
};

/// A sequence all of whose rows, from `first_row` of the work item on, meet the segments of a prefix together with others'.
struct Member {
  Index sequence, first_row;
};

/// Rows [first_row, first_row + rows) of each of a sequence's KV heads [kv_head, kv_head + kv_heads) against the segments
/// [segments.begin, segments.end). One KV head, or a few whose rows lie side by side in the caller's memory.
/// Or all rows of one KV head of several sequences, the members, against segments that are the same to all.
struct WorkItem {
  Index sequence, kv_head, kv_heads, first_row, rows;
  Segments segments;
  Index end;           // of the keys that some row sees
  Interval hidden;     // those before it that none sees
  Index partial = -1;  // where the item's partial sums start, in rows; −1: it finishes its rows itself
  const Member* members = nullptr;
  Index num_members = 0;
  ItemTiles listed{};

  /// About how long it takes, in keys met by one row.
  Index cost() const {
    if (listed.any()) {
      const Index tiles =
          listed.count(segments.begin * (kSegmentTokens / kTileTokens),
                       std::min(ceil_div(end, kTileTokens), segments.end * (kSegmentTokens / kTileTokens)));
      return (rows + kRowsOfReading) * (tiles * kTileTokens + kv_heads);
    }
    const Interval all{segments.begin * kSegmentTokens, std::min(end, segments.end * kSegmentTokens)};
    const Index unseen = std::min(all.end, hidden.end) - std::max(all.begin, hidden.begin);
    return kv_heads * (rows + kRowsOfReading) *
           (std::max<Index>(0, all.end - all.begin - std::max<Index>(0, unseen)) + 1);
  }
};

/// The parts of `part_segments` segments each that a work item became, and where each leaves its partial sums, one for
/// each block that its segments merge to: [part][KV head][depth of the part][rows].
struct Split {
  Segments segments;
  Index part_segments = 1, partial = 0, kv_heads = 1, rows = 0;

  /// Calls f(segments, where its partial sums start) for each part; returns the rows of partial sums of all.
  template <class F>
  Index for_each_part(F f) const {
    Index at = partial;
    segments.for_each_part(part_segments, [&](Index begin, Index end) {
      const Segments part{begin, end};
      f(part, at);
      at += kv_heads * part.depth() * rows;
    });
    return at - partial;
  }

  /// f(first segment, segments, where it starts in rows) for each partial sum of a KV head, in the order of the keys.
  template <class F>
  void for_each_block(Index head, F f) const {
    for_each_part([&](const Segments& part, Index at) {
      Index row = at + head * part.depth() * rows;
      for_each_aligned(part.begin, part.end, [&](Index first, Index size) {
        f(first, size, row);
        row += rows;
      });
    });
  }

  /// f(begin, size) for the blocks that segments [begin, end) merge to.
  template <class F>
  static void for_each_aligned(Index begin, Index end, F f) {
    while (begin < end) {
      Index size = 1;
      while (begin % (2 * size) == 0 && begin + 2 * size <= end) size *= 2;
      f(begin, size);
      begin += size;
    }
  }
};

/// Rows whose sums several work items have made: merged and finished after all items.
struct Finish {
  WorkItem rows;
  Split own;
  Split prefix{};        // of all members, among whose rows
  Index prefix_row = 0;  // these begin here
};

}  // namespace headwise::detail
