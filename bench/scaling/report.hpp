// SPDX-License-Identifier: MIT
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "compare/machine.hpp"
#include "scaling/memory.hpp"
#include "scaling/runner.hpp"

namespace scaling {

/// What a reader needs to know about the run as a whole.
struct RunInfo {
  compare::Machine machine;
  std::string isa;
  Index all_threads = 0;
  RunOptions options;
};

/// The tables, for people.
void print_tables(std::ostream& out, const RunInfo& info, const Curves& curves, const std::vector<Result>& results,
                  const std::vector<MemoryUse>& memory);

/// Everything, for programs. Throws std::runtime_error where the file cannot be written.
void write_json(const std::string& path, const RunInfo& info, const Curves& curves, const std::vector<Result>& results,
                const std::vector<MemoryUse>& memory);

}  // namespace scaling
