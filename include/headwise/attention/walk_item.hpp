// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <type_traits>

#include "headwise/attention/walk.hpp"
#include "headwise/attention/weight_record.hpp"
#include "headwise/attention/work_item.hpp"
#include "headwise/attention/workspace.hpp"

namespace headwise::detail {

/// Calls f(tile) for the tiles of an absolute segment that rows of some of the heads may see.
template <class F>
void for_each_tile(std::span<const Walk> heads, Index segment, F f) {
  constexpr Index kTiles = kSegmentTokens / kTileTokens;
  const auto next = [&](Index tile) {
    Index least = heads.front().next_tile(tile);
    for (const Walk& head : heads.subspan(1)) least = std::min(least, head.next_tile(tile));
    return least;
  };
  const Index end = std::min((segment + 1) * kTiles, heads.front().end_tile());  // of all
  for (Index tile = segment * kTiles; (tile = next(tile)) < end; ++tile) f(tile);
}

/// A work item from its first segment to its last, tile by tile, its KV heads side by side. `records` are theirs; null:
/// none.
inline void walk(const Problem& call, const TileKernels& kernels, const WorkItem& item, const Workspace& memory,
                 const PartialRows& partials, const WeightRecord* records = nullptr) {
  // not std::optional, whose construction clears all of its memory: two microseconds of a call
  static_assert(std::is_trivially_destructible_v<Walk>);
  alignas(Walk) std::byte storage[static_cast<std::size_t>(kMaxHeadsTogether) * sizeof(Walk)];
  Walk* const first = reinterpret_cast<Walk*>(storage);
  for (Index i = 0; i < item.kv_heads; ++i)
    std::construct_at(first + i, call, kernels, item, i, memory, partials, records ? records[i] : WeightRecord());
  const std::span<Walk> heads(first, static_cast<std::size_t>(item.kv_heads));
  Index segment = item.segments.begin;
  do {  // once where nothing is visible, over no tiles
    for (auto& head : heads) head.begin();
    for_each_tile(heads, segment, [&](Index tile) {
      for (auto& head : heads) head.visit(tile);
    });
    for (auto& head : heads) head.end(segment);
    segment = item.segments.next(segment);
  } while (segment < item.segments.end);
  for (auto& head : heads) head.close();
}

}  // namespace headwise::detail
