// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <limits>
#include <mutex>
#include <vector>

#include "headwise/attention/element_masks.hpp"
#include "headwise/attention/plan.hpp"
#include "headwise/attention/problem.hpp"
#include "headwise/attention/row_range.hpp"
#include "headwise/attention/tile_transform.hpp"
#include "headwise/attention/weight_record.hpp"
#include "headwise/attention/workspace.hpp"
#include "headwise/core/checked.hpp"
#include "headwise/kernel/table.hpp"
#include "headwise/parallel/executor.hpp"

// The attention that keys are paid (MassOutput). Work items keep their weights; when the log-sum-exp of their rows is known,
// a weight becomes an integer of units of 2^-23, and integers add up to the same sum in any order.

namespace headwise::detail {

/// What masses need of a call's memory. Outlives calls, so that they allocate nothing after the first of a size.
struct MassMemory {
  struct Place {
    Index partial;         // of a part
    Index at, head_bytes;  // its records; at −1: none
  };
  Buffer records, sums;
  std::vector<Place> places;
  std::vector<Index> sums_of;  // [sequence] where its sums begin; −1: its masses are complete with one work item
  std::array<std::mutex, 64> locks;
};

/// The masses of a call under way: open, { record, add … } of each work item, close.
class KeyMass {
 public:
  /// Rows of a work item that keep their weights even where those of all items together take much memory: an eighth of
  /// what the keys and values take, at 128 dimensions of 16 bits.
  static constexpr Index kFewRows = 16;
  static constexpr Index kMostRecordBytes = Index{1} << 26;

  KeyMass(const Problem& call, const TileKernels& kernels, MassMemory& memory)
      : call_(call),
        kernels_(kernels),
        memory_(memory),
        output_(*call.outputs.mass),
        operand_(kernels.weights_for(values_met(call.source.format, kernels))),
        by_query_head_(output_.values.heads != call.groups.num_kv_heads()) {}

  /// Whether the items of a split may keep their weights until all are done: of few rows, or not many.
  static bool may_split(const Plan& plan) {
    Index scores = 0, rows = 0;
    for (const WorkItem& item : plan.items()) {
      if (item.partial < 0) continue;
      rows = std::max(rows, item.rows);
      scores += item.kv_heads * item.rows * WeightRecord::most_tiles(item) * kTileTokens;
    }
    return rows <= kFewRows || 4 * scores <= kMostRecordBytes;
  }

  /// Makes room for the sums of a call whose rows are finished by `items` and `finishes`, and clears what is set.
  void open(const std::vector<WorkItem>& items, const std::vector<Finish>& finishes) {
    if (!output_.add) clear();
    find_sums(items, finishes);
    find_places(items);
  }

  /// The records of an item's KV heads to `records`, where its weights are asked for. `own` is this thread's memory, for an item
  /// that finishes its rows.
  bool record(const WorkItem& item, Buffer& own, WeightRecord* records) const {
    if (!wants(item)) return false;
    const Index bytes = head_bytes(item);
    char* const memory = item.partial < 0 ? static_cast<char*>(own.reserve(std::max(own_bytes_, item.kv_heads * bytes)))
                                          : static_cast<char*>(memory_.records.reserve(0)) + place(item.partial).at;
    for (Index i = 0; i < item.kv_heads; ++i) records[i] = WeightRecord(memory + i * bytes, item.rows, operand_);
    return true;
  }

  /// Adds what the finished rows of one of the item's KV heads have paid, by their only record.
  void add(const WorkItem& item, Index head, const WeightRecord& record) {
    Rows rows(*this, item, item.kv_head + head);
    rows.add(record, 0);
  }
  /// The same of rows that several items have met.
  void add(const Finish& finish, Index head) {
    if (!wants(finish.rows)) return;
    Rows rows(*this, finish.rows, finish.rows.kv_head + head);
    const auto add_parts = [&](const Split& split, Index first_row) {
      split.for_each_part([&](const Segments&, Index partial) {
        const MassMemory::Place& at = place(partial);
        char* const records = static_cast<char*>(memory_.records.reserve(0)) + at.at;
        rows.add(WeightRecord(records + head * at.head_bytes, split.rows, operand_), first_row);
      });
    };
    add_parts(finish.prefix, finish.prefix_row);
    add_parts(finish.own, 0);
  }

  /// Writes the sums that several work items have made.
  void close(const ExecutorRef& executor) {
    const Array& view = output_.values;
    for (Index b = 0; b < view.sequences; ++b) {
      if (memory_.sums_of[static_cast<std::size_t>(b)] < 0) continue;
      executor.parallel_for(view.heads, [&](Index h) {
        const std::uint64_t* const sums = sums_of(b, h);
        for (Index first = 0; first < call_.num_keys(b); first += kTileTokens) {
          float paid[kTileTokens];
          for (Index t = 0; t < kTileTokens; ++t) paid[t] = in_weights(sums[first + t]);
          pay(b, first, h, paid);
        }
      });
    }
  }

 private:
  static constexpr float kUnit = 0x1p-23f;
  static constexpr std::uint64_t kNan = std::uint64_t{1} << 63;  // beyond any sum
  static constexpr Index kMostRows = std::max(kMaxRows, kPackedPrefillRows);
  static_assert(kMostRows < 512, "sums of a work item in 32 bits");

  static float in_weights(std::uint64_t sum) {
    return sum & kNan ? std::numeric_limits<float>::quiet_NaN() : static_cast<float>(sum) * kUnit;
  }

  /// The storage whose kernels meet the weights. Rows that widen it first take f32 either way.
  static Storage values_met(const TileFormat& format, const TileKernels& kernels) {
    return format.values_in_keys ? kernels.values_made_of(format.key_storage) : format.value_storage;
  }
  Index head_bytes(const WorkItem& item) const {
    return WeightRecord::bytes(WeightRecord::most_tiles(item), item.rows, operand_);
  }
  Index first_token(Index sequence) const {
    const Index queries = call_.num_queries(sequence);
    return queries - std::min(queries, output_.last_queries.value_or(queries));
  }
  /// Whether some row's weights are asked for. Members are sequences with all of their rows.
  bool wants(const WorkItem& item) const {
    if (output_.last_queries == Index{0}) return false;
    return item.members || RowRange(call_, item).token(item.rows - 1) >= first_token(item.sequence);
  }

  /// Sequences whose rows of a KV head are several work items' have sums apart, in integers.
  void find_sums(const std::vector<WorkItem>& items, const std::vector<Finish>& finishes) {
    auto& sums_of = memory_.sums_of;
    sums_of.assign(static_cast<std::size_t>(call_.num_sequences()), -1);
    const auto look = [&](const WorkItem& item) {
      if (item.partial < 0 &&
          item.rows < call_.groups.of(item.sequence, item.kv_head).size() * call_.num_queries(item.sequence))
        sums_of[static_cast<std::size_t>(item.sequence)] = 0;
    };
    for (const WorkItem& item : items) look(item);
    for (const Finish& finish : finishes) look(finish.rows);
    Index all = 0;
    for (Index b = 0; b < call_.num_sequences(); ++b)
      if (Index& at = sums_of[static_cast<std::size_t>(b)]; at == 0) {
        at = all;
        all += output_.values.heads * padded_keys(b);
      }
    if (all > 0) std::memset(memory_.sums.reserve(8 * all), 0, static_cast<std::size_t>(8 * all));
  }

  void find_places(const std::vector<WorkItem>& items) {
    auto& places = memory_.places;
    places.clear();
    Index all = 0;
    own_bytes_ = 0;
    for (const WorkItem& item : items) {
      const Index bytes = wants(item) ? head_bytes(item) : 0;
      if (item.partial < 0) {
        own_bytes_ = std::max(own_bytes_, item.kv_heads * bytes);
        continue;
      }
      places.push_back({item.partial, all, bytes});
      all += item.kv_heads * bytes;
    }
    memory_.records.reserve(all);
    std::sort(places.begin(), places.end(), [](const auto& a, const auto& b) { return a.partial < b.partial; });
  }
  const MassMemory::Place& place(Index partial) const {
    return *std::lower_bound(memory_.places.begin(), memory_.places.end(), partial,
                             [](const MassMemory::Place& a, Index b) { return a.partial < b; });
  }

  Index padded_keys(Index sequence) const { return round_up(call_.num_keys(sequence), kTileTokens); }
  std::uint64_t* sums_of(Index sequence, Index head) const {
    return static_cast<std::uint64_t*>(memory_.sums.reserve(0)) + memory_.sums_of[static_cast<std::size_t>(sequence)] +
           head * padded_keys(sequence);
  }
  /// Adds to the masses of keys `first` … first + 63, as far as there are so many.
  void pay(Index sequence, Index first, Index head, const float* paid) const {
    const Array& view = output_.values;
    const Index tokens = std::min(kTileTokens, call_.num_keys(sequence) - first), step = view.strides.token;
    void* const to = view.row(sequence, first, head);
    check_range(first, tokens, view.tokens, "keys of the mass");
    if (step == 1) {  // a copy: elements may be misaligned
      float masses[kTileTokens]{};
      std::memcpy(masses, to, static_cast<std::size_t>(4 * tokens));
      for (Index t = 0; t < kTileTokens; ++t) masses[t] += paid[t];
      std::memcpy(to, masses, static_cast<std::size_t>(4 * tokens));
      return;
    }
    for (Index t = 0; t < tokens; ++t)
      store_element(to, Storage::f32, t * step, load_element(to, Storage::f32, t * step) + paid[t]);
  }
  void clear() const {
    const Array& view = output_.values;
    const bool heads_adjacent = view.strides.head == 1;
    for (Index b = 0; b < view.sequences; ++b)
      for (Index t = 0; t < view.tokens; ++t) {
        void* const row = view.row(b, t, 0);
        if (heads_adjacent)
          std::memset(row, 0, static_cast<std::size_t>(4 * view.heads));
        else
          for (Index h = 0; h < view.heads; ++h) store_element(row, Storage::f32, h * view.strides.head, 0.0f);
      }
  }

  /// Finished rows of a KV head, whose weights become masses.
  class Rows {
   public:
    Rows(KeyMass& mass, const WorkItem& item, Index kv_head)
        : mass_(mass),
          item_(item),
          kv_head_(kv_head),
          heads_(mass.call_.groups.of(item.sequence, kv_head)),
          range_(mass.call_, item) {
      constexpr float kInfinity = std::numeric_limits<float>::infinity(), kUnits = 23.0f;
      const Array& lse = mass.call_.outputs.lse;
      const Index first_token = mass.first_token(item.sequence);
      const bool stretched = adds_mask(*mass.call_.options);
      const auto total_of = [&](float natural) { return stretched ? AddedUnits::to_log2(natural) : natural * kLog2e; };
      for (Index r = 0; r < item.rows; ++r) {
        const auto [sequence, token] = mass.call_.place_of(item.sequence, range_.token(r));
        const float sum = load_element(lse.row(sequence, token, heads_[range_.head_in_group(r)]), Storage::f32, 0);
        const bool counts = range_.token(r) >= first_token;
        nan_[r] = counts && !(sum < kInfinity);
        clean_[r] = counts && !nan_[r];
        all_clean_ = all_clean_ && clean_[r];
        any_nan_ = any_nan_ || nan_[r];
        totals_[r] = clean_[r] && sum > -kInfinity ? total_of(sum) - kUnits : kInfinity;  // ∞: weights of 0
      }
      std::fill(totals_ + item.rows, totals_ + round_up(item.rows, kMaxLanes), kInfinity);
    }

    /// The rows are those of the record from `first_row` on.
    void add(const WeightRecord& record, Index first_row) {
      const TileKernels& kernels = mass_.kernels_;
      const Operand operand = mass_.operand_;
      const Index group = heads_.size(), row = row_bytes(operand, kTileTokens);
      for (Index i = 0; i < record.num_tiles(); ++i) {
        const WeightRecord::Tile tile = record.tile(i);
        float* const max = tile.max + first_row;
        char* const weights = static_cast<char*>(tile.weights) + first_row * row;
        if (!all_clean_) clean(weights, max, row);
        if (any_nan_) spread_nan(tile, first_row);
        alignas(64) float factors[kMostRows];
        alignas(64) std::uint32_t sums[kTileTokens];
        kernels.exp2_difference(max, totals_, round_up(item_.rows, kMaxLanes), factors);
        if (!mass_.by_query_head_) {
          kernels.add_mass({weights, operand, factors, item_.rows, 1, sums});
          pay(tile.index, kv_head_, sums);
          continue;
        }
        for (Index r = 0; r < std::min(group, item_.rows); ++r) {
          kernels.add_mass({weights + r * row, operand, factors + r, ceil_div(item_.rows - r, group), group, sums});
          pay(tile.index, heads_[range_.head_in_group(r)], sums);
        }
      }
    }

   private:
    /// Rows that do not count, or are NaN, become weights of 0: their numbers may be anything.
    void clean(char* weights, float* max, Index row) const {
      for (Index r = 0; r < item_.rows; ++r) {
        if (clean_[r]) continue;
        std::memset(weights + r * row, 0, static_cast<std::size_t>(row));
        max[r] = 0;
      }
    }

    /// A row that is NaN pays NaN to the keys that it sees.
    void spread_nan(const WeightRecord::Tile& tile, Index first_row) {
      const Index first = tile.index * kTileTokens, tokens = std::min(kTileTokens, range_.keys() - first);
      for (Index r = 0; r < item_.rows; ++r) {
        if (!nan_[r]) continue;
        const Index head = mass_.by_query_head_ ? heads_[range_.head_in_group(r)] : kv_head_;
        for (Index t = 0; t < tokens; ++t)
          if (tile.whole || (tile.bits[first_row + r] >> t & 1) != 0) pay_nan(first + t, head);
      }
    }

    bool sums_apart() const { return mass_.memory_.sums_of[static_cast<std::size_t>(item_.sequence)] >= 0; }
    std::mutex& lock_of(Index head, Index tile) const {
      auto& locks = mass_.memory_.locks;
      return locks[static_cast<std::size_t>(head * 7 + tile) % locks.size()];
    }

    void pay(Index tile, Index head, const std::uint32_t* units) {
      const Index first = tile * kTileTokens;
      if (!sums_apart()) {
        alignas(64) float paid[kTileTokens];
        const bool few = item_.rows < 256;  // no sum reaches 2^31: half the work
        for (Index t = 0; few && t < kTileTokens; ++t)
          paid[t] = static_cast<float>(static_cast<std::int32_t>(units[t])) * kUnit;
        for (Index t = 0; !few && t < kTileTokens; ++t) paid[t] = static_cast<float>(units[t]) * kUnit;
        return mass_.pay(item_.sequence, first, head, paid);
      }
      std::uint64_t* const sums = mass_.sums_of(item_.sequence, head) + first;
      const std::lock_guard lock(lock_of(head, tile));
      for (Index t = 0; t < kTileTokens; ++t) sums[t] += units[t];
    }
    void pay_nan(Index key, Index head) {
      if (!sums_apart())
        return store_element(mass_.output_.values.row(item_.sequence, key, head), Storage::f32, 0,
                             std::numeric_limits<float>::quiet_NaN());
      const std::lock_guard lock(lock_of(head, key / kTileTokens));
      mass_.sums_of(item_.sequence, head)[key] |= kNan;
    }

    KeyMass& mass_;
    const WorkItem& item_;
    Index kv_head_;
    QueryHeads heads_;
    RowRange range_;
    bool all_clean_ = true, any_nan_ = false;
    bool nan_[kMostRows], clean_[kMostRows];
    alignas(64) float totals_[kMostRows];
  };

  const Problem& call_;
  const TileKernels& kernels_;
  MassMemory& memory_;
  const MassOutput& output_;
  Operand operand_;
  bool by_query_head_;
  Index own_bytes_ = 0;
};

}  // namespace headwise::detail
