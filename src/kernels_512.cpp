// SPDX-License-Identifier: MIT
// headwise::compiled: the kernels of 512-bit vectors (AVX-512, alone and with VNNI and BF16). Empty where there are none.
#define HEADWISE_TABLES_APART
#define HEADWISE_TABLES_OF 512
#include "headwise/kernel/isa.hpp"
