// SPDX-License-Identifier: MIT
// headwise::compiled: the kernels of 256-bit vectors (AVX2). Empty where there are none.
#define HEADWISE_TABLES_APART
#define HEADWISE_TABLES_OF 256
#include "headwise/kernel/isa.hpp"
