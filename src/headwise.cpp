// SPDX-License-Identifier: MIT
// headwise::compiled: the same headers, with the definitions that HEADWISE_DECLARE_ONLY leaves out elsewhere.
#define HEADWISE_IMPLEMENTATION
#include "headwise/headwise.hpp"
