// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <limits>
#include <memory>
#include <span>
#include <type_traits>

#include "headwise/attention/finish.hpp"
#include "headwise/attention/merge.hpp"
#include "headwise/attention/packed_rows.hpp"
#include "headwise/attention/row_range.hpp"
#include "headwise/attention/tile_stream.hpp"
#include "headwise/attention/workspace.hpp"
#include "headwise/kernel/table.hpp"

namespace headwise::detail {

/// The rows of one KV head of a work item, on their way over their visible tiles, segment by segment:
/// open, { begin, { visit … }, end } …, close.
class Walk {
 public:
  /// `partials` are those of the split, if the item is part of one.
  Walk(const Problem& call, const TileKernels& kernels, const WorkItem& item, Index head, const Workspace& memory,
       const PartialRows& partials)
      : call_(call),
        kernels_(kernels),
        format_(call.source.format),
        item_(item),
        kv_head_(item.kv_head + head),
        memory_(memory.head(head)),
        range_(call, item),
        stream_(call, item, item.kv_head + head, memory_.packed),
        head_dim_(padded_head_dim(format_.head_dim)),
        value_dim_(padded_value_dim(format_.value_dim)),
        key_storage_(resident(format_.key_storage)),
        value_storage_(resident(format_.value_storage)),
        softmax_{nullptr, memory_.lane_sums, memory_.tile_sums, memory_.weights, kernels.weights_for(value_storage_)},
        sums_(splits() ? partials.from(item.partial + head * item.segments.depth() * item.rows, value_dim_)
                       : memory_.sums),
        merge_(kernels, item.rows, value_dim_) {
    gather_queries();
  }

  /// Calls f(tile, opening) for the tiles of an absolute segment that some row sees.
  template <class F>
  void for_each_tile(Index segment, F f) const {
    constexpr Index kTiles = kSegmentTokens / kTileTokens;
    const Index end = std::min(ceil_div(range_.end(), kTileTokens), (segment + 1) * kTiles);
    bool opening = true;
    for (Index tile = segment * kTiles; (tile = range_.visible_tile(tile)) < end; ++tile, opening = false)
      f(tile, opening);
  }

  /// Starts the sum of a segment.
  void begin() {
    segment_ = sums_.from(merge_.count() * item_.rows, value_dim_);
    softmax_.max = segment_.max;
    std::fill_n(softmax_.max, item_.rows, -std::numeric_limits<float>::infinity());
    std::fill_n(softmax_.sum, item_.rows * kMaxLanes, 0.0f);
    std::fill_n(segment_.output, item_.rows * value_dim_, 0.0f);
  }

  /// Adds a tile to it. The `opening` tile of a segment meets rows without a max.
  void visit(Index tile, bool opening) { sum_tile(tile, opening, softmax_, segment_.output); }

  /// Merges it with those before.
  void end(Index segment) {
    reduce_lane_sums(softmax_.sum, item_.rows, segment_.sum);
    merge_.add(segment_, segment);
  }

  /// Finishes the rows, or leaves their sums to the rest of the split.
  void close() {
    if (!splits()) finish_rows(call_, kernels_, item_, kv_head_, merge_.fold(), memory_.dense_row);
  }

 private:
  static constexpr float kLog2e = 1.4426950408889634f;
  /// The storage whose kernels meet the rows: f32 for a tile that is widened first.
  Storage resident(Storage storage) const { return widens(storage) ? Storage::f32 : storage; }
  bool widens(Storage storage) const { return item_.rows >= kernels_.widen_rows[static_cast<int>(storage)]; }

  void gather_queries() const {
    const ConstArray& q = call_.queries;
    const Operand operand = kernels_.operand[static_cast<int>(key_storage_)];
    // scores are in units of log2, but a softcap works on natural ones: it brings log2 e in itself
    const float factor = call_.options->softcap > 0 ? call_.scale : call_.scale * kLog2e;
    for (Index r = 0; r < item_.rows; ++r) {
      const QueryRow query = range_.query(r);
      const auto [sequence, token] = call_.place_of(query.sequence, query.token);
      const Index head = call_.groups.of(query.sequence, kv_head_)[query.head_in_group];
      const void* row = q.row(sequence, token, head);
      Storage storage = q.storage;
      if (call_.source.key_transform.any()) {
        for (Index d = 0; d < q.dim; ++d) memory_.dense_row[d] = load_element(row, q.storage, d * q.strides.dim);
        call_.source.key_transform.to_query(kv_head_, q.dim, memory_.dense_row);
        row = memory_.dense_row;
        storage = Storage::f32;
      } else if (q.strides.dim != 1 && q.dim > 1) {
        gather_row(q, sequence, token, head, memory_.dense_row);
        row = memory_.dense_row;
      }
      kernels_.prepare_row(row, storage, q.dim, head_dim_, factor, operand,
                           static_cast<char*>(memory_.queries) + r * row_bytes(operand, head_dim_));
    }
  }

  bool splits() const { return item_.partial >= 0; }

  /// scores → transform → mask → softmax → weighted sum
  void sum_tile(Index tile, bool opening, const SoftmaxState& state, float* output) {
    const Index first = tile * kTileTokens;
    const void* const keys = stream_.open(tile, range_);
    const bool whole = range_.all_see(first, first + kTileTokens);
    if (!whole)
      for (Index r = 0; r < item_.rows; ++r) memory_.ends[r] = in_tile(r, first).end;
    const Index end = whole ? kTileTokens : memory_.ends[item_.rows - 1];  // they never fall
    const ScoreArgs args{memory_.queries,
                         widened_keys(keys),
                         memory_.scores,
                         item_.rows,
                         head_dim_,
                         end,
                         whole ? nullptr : memory_.ends,
                         stream_.ahead_of_keys()};
    const auto scores = kernels_.scores[static_cast<int>(key_storage_)];

    const bool fused = whole && !opening && !transforms() && kernels_.fuses(key_storage_, softmax_.operand);
    const bool done = fused && !scores(args, &state);
    if (!done) {
      scores(args, nullptr);
      transform(first);
      if (!whole) mask(first);
      if (opening || fused || kernels_.softmax(memory_.scores, item_.rows, state))
        kernels_.rescale(memory_.scores, item_.rows, state, output, value_dim_);
    }

    const void* const stored = stream_.values();
    const void* const values = widened_values(stored);
    if (!whole && hides_poison(first, stored)) return sum_values_apart(first, values, output);
    kernels_.weighted_sum[static_cast<int>(value_storage_)]({memory_.weights, values, output, item_.rows, value_dim_,
                                                             end, whole ? nullptr : memory_.ends,
                                                             stream_.ahead_of_values()});
  }

  const void* widened_keys(const void* keys) const {
    if (!widens(format_.key_storage)) return keys;
    kernels_.widen_keys[static_cast<int>(format_.key_storage)](keys, format_.head_dim, memory_.wide_keys);
    return memory_.wide_keys;
  }
  const void* widened_values(const void* values) const {
    if (!widens(format_.value_storage)) return values;
    kernels_.widen_values[static_cast<int>(format_.value_storage)](values, format_.value_dim, memory_.wide_values);
    return memory_.wide_values;
  }

  bool transforms() const {
    const Options& options = *call_.options;
    return options.softcap > 0 || !options.alibi_slopes.empty() || options.relative_bias;
  }

  void transform(Index first) const {
    const Options& options = *call_.options;
    if (options.softcap > 0)
      kernels_.softcap(memory_.scores, item_.rows * kTileTokens, 1.0f / options.softcap, options.softcap * kLog2e);
    const RelativeBias* bias = options.relative_bias;
    const std::span<const float> slopes = options.alibi_slopes;
    if (slopes.empty() && !bias) return;
    for (Index r = 0; r < item_.rows; ++r) {
      const QueryRow query = range_.query(r);
      const Index head = call_.groups.of(query.sequence, kv_head_)[query.head_in_group],
                  distance = first - query.position;
      float* scores = memory_.scores + r * kTileTokens;
      if (!slopes.empty())
        kernels_.alibi(scores, slopes[static_cast<std::size_t>(head)] * kLog2e, static_cast<float>(distance));
      if (bias) kernels_.blend(scores, 1.0f, bias->of_tile(head, distance), 1.0f, kTileTokens);
    }
  }

  /// Hidden scores become −inf, whatever they were.
  void mask(Index first) const {
    for (Index r = 0; r < item_.rows; ++r) {
      const TileKeys keys = in_tile(r, first);
      float* scores = memory_.scores + r * kTileTokens;
      std::fill(scores + keys.sinks, scores + keys.begin, -std::numeric_limits<float>::infinity());
      std::fill(scores + keys.end, scores + kTileTokens, -std::numeric_limits<float>::infinity());
    }
  }

  /// The tokens of a tile that a row sees: [0, sinks) and [begin, end), each 0 … 64, sinks ≤ begin ≤ end.
  struct TileKeys {
    Index sinks, begin, end;
    bool holds(Index t) const { return t < sinks || (t >= begin && t < end); }
  };
  TileKeys in_tile(Index row, Index first) const {
    const Interval keys = range_.visible(row);
    const Index sinks = keys.begin > 0 ? std::clamp<Index>(range_.sinks() - first, 0, kTileTokens) : 0;
    // only sinks of all rows: `ends` may stop behind them
    if (sinks > 0 && range_.is_gap(first + sinks, first + kTileTokens)) return {sinks, sinks, sinks};
    const Index begin = std::clamp<Index>(keys.begin - first, sinks, kTileTokens);
    return {sinks, begin, std::clamp<Index>(keys.end - first, begin, kTileTokens)};
  }

  /// Whether the tile holds infinities or NaN while some row does not see all of its stored tokens: 0 · NaN is NaN.
  bool hides_poison(Index first, const void* values) const {
    const Index stored = std::min(call_.source.num_tokens(call_.source.self, item_.sequence), first + kTileTokens);
    if (range_.all_see(first, stored)) return false;
    return !kernels_.all_finite[static_cast<int>(format_.value_storage)](values, format_.value_dim);
  }

  /// The weighted sum, row by row, each over a copy of the values that holds what the row sees and zeros; of a type that
  /// is met by f32 rows in f32, which gives the same bits.
  void sum_values_apart(Index first, const void* values, float* output) const {
    const bool widened =
        value_storage_ != Storage::f32 && kernels_.operand[static_cast<int>(value_storage_)] == Operand::f32;
    const Storage storage = widened ? Storage::f32 : value_storage_;
    if (widened) {
      kernels_.widen_values[static_cast<int>(value_storage_)](values, format_.value_dim, memory_.wide_values);
      values = memory_.wide_values;
    }
    for (Index r = 0; r < item_.rows; ++r) {
      const TileKeys keys = in_tile(r, first);
      std::memcpy(memory_.values_copy, values, static_cast<std::size_t>(value_tile_bytes(storage, value_dim_)));
      for (Index t = 0; t < kTileTokens; ++t)
        if (!keys.holds(t)) clear_value(storage, t);
      kernels_.weighted_sum[static_cast<int>(storage)](
          {static_cast<char*>(memory_.weights) + r * row_bytes(softmax_.operand, kTileTokens),
           memory_.values_copy,
           output + r * value_dim_,
           1,
           value_dim_,
           kTileTokens,
           nullptr,
           {values, 0}});
    }
  }

  /// Token t of the copied values becomes 0: its numbers or, where codes have scales, those.
  void clear_value(Storage storage, Index t) const {
    auto* const copy = static_cast<char*>(memory_.values_copy);
    if (has_scales(storage)) {
      char* const scales = copy + value_code_bytes(storage, value_dim_);
      for (Index g = 0; g < scales_per_token(storage, value_dim_); ++g)
        std::memset(scales + 2 * (g * kTileTokens + t), 0, 2);
      return;
    }
    for (Index d = 0; d < value_dim_; ++d)
      std::memset(copy + value_index(storage, value_dim_, t, d) * size_of(storage), 0,
                  static_cast<std::size_t>(size_of(storage)));
  }

  const Problem& call_;
  const TileKernels& kernels_;
  const TileFormat& format_;
  const WorkItem& item_;
  Index kv_head_;
  Workspace memory_;
  RowRange range_;
  TileStream stream_;
  Index head_dim_, value_dim_;  // padded
  Storage key_storage_, value_storage_;
  SoftmaxState softmax_;
  PartialRows sums_, segment_{};
  SegmentMerge merge_;
};

/// A work item from its first segment to its last, tile by tile, its KV heads side by side.
inline void walk(const Problem& call, const TileKernels& kernels, const WorkItem& item, const Workspace& memory,
                 const PartialRows& partials) {
  // not std::optional, whose construction clears all of its memory: two microseconds of a call
  static_assert(std::is_trivially_destructible_v<Walk>);
  alignas(Walk) std::byte storage[static_cast<std::size_t>(kMaxHeadsTogether) * sizeof(Walk)];
  Walk* const first = reinterpret_cast<Walk*>(storage);
  for (Index i = 0; i < item.kv_heads; ++i) std::construct_at(first + i, call, kernels, item, i, memory, partials);
  const std::span<Walk> heads(first, static_cast<std::size_t>(item.kv_heads));
  Index segment = item.segments.begin;
  do {  // once where nothing is visible, over no tiles
    for (auto& head : heads) head.begin();
    heads.front().for_each_tile(segment, [&](Index tile, bool opening) {
      for (auto& head : heads) head.visit(tile, opening);
    });
    for (auto& head : heads) head.end(segment);
    segment = item.segments.next(segment);
  } while (segment < item.segments.end);
  for (auto& head : heads) head.close();
}

}  // namespace headwise::detail
