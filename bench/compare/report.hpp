// SPDX-License-Identifier: MIT
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "cases.hpp"
#include "machine.hpp"
#include "roofline.hpp"
#include "sample.hpp"
#include "workload.hpp"

namespace compare {

/// What came of one case. Figures are medians over the repetitions.
struct Result {
  Case timed;
  Check check;
  Index cycled_bytes;  // K and V of all the caches taken in turn
  std::vector<Sample> samples;

  double seconds() const;            // of one call
  double seconds_per_token() const;  // of one new token
  double roofline_seconds() const;   // the least the limits allow
  double roofline_fraction() const;  // 1: as fast as the limits allow
  double bytes_per_second() const { return timed.kv_bytes() / seconds(); }
  double flops_per_second() const { return timed.flops() / seconds(); }
  bool memory_bound() const;
};

/// What a reader needs to know about the run as a whole.
struct RunInfo {
  Machine machine;
  Index all_threads = 0;
  std::string isa;
  Index cold_bytes = 0;  // how much the caches of a cold case should take together
  int repetitions = 0;
  double min_time = 0;
};

/// How many times faster per call than the MHA sibling; 0 where there is none.
double speedup_over_mha(const Result& result, const std::vector<Result>& all);
/// The same as the cost model predicts it: the least time of the MHA sibling over that of this case, each by the limits
/// probed in its own repetitions; 0 where that sibling was not timed.
double predicted_speedup_over_mha(const Result& result, const std::vector<Result>& all);

/// Of a case of unequal groups: its speed over that of equal groups, which read the same bytes of K and V; 0 where it is
/// none or those were not timed.
double speed_over_equal_groups(const Result& result, const std::vector<Result>& all);

/// The one table, for people.
void print_table(std::ostream& out, const RunInfo& info, const std::vector<Result>& results);

/// Everything, for programs (plot.py): the run, and every case with every repetition. Throws std::runtime_error where
/// the file cannot be written.
void write_json(const std::string& path, const RunInfo& info, const std::vector<Result>& results);

}  // namespace compare
