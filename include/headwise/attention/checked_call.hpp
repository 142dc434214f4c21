// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <vector>

#include "headwise/attention/problem.hpp"
#include "headwise/attention/work_item.hpp"
#include "headwise/attention/workspace.hpp"
#include "headwise/core/checked.hpp"

// What checked mode (core/checked.hpp) asks of a call beyond the indices of views, masks and caches: what a source is asked
// and answers, and where work items leave their sums.

namespace headwise::detail {

/// A source of tiles that is asked about nothing but what it has, whose answers are addresses of memory aligned as tiles
/// are, and whose lengths are those that it had when this was made. Refers to it.
class CheckedSource {
 public:
  /// In checked mode `source` behind the checks, for as long as this lives and is not used again; otherwise itself.
  SourceRef of(const SourceRef& source) {
    if constexpr (!kChecked) return source;
    source_ = source;
    tokens_.clear();
    for (Index b = 0; b < source.num_sequences; ++b) {
      const Index tokens = source.num_tokens(source.self, b);
      require_index(tokens >= 0, "tokens (", tokens, ") of sequence ", b, " of the keys must be at least 0");
      tokens_.push_back(tokens);
    }
    SourceRef checked = source;
    checked.self = this;
    checked.num_tokens = [](const void* self, Index b) { return from(self).num_tokens(b); };
    if (source.tile)
      checked.tile = [](const void* self, Index b, Index g, Index i) { return from(self).tile(b, g, i); };
    if (source.pack_keys) checked.pack_keys = pack<&SourceRef::pack_keys>;
    if (source.pack_values) checked.pack_values = pack<&SourceRef::pack_values>;
    if (source.rows_of_keys) checked.rows_of_keys = rows<&SourceRef::rows_of_keys>;
    if (source.rows_of_values) checked.rows_of_values = rows<&SourceRef::rows_of_values>;
    if (source.kept) checked.kept = [](const void* self, Index b) { return from(self).kept(b); };
    if (source.shared_tokens)
      checked.shared_tokens = [](const void* self, Index a, Index b) { return from(self).shared_tokens(a, b); };
    return checked;
  }

 private:
  static const CheckedSource& from(const void* self) { return *static_cast<const CheckedSource*>(self); }

  Index num_tokens(Index b) const {
    const Index had = checked_at(tokens_, b, "sequence of the keys"), has = source_.num_tokens(source_.self, b);
    require_index(has == had, "tokens (", has, ") of sequence ", b, " of the keys must not change during a call; were ",
                  had);
    return has;
  }
  void check_tile(Index b, Index g, Index i) const {
    checked_index(g, source_.format.num_kv_heads, "KV head of the keys");
    checked_index(i, ceil_div(num_tokens(b), kTileTokens), "tile of the keys");
  }

  TilePointers tile(Index b, Index g, Index i) const {
    check_tile(b, g, i);
    const TilePointers tile = source_.tile(source_.self, b, g, i);
    check_address(tile.keys, kTileAlignment, "keys of tile ", i, " of KV head ", g, " of sequence ", b);
    if (!source_.format.values_in_keys)
      check_address(tile.values, kTileAlignment, "values of tile ", i, " of KV head ", g, " of sequence ", b);
    return tile;
  }
  template <SourceRef::Pack SourceRef::*kPack>
  static const void* pack(const void* self, Index b, Index g, Index i, Index keys, void* scratch) {
    const CheckedSource& checked = from(self);
    checked.check_tile(b, g, i);
    require_index(keys > i * kTileTokens && keys <= checked.num_tokens(b), "keys (", keys, ") of sequence ", b,
                  " must reach into tile ", i, " and be at most its ", checked.num_tokens(b), " tokens");
    check_address(scratch, kTileAlignment, "memory to pack tiles in");
    return (checked.source_.*kPack)(checked.source_.self, b, g, i, keys, scratch);
  }
  template <AheadArgs (*SourceRef::*kRows)(const void*, Index, Index, Index)>
  static AheadArgs rows(const void* self, Index b, Index g, Index i) {
    const CheckedSource& checked = from(self);
    checked.check_tile(b, g, std::clamp<Index>(i, 0, (checked.num_tokens(b) - 1) / kTileTokens));
    return (checked.source_.*kRows)(checked.source_.self, b, g, i);
  }
  TokenRange kept(Index b) const {
    const Index tokens = num_tokens(b);
    const TokenRange kept = source_.kept(source_.self, b);
    require_index(
        kept.end == tokens && kept.sinks >= 0 && kept.sinks <= tokens && kept.begin >= 0 && kept.begin <= tokens,
        "kept tokens (sinks ", kept.sinks, ", begin ", kept.begin, ", end ", kept.end, ") of sequence ", b,
        " must lie within its ", tokens, " tokens and end with them");
    return kept;
  }
  Index shared_tokens(Index a, Index b) const {
    const Index most = std::min(num_tokens(a), num_tokens(b)), shared = source_.shared_tokens(source_.self, a, b);
    require_index(shared >= 0 && shared <= most && shared % kTileTokens == 0, "shared_tokens (", shared,
                  ") of sequences ", a, " and ", b, " must be a multiple of ", kTileTokens, " up to ", most);
    return shared;
  }

  SourceRef source_{};
  std::vector<Index> tokens_;  // of each sequence
};

/// In checked mode: that a work item is of the call's heads, has room in a workspace of `shape`, and leaves its sums within
/// `partial_rows` rows.
inline void check_item(const CallShape& call, const WorkItem& item, const WorkspaceShape& shape, Index partial_rows) {
  if constexpr (!kChecked) return;
  checked_index(item.sequence, call.num_sequences(), "sequence of a work item");
  check_range(item.kv_head, item.kv_heads, call.groups.num_kv_heads(), "KV heads of a work item");
  check_range(0, item.kv_heads, std::min(shape.kv_heads, kMaxHeadsTogether), "KV heads of a work item");
  check_range(0, item.rows, shape.rows, "rows of a work item");
  check_range(0, item.segments.depth(), shape.depth, "partial sums of a work item");
  for (Index i = 0; i < item.num_members; ++i)
    checked_index(item.members[i].sequence, call.num_sequences(), "sequence of a shared prefix");
  if (item.partial >= 0)
    check_range(item.partial, item.kv_heads * item.segments.depth() * item.rows, partial_rows,
                "partial sums of a work item");
}

}  // namespace headwise::detail
