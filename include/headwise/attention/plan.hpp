// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <vector>

#include "headwise/attention/balance.hpp"
#include "headwise/attention/problem.hpp"
#include "headwise/attention/row_range.hpp"
#include "headwise/attention/shared_prefix.hpp"
#include "headwise/attention/work_item.hpp"

// Which rows meet which tiles, on which thread. Rows are the queries of one sequence that share a KV head, token-major:
// row r is query token r / R and head r mod R of the group. None of the choices here changes a bit of the result: rows
// do not touch each other, and sums are cut at absolute segment boundaries only.

namespace headwise::detail {

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
    prefixes_.find(call, threads);
    join_prefixes(call);
    cut_rows(call, threads);
    items_.reserve(std::max(groups, whole_.size()) +
                   static_cast<std::size_t>(threads > 1 ? Balance::most_parts(threads) : 0));
    const Index part_cost = balance_.part_cost(whole_, threads);
    for (const WorkItem& item : whole_) {
      const Index part_segments = Balance::part_segments(item, part_cost);
      if (item.members)
        split_prefix(item, part_segments, call.groups.num_kv_heads());
      else
        split(item, part_segments, call.groups.num_kv_heads());
    }
    if (threads == 1) return;
    // long items first, so that the last ones to be claimed are short
    // (not std::stable_sort, which allocates)
    std::sort(items_.begin(), items_.end(), [](const WorkItem& a, const WorkItem& b) { return a.cost() > b.cost(); });
  }

  const std::vector<WorkItem>& items() const { return items_; }
  /// Row tiles whose segments were split: merged and finished after all items.
  const std::vector<Finish>& finishes() const { return finishes_; }
  /// Rows of partial state that the split needs.
  Index partial_rows() const { return partial_rows_; }
  /// The sequences whose leading segments are read together.
  const SharedPrefixes& prefixes() const { return prefixes_; }

 private:
  static Index row_tile(const CallShape& call, Index rows) {
    return rows <= kMaxRows ? rows : call.source.tile ? kPrefillRows : kPackedPrefillRows;
  }

  /// The rows of sequences that share a prefix, KV head by KV head, in row tiles of whole sequences.
  void join_prefixes(const CallShape& call) {
    members_.clear();
    prefix_of_.clear();
    if (prefixes_.runs().empty()) return;
    const Index kv_heads = call.groups.num_kv_heads();
    const auto groups = static_cast<std::size_t>(call.num_sequences() * kv_heads);
    members_.reserve(groups);  // items point into it
    prefix_of_.resize(groups);
    for (const PrefixRun& run : prefixes_.runs())
      for (Index g = 0; g < kv_heads; ++g) {
        WorkItem item{prefixes_.sequence(run, 0), g, 1, 0, 0, {0, run.segments}, run.segments * kSegmentTokens, {}};
        const auto close = [&] {
          if (item.rows > 0) whole_.push_back(item);
          item.members = members_.data() + members_.size();
          item.num_members = item.rows = 0;
        };
        close();
        for (Index i = 0; i < run.count; ++i) {
          const Index b = prefixes_.sequence(run, i), rows = call.groups.of(b, g).size() * call.num_queries(b);
          if (rows == 0) continue;
          if (item.rows + rows > run.rows) close();
          if (item.rows == 0) item.sequence = b;
          members_.push_back({b, item.rows});
          ++item.num_members;
          item.rows += rows;
        }
        close();
      }
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
      const Index prefix = prefixes_.segments_of(b);
      const Index step =
          prefix > 0 ? rows : std::max(std::min(rows, kMinSharedRows), ceil_div(row_tile(call, rows), shares));
      for (Index first = 0; first < rows; first += step) {
        const Index count = std::min(step, rows - first);
        const RowRange range(call, b, group, first, count);
        WorkItem item{b, g, heads, first, count, range.segments().from(prefix), range.end(), range.hidden()};
        item.listed = tiles_of(*call.options, item, range);
        whole_.push_back(item);
      }
    });
  }

  static ItemTiles tiles_of(const Options& options, const WorkItem& item, const RowRange& range) {
    if (!options.tile_set) return {};
    const TileSet& set = *options.tile_set;
    const auto list = [&](Index kv_head, Index row) { return set.list_for(item.sequence, kv_head, range.token(row)); };
    const std::uint64_t* const first = list(item.kv_head, 0);
    ItemTiles tiles{first, set.num_words(), 1, item.kv_heads, 0};
    if (tiles.words == 0) return tiles;
    tiles.blocks = (list(item.kv_head, item.rows - 1) - first) / tiles.words + 1;
    if (item.kv_heads > 1) tiles.of_next_head = list(item.kv_head + 1, 0) - first;
    return tiles;
  }

  /// The item as parts of so many segments; its rows are finished later where there are several or a prefix.
  void split(const WorkItem& item, Index part_segments, Index num_kv_heads) {
    const bool has_prefix = prefixes_.segments_of(item.sequence) > 0;
    if (part_segments >= item.segments.count() && !has_prefix) {
      items_.push_back(item);
      return;
    }
    Finish finish{item, push_parts(item, part_segments)};
    if (has_prefix) {
      const Prefix& prefix = prefix_of_[static_cast<std::size_t>(item.sequence * num_kv_heads + item.kv_head)];
      finish.prefix = prefix.split;
      finish.prefix_row = prefix.first_row;
    }
    finishes_.push_back(finish);
  }

  /// Segments of a prefix, which the members' finishes refer to.
  void split_prefix(const WorkItem& item, Index part_segments, Index num_kv_heads) {
    const Split split = push_parts(item, part_segments);
    for (Index i = 0; i < item.num_members; ++i) {
      const auto& [sequence, first_row] = item.members[i];
      prefix_of_[static_cast<std::size_t>(sequence * num_kv_heads + item.kv_head)] = {split, first_row};
    }
  }

  Split push_parts(WorkItem item, Index part_segments) {
    const Split split{item.segments, part_segments, partial_rows_, item.kv_heads, item.rows};
    partial_rows_ += split.for_each_part([&](const Segments& part, Index partial) {
      item.segments = part;
      item.partial = partial;
      items_.push_back(item);
    });
    return split;
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

  /// Where a KV head's rows of a sequence find their sums over a prefix.
  struct Prefix {
    Split split;
    Index first_row = 0;
  };

  Balance balance_;
  SharedPrefixes prefixes_;
  std::vector<Member> members_;
  std::vector<Prefix> prefix_of_;  // [sequence][KV head]; empty where none share
  std::vector<WorkItem> whole_;    // before the split
  std::vector<WorkItem> items_;
  std::vector<Finish> finishes_;
  Index partial_rows_ = 0;
};

}  // namespace headwise::detail
