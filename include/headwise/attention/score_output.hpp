// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "headwise/attention/added_units.hpp"
#include "headwise/attention/problem.hpp"
#include "headwise/attention/row_range.hpp"
#include "headwise/attention/row_scales.hpp"
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

/// The scores of the rows of a work item, of all of their keys; weights by the call's scales.
class ItemScores {
 public:
  ItemScores(const Problem& call, const TileKernels& kernels, const WorkItem& item, const Workspace& memory)
      : call_(call),
        kernels_(kernels),
        item_(item),
        memory_(memory),
        range_(call, item),
        units_(*call.options),
        output_(*call.outputs.scores) {}

  void write() {
    for (Index head = 0; head < item_.kv_heads; ++head) {
      const Index kv_head = item_.kv_head + head, keys = range_.keys();
      Walk walk(call_, kernels_, item_, head, memory_, {});
      if (output_.stage == ScoreStage::weights) find_scales(kv_head);
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
  static constexpr float kInfinity = std::numeric_limits<float>::infinity(),
                         kNan = std::numeric_limits<float>::quiet_NaN();

  /// What a ring has forgotten of [first, first + 64), from `first` or behind it on.
  Interval forgotten(Index first) const {
    if (!call_.source.kept) return {first, first};
    const TokenRange kept = call_.source.kept(call_.source.self, item_.sequence);
    return {std::max(first, kept.sinks), std::min(first + kTileTokens, kept.begin)};
  }
  bool all_forgotten(Index first) const {
    const Interval none = forgotten(first);
    return none.begin == first && none.end == first + kTileTokens;
  }

  /// A row's sequence, token and head in the arrays.
  std::array<Index, 3> place(Index r, Index kv_head) const {
    const auto [sequence, token] = call_.place_of(item_.sequence, range_.token(r));
    return {sequence, token, call_.groups.of(item_.sequence, kv_head)[range_.head_in_group(r)]};
  }

  /// What makes the rows' weights, to where their sums have been.
  void find_scales(Index kv_head) {
    for (Index r = 0; r < item_.rows; ++r) {
      const auto [sequence, token, head] = place(r, kv_head);
      const RowScale scale = call_.scales->at(sequence, token, head);
      memory_.sums.max[r] = scale.max;
      memory_.sums.sum[r] = scale.is_finite() ? scale.factor : kNan;
    }
  }

  /// The scores at hand as f32 weights.
  const float* weights_of(const Walk& walk) {
    auto* const weights = static_cast<float*>(memory_.weights);
    kernels_.softmax_weights(memory_.scores, item_.rows, memory_.sums.max, memory_.sums.sum, weights);
    for (Index r = 0; r < item_.rows; ++r) {
      if (!std::isnan(memory_.sums.sum[r])) continue;
      for (Index t = 0; t < kTileTokens; ++t)  // hidden from a row that is NaN: nothing all the same
        if ((walk.visible(r) >> t & 1) == 0) weights[r * kTileTokens + t] = 0.0f;
    }
    return weights;
  }

  /// A tile of the rows, or what stands for none, to the output.
  void put(Index kv_head, Index first, const float* scores) const {
    const bool weights = output_.stage == ScoreStage::weights;
    const float nothing = weights ? 0.0f : -kInfinity;
    const Index tokens = std::min(kTileTokens, output_.values.dim - first), step = output_.values.strides.dim;
    const Interval none = forgotten(first);
    const Index gone = std::min(none.begin - first, tokens), back = std::max(gone, std::min(none.end - first, tokens));
    const Index there = scores ? std::clamp<Index>(range_.keys() - first, 0, tokens) : 0;
    for (Index r = 0; r < item_.rows; ++r) {
      const auto [sequence, token, head] = place(r, kv_head);
      float values[kTileTokens];
      for (Index t = 0; t < there; ++t) values[t] = scores[r * kTileTokens + t];
      if (!weights) to_natural(values, there);
      std::fill(values + there, values + tokens, nothing);
      std::fill(values + gone, values + back, nothing);
      void* const to = output_.values.row(sequence, token, head);
      if (step == 1) {
        std::memcpy(static_cast<char*>(to) + 4 * first, values, static_cast<std::size_t>(4 * tokens));
        continue;
      }
      for (Index t = 0; t < tokens; ++t) store_element(to, Storage::f32, (first + t) * step, values[t]);
    }
  }
  void to_natural(float* x, Index count) const {
    const ScoreUnits units = units_;  // a copy: the loop is then one of products, or not, as a whole
    for (Index i = 0; i < count; ++i) x[i] = units.to_natural(x[i]);
  }

  const Problem& call_;
  const TileKernels& kernels_;
  const WorkItem& item_;
  Workspace memory_;
  RowRange range_;
  ScoreUnits units_;
  const ScoreOutput& output_;
};

}  // namespace headwise::detail
