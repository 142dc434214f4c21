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

struct Segments {
  Index begin = 0, end = 0;
  Index count() const { return end - begin; }
};

/// Rows [first_row, first_row + rows) of each of a sequence's KV heads [kv_head, kv_head + kv_heads) against the segments
/// [segments.begin, segments.end). One KV head, or a few whose rows lie side by side in the caller's memory.
struct WorkItem {
  Index sequence, kv_head, kv_heads, first_row, rows;
  Segments segments;
  Interval keys;       // that some row sees
  Index partial = -1;  // where the item's partial sums start, in rows; −1: it finishes its rows itself

  /// About how long it takes, in keys met by one row. To read a tile takes as long as to meet it with some rows.
  Index cost() const {
    const Index begin = std::max(keys.begin, segments.begin * kSegmentTokens),
                end = std::min(keys.end, segments.end * kSegmentTokens);
    return kv_heads * (rows + kRowsOfReading) * (std::max(begin, end) - begin + 1);
  }

 private:
  static constexpr Index kRowsOfReading = 8;
};

/// The parts of `part_segments` segments each that a work item became, and where each leaves its partial sums, one for
/// each block that its segments merge to: parts[part][KV head][merge_depth(part)][rows].
struct Split {
  Segments segments;
  Index part_segments = 1, partial = 0, kv_heads = 1, rows = 0;

  Index part_rows() const { return kv_heads * merge_depth(part_segments) * rows; }
  Index num_parts() const { return ceil_div(segments.count(), part_segments); }
  Segments part(Index i) const {
    const Index begin = segments.begin + i * part_segments;
    return {begin, std::min(begin + part_segments, segments.end)};
  }
  Index partial_of(Index part) const { return partial + part * part_rows(); }

  /// f(first segment, segments, where it starts in rows) for each partial sum of a KV head, in the order of the keys.
  template <class F>
  void for_each_block(Index head, F f) const {
    for (Index i = 0; i < num_parts(); ++i) {
      const auto [begin, end] = part(i);
      Index row = partial_of(i) + head * merge_depth(end - begin) * rows;
      for_each_aligned(begin, end, [&](Index first, Index size) {
        f(first, size, row);
        row += rows;
      });
    }
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
};

}  // namespace headwise::detail
