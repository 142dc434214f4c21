// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include "headwise/core/index.hpp"

namespace headwise::regroup {

/// Random numbers that a seed fixes on every platform: std::mt19937_64 is exact by the standard, the distributions of
/// <random> are not, so they are made here.
class SeededRandom {
 public:
  explicit SeededRandom(std::uint64_t seed) : generator_(seed) {}

  /// Uniform in 0 … count-1, count at least 1; every number equally likely.
  Index below(Index count) {
    const auto n = static_cast<std::uint64_t>(count);
    const std::uint64_t first_fair = (0 - n) % n;  // 2^64 mod n numbers are left over and drawn again
    std::uint64_t x = generator_();
    while (x < first_fair) x = generator_();
    return static_cast<Index>(x % n);
  }

  /// Uniform in [0, 1), a multiple of 2^-53.
  double unit() { return static_cast<double>(generator_() >> 11) * 0x1p-53; }

  /// True with the given probability.
  bool chance(double probability) { return unit() < probability; }

  /// The elements in a random order, every order equally likely.
  template <class T>
  void shuffle(std::vector<T>& elements) {
    for (std::size_t i = elements.size(); i > 1; --i)
      std::swap(elements[i - 1], elements[static_cast<std::size_t>(below(static_cast<Index>(i)))]);
  }

 private:
  std::mt19937_64 generator_;
};

}  // namespace headwise::regroup
