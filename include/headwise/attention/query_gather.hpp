// SPDX-License-Identifier: MIT
#pragma once

#include <optional>

#include "headwise/attention/packed_rows.hpp"
#include "headwise/attention/problem.hpp"
#include "headwise/attention/row_range.hpp"
#include "headwise/attention/workspace.hpp"
#include "headwise/kernel/table.hpp"

namespace headwise::detail {

/// The query rows of one KV head of a work item, scaled, as the kernels of `operand` take them: to memory.queries.
inline void gather_queries(const Problem& call, const TileKernels& kernels, const WorkItem& item, Index kv_head,
                           const RowRange& range, Operand operand, float factor, const Workspace& memory) {
  const ConstArray& q = call.queries;
  const Index padded = padded_head_dim(call.source.format.head_dim);
  const std::optional<Temperature>& temperature = call.options->temperature;
  Index heated = -1;  // the position of `heat`
  float heat = 1.0f;
  for (Index r = 0; r < item.rows; ++r) {
    const QueryRow query = range.query(r);
    const auto [sequence, token] = call.place_of(query.sequence, query.token);
    const Index head = call.groups.of(query.sequence, kv_head)[query.head_in_group];
    if (temperature && query.position != heated) {
      heated = query.position;
      heat = temperature->at(heated);
    }
    const void* row = q.row(sequence, token, head);
    Storage storage = q.storage;
    if (call.source.key_transform.any()) {
      for (Index d = 0; d < q.dim; ++d) memory.dense_row[d] = load_element(row, q.storage, d * q.strides.dim);
      call.source.key_transform.to_query(kv_head, q.dim, memory.dense_row);
      row = memory.dense_row;
      storage = Storage::f32;
    } else if (q.strides.dim != 1 && q.dim > 1) {
      gather_row(q, sequence, token, head, memory.dense_row);
      row = memory.dense_row;
    }
    kernels.prepare_row(row, storage, q.dim, padded, factor * heat, operand,
                        static_cast<char*>(memory.queries) + r * row_bytes(operand, padded));
  }
}

}  // namespace headwise::detail
