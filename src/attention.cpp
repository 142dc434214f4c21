// SPDX-License-Identifier: MIT
// headwise::compiled: attention and the choice of an ISA. The kernels are in kernels_*.cpp, the caches in caches.cpp.
#define HEADWISE_IMPLEMENTATION
#define HEADWISE_TABLES_APART
#include "headwise/attention/attend.hpp"
#include "headwise/kernel/dispatch.hpp"
