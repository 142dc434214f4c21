// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <vector>

#include "headwise/attention/mass_store.hpp"
#include "headwise/attention/paying_rows.hpp"
#include "headwise/attention/plan.hpp"
#include "headwise/attention/problem.hpp"
#include "headwise/attention/row_range.hpp"
#include "headwise/attention/weight_record.hpp"
#include "headwise/attention/workspace.hpp"
#include "headwise/kernel/table.hpp"
#include "headwise/parallel/executor.hpp"

// The attention that keys are paid (MassOutput). Work items keep their weights; when the sums of their rows are known,
// a weight becomes an integer of units of 2^-23, and integers add up to the same sum in any order.

namespace headwise::detail {

/// What masses need of a call's memory. Outlives calls, so that they allocate nothing after the first of a size.
struct KeyMassMemory {
  struct Place {
    Index partial;         // of a part
    Index at, head_bytes;  // its records
  };
  Buffer records;
  std::vector<Place> places;
  MassMemory masses;
};

/// The masses of a call under way: open, { record, add … } of each work item, close.
class KeyMass {
 public:
  /// Rows of a work item that keep their weights even where those of all items together take much memory: an eighth of
  /// what the keys and values take, at 128 dimensions of 16 bits.
  static constexpr Index kFewRows = 16;
  static constexpr Index kMostRecordBytes = Index{1} << 26;

  KeyMass(const Problem& call, const TileKernels& kernels, KeyMassMemory& memory)
      : call_(call),
        kernels_(kernels),
        memory_(memory),
        last_queries_(call.outputs.mass->last_queries),
        operand_(kernels.weights_for(values_met(call.source.format, kernels))),
        store_(call, kernels, memory.masses) {}

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

  /// Makes room for the weights and masses of a call whose rows are finished by `items` and `finishes`.
  void open(const std::vector<WorkItem>& items, const std::vector<Finish>& finishes) {
    store_.open([&](auto f) {
      for (const WorkItem& item : items)
        if (item.partial < 0 && wants(item)) f(item);
      for (const Finish& finish : finishes)
        if (wants(finish.rows)) f(finish.rows);
    });
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
  void add(const WorkItem& item, Index head, const WeightRecord& record) const {
    PayingRows rows = rows_of(item, head);
    rows.add(record, 0);
    rows.end();
  }
  /// The same of rows that several items have met.
  void add(const Finish& finish, Index head) const {
    if (!wants(finish.rows)) return;
    PayingRows rows = rows_of(finish.rows, head);
    const auto add_parts = [&](const Split& split, Index first_row) {
      split.for_each_part([&](const Segments&, Index partial) {
        const KeyMassMemory::Place& at = place(partial);
        char* const records = static_cast<char*>(memory_.records.reserve(0)) + at.at;
        rows.add(WeightRecord(records + head * at.head_bytes, split.rows, operand_), first_row);
      });
    };
    add_parts(finish.prefix, finish.prefix_row);
    add_parts(finish.own, 0);
    rows.end();
  }

  void close(const ExecutorRef& executor) const { store_.close(executor); }

 private:
  /// The storage whose kernels meet the weights. Rows that widen it first take f32 either way.
  static Storage values_met(const TileFormat& format, const TileKernels& kernels) {
    return format.values_in_keys ? kernels.values_made_of(format.key_storage) : format.value_storage;
  }
  Index head_bytes(const WorkItem& item) const {
    return WeightRecord::bytes(WeightRecord::most_tiles(item), item.rows, operand_);
  }
  Index first_token(Index sequence) const {
    const Index queries = call_.num_queries(sequence);
    return queries - std::min(queries, last_queries_.value_or(queries));
  }
  /// Whether some row's weights are asked for, of some key. Members are sequences with all of their rows.
  bool wants(const WorkItem& item) const {
    if (last_queries_ == Index{0} || call_.num_keys(item.sequence) == 0) return false;
    return item.members || RowRange(call_, item).token(item.rows - 1) >= first_token(item.sequence);
  }
  PayingRows rows_of(const WorkItem& item, Index head) const {
    return PayingRows(call_, kernels_, store_, operand_, item, item.kv_head + head, first_token(item.sequence));
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
  const KeyMassMemory::Place& place(Index partial) const {
    return *std::lower_bound(memory_.places.begin(), memory_.places.end(), partial,
                             [](const KeyMassMemory::Place& a, Index b) { return a.partial < b; });
  }

  const Problem& call_;
  const TileKernels& kernels_;
  KeyMassMemory& memory_;
  std::optional<Index> last_queries_;
  Operand operand_;
  MassStore store_;
  Index own_bytes_ = 0;
};

}  // namespace headwise::detail
