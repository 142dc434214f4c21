// SPDX-License-Identifier: MIT
#pragma once

#include <optional>

#include "headwise/attention/packed_rows.hpp"
#include "headwise/attention/problem.hpp"
#include "headwise/attention/query_turns.hpp"
#include "headwise/attention/row_range.hpp"
#include "headwise/attention/workspace.hpp"
#include "headwise/cache/tile_codec.hpp"
#include "headwise/kernel/table.hpp"
#include "headwise/position/qk_norm.hpp"
#include "headwise/position/rope.hpp"

namespace headwise::detail {

/// What a row of queries goes through before it is scaled.
class QueryChanges {
 public:
  explicit QueryChanges(const Problem& call)
      : norm_(call.query_norm),
        rope_(call.options->query_rope),
        turns_(call.turns),
        transform_(call.source.key_transform),
        dim_(call.queries.dim) {}

  bool any() const { return norm_ || rope_ || transform_.any(); }
  /// norm → RoPE → what the source's keys were transformed for
  void apply(const CallShape::Place& place, Index kv_head, float* row) const {
    if (norm_) norm_->apply(row);
    if (rope_) rope_->apply(turns_->cosines(place), turns_->sines(place), row);
    transform_.to_query(kv_head, dim_, row);
  }

 private:
  const QkNorm* norm_;
  const Rope* rope_;
  const QueryTurns* turns_;
  const KeyTransform& transform_;
  Index dim_;
};

/// The query rows of one KV head of a work item, changed and scaled, as the kernels of `operand` take them: to
/// memory.queries.
inline void gather_queries(const Problem& call, const TileKernels& kernels, const WorkItem& item, Index kv_head,
                           const RowRange& range, Operand operand, float factor, const Workspace& memory) {
  const ConstArray& q = call.queries;
  const Index padded = padded_head_dim(call.source.format.head_dim);
  const std::optional<Temperature>& temperature = call.options->temperature;
  Index heated = -1;  // the position of `heat`
  float heat = 1.0f;
  const QueryChanges changes(call);
  for (Index r = 0; r < item.rows; ++r) {
    const QueryRow query = range.query(r);
    const CallShape::Place place = call.place_of(query.sequence, query.token);
    const auto [sequence, token] = place;
    const Index head = call.groups.of(query.sequence, kv_head)[query.head_in_group];
    if (temperature && query.position != heated) {
      heated = query.position;
      heat = temperature->at(heated);
    }
    const void* row = q.row(sequence, token, head);
    Storage storage = q.storage;
    if (changes.any()) {
      read_row(RowSource(q, sequence, token, head), 0, q.dim, padded, memory.dense_row);
      changes.apply(place, kv_head, memory.dense_row);
      row = memory.dense_row;
      storage = Storage::f32;
    } else if (q.strides.dim != 1 && q.dim > 1) {
      gather_row(q, sequence, token, head, memory.dense_row);
      row = memory.dense_row;
    }
    kernels.prepare_row(row, storage, q.dim, padded, factor * heat, operand,
                        static_cast<char*>(memory.queries) + r * row_bytes(operand, padded));
  }
  if (kernels.group_rows && operand != Operand::digits)
    kernels.group_rows(memory.queries, item.rows, row_bytes(operand, padded) / 4, memory.wide_keys);
}

}  // namespace headwise::detail
