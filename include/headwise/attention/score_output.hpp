// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "headwise/attention/problem.hpp"
#include "headwise/attention/walk.hpp"
#include "headwise/attention/work_item.hpp"
#include "headwise/attention/workspace.hpp"
#include "headwise/core/log2_units.hpp"

// Scores that a caller asked for (ScoreOutput): row tiles walk all of their sequence's tiles, beside the attention itself.

namespace headwise::detail {

/// The options as they are before masks: every key is seen that exists, and what comes after the stage is left out.
inline Options options_before_masks(const Options& options, ScoreStage stage) {
  Options before;
  before.causal = false;
  before.query_norm = options.query_norm;
  before.query_rope = options.query_rope;
  before.query_positions = options.query_positions;
  before.scale = options.scale;
  before.temperature = options.temperature;
  if (stage == ScoreStage::softcapped) before.softcap = options.softcap;
  before.key_starts = options.key_starts;
  before.key_lengths = options.key_lengths;
  before.query_lengths = options.query_lengths;
  before.query_offsets = options.query_offsets;
  before.head_map = options.head_map;
  before.group_boundaries = options.group_boundaries;
  return before;
}

/// The scores of the rows of a work item, of all of their keys. The call's lse is that of its rows.
class ItemScores {
 public:
  ItemScores(const Problem& call, const TileKernels& kernels, const WorkItem& item, const Workspace& memory)
      : call_(call),
        kernels_(kernels),
        item_(item),
        memory_(memory),
        range_(call, item),
        output_(*call.outputs.scores) {
    item_.segments = {};  // no tile but those asked for
  }

  void write() {
    for (Index head = 0; head < item_.kv_heads; ++head) {
      const Index kv_head = item_.kv_head + head, keys = range_.keys();
      Walk walk(call_, kernels_, item_, head, memory_, {});
      if (output_.stage == ScoreStage::weights) find_totals(kv_head);
      for (Index first = 0; first < output_.values.dim; first += kTileTokens) {
        const Index tile = first / kTileTokens;
        const bool any = first < keys && !all_forgotten(first);
        const float* scores = any ? walk.scores_of(tile) : nullptr;
        if (scores && output_.stage == ScoreStage::weights) scores = weights_of(walk);
        put(kv_head, first, scores);
      }
    }
  }

 private:
  static constexpr float kInfinity = std::numeric_limits<float>::infinity();

  /// What a ring has forgotten of [first, first + 64).
  Interval forgotten(Index first) const {
    if (!call_.source.kept) return {};
    const TokenRange kept = call_.source.kept(call_.source.self, item_.sequence);
    return {std::max(first, kept.sinks), std::min(first + kTileTokens, kept.begin)};
  }
  bool all_forgotten(Index first) const {
    const Interval none = forgotten(first);
    return none.begin == first && none.end == first + kTileTokens;
  }

  void* row(Index r, Index kv_head, const Array& array) const {
    const auto [sequence, token] = call_.place_of(item_.sequence, range_.token(r));
    return array.row(sequence, token, call_.groups.of(item_.sequence, kv_head)[range_.head_in_group(r)]);
  }

  /// The log-sum-exps of the rows in units of log2, where `max` of the walk's sums lies.
  void find_totals(Index kv_head) {
    for (Index r = 0; r < item_.rows; ++r) {
      const float lse = load_element(row(r, kv_head, call_.outputs.lse), Storage::f32, 0);
      memory_.sums.max[r] = lse > -kInfinity || std::isnan(lse) ? log2_of(lse) : 0.0f;  // of nothing seen: weights of 0
    }
  }

  float log2_of(float natural) const {
    return adds_mask(*call_.options) ? AddedUnits::to_log2(natural) : natural * kLog2e;
  }

  /// The scores at hand as f32 weights.
  const float* weights_of(const Walk& walk) {
    auto* const weights = static_cast<float*>(memory_.weights);
    kernels_.softmax(memory_.scores, item_.rows,
                     {memory_.sums.max, memory_.lane_sums, memory_.tile_sums, weights, Operand::f32});
    for (Index r = 0; r < item_.rows; ++r) {
      if (!std::isnan(memory_.sums.max[r])) continue;
      for (Index t = 0; t < kTileTokens; ++t)  // hidden from a row that is NaN: nothing all the same
        if ((walk.visible(r) >> t & 1) == 0) weights[r * kTileTokens + t] = 0.0f;
    }
    return weights;
  }

  /// A tile of the rows, or what stands for none, to the output.
  void put(Index kv_head, Index first, const float* scores) const {
    const bool weights = output_.stage == ScoreStage::weights;
    const bool stretched = adds_mask(*call_.options);
    const auto natural = [&](float x) { return stretched ? AddedUnits::to_natural(x) : x * kLn2; };
    const float nothing = weights ? 0.0f : -kInfinity;
    const Interval none = forgotten(first);
    const Index tokens = std::min(kTileTokens, output_.values.dim - first), step = output_.values.strides.dim;
    for (Index r = 0; r < item_.rows; ++r) {
      void* const to = row(r, kv_head, output_.values);
      for (Index t = 0; t < tokens; ++t) {
        const bool there = scores && first + t < range_.keys() && (first + t < none.begin || first + t >= none.end);
        store_element(to, Storage::f32, (first + t) * step,
                      !there    ? nothing
                      : weights ? scores[r * kTileTokens + t]
                                : natural(scores[r * kTileTokens + t]));
      }
    }
  }

  const Problem& call_;
  const TileKernels& kernels_;
  WorkItem item_;
  Workspace memory_;
  RowRange range_;
  const ScoreOutput& output_;
};

}  // namespace headwise::detail
