// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <vector>

#include "headwise/attention/balance.hpp"
#include "headwise/attention/problem.hpp"
#include "headwise/attention/row_range.hpp"
#include "headwise/attention/work_item.hpp"

// Which rows meet which tiles, on which thread. Rows are the queries of one sequence that share a KV head, token-major:
// row r is query token r / R and head r mod R of the group. None of the choices here changes a bit of the result: rows
// do not touch each other, and sums are cut at absolute segment boundaries only.

namespace headwise::detail {

/// Rows of a prefill row tile: their queries, scores and outputs stay in L2 beside the tile.
inline constexpr Index kPrefillRows = 96;
/// The same where tiles are packed on the way, so that more rows share that work.
inline constexpr Index kPackedPrefillRows = 3 * kPrefillRows;

/// The work items of a call.
class Plan {
 public:
  /// Reuses the memory of the plan before it.
  void make(const CallShape& call, Index threads) {
    whole_.clear();
    items_.clear();
    finishes_.clear();
    partial_rows_ = 0;
    // groups that are empty in this call may not be in the next, which should not allocate
    const auto groups = static_cast<std::size_t>(call.num_sequences() * call.groups.num_kv_heads());
    whole_.reserve(groups);
    cut_rows(call, threads);
    items_.reserve(std::max(groups, whole_.size()) +
                   static_cast<std::size_t>(threads > 1 ? Balance::most_parts(threads) : 0));
    const Index part_cost = balance_.part_cost(whole_, threads);
    for (const WorkItem& item : whole_) split(item, Balance::part_segments(item, part_cost));
    // long items first, so that the last ones to be claimed are short
    // (not std::stable_sort, which allocates)
    std::sort(items_.begin(), items_.end(), [](const WorkItem& a, const WorkItem& b) { return a.cost() > b.cost(); });
  }

  const std::vector<WorkItem>& items() const { return items_; }
  /// Row tiles whose segments were split: merged and finished after all items.
  const std::vector<Finish>& finishes() const { return finishes_; }
  /// Rows of partial state that the split needs.
  Index partial_rows() const { return partial_rows_; }

 private:
  static Index row_tile(const CallShape& call, Index rows) {
    return rows <= kMaxRows ? rows : call.source.tile ? kPrefillRows : kPackedPrefillRows;
  }

  void cut_rows(const CallShape& call, Index threads) {
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
        whole_.push_back({b, g, heads, first, count, range.segments(), range.end(), range.hidden()});
      }
    });
  }

  /// The item as parts of so many segments.
  void split(WorkItem item, Index part_segments) {
    if (part_segments >= item.segments.count()) {
      items_.push_back(item);
      return;
    }
    const Split own{item.segments, part_segments, partial_rows_, item.kv_heads, item.rows};
    finishes_.push_back({item, own});
    partial_rows_ += own.for_each_part([&](const Segments& part, Index partial) {
      item.segments = part;
      item.partial = partial;
      items_.push_back(item);
    });
  }

  /// How many adjacent KV heads share a work item. In the caller's memory their rows lie side by side: read together, they
  /// use what the hardware fetches beyond a row, and a page's translation once (a plain read of 512-byte rows of one head
  /// takes 15 GB/s on a core of Emerald Rapids, of four together 20). Enough items must remain for all threads.
  static Index heads_together(const CallShape& call, Index threads) {
    if (call.source.tile) return 1;
    const Index all = call.num_sequences() * call.groups.num_kv_heads();
    return std::clamp<Index>(all / threads, 1, kMaxHeadsTogether);
  }

  /// f(sequence, first KV head, KV heads, query heads of each, rows of each) over up to `together` KV heads of as many
  /// query heads and few rows.
  template <class F>
  static void for_each_group(const CallShape& call, Index together, F f) {
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

  Balance balance_;
  std::vector<WorkItem> whole_;  // before the split
  std::vector<WorkItem> items_;
  std::vector<Finish> finishes_;
  Index partial_rows_ = 0;
};

}  // namespace headwise::detail
