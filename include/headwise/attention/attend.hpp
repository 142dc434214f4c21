// SPDX-License-Identifier: MIT
#pragma once

#include "headwise/attention/plan.hpp"
#include "headwise/attention/problem.hpp"
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

#include <atomic>
#include <memory>

#include "headwise/attention/walk.hpp"

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

/// Query tokens beyond a sequence's query_length: output 0, lse −inf.
inline void clear_unused_queries(const Problem& call) {
  if (call.options->query_lengths.empty()) return;
  const Array &out = call.outputs.values, &lse = call.outputs.lse;
  for (Index b = 0; b < out.sequences; ++b)
    for (Index t = call.num_queries(b); t < out.tokens; ++t)
      for (Index h = 0; h < out.heads; ++h) {
        for (Index d = 0; d < out.dim; ++d) store_element(out.row(b, t, h), out.storage, d * out.strides.dim, 0.0f);
        if (call.outputs.has_lse)
          store_element(lse.row(b, t, h), Storage::f32, 0, -std::numeric_limits<float>::infinity());
      }
}

/// What a call needs beside its work items' workspaces. Outlives the call, so that decoding allocates nothing after its
/// first step.
struct CallMemory {
  Plan plan;
  Buffer partials;
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

inline void run_plan(const Problem& call, const Plan& plan, Buffer& split_memory, const ExecutorRef& executor) {
  const TileKernels& kernels = tile_kernels();
  const TileFormat& format = call.source.format;
  clear_unused_queries(call);

  const Index value_dim = padded_value_dim(format.value_dim), split_rows = plan.partial_rows();
  PartialRows partials{};
  if (split_rows > 0) {
    partials.max = static_cast<float*>(split_memory.reserve(split_rows * (value_dim + 2) * 4));
    partials.sum = partials.max + split_rows;
    partials.output = partials.sum + split_rows;
  }

  WorkspaceShape shape{format};
  if (!call.source.tile) shape.pack_scratch = pack_scratch_bytes(format);
  shape.masks = has_element_masks(*call.options);
  shape.adds = adds_mask(*call.options);
  for (const WorkItem& item : plan.items()) {
    shape.kv_heads = std::max(shape.kv_heads, item.kv_heads);
    shape.rows = std::max(shape.rows, item.rows);
    shape.depth = std::max(shape.depth, item.segments.depth());
  }
  for_each_item(plan.items(), executor,
                [&](const WorkItem& item) { walk(call, kernels, item, Workspace(item_memory(), shape), partials); });
  for_each_item(plan.finishes(), executor, [&](const Finish& finish) {
    const Workspace workspace(item_memory(), shape);
    for (Index head = 0; head < finish.rows.kv_heads; ++head)
      finish_split(call, kernels, finish, head, partials, workspace.dense_row);
  });
}

HEADWISE_API void make_plan(Plan& plan, const CallShape& call, Index threads) { plan.make(call, threads); }

HEADWISE_API void attend(const Problem& call, const Plan& plan, const ExecutorRef& executor) {
  CallMemoryLease memory;
  run_plan(call, plan, memory->partials, executor);
}

HEADWISE_API void attend(const Problem& call, const ExecutorRef& executor) {
  CallMemoryLease memory;
  memory->plan.make(call, executor.concurrency());
  run_plan(call, memory->plan, memory->partials, executor);
}

}  // namespace headwise::detail

#endif  // !HEADWISE_DECLARE_ONLY
