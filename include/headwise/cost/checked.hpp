// SPDX-License-Identifier: MIT
#pragma once

#include <initializer_list>
#include <string_view>

#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"

namespace headwise::cost::detail {

/// Product of factors ≥ 0. Throws std::invalid_argument that names `what` where it exceeds 2⁶³ − 1.
inline Index product(std::string_view what, std::initializer_list<Index> factors) {
  Index result = 1;
  for (const Index factor : factors)
    if (factor == 0) return 0;  // whatever the others are
  for (const Index factor : factors) {
    const Index before = result;
    require(!__builtin_mul_overflow(before, factor, &result), what, " (", before, " · ", factor,
            ") must be below 2^63");
  }
  return result;
}

/// Sum of terms ≥ 0, refused in the same way.
inline Index sum(std::string_view what, std::initializer_list<Index> terms) {
  Index result = 0;
  for (const Index term : terms) {
    const Index before = result;
    require(!__builtin_add_overflow(before, term, &result), what, " (", before, " + ", term, ") must be below 2^63");
  }
  return result;
}

/// What multiplications are made in: exact up to 2⁵³, rounded beyond.
constexpr double number(Index count) { return static_cast<double>(count); }

}  // namespace headwise::cost::detail
