// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include "headwise/attention/problem.hpp"
#include "headwise/attention/work_item.hpp"
#include "headwise/core/tile_layout.hpp"
#include "headwise/score/interval.hpp"

namespace headwise::detail {

/// A row as a query: its token and head among those of its sequence and group, and where it stands.
struct QueryRow {
  Index sequence, token, head_in_group, position;
};

/// The rows of a work item as queries and their visible keys.
class RowRange {
 public:
  RowRange(const CallShape& call, const WorkItem& item)
      : RowRange(call, item.sequence, call.groups.of(item.sequence, item.kv_head).size(), item.first_row,
                 item.members ? call.groups.of(item.sequence, item.kv_head).size() * call.num_queries(item.sequence)
                              : item.rows) {
    call_ = &call;
    item_ = &item;
  }
  RowRange(const CallShape& call, Index sequence, Index group, Index first_row, Index rows)
      : group_(group),
        first_row_(first_row),
        keys_(call.num_keys(sequence)),
        shift_(keys_ - call.num_queries(sequence)),
        visible_(*call.options, keys_, sequence),
        first_(visible_(position(0))),
        last_(visible_(position(rows - 1))),
        begin_(first_.begin) {
    if (visible_.has_sinks() && first_.begin > visible_.first()) {
      begin_ = visible_.first();
      gap_ = {visible_.sinks(), first_.begin};
    }
    end_ = first_.begin < last_.end ? last_.end : gap_.begin;
  }

  /// Row `row` of the item, of whichever member.
  QueryRow query(Index row) const {
    if (!item_->members) return {item_->sequence, token(row), head_in_group(row), position(row)};
    const Member* const end = item_->members + item_->num_members;
    const auto behind = [](Index r, const Member& member) { return r < member.first_row; };
    const auto& [sequence, first_row] = *(std::upper_bound(item_->members, end, row, behind) - 1);
    const Index group = call_->groups.of(sequence, item_->kv_head).size(), token = (row - first_row) / group;
    return {sequence, token, (row - first_row) % group,
            call_->num_keys(sequence) - call_->num_queries(sequence) + token};
  }

  // What follows is the same to all members, where there are any: all see every key of the item.
  Index keys() const { return keys_; }
  Index token(Index row) const { return (first_row_ + row) / group_; }
  Index head_in_group(Index row) const { return (first_row_ + row) % group_; }
  Index position(Index row) const { return token(row) + shift_; }
  Interval visible(Index row) const { return visible_(position(row)); }
  /// The sink tokens that rows see besides, whose interval does not begin at the first key.
  Interval sinks(const Interval& visible) const {
    return visible.begin > visible_.first() ? Interval{visible_.first(), visible_.sinks()} : Interval{};
  }

  /// What no row sees before the windows, or between the sink tokens and them.
  Interval hidden() const { return gap_.end > 0 ? gap_ : Interval{0, begin_}; }
  // Intervals move right with the row. So some row sees each key from `begin` to `end`, but for a gap behind the sink
  // tokens.
  Index end() const { return end_; }
  /// Whether every row sees all of these keys.
  bool all_see(Index begin, Index end) const {
    return end <= first_.end && (begin >= last_.begin || (begin >= visible_.first() && end <= visible_.sinks()));
  }

  /// Keys from 0 on that every row sees.
  Index leading() const {
    if (visible_.first() > 0) return 0;
    return std::min(first_.end, last_.begin == 0 ? first_.end : visible_.sinks());
  }

  /// The first tile from `tile` on that holds a visible key, if it is before the end.
  Index visible_tile(Index tile) const {
    tile = std::max(tile, begin_ / kTileTokens);
    const Interval hidden{ceil_div(gap_.begin, kTileTokens), gap_.end / kTileTokens};
    return tile >= hidden.begin ? std::max(tile, hidden.end) : tile;
  }
  /// The segments that hold some visible key.
  Segments segments() const {
    if (end_ == 0) return {};
    Segments all{begin_ / kSegmentTokens, ceil_div(end_, kSegmentTokens)};
    const Interval hidden{ceil_div(gap_.begin, kSegmentTokens), gap_.end / kSegmentTokens};
    if (hidden.begin < hidden.end && hidden.end < all.end) all.gap = hidden;
    return all;
  }

 private:
  Index group_, first_row_, keys_, shift_;
  VisibleKeys visible_;
  Interval first_, last_, gap_{};
  Index begin_, end_;
  const CallShape* call_ = nullptr;
  const WorkItem* item_ = nullptr;
};

}  // namespace headwise::detail
