// SPDX-License-Identifier: MIT
#pragma once

#include "headwise/attention/problem.hpp"
#include "headwise/attention/row_range.hpp"
#include "headwise/core/tile_layout.hpp"
#include "headwise/kernel/table.hpp"

namespace headwise::detail {

inline constexpr float kLog2e = 1.4426950408889634f;

/// What options do to the scores of a tile between q·k and the mask.
class TileTransform {
 public:
  TileTransform(const Problem& call, const TileKernels& kernels, const RowRange& range, Index kv_head, Index rows)
      : call_(call), options_(*call.options), kernels_(kernels), range_(range), kv_head_(kv_head), rows_(rows) {}

  bool any() const { return options_.softcap > 0 || !options_.alibi_slopes.empty() || options_.relative_bias; }

  /// The factor on queries: scores are in units of log2, but a softcap works on natural ones and brings log2 e in itself.
  float query_factor() const { return options_.softcap > 0 ? call_.scale : call_.scale * kLog2e; }

  /// scores [rows][64] of the tokens from `first` on.
  void apply(float* scores, Index first) const {
    if (options_.softcap > 0)
      kernels_.softcap(scores, rows_ * kTileTokens, 1.0f / options_.softcap, options_.softcap * kLog2e);
    const RelativeBias* bias = options_.relative_bias;
    const std::span<const float> slopes = options_.alibi_slopes;
    if (slopes.empty() && !bias) return;
    for (Index r = 0; r < rows_; ++r, scores += kTileTokens) {
      const QueryRow query = range_.query(r);
      const Index head = call_.groups.of(query.sequence, kv_head_)[query.head_in_group],
                  distance = first - query.position;
      if (!slopes.empty())
        kernels_.alibi(scores, slopes[static_cast<std::size_t>(head)] * kLog2e, static_cast<float>(distance));
      if (bias) kernels_.blend(scores, 1.0f, bias->of_tile(head, distance), 1.0f, kTileTokens);
    }
  }

 private:
  const Problem& call_;
  const Options& options_;
  const TileKernels& kernels_;
  const RowRange& range_;
  Index kv_head_, rows_;
};

}  // namespace headwise::detail
