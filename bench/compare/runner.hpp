// SPDX-License-Identifier: MIT
#pragma once

#include <map>
#include <memory>
#include <span>
#include <vector>

#include "cases.hpp"
#include "headwise/parallel/serial.hpp"
#include "headwise/parallel/thread_pool.hpp"
#include "report.hpp"
#include "roofline.hpp"
#include "workload.hpp"

namespace compare {

struct RunOptions {
  int repetitions = 7;
  double min_time = 0.02;  // seconds of each repetition; short and many, so that a median drops the disturbed ones
  Index cold_bytes = 0;    // what the caches of a cold case should take together, and what the probes read from
  Index memory_bytes = 0;  // what the caches that live at the same time may take
};

/// Runs cases. Those over the same model, storage and length live at the same time and take turns, repetition by
/// repetition in random order, so that what their times have in common (clock, neighbours) cancels in their ratios.
class Runner {
 public:
  explicit Runner(const RunOptions& options) : options_(options), roofline_(options.cold_bytes) {}

  /// Verifies and then times every case; progress goes to stderr. Results are in the order of the cases. Cases that
  /// fail verification, or whose caches exceed the memory allowed, are named on stderr and not timed.
  std::vector<Result> run(std::span<const Case> cases);

  bool all_verified() const { return all_verified_; }

 private:
  ExecutorRef executor(Index threads);
  std::vector<Result> run_group(std::span<const Case> group);
  Index layers_for(const Case& c, Index siblings, bool cold) const;
  void register_case(const Case& c, Workload& workload);
  Limits probe(const Case& c);

  RunOptions options_;
  Roofline roofline_;
  headwise::Serial serial_;
  std::map<Index, std::unique_ptr<headwise::ThreadPool>> pools_;  // by number of threads
  bool all_verified_ = true;
};

}  // namespace compare
