// SPDX-License-Identifier: MIT
// headwise::compiled: the definition of attention.
#define HEADWISE_IMPLEMENTATION
#include "headwise/reference.hpp"
