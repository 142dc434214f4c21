// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>

#include "headwise/attention/added_units.hpp"
#include "headwise/attention/row_range.hpp"
#include "headwise/attention/row_scales.hpp"
#include "headwise/attention/workspace.hpp"
#include "headwise/core/checked.hpp"
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

/// What the sums of a row become: output = sums·factor, and its log-sum-exp.
struct FinishedRow {
  float factor, lse;
};

/// Of max and sum; `sink` is a score without a value in natural units, −inf: none. With M = max(m, sink), both of
/// L = l·2^(m−M) + 2^(sink−M). A row that has seen no key gives 0 and the sink.
inline FinishedRow finished(float max, float sum, float sink, ScoreUnits units) {
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  if (max == kNone) return {0.0f, sink};
  if (sink == kNone) return {1.0f / sum, units.to_natural(max + std::log2(sum))};
  const float score = units.to_log2(sink), top = score > max ? score : max;  // NaN stays
  const float shrink = std::exp2(max - top), all = std::fma(sum, shrink, std::exp2(score - top));
  return {shrink / all, units.to_natural(top + std::log2(all))};
}

/// Normalises the rows of one of the item's KV heads into the outputs.
inline void finish_rows(const Problem& call, const TileKernels& kernels, const WorkItem& item, Index kv_head,
                        const PartialRows& result, float* dense_row) {
  const std::span<const float> sinks = call.sink_logits;
  const ScoreUnits units(*call.options);
  const RowRange range(call, item);
  const Array &out = call.outputs.values, &lse = call.outputs.lse;
  const Index value_dim = padded_value_dim(call.source.format.value_dim);
  const QueryHeads heads = call.groups.of(item.sequence, kv_head);
  for (Index r = 0; r < item.rows; ++r) {
    const auto [sequence, token] = call.place_of(item.sequence, range.token(r));
    const Index head = heads[range.head_in_group(r)];
    const float sink =
        sinks.empty() ? -std::numeric_limits<float>::infinity() : checked_at(sinks, head, "head of sink_logits");
    const FinishedRow finish = finished(result.max[r], result.sum[r], sink, units);
    const bool nothing = result.max[r] == -std::numeric_limits<float>::infinity();
    if (nothing) std::fill_n(result.output + r * value_dim, value_dim, 0.0f);  // of no segment
    void* row = out.row(sequence, token, head);
    const bool dense = out.strides.dim == 1 || out.dim == 1;
    kernels.finish_row(result.output + r * value_dim, out.dim, finish.factor, dense ? row : dense_row, out.storage);
    if (!dense) scatter_row(dense_row, out, row);
    if (call.outputs.has_lse) store_element(lse.row(sequence, token, head), Storage::f32, 0, finish.lse);
    if (call.scales) call.scales->at(sequence, token, head) = {nothing ? 0.0f : result.max[r], finish.factor};
  }
}

}  // namespace headwise::detail
