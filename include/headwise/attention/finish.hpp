// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "headwise/attention/added_units.hpp"
#include "headwise/attention/row_range.hpp"
#include "headwise/attention/workspace.hpp"
#include "headwise/kernel/table.hpp"

// The end of a row: its sums become output = O / L and log-sum-exp = m + log L.

namespace headwise::detail {

/// The elements of `from`, which is dense, to a row of `out` with any dim stride.
inline void scatter_row(const void* from, const Array& out, void* row) {
  const Index bytes = size_of(out.storage);
  for (Index d = 0; d < out.dim; ++d)
    std::memcpy(static_cast<char*>(row) + d * out.strides.dim * bytes, static_cast<const char*>(from) + d * bytes,
                static_cast<std::size_t>(bytes));
}

/// Normalises the rows of one of the item's KV heads into the outputs. A row that has seen no key gives 0 and lse −inf.
inline void finish_rows(const Problem& call, const TileKernels& kernels, const WorkItem& item, Index kv_head,
                        const PartialRows& result, float* dense_row) {
  constexpr float kNone = -std::numeric_limits<float>::infinity(), kLn2 = 0.6931471805599453f;
  const auto natural = [adds = adds_mask(*call.options)](float x) {
    return adds ? AddedUnits::to_natural(x) : x * kLn2;
  };
  const RowRange range(call, item);
  const Array &out = call.outputs.values, &lse = call.outputs.lse;
  const Index value_dim = padded_value_dim(call.source.format.value_dim);
  const QueryHeads heads = call.groups.of(item.sequence, kv_head);
  for (Index r = 0; r < item.rows; ++r) {
    const auto [sequence, token] = call.place_of(item.sequence, range.token(r));
    const Index head = heads[range.head_in_group(r)];
    const bool none = result.max[r] == kNone;
    if (none) std::fill_n(result.output + r * value_dim, value_dim, 0.0f);  // of no segment
    void* row = out.row(sequence, token, head);
    const bool dense = out.strides.dim == 1 || out.dim == 1;
    kernels.finish_row(result.output + r * value_dim, out.dim, none ? 0.0f : 1.0f / result.sum[r],
                       dense ? row : dense_row, out.storage);
    if (!dense) scatter_row(dense_row, out, row);
    if (call.outputs.has_lse)
      store_element(lse.row(sequence, token, head), Storage::f32, 0,
                    none ? kNone : natural(result.max[r] + std::log2(result.sum[r])));
  }
}

}  // namespace headwise::detail
