// SPDX-License-Identifier: MIT
// headwise::compiled: all that headers leave out with HEADWISE_DECLARE_ONLY, but for the kernels, which are in kernels_*.cpp.
#define HEADWISE_IMPLEMENTATION
#define HEADWISE_TABLES_APART
#include "headwise/headwise.hpp"
