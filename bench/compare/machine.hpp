// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <string>

#include "headwise/core/index.hpp"

namespace compare {

using headwise::Index;

/// What the operating system says about this machine.
struct Machine {
  std::string cpu;
  Index last_level_cache = 0;  // bytes; 0: unknown
  Index memory = 0;            // bytes this process may use at most; 0: unknown

  /// Half again as much as the last-level cache: what is read in a cycle through so many bytes is cold, since the rest of
  /// the cycle evicts it.
  Index cold_bytes() const { return last_level_cache > 0 ? last_level_cache / 2 * 3 : Index{256} << 20; }
  /// What caches may take by default: a quarter of the machine, at most 4 GiB.
  Index default_memory() const { return memory > 0 ? std::min(Index{4} << 30, memory / 4) : Index{1} << 30; }
};

Machine this_machine();

}  // namespace compare
