// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

#include "scaling/cases.hpp"

namespace scaling {

/// What one attention call allocates on the heap beside cache, queries and output, by threads that have run nothing
/// before, and what the calls after it do.
struct MemoryUse {
  headwise::Heads<> heads;
  Phase phase;
  Index tokens, threads;
  Index first_bytes;  // by the first call, all threads together
  Index later_bytes;  // by kLaterCalls calls after it
};
inline constexpr int kLaterCalls = 3;

/// Whether this program counts what it allocates: not where a sanitizer brings its own operator new.
bool counts_allocations();

/// Counts, for 1, 2, 4 … `threads` threads, these heads and as many query heads over one KV head, decode at every kv
/// length and prefill of prompts up to 4096 tokens.
std::vector<MemoryUse> measure_memory(const Curves& curves, Index threads);

}  // namespace scaling
