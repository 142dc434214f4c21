// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>

namespace headwise {

/// Sizes, counts, positions and strides: signed, 64-bit on every supported platform.
using Index = std::ptrdiff_t;
static_assert(sizeof(Index) == 8, "headwise needs a 64-bit platform");

/// A head count or dimension that is known only at run time (the convention of Eigen and mdspan).
inline constexpr Index dynamic = -1;

/// The smallest multiple of `step` that is not below `value` (both non-negative).
constexpr Index round_up(Index value, Index step) { return (value + step - 1) / step * step; }

/// value / step, rounded up (both non-negative).
constexpr Index ceil_div(Index value, Index step) { return (value + step - 1) / step; }

}  // namespace headwise
