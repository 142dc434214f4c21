// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>

#include "headwise/attention/finish.hpp"
#include "headwise/attention/lifted_rows.hpp"
#include "headwise/attention/merge.hpp"
#include "headwise/attention/query_gather.hpp"
#include "headwise/attention/row_range.hpp"
#include "headwise/attention/tile_mask.hpp"
#include "headwise/attention/tile_stream.hpp"
#include "headwise/attention/tile_transform.hpp"
#include "headwise/attention/values_apart.hpp"
#include "headwise/attention/weight_record.hpp"
#include "headwise/attention/workspace.hpp"
#include "headwise/core/checked.hpp"
#include "headwise/kernel/table.hpp"

namespace headwise::detail {

/// The rows of one KV head of a work item, on their way over their visible tiles, segment by segment:
/// open, { begin, { visit … }, end } …, close.
class Walk {
 public:
  /// `partials` are those of the split, if the item is part of one; `record` takes the weights, where it is of something.
  Walk(const Problem& call, const TileKernels& kernels, const WorkItem& item, Index head, const Workspace& memory,
       const PartialRows& partials, const WeightRecord& record = {})
      : call_(call),
        kernels_(kernels),
        format_(call.source.format),
        item_(item),
        kv_head_(item.kv_head + head),
        memory_(memory.head(head)),
        range_(call, item),
        mask_(call, kernels, range_, item, kv_head_, memory_),
        transform_(call, kernels, range_, kv_head_, item.rows, memory_),
        stream_(call, item, item.kv_head + head, memory_.packed),
        head_dim_(padded_head_dim(format_.head_dim)),
        value_dim_(padded_value_dim(format_.value_dim)),
        key_storage_(widens_keys() ? Storage::f32 : format_.key_storage),
        value_storage_(met_values()),
        softmax_{nullptr,
                 memory_.lane_sums,
                 memory_.tile_sums,
                 memory_.weights,
                 kernels.weights_for(value_storage_),
                 transform_.headroom()},
        sums_(splits() ? partials.from(item.partial + head * item.segments.depth() * item.rows, value_dim_)
                       : memory_.sums),
        merge_(kernels, item.rows, value_dim_),
        record_(record) {
    if (record_) record_.clear(), aim_at_record();
    gather_queries(call, kernels, item, kv_head_, range_, kernels.operand[static_cast<int>(key_storage_)],
                   transform_.query_factor(), memory_);
  }

  /// Behind the last tile that some row may see.
  Index end_tile() const { return mask_.end_tile(); }
  /// The first tile from `tile` on that some row may see.
  Index next_tile(Index tile) const { return mask_.next_tile(tile); }

  /// Starts the sum of a segment. Where no row sees a tile, there is nothing to it but that.
  void begin() {
    checked_index(merge_.count(), item_.segments.depth(), "partial sum of a work item");
    segment_ = sums_.from(merge_.count() * item_.rows, value_dim_);
    softmax_.max = segment_.max;
    std::fill_n(softmax_.max, item_.rows, kNoKeys);
    opening_ = true;  // rows without a max meet its first tile
    all_have_max_ = hid_ = false;
    if (record_) recorded_ = record_.num_tiles();
  }

  /// Adds a tile to it, if some row sees any of it.
  void visit(Index tile) {
    tile_ = tile;
    if (!mask_.look(tile)) return;
    sum_tile(softmax_, segment_.output);
    if (record_) aim_at_record();
  }

  /// Merges it with those before.
  void end(Index segment) {
    if (!opening_ && !sums_within(LiftedRows::kLargestSum)) mend_sums(segment);
    if (!opening_) reduce_lane_sums(softmax_.sum, item_.rows, segment_.sum);
    merge_.add(segment_, segment);
  }

  /// Instead of all that: the scores of a tile as they enter the softmax, [rows][64] in units of log2, hidden ones −inf;
  /// null where no row sees any of it.
  const float* scores_of(Index tile) {
    tile_ = tile;
    if (!mask_.look(tile)) return nullptr;
    write_scores(open_keys(mask_.end_tile()));  // of this tile alone: what comes behind may be forgotten
    return memory_.scores;
  }
  std::uint64_t visible(Index row) const { return mask_.bits(row); }

  /// Finishes the rows, or leaves their sums to the rest of the split.
  void close() {
    if (!splits()) finish_rows(call_, kernels_, item_, kv_head_, merge_.fold(), memory_.dense_row);
  }

 private:
  static constexpr float kNoKeys = -std::numeric_limits<float>::infinity();  // a row's max that has seen none

  bool widens(Storage storage) const { return item_.rows >= kernels_.widen_rows[static_cast<int>(storage)]; }
  /// Whether rows meet the keys in f32: also few rows where values are made of the wide keys, with the same bits.
  bool widens_keys() const {
    const int storage = static_cast<int>(format_.key_storage);
    return widens(format_.key_storage) ||
           (format_.values_in_keys && !kernels_.values_of_keys[storage] && kernels_.operand[storage] == Operand::f32);
  }
  /// The storage whose kernels meet the rows: f32 for a tile that is widened first.
  Storage met_values() const {
    if (format_.values_in_keys) return kernels_.values_made_of(format_.key_storage);
    return widens(format_.value_storage) ? Storage::f32 : format_.value_storage;
  }

  bool splits() const { return item_.partial >= 0; }

  bool sums_within(float bound) const { return kernels_.all_within(segment_.output, item_.rows * value_dim_, bound); }
  /// Of a segment: keeps infinities and NaN from rows that do not see them, then makes weights smaller for too large sums.
  void mend_sums(Index segment) {
    const bool apart = hid_ && !sums_within(std::numeric_limits<float>::max());
    if (apart) sum_again(segment, true);
    LiftedRows lifted(kernels_, segment_.output, item_.rows, value_dim_);
    if (!lifted.lift()) return;
    softmax_.lift = lifted.lifts();
    sum_again(segment, apart);
    if (lifted.let_go()) sum_again(segment, apart);
    softmax_.lift = nullptr;
  }
  /// Sums a segment again; `apart`, with care for the rows that do not see the infinities and NaN in it.
  void sum_again(Index segment, bool apart) {
    constexpr Index kTiles = kSegmentTokens / kTileTokens;
    if (record_) record_.go_back_to(recorded_), aim_at_record();
    mask_.restart();
    begin();
    apart_ = apart;
    const Index end = std::min((segment + 1) * kTiles, mask_.end_tile());
    for (Index tile = segment * kTiles; (tile = next_tile(tile)) < end; ++tile) visit(tile);
    apart_ = false;
    mask_.restart();
  }

  /// The tile's keys, met by the rows, while those of tile `next` are asked for.
  ScoreArgs open_keys(Index next) {
    keys_ = stream_.open(tile_, next, mask_.end_tile(), range_.keys());
    return {memory_.queries,
            widened_keys(keys_),
            memory_.scores,
            item_.rows,
            head_dim_,
            mask_.end(),
            mask_.ends(),
            stream_.ahead_of_keys(),
            transform_.of_tile(tile_ * kTileTokens, mask_),
            transform_.calls_function() ? nullptr : mask_.words()};
  }

  /// scores, transformed → the user's function → masks
  void write_scores(const ScoreArgs& args) {
    kernels_.scores[static_cast<int>(key_storage_)](args, nullptr);
    if (!transform_.calls_function()) return;
    transform_.call_function(memory_.scores, mask_);
    mask_.hide(memory_.scores);
  }

  /// scores → softmax → weighted sum
  void sum_tile(const SoftmaxState& state, float* output) {
    const ScoreArgs args = open_keys(stream_.asks_ahead() ? mask_.look_ahead(tile_) : mask_.next_tile(tile_ + 1));
    const bool opening = std::exchange(opening_, false);
    if (opening) {
      std::fill_n(state.sum, item_.rows * kMaxLanes, 0.0f);
      std::fill_n(output, item_.rows * value_dim_, 0.0f);
    }
    const bool fused = !opening && !state.lift && !transform_.calls_function() && !some_row_opens() &&
                       kernels_.fuses(key_storage_, softmax_.operand);
    const bool done = fused && !kernels_.scores[static_cast<int>(key_storage_)](args, &state);
    if (!done) {
      const bool there = fused && (args.transform || args.visible);
      if (there)
        mask_.hide(memory_.scores);
      else
        write_scores(args);
      if (opening || fused || kernels_.softmax(memory_.scores, item_.rows, state))
        kernels_.rescale(memory_.scores, item_.rows, state, output, value_dim_);
    }
    if (record_) checked_index(record_.num_tiles(), WeightRecord::most_tiles(item_), "tile of a weight record");
    if (record_) record_.keep(tile_, state.max, mask_);

    const bool hides = (!hid_ || apart_) && hides_stored(), checks = hides && (apart_ || !shows_in_sums());
    hid_ |= hides && !checks;
    if (format_.values_in_keys && !checks) return sum_keys(met_as_values(args.keys), output);
    const void* const stored = format_.values_in_keys ? nullptr : stream_.values();
    const void* const values = stored ? widened_values(stored) : values_of_keys(met_as_values(args.keys));
    if (checks && !(stored ? all_finite(stored, format_.value_storage) : all_finite(values, value_storage_)))
      return sum_values_apart(
          kernels_, value_storage_, values, format_.value_dim, value_dim_, softmax_.operand, memory_, item_.rows,
          [&](Index row) { return mask_.bits(row); }, output);
    kernels_.weighted_sum[static_cast<int>(value_storage_)]({memory_.weights, values, output, item_.rows, value_dim_,
                                                             mask_.end(), mask_.ends(), stream_.ahead_of_values()});
  }

  /// Whether a row sees its first key here.
  bool some_row_opens() {
    if (all_have_max_) return false;
    all_have_max_ = true;
    bool opens = false;
    for (Index r = 0; r < item_.rows; ++r) {
      if (softmax_.max[r] != kNoKeys) continue;
      all_have_max_ = false;
      opens |= mask_.bits(r) != 0;
    }
    return opens;
  }

  /// The next tile's weights are made where the record wants them.
  void aim_at_record() { memory_.weights = softmax_.weights = record_.next_weights(); }

  const void* widened_keys(const void* keys) const {
    if (key_storage_ == format_.key_storage) return keys;
    kernels_.widen_keys[static_cast<int>(format_.key_storage)](keys, format_.head_dim, memory_.wide_keys);
    return memory_.wide_keys;
  }
  const void* widened_values(const void* values) const {
    if (!widens(format_.value_storage)) return values;
    kernels_.widen_values[static_cast<int>(format_.value_storage)](values, format_.value_dim, memory_.wide_values);
    return memory_.wide_values;
  }

  /// The tile's keys as those of which values are made.
  const void* met_as_values(const void* met_keys) const {
    if (key_storage_ == value_storage_) return met_keys;
    // integers, which their rows have met as such
    kernels_.widen_keys[static_cast<int>(format_.key_storage)](keys_, format_.head_dim, memory_.wide_keys);
    return memory_.wide_keys;
  }
  /// Values that are the first dimensions of the keys.
  const void* values_of_keys(const void* keys) const {
    for (Index d = 0; d < value_dim_; d += kPanelDims)
      make_panel(keys, d,
                 static_cast<char*>(static_cast<void*>(memory_.wide_values)) + d * kTileTokens * value_bytes());
    return memory_.wide_values;
  }
  /// The same, summed panel by panel: it stays in L1 while all rows meet it.
  void sum_keys(const void* keys, float* output) const {
    const AheadArgs ahead = stream_.ahead_of_values();
    for (Index d = 0; d < value_dim_; d += kPanelDims) {
      make_panel(keys, d, memory_.wide_values);
      const Index width = panel_dims(value_dim_, d);
      const AheadArgs part{static_cast<const char*>(ahead.begin) + ahead.bytes * d / value_dim_,
                           ahead.bytes * width / value_dim_};
      kernels_.weighted_sum[static_cast<int>(value_storage_)]({memory_.weights, memory_.wide_values, output + d,
                                                               item_.rows, width, mask_.end(), mask_.ends(), part,
                                                               value_dim_});
    }
  }
  void make_panel(const void* keys, Index dim, void* panel) const {
    kernels_.values_of_keys[static_cast<int>(value_storage_)](keys, format_.head_dim, value_dim_, dim, panel);
  }
  Index value_bytes() const { return size_of(value_storage_); }

  /// Whether some row does not see all of the tile's stored tokens. Infinities and NaN in it must be kept from such a row:
  /// 0 · NaN is NaN.
  bool hides_stored() const {
    if (mask_.whole()) return false;
    const Index stored = call_.source.num_tokens(call_.source.self, item_.sequence) - tile_ * kTileTokens;
    return !mask_.all_see(std::min(stored, kTileTokens));
  }
  bool all_finite(const void* values, Storage storage) const {
    return kernels_.all_finite[static_cast<int>(storage)](values, format_.value_dim);
  }
  /// Whether what is no number among the values stays in the sums of a segment, of whichever weights: these are far fewer
  /// numbers to check. Sums of digits may lose a NaN.
  bool shows_in_sums() const { return kernels_.operand[static_cast<int>(value_storage_)] != Operand::digits; }

  const Problem& call_;
  const TileKernels& kernels_;
  const TileFormat& format_;
  const WorkItem& item_;
  Index kv_head_;
  Workspace memory_;
  RowRange range_;
  TileMask mask_;
  TileTransform transform_;
  TileStream stream_;
  Index head_dim_, value_dim_;  // padded
  Storage key_storage_, value_storage_;
  SoftmaxState softmax_;
  PartialRows sums_, segment_{};
  SegmentMerge merge_;
  WeightRecord record_;
  Index tile_ = 0;
  const void* keys_ = nullptr;  // of the tile, as stored
  bool opening_ = true, all_have_max_ = false;
  bool hid_ = false;    // whether stored tokens of the segment were hidden from some row, unchecked
  bool apart_ = false;  // whether each such tile is checked
  Index recorded_ = 0;  // tiles before the segment
};

}  // namespace headwise::detail
