// SPDX-License-Identifier: MIT
// headwise::compiled: attention, caches and the choice of an ISA: all but the kernels, which are in kernels_*.cpp. One file,
// since attention gathers what caches are made of too: nothing may be defined in two.
#define HEADWISE_IMPLEMENTATION
#define HEADWISE_TABLES_APART
#include "headwise/headwise.hpp"
