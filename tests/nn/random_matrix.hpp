// SPDX-License-Identifier: MIT
#pragma once

#include <random>

#include "headwise/nn/linear.hpp"

namespace headwise::testing {

/// Uniform in −1 … 1, the same on every machine.
inline nn::Matrix random_matrix(Index rows, Index columns, unsigned seed) {
  std::minstd_rand generator(seed);
  nn::Matrix result(rows, columns);
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < columns; ++j) result(i, j) = static_cast<float>(generator() % 65536) / 32768.0f - 1.0f;
  return result;
}

inline nn::Vector random_vector(Index size, unsigned seed) { return random_matrix(1, size, seed).row(0).transpose(); }

}  // namespace headwise::testing
