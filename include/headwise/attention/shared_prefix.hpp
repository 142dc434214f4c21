// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <vector>

#include "headwise/attention/problem.hpp"
#include "headwise/attention/row_range.hpp"
#include "headwise/attention/work_item.hpp"

// Which sequences of a call read the tiles of a common prefix together. A source says how many leading tokens two
// sequences hold in the very same tiles; whole segments of them can be walked once for the rows of all.

namespace headwise::detail {

/// Sequences [first, first + count) of a list, whose first `segments` segments are the same tiles, walked `rows` rows of a
/// KV head at a time.
struct PrefixRun {
  Index first, count, segments, rows = kMaxRows;
};

/// Reuses its memory.
class SharedPrefixes {
 public:
  void find(const CallShape& call, Index threads) {
    candidates_.clear();
    runs_.clear();
    segments_.clear();
    if (!call.source.shared_tokens || call.options->share_prefix == false) return;
    // sequences that see different tiles of a prefix have little to read together
    const TileSet* const tiles = call.options->tile_set;
    if (tiles && tiles->shape().sequences > 1 && call.options->share_prefix != true) return;
    list_candidates(call);
    choose(0, std::ssize(candidates_));
    if (call.options->share_prefix != true && !runs_.empty()) drop_what_does_not_pay(call, threads);
    if (runs_.empty()) return;
    segments_.assign(static_cast<std::size_t>(call.num_sequences()), 0);
    for (const PrefixRun& run : runs_)
      for (Index i = 0; i < run.count; ++i) segments_[static_cast<std::size_t>(sequence(run, i))] = run.segments;
  }

  const std::vector<PrefixRun>& runs() const { return runs_; }
  Index sequence(const PrefixRun& run, Index i) const { return candidate(run.first + i).sequence; }
  /// Segments of a sequence that are walked together with others.
  Index segments_of(Index sequence) const {
    return segments_.empty() ? 0 : segments_[static_cast<std::size_t>(sequence)];
  }

 private:
  struct Candidate {
    Index sequence, rows;  // of its largest group
    Index segments;        // that all of its rows see whole
    Index common;          // of these, shared with the candidate before it
  };
  const Candidate& candidate(Index i) const { return candidates_[static_cast<std::size_t>(i)]; }

  /// Sequences with few rows: more than a row tile meets keys for so long that reading them takes no time.
  void list_candidates(const CallShape& call) {
    for (Index b = 0; b < call.num_sequences(); ++b) {
      const Index queries = call.num_queries(b);
      if (queries == 0) continue;
      Index group = 0;
      for (Index g = 0; g < call.groups.num_kv_heads(); ++g) group = std::max(group, call.groups.of(b, g).size());
      if (group * queries > kMaxRows) continue;
      Candidate next{b, group * queries, RowRange(call, b, 1, 0, queries).leading() / kSegmentTokens, 0};
      if (next.segments == 0) continue;
      if (!candidates_.empty()) {
        const Candidate& before = candidates_.back();
        const Index shared = call.source.shared_tokens(call.source.self, before.sequence, b);
        next.common = std::min({before.segments, next.segments, shared / kSegmentTokens});
      }
      candidates_.push_back(next);
    }
  }

  /// The runs of [begin, end) that save most segments of reading: all of it for its shortest common prefix, or what is
  /// chosen on both sides of where that is. Returns the segments saved.
  Index choose(Index begin, Index end) {
    if (end - begin < 2) return 0;
    const auto common = [&](Index i) { return candidate(i).common; };
    Index least = begin + 1, most = common(least);
    for (Index i = begin + 2; i < end; ++i) {
      if (common(i) < common(least)) least = i;
      most = std::max(most, common(i));
    }
    const std::size_t before = runs_.size();
    const Index whole = common(least) * (end - begin - 1);
    if (common(least) < most) {
      const Index parts = choose(begin, least) + choose(least, end);
      if (parts > whole) return parts;
      runs_.resize(before);
    }
    if (whole > 0) runs_.push_back({begin, end - begin, common(least)});
    return whole;
  }

  /// The time of a call is about the larger of the threads' mean and the longest item that cannot be split, which is a
  /// segment. Sharing saves reading, but leaves fewer items, of more rows: it must lessen that time, with the number of
  /// row tiles that suits best.
  void drop_what_does_not_pay(const CallShape& call, Index threads) {
    const Index kv_heads = call.groups.num_kv_heads();
    const auto cost = [](Index rows, Index keys) { return (rows + kRowsOfReading) * keys; };
    Index rest = 0;
    for (Index b = 0; b < call.num_sequences(); ++b)
      for (Index g = 0; g < kv_heads; ++g)
        if (const Index rows = call.groups.of(b, g).size() * call.num_queries(b); rows > 0)
          rest += ceil_div(rows, kMaxRows) * cost(std::min(rows, kMaxRows), call.num_keys(b));
    auto kept = runs_.begin();
    for (PrefixRun run : runs_) {
      Index rows = 0, largest = 0;
      for (Index i = run.first; i < run.first + run.count; ++i) {
        rows += candidate(i).rows;
        largest = std::max(largest, candidate(i).rows);
      }
      const auto reading_saved = [&](Index tiles) {
        return kv_heads * run.segments * (run.count - tiles) * kRowsOfReading * kSegmentTokens;
      };
      const auto time = [&](Index tiles, Index tile_rows) {
        return std::max((rest - reading_saved(tiles)) / threads, cost(tile_rows, kSegmentTokens));
      };
      Index best = run.count, best_time = time(run.count, largest);
      for (Index together = 2; together <= run.count; ++together) {
        const Index tiles = ceil_div(run.count, together),
                    tile_rows = std::max(largest, ceil_div(together * rows, run.count));
        if (tile_rows > kMaxRows) break;
        if (time(tiles, tile_rows) >= best_time) continue;
        best = tiles;
        best_time = time(tiles, tile_rows);
        run.rows = tile_rows;
      }
      if (best == run.count) continue;
      rest -= reading_saved(best);
      *kept++ = run;
    }
    runs_.erase(kept, runs_.end());
  }

  std::vector<Candidate> candidates_;
  std::vector<PrefixRun> runs_;
  std::vector<Index> segments_;  // of each sequence; empty where none share
};

}  // namespace headwise::detail
