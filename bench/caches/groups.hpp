// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <vector>

#include "caches/timing.hpp"
#include "headwise/parallel/executor.hpp"

namespace caches {

/// How large the measured things are.
struct Sizes {
  Index head_dim = 128;
  Index kv_tokens = 32768;     // of a decode step over one long sequence
  Index layers = 8;            // that it goes through, so that caches are cold
  Index paged_tokens = 4096;   // of one over paged memory
  Index prefix_tokens = 4096;  // that sequences share
  Index own_tokens = 64;       // that each has besides
  Index sequences = 32;        // that share a prefix
  Index steps = 4;             // repetitions inside a run of what takes microseconds
  int rounds = 7;
};

/// What is measured, group by group; each is made, verified, timed and given to done(group) before the next.
using Done = std::function<void(const Group&)>;

/// Decode by storage type, of grouped-query and of multi-head attention, against bf16.
void measure_storage(const Sizes& sizes, headwise::ExecutorRef executor, const Done& done);
/// Decode over pages in shuffled order against contiguous memory.
void measure_pages(const Sizes& sizes, headwise::ExecutorRef executor, const Done& done);
/// Appending one token, by storage type, per KV head.
void measure_append(const Sizes& sizes, const Done& done);
/// Fork and rollback of short and long sequences.
void measure_moves(const Sizes& sizes, const Done& done);
/// Decode of sequences with a common prefix, read once or once for each.
void measure_prefix(const Sizes& sizes, headwise::ExecutorRef executor, const Done& done);

}  // namespace caches
