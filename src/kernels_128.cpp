// SPDX-License-Identifier: MIT
// headwise::compiled: the kernels of 128-bit vectors (baseline of x86-64, or NEON). Empty where there are none.
#define HEADWISE_TABLES_APART
#define HEADWISE_TABLES_OF 128
#include "headwise/kernel/isa.hpp"
