// SPDX-License-Identifier: MIT
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"

namespace headwise {

/// ALiBi's slopes of so many query heads, for Options::alibi_slopes (Press et al., Train Short, Test Long: Attention with
/// Linear Biases Enables Input Length Extrapolation, 2022, arXiv 2108.12409): 2^(−8i/n), i = 1 … n, where n is a power of
/// two; otherwise those of the power of two below, and behind them every other one of the power above, from its first on.
/// Throws std::invalid_argument where num_heads is not 1 to 2^20.
inline std::vector<float> alibi_slopes(Index num_heads) {
  constexpr Index kMost = Index{1} << 20;
  require(num_heads >= 1 && num_heads <= kMost, "num_heads (", num_heads, ") of alibi_slopes must be 1 to ", kMost);
  const Index below = static_cast<Index>(std::bit_floor(static_cast<std::uint64_t>(num_heads)));
  const auto slope = [](Index i, Index n) {
    return static_cast<float>(std::exp2(-8.0 * static_cast<double>(i) / static_cast<double>(n)));
  };
  std::vector<float> slopes;
  for (Index i = 1; i <= below; ++i) slopes.push_back(slope(i, below));
  for (Index i = 1; std::ssize(slopes) < num_heads; i += 2) slopes.push_back(slope(i, 2 * below));
  return slopes;
}

}  // namespace headwise
