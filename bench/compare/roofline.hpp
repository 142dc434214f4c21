// SPDX-License-Identifier: MIT
#pragma once

#include <map>
#include <vector>

#include "headwise/core/index.hpp"
#include "headwise/core/storage.hpp"
#include "headwise/parallel/executor.hpp"

namespace compare {

using headwise::ExecutorRef;
using headwise::Index;

/// What the machine could do at one moment: no attention call can be faster than
///   max(bytes / read_bandwidth, flops / peak_flops).
struct Limits {
  double read_bandwidth = 0;  // bytes/s
  double peak_flops = 0;      // floating-point operations/s

  double seconds(double bytes, double flops) const;
  /// Whether reading, not arithmetic, sets that time.
  bool memory_bound(double bytes, double flops) const;
};

/// Probes of this machine's limits, cheap enough (a few milliseconds) to take next to every timing: clocks and
/// neighbours change within seconds, so a limit measured once at the start would be of little use.
class Roofline {
 public:
  /// `cold_bytes` of memory are kept to read from; should exceed the last-level cache.
  explicit Roofline(Index cold_bytes);

  /// Bytes/s of reading memory in order with these threads: the next 32 MiB or so of the cold memory, in whichever
  /// pattern (streams side by side, software prefetch) reads fastest here with that many threads.
  double cold_bandwidth(ExecutorRef executor);

  /// Bytes/s of reading the same `footprint` bytes over and over, wherever in the caches they end up.
  double warm_bandwidth(ExecutorRef executor, Index footprint);

  /// Multiply-adds/s × 2 of the vectors of the running ISA; for bf16 where the ISA has a dot product, of that.
  double peak_flops(ExecutorRef executor, headwise::Storage storage);

  /// Whether peak_flops of this storage means dot products and not multiply-adds.
  static bool uses_dot(headwise::Storage storage);

 private:
  struct Pattern {
    Index streams;
    Index ahead;
  };
  double read(ExecutorRef executor, const char* data, Index bytes, Pattern pattern);
  Pattern best_pattern(ExecutorRef executor);
  const char* next_slice();

  std::vector<char> memory_;
  const char* begin_ = nullptr;  // aligned to a page
  Index num_slices_ = 0, slice_ = 0;
  std::map<Index, Pattern> patterns_;  // by number of threads
};

}  // namespace compare
