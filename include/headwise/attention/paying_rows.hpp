// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <mutex>

#include "headwise/attention/mass_store.hpp"
#include "headwise/attention/plan.hpp"
#include "headwise/attention/problem.hpp"
#include "headwise/attention/row_range.hpp"
#include "headwise/attention/row_scales.hpp"
#include "headwise/attention/weight_record.hpp"
#include "headwise/kernel/table.hpp"

namespace headwise::detail {

/// Finished rows of a KV head, whose weights become masses: { add each of their records, in the order of the keys … }, end.
class PayingRows {
 public:
  /// Those of tokens before `first_token` pay nothing.
  PayingRows(const Problem& call, const TileKernels& kernels, const MassStore& store, Operand operand,
             const WorkItem& item, Index kv_head, Index first_token)
      : kernels_(kernels),
        store_(store),
        operand_(operand),
        item_(item),
        kv_head_(kv_head),
        range_(call, item),
        to_(store.to(item.sequence)),
        bytes_(to_ == MassTo::sum ? 8 : 4),
        in_array_(store.place(item.sequence) == MassPlace::array) {
    const QueryHeads heads = call.groups.of(item.sequence, kv_head);
    heads_ = store.by_query_head() ? heads.size() : 1;
    for (Index i = 0; i < std::min(heads_, item.rows); ++i) {
      head_of_[i] = store.by_query_head() ? heads[range_.head_in_group(i)] : kv_head;
      masses_[i] = store.of(item.sequence, head_of_[i]);
    }
    for (Index r = 0; r < item.rows; ++r) {
      const auto [sequence, token] = call.place_of(item.sequence, range_.token(r));
      const RowScale scale = call.scales->at(sequence, token, heads[range_.head_in_group(r)]);
      const bool pays = range_.token(r) >= first_token, finite = scale.is_finite();
      fate_[r] = finite ? Fate::number : pays ? Fate::pays_nan : Fate::left_out;
      any_nan_ = any_nan_ || !finite;
      max_[r] = finite ? scale.max : 0.0f;
      factors_[r] = finite && pays ? scale.factor : 0.0f;
    }
    const Index padded = round_up(item.rows, kMaxLanes);
    std::fill(max_ + item.rows, max_ + padded, 0.0f);
    std::fill(factors_ + item.rows, factors_ + padded, 0.0f);
  }

  /// The rows are those of the record from `first_row` on.
  void add(const WeightRecord& record, Index first_row) {
    for (Index i = 0, count; i < record.num_tiles(); i += count) {
      const Index index = record.index(i);
      count = any_nan_ || to_ == MassTo::sum ? 1 : run_from(record, i);
      fill_to(index * kTileTokens);
      add(record, i, count, first_row);
      end_ = (index + count) * kTileTokens;
    }
  }

  void end() { fill_to(range_.keys()); }

 private:
  enum class Fate : std::uint8_t { number, pays_nan, left_out };  // the last of a NaN that does not count
  static_assert(kMostRows <= kMostMassRows);

  /// Tiles of the record from i on that are one behind another.
  static Index run_from(const WeightRecord& record, Index i) {
    Index count = 1;
    while (i + count < record.num_tiles() && record.index(i + count) == record.index(i) + count) ++count;
    return count;
  }

  void add(const WeightRecord& record, Index i, Index count, Index first_row) {
    const WeightRecord::Tile tile = record.tile(i);
    const Index first = tile.index * kTileTokens, keys = count * kTileTokens, row = row_bytes(operand_, kTileTokens);
    char* const weights = tile.weights + first_row * row;
    float* const max = tile.max + first_row;
    if (any_nan_) clear_nan(weights, max, row);
    for (Index h = 0; h < std::min(heads_, item_.rows); ++h) at_[h] = masses_[h] + bytes_ * first;
    const MassArgs args{weights,  max,        record.tile_bytes(),
                        count,    operand_,   max_,
                        factors_, item_.rows, heads_,
                        to_,      at_,        in_array_ ? std::min(keys, range_.keys() - first) : keys};
    std::unique_lock<std::mutex> lock;
    if (to_ == MassTo::sum) lock = std::unique_lock(store_.lock_of(kv_head_, tile.index));
    kernels_.add_mass(args);
    if (any_nan_) spread_nan(tile, first_row);
  }

  /// Rows that are NaN become weights of 0: their numbers may be anything.
  void clear_nan(char* weights, float* max, Index row) const {
    for (Index r = 0; r < item_.rows; ++r) {
      if (fate_[r] == Fate::number) continue;
      std::memset(weights + r * row, 0, static_cast<std::size_t>(row));
      max[r] = 0;
    }
  }
  /// A row that is NaN pays NaN to the keys that it sees.
  void spread_nan(const WeightRecord::Tile& tile, Index first_row) const {
    const Index first = tile.index * kTileTokens, tokens = std::min(kTileTokens, range_.keys() - first);
    for (Index r = 0; r < item_.rows; ++r) {
      if (fate_[r] != Fate::pays_nan) continue;
      for (Index t = 0; t < tokens; ++t)
        if (tile.whole || (tile.bits[first_row + r] >> t & 1) != 0)
          store_.pay_nan(item_.sequence, head_of_[r % heads_], first + t);
    }
  }
  /// What is set is set for every key, those that no row has met too.
  void fill_to(Index key) {
    if (to_ == MassTo::set && key > end_)
      for (Index h = 0; h < std::min(heads_, item_.rows); ++h)
        std::memset(masses_[h] + 4 * end_, 0, static_cast<std::size_t>(4 * (key - end_)));
  }

  const TileKernels& kernels_;
  const MassStore& store_;
  Operand operand_;
  const WorkItem& item_;
  Index kv_head_, heads_;
  RowRange range_;
  MassTo to_;
  Index bytes_;  // of a mass
  bool in_array_;
  bool any_nan_ = false;
  Index end_ = 0;  // of the keys that are settled
  Fate fate_[kMostRows];
  Index head_of_[kMostRows];
  char* masses_[kMostRows];
  void* at_[kMostRows];
  alignas(64) float max_[kMostRows], factors_[kMostRows];
};

}  // namespace headwise::detail
