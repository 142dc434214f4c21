// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include "headwise/attention/added_units.hpp"
#include "headwise/attention/problem.hpp"
#include "headwise/attention/row_range.hpp"
#include "headwise/attention/tile_mask.hpp"
#include "headwise/attention/workspace.hpp"
#include "headwise/core/log2_units.hpp"
#include "headwise/core/tile_layout.hpp"
#include "headwise/kernel/table.hpp"

namespace headwise::detail {

/// What options do to the scores of a tile between q·k and the mask. Scores are in units of log2. A softcap works on
/// natural ones and brings log2 e in itself; the user's function gets natural ones, and log2 e comes behind it.
class TileTransform {
 public:
  TileTransform(const Problem& call, const TileKernels& kernels, const RowRange& range, Index kv_head, Index rows,
                const Workspace& memory)
      : function_(call.options->score_function),
        kernels_(kernels),
        units_(*call.options),
        rows_(memory.score_rows),
        count_(rows) {
    const Options& options = *call.options;
    const RelativeBias* const bias = options.relative_bias;
    const bool alibi = !options.alibi_slopes.empty(), capped = options.softcap > 0;
    any_ = capped || alibi || bias;
    const float unit = function_ ? 1.0f : kLog2e;  // of scores where they are transformed
    query_factor_ = capped ? call.scale : call.scale * unit;
    if (!any_ && !function_) return;
    kernel_ = {kernels.softcap, rows_, 0, 0, alibi, bias != nullptr, 0, 0, function_ ? kLn2 : 1.0f, 0};
    if (capped) {
      kernel_.inverse_cap = 1.0f / options.softcap;
      kernel_.cap = options.softcap * unit;
    }
    if (bias) {
      kernel_.bias_begin = bias->first_distance();
      kernel_.bias_end = bias->last_distance();
    }
    for (Index r = 0; r < rows; ++r) {
      const QueryRow query = range.query(r);
      const Index head = call.groups.of(query.sequence, kv_head)[query.head_in_group];
      rows_[r] = {query.sequence, head, query.position,
                  alibi ? checked_at(options.alibi_slopes, head, "head of alibi_slopes") * unit : 0.0f,
                  bias ? bias->of_tile(head, 0) : nullptr};
    }
  }

  /// The factor on queries.
  float query_factor() const { return query_factor_; }

  /// Steep slopes raise scores tile by tile towards the query: a maximum is raised for several tiles at once then. Weights
  /// are relative to it: those of 2^-86 of the tile's maximum are the first to be lost.
  float headroom() const { return kernel_.alibi ? 40.0f : 0.0f; }

  /// What the kernels do to the scores of the tile from token `first` on; null: nothing. What a mask adds to what the
  /// user's function changes is added by call_function.
  const ScoreTransform* of_tile(Index first, const TileMask& mask) {
    kernel_.first = first;
    kernel_.added = function_ ? nullptr : mask.added();
    return any_ || kernel_.added ? &kernel_ : nullptr;
  }

  /// Whether there is a function of the user's, which comes behind that.
  bool calls_function() const { return static_cast<bool>(function_); }

  /// Lets it change scores [rows][64] of the tile. What it hides is hidden by the mask from then on.
  void call_function(float* scores, TileMask& mask) const {
    if (mask.adds()) mask.add_natural(scores);
    for (Index r = 0; r < count_; ++r) {
      if (mask.bits(r) == 0) continue;
      const ScoreRowInfo& row = rows_[r];
      function_(kernels_.lanes, scores + r * kTileTokens, row.sequence, row.head, row.position, kernel_.first);
    }
    if (units_.stretched) {  // whether or not the mask adds to this tile: what a row gets does not depend on others
      std::transform(scores, scores + count_ * kTileTokens, scores, AddedUnits::to_log2);
      mask.drop(scores);
    } else if (kernels_.scale_scores(scores, count_ * kTileTokens, kLog2e)) {
      mask.drop(scores);
    }
  }

 private:
  const ScoreFunction& function_;
  const TileKernels& kernels_;
  ScoreUnits units_;
  ScoreRowInfo* rows_;
  Index count_;
  bool any_;
  float query_factor_;
  ScoreTransform kernel_{};
};

}  // namespace headwise::detail
