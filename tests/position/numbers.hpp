// SPDX-License-Identifier: MIT
#pragma once

#include <iterator>
#include <random>
#include <vector>

#include "headwise/core/view.hpp"

namespace headwise::testing {

inline std::vector<float> random_numbers(Index count, unsigned seed = 1) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  std::vector<float> result(static_cast<std::size_t>(count));
  for (float& x : result) x = uniform(generator);
  return result;
}

/// [sequence][token][head] rows of as many numbers as there are for each.
inline View<float> view(std::vector<float>& x, Index sequences, Index tokens, Index heads) {
  return {x.data(), sequences, tokens, heads, std::ssize(x) / (sequences * tokens * heads)};
}

}  // namespace headwise::testing
