// SPDX-License-Identifier: MIT
#pragma once

#include "headwise/kernel/table.hpp"

namespace headwise::emulated_digit_dot {

/// Kernels that meet int8 and int4 as integers, on any CPU. Compiled once.
const TileKernels& kernels();

}  // namespace headwise::emulated_digit_dot
