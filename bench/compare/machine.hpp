// SPDX-License-Identifier: MIT
#pragma once

#include <string>

#include "headwise/core/index.hpp"

namespace compare {

using headwise::Index;

/// What the operating system says about this machine.
struct Machine {
  std::string cpu;
  Index last_level_cache = 0;  // bytes; 0: unknown
  Index memory = 0;            // bytes this process may use at most; 0: unknown
};

Machine this_machine();

}  // namespace compare
