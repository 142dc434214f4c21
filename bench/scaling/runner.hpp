// SPDX-License-Identifier: MIT
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "compare/roofline.hpp"
#include "compare/sample.hpp"
#include "compare/workload.hpp"
#include "headwise/parallel/serial.hpp"
#include "headwise/parallel/thread_pool.hpp"
#include "scaling/cases.hpp"

namespace scaling {

using compare::Check;
using compare::Limits;
using compare::Sample;

struct RunOptions {
  int repetitions = 5;
  double min_time = 0.02;  // seconds of each repetition
  Index cold_bytes = 0;    // what is read before the same bytes are read again, at least
  Index memory_bytes = 0;  // what the caches may take
};

/// Which tiles one call asked its source for.
struct Tiles {
  Index asked = 0;     // each time that a tile was asked for
  Index distinct = 0;  // tiles asked for at least once
  Index unseen = 0;    // of those, tiles that hold no key that some query sees
  Index tile_bytes = 0;

  double bytes_asked() const { return static_cast<double>(asked * tile_bytes); }
  double bytes_distinct() const { return static_cast<double>(distinct * tile_bytes); }
};

struct Result {
  Case timed;
  Tiles tiles;
  Check check;
  Index cycle_bytes = 0;  // read before the same bytes come again
  std::vector<Sample> samples;

  double seconds() const;            // median
  double roofline_fraction() const;  // of what the limits probed beside each repetition allow, median
  double peak_fraction() const;      // of the multiply-add peak alone
};

/// Runs curves, each storage type over one cache as long as the longest case.
class Runner {
 public:
  explicit Runner(const RunOptions& options);

  /// The curves of one storage type, up to the length for which there is memory. Counts the tiles of every case and verifies its output, in a run apart; then times all in rounds, each case once a
  /// round. Progress goes to stderr. Results are in the order of the cases: by phase, threads, length, all keys before
  /// the window.
  std::vector<Result> run(const Curves& curves, Storage storage);

  /// What fails verification is named on stderr and not timed.
  bool all_verified() const { return all_verified_; }

 private:
  headwise::ExecutorRef executor(Index threads);
  Index cache_tokens() const;
  std::vector<Case> cases_of(Storage storage) const;
  void count_and_verify(compare::Workload& workload, Result& result);
  Sample time(compare::Workload& workload, const Case& c);
  Limits probe(const Case& c);

  Curves curves_;
  RunOptions options_;
  compare::Roofline roofline_;
  headwise::Serial serial_;
  std::map<Index, std::unique_ptr<headwise::ThreadPool>> pools_;  // by number of threads
  Index next_tile_ = 0, next_layer_ = 0;                          // where the next cold call begins
  bool all_verified_ = true;
};

}  // namespace scaling
