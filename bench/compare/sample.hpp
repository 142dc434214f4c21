// SPDX-License-Identifier: MIT
#pragma once

#include "roofline.hpp"

namespace compare {

/// One repetition: seconds of one call, and the limits probed just before and after it.
struct Sample {
  double seconds;
  Limits limits;
};

}  // namespace compare
