// SPDX-License-Identifier: MIT
#pragma once

#include "headwise/attention/plan.hpp"
#include "headwise/attention/problem.hpp"
#include "headwise/attention/query_turns.hpp"
#include "headwise/core/linkage.hpp"
#include "headwise/parallel/executor.hpp"

namespace headwise::detail {

/// Works out a plan in the memory of the one before it.
void make_plan(Plan& plan, const CallShape& call, Index threads);

/// Runs a checked call of what was planned: walk each work item → merge what was split → finish.
void attend(const Problem& call, const Plan& plan, const ExecutorRef& executor);

/// Plans a checked call and runs it.
void attend(const Problem& call, const ExecutorRef& executor);

}  // namespace headwise::detail

#if !defined(HEADWISE_DECLARE_ONLY)

#include <algorithm>
#include <atomic>
#include <memory>

#include "headwise/attention/checked_call.hpp"
#include "headwise/attention/key_mass.hpp"
#include "headwise/attention/score_output.hpp"
#include "headwise/attention/walk_item.hpp"

namespace headwise::detail {

/// Calls f(item) for every item, each on one of the executor's threads, in order of claiming.
template <class Item, class F>
void for_each_item(const std::vector<Item>& items, const ExecutorRef& executor, F f) {
  const Index count = std::ssize(items), workers = std::min(executor.concurrency(), count);
  if (workers <= 1) {
    for (const Item& item : items) f(item);
    return;
  }
  std::atomic<Index> next{0};
  executor.parallel_for(workers, [&](Index) {
    for (Index i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) f(items[static_cast<std::size_t>(i)]);
  });
}

/// Query tokens beyond a sequence's query_length: output 0, lse −inf, scores −inf, weights 0.
inline void clear_unused_queries(const Problem& call) {
  if (call.options->query_lengths.empty()) return;
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  const Array &out = call.outputs.values, &lse = call.outputs.lse;
  for (Index b = 0; b < out.sequences; ++b)
    for (Index t = call.num_queries(b); t < out.tokens; ++t)
      for (Index h = 0; h < out.heads; ++h) {
        for (Index d = 0; d < out.dim; ++d) store_element(out.row(b, t, h), out.storage, d * out.strides.dim, 0.0f);
        if (call.outputs.has_lse) store_element(lse.row(b, t, h), Storage::f32, 0, kNone);
        if (const auto& scores = call.outputs.scores)
          for (Index key = 0; key < scores->values.dim; ++key)
            store_element(scores->values.row(b, t, h), Storage::f32, key * scores->values.strides.dim,
                          scores->stage == ScoreStage::weights ? 0.0f : kNone);
      }
}

/// What a call needs beside its work items' workspaces. Outlives the call, so that decoding allocates nothing after its
/// first step.
struct CallMemory {
  CheckedSource source;
  Plan plan;
  QueryTurns turns;
  Buffer partials;
  // where scores or masses are asked for
  std::vector<WorkItem> row_tiles;
  Buffer scales;
  KeyMassMemory mass;
};

/// This thread's CallMemory, or one of its own where that is in use: an executor may run another call on a thread that
/// waits for its own.
class CallMemoryLease {
 public:
  CallMemoryLease() : slot_(slot()) {
    if (slot_.in_use)
      own_ = std::make_unique<CallMemory>();
    else
      slot_.in_use = true;
  }
  ~CallMemoryLease() {
    if (!own_) slot_.in_use = false;
  }
  CallMemoryLease(const CallMemoryLease&) = delete;
  CallMemoryLease& operator=(const CallMemoryLease&) = delete;

  CallMemory* operator->() { return own_ ? own_.get() : &slot_.memory; }
  CallMemory& operator*() { return *operator->(); }

 private:
  struct Slot {
    CallMemory memory;
    bool in_use = false;
  };
  static Slot& slot() {
    thread_local Slot slot;
    return slot;
  }
  Slot& slot_;
  std::unique_ptr<CallMemory> own_;
};

/// This thread's memory for the work item it runs: items never nest.
inline Buffer& item_memory() {
  thread_local Buffer buffer;
  return buffer;
}
/// The same for the weights that it keeps.
inline Buffer& record_memory() {
  thread_local Buffer buffer;
  return buffer;
}

/// Merges what several work items have left of one KV head's rows, and finishes them.
inline void finish_split(const Problem& call, const TileKernels& kernels, const Finish& finish, Index head,
                         const PartialRows& partials, float* dense_row) {
  const WorkItem& item = finish.rows;
  const Index value_dim = padded_value_dim(call.source.format.value_dim);
  SegmentMerge merge(kernels, item.rows, value_dim);
  finish.prefix.for_each_block(head, [&](Index begin, Index size, Index row) {
    merge.add(partials.from(row + finish.prefix_row, value_dim), begin, size);
  });
  finish.own.for_each_block(
      head, [&](Index begin, Index size, Index row) { merge.add(partials.from(row, value_dim), begin, size); });
  finish_rows(call, kernels, item, item.kv_head + head, merge.fold(), dense_row);
}

inline WorkspaceShape workspace_shape(const Problem& call, const std::vector<WorkItem>& items) {
  WorkspaceShape shape{call.source.format};
  if (!call.source.tile) shape.pack_scratch = pack_scratch_bytes(shape.format);
  shape.masks = has_element_masks(*call.options);
  shape.adds = adds_mask(*call.options);
  for (const WorkItem& item : items) {
    shape.kv_heads = std::max(shape.kv_heads, item.kv_heads);
    shape.rows = std::max(shape.rows, item.rows);
    shape.depth = std::max(shape.depth, item.segments.depth());
  }
  return shape;
}

/// Walks items and finishes what they leave, with the masses of their keys where these are asked for.
inline void run_items(const Problem& call, const std::vector<WorkItem>& items, const std::vector<Finish>& finishes,
                      Index split_rows, Buffer& split_memory, const ExecutorRef& executor, KeyMass* mass) {
  const TileKernels& kernels = tile_kernels();
  const Index value_dim = padded_value_dim(call.source.format.value_dim);
  PartialRows partials{};
  if (split_rows > 0) {
    partials.max = static_cast<float*>(split_memory.reserve(split_rows * (value_dim + 2) * 4));
    partials.sum = partials.max + split_rows;
    partials.output = partials.sum + split_rows;
  }

  const WorkspaceShape shape = workspace_shape(call, items);
  for_each_item(items, executor, [&](const WorkItem& item) {
    check_item(call, item, shape, split_rows);
    const Workspace memory(item_memory(), shape);
    WeightRecord records[static_cast<std::size_t>(kMaxHeadsTogether)];
    if (!mass || !mass->record(item, record_memory(), records)) return walk(call, kernels, item, memory, partials);
    walk(call, kernels, item, memory, partials, records);
    for (Index head = 0; item.partial < 0 && head < item.kv_heads; ++head) mass->add(item, head, records[head]);
  });
  for_each_item(finishes, executor, [&](const Finish& finish) {
    const Workspace workspace(item_memory(), shape);
    for (Index head = 0; head < finish.rows.kv_heads; ++head) {
      finish_split(call, kernels, finish, head, partials, workspace.dense_row);
      if (mass) mass->add(finish, head);
    }
  });
}

/// The plan's row tiles, each with all of its keys.
inline void list_row_tiles(const CallShape& call, const Plan& plan, std::vector<WorkItem>& tiles) {
  tiles.clear();
  for (const WorkItem& item : plan.items())
    if (item.partial < 0) tiles.push_back(item);
  for (const Finish& finish : plan.finishes()) {
    tiles.push_back(finish.rows);
    tiles.back().segments = RowRange(call, finish.rows).segments();
  }
  std::sort(tiles.begin(), tiles.end(), [](const WorkItem& a, const WorkItem& b) { return a.cost() > b.cost(); });
}

inline void write_scores(const Problem& call, const std::vector<WorkItem>& row_tiles, const ExecutorRef& executor) {
  const WorkspaceShape shape = workspace_shape(call, row_tiles);
  for_each_item(row_tiles, executor, [&](const WorkItem& item) {
    ItemScores(call, tile_kernels(), item, Workspace(item_memory(), shape)).write();
  });
}

/// A call that gives scores or masses too.
inline void run_with_weights(Problem call, const Plan& plan, CallMemory& memory, const ExecutorRef& executor) {
  const Outputs& outputs = call.outputs;
  const Array& values = outputs.values;
  const Index bytes = values.sequences * values.tokens * values.heads * static_cast<Index>(sizeof(RowScale));
  const RowScales scales(static_cast<RowScale*>(memory.scales.reserve(bytes)), values.tokens, values.heads);
  call.scales = &scales;
  list_row_tiles(call, plan, memory.row_tiles);
  if (outputs.mass) {
    KeyMass mass(call, tile_kernels(), memory.mass);
    static const std::vector<Finish> kNoFinishes;
    const bool split = KeyMass::may_split(plan);
    const std::vector<WorkItem>& items = split ? plan.items() : memory.row_tiles;
    const std::vector<Finish>& finishes = split ? plan.finishes() : kNoFinishes;
    mass.open(items, finishes);
    run_items(call, items, finishes, split ? plan.partial_rows() : 0, memory.partials, executor, &mass);
    mass.close(executor);
  } else {
    run_items(call, plan.items(), plan.finishes(), plan.partial_rows(), memory.partials, executor, nullptr);
  }
  if (!outputs.scores) return;
  if (outputs.scores->stage == ScoreStage::biased || outputs.scores->stage == ScoreStage::weights)
    return write_scores(call, memory.row_tiles, executor);
  const Options before = options_before_masks(*call.options, outputs.scores->stage);
  call.options = &before;
  write_scores(call, memory.row_tiles, executor);
}

inline void run_plan(const Problem& call, const Plan& plan, CallMemory& memory, const ExecutorRef& executor) {
  clear_unused_queries(call);
  if (call.outputs.scores || call.outputs.mass) return run_with_weights(call, plan, memory, executor);
  run_items(call, plan.items(), plan.finishes(), plan.partial_rows(), memory.partials, executor, nullptr);
}

HEADWISE_API void make_plan(Plan& plan, const CallShape& call, Index threads) {
  if constexpr (!kChecked) return plan.make(call, threads);
  CheckedSource source;
  CallShape checked = call;
  checked.source = source.of(call.source);
  plan.make(checked, threads);
}

HEADWISE_API void attend(const Problem& call, const Plan& plan, const ExecutorRef& executor) {
  CallMemoryLease memory;
  if constexpr (!kChecked) return run_plan(call, plan, *memory, executor);
  Problem checked = call;
  checked.source = memory->source.of(call.source);
  run_plan(checked, plan, *memory, executor);
}

HEADWISE_API void attend(const Problem& call, const ExecutorRef& executor) {
  CallMemoryLease memory;
  Problem turned = call;
  turned.source = memory->source.of(call.source);
  memory->plan.make(turned, executor.concurrency());
  make_turns(memory->turns, turned, executor);
  turned.turns = &memory->turns;
  run_plan(turned, memory->plan, *memory, executor);
}

}  // namespace headwise::detail

#endif  // !HEADWISE_DECLARE_ONLY
