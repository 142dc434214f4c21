// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

#include "headwise/attention/problem.hpp"
#include "headwise/core/tile_layout.hpp"
#include "headwise/score/interval.hpp"

// Which rows meet which tiles, on which thread. Rows are the queries of one sequence that share a KV head, token-major:
// row r is query token r / R and head r mod R of the group. None of the choices here changes a bit of the result: rows
// do not touch each other, and sums are cut at absolute segment boundaries only.

namespace headwise::detail {

/// Most rows that walk the tiles together. Decode keeps a whole group up to here, so K and V are read once.
inline constexpr Index kMaxRows = 128;
/// Rows of a prefill row tile: their queries, scores and outputs stay in L2 beside the tile.
inline constexpr Index kPrefillRows = 96;
/// The same where tiles are packed on the way, so that more rows share that work.
inline constexpr Index kPackedPrefillRows = 3 * kPrefillRows;
/// Tokens of a segment, at absolute positions: each is summed from scratch and merged in order, always, so that it may
/// as well be summed on another thread.
inline constexpr Index kSegmentTokens = 1024;

/// Most partial sums that are alive while so many segments are summed and merged (attention/merge.hpp): blocks grow towards
/// the middle of the range and shrink towards its end.
constexpr Index merge_depth(Index segments) {
  return std::max<Index>(1, 2 * static_cast<Index>(std::bit_width(static_cast<std::uint64_t>(segments))) - 1);
}

struct Segments {
  Index begin = 0, end = 0;
  Index count() const { return end - begin; }
};

/// Most adjacent KV heads that walk the caller's own memory together.
inline constexpr Index kMaxHeadsTogether = 8;

/// Rows [first_row, first_row + rows) of each of a sequence's KV heads [kv_head, kv_head + kv_heads) against the segments
/// [segments.begin, segments.end). One KV head, or a few whose rows lie side by side in the caller's memory.
struct WorkItem {
  Index sequence, kv_head, kv_heads, first_row, rows;
  Segments segments;
  Index partial;  // where the split's partial sums start, in rows; −1: not split, the item finishes its rows
  Index cost;
};

/// A work item that became several, of `part_segments` segments each.
struct SplitItem {
  WorkItem whole;
  Index part_segments;
};

/// The rows of a work item as queries and their visible keys.
class RowRange {
 public:
  RowRange(const Problem& call, const WorkItem& item)
      : RowRange(call, item.sequence, call.groups.of(item.sequence, item.kv_head).size(), item.first_row, item.rows) {}
  RowRange(const Problem& call, Index sequence, Index group, Index first_row, Index rows)
      : group_(group),
        first_row_(first_row),
        keys_(call.num_keys(sequence)),
        shift_(keys_ - call.num_queries(sequence)),
        visible_(*call.options, keys_),
        first_(visible_(position(0))),
        last_(visible_(position(rows - 1))) {}

  Index keys() const { return keys_; }
  Index token(Index row) const { return (first_row_ + row) / group_; }
  Index head_in_group(Index row) const { return (first_row_ + row) % group_; }
  Index position(Index row) const { return token(row) + shift_; }
  Interval visible(Index row) const { return visible_(position(row)); }
  /// Keys that some row sees (none where empty), and keys that every row sees: intervals move right with the row.
  Interval some() const { return {first_.begin, std::max(first_.begin, last_.end)}; }
  Interval all() const { return {last_.begin, first_.end}; }

  /// The segments that hold some visible key.
  Segments segments() const {
    const Interval keys = some();
    if (keys.begin >= keys.end) return {};
    return {keys.begin / kSegmentTokens, ceil_div(keys.end, kSegmentTokens)};
  }

 private:
  Index group_, first_row_, keys_, shift_;
  VisibleKeys visible_;
  Interval first_, last_;
};

class Plan {
 public:
  /// Reuses the memory of the plan before it.
  void make(const Problem& call, Index threads) {
    items_.clear();
    finishes_.clear();
    partial_rows_ = 0;
    // groups that are empty in this call may not be in the next, which should not allocate
    items_.reserve(static_cast<std::size_t>(call.num_sequences() * call.groups.num_kv_heads()));
    cut_rows(call, threads);
    if (const Index parts = parts_per_item(std::ssize(items_), threads); parts > 1) split_segments(parts);
    // long items first, so that the last ones to be claimed are short
    // (not std::stable_sort, which allocates)
    std::sort(items_.begin(), items_.end(), [](const WorkItem& a, const WorkItem& b) { return a.cost > b.cost; });
  }

  const std::vector<WorkItem>& items() const { return items_; }
  /// Row tiles whose segments were split: merged and finished after all items.
  const std::vector<SplitItem>& finishes() const { return finishes_; }
  /// Rows of partial state that the split needs.
  Index partial_rows() const { return partial_rows_; }

 private:
  static Index row_tile(const Problem& call, Index rows) {
    return rows <= kMaxRows ? rows : call.source.tile ? kPrefillRows : kPackedPrefillRows;
  }

  void cut_rows(const Problem& call, Index threads) {
    Index groups = 0, tiles = 0, segments = 1;
    for_each_group(call, 1, [&](Index b, Index, Index, Index group, Index rows) {
      ++groups;
      tiles += ceil_div(rows, row_tile(call, rows));
      segments = std::max(segments, RowRange(call, b, group, 0, rows).segments().count());
    });
    // too few items, and too short to split along the keys: share the rows out instead
    const Index shares = groups > 0 && tiles * segments < threads ? ceil_div(threads, tiles) : 1;
    for_each_group(call, heads_together(call, threads), [&](Index b, Index g, Index heads, Index group, Index rows) {
      const Index step = std::max(std::min(rows, kMinSharedRows), ceil_div(row_tile(call, rows), shares));
      for (Index first = 0; first < rows; first += step) {
        const Index count = std::min(step, rows - first);
        const RowRange range(call, b, group, first, count);
        const Interval keys = range.some();
        items_.push_back(
            {b, g, heads, first, count, range.segments(), -1, heads * count * (keys.end - keys.begin + 1)});
      }
    });
  }

  /// Into how many parts each of so few items is split, so that the threads end within a twentieth of each other.
  static Index parts_per_item(Index items, Index threads) {
    constexpr Index kManyRounds = 4, kMostParts = 64;
    if (items == 0 || items >= kManyRounds * threads) return 1;
    Index parts = 1;
    while (parts < kMostParts && ceil_div(items * parts, threads) * threads * 20 > items * parts * 21) ++parts;
    return parts;
  }

  void split_segments(Index parts) {
    std::vector<WorkItem>& whole = scratch_;
    whole.assign(items_.begin(), items_.end());  // a swap would leave the smaller buffer to grow in the next call
    items_.clear();
    for (WorkItem item : whole) {
      const Index count = item.segments.count();
      if (count < 2) {
        items_.push_back(item);
        continue;
      }
      item.partial = partial_rows_;
      const Index step = ceil_div(count, std::min(count, parts));
      finishes_.push_back({item, step});
      for (Index first = item.segments.begin; first < item.segments.end; first += step) {
        WorkItem part = item;
        part.segments = {first, std::min(first + step, item.segments.end)};
        part.partial = partial_rows_;
        partial_rows_ += item.kv_heads * merge_depth(step) * item.rows;
        part.cost = item.kv_heads * item.rows * part.segments.count() * kSegmentTokens;
        items_.push_back(part);
      }
    }
  }

  /// How many adjacent KV heads share a work item. In the caller's memory their rows lie side by side: read together, they
  /// use what the hardware fetches beyond a row, and a page's translation once (a plain read of 512-byte rows of one head
  /// takes 15 GB/s on a core of Emerald Rapids, of four together 20). Enough items must remain for all threads.
  static Index heads_together(const Problem& call, Index threads) {
    if (call.source.tile) return 1;
    const Index all = call.num_sequences() * call.groups.num_kv_heads();
    return std::clamp<Index>(all / threads, 1, kMaxHeadsTogether);
  }

  /// f(sequence, first KV head, KV heads, query heads of each, rows of each) over up to `together` KV heads of as many
  /// query heads and few rows.
  template <class F>
  static void for_each_group(const Problem& call, Index together, F f) {
    const Index num_kv_heads = call.groups.num_kv_heads();
    for (Index b = 0; b < call.num_sequences(); ++b) {
      const auto group_of = [&](Index g) { return call.groups.of(b, g).size(); };
      for (Index g = 0, heads; g < num_kv_heads; g += heads) {
        const Index group = group_of(g), rows = group * call.num_queries(b);
        heads = 1;
        while (heads < together && heads * rows < kMaxRows && g + heads < num_kv_heads && group_of(g + heads) == group)
          ++heads;
        if (rows > 0) f(b, g, heads, group, rows);
      }
    }
  }

  static constexpr Index kMinSharedRows = 8;

  std::vector<WorkItem> items_, scratch_;
  std::vector<SplitItem> finishes_;
  Index partial_rows_ = 0;
};

}  // namespace headwise::detail
