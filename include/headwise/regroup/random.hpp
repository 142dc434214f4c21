// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include "headwise/core/index.hpp"

namespace headwise::regroup {

/// Random numbers that are the same on every machine for a seed. (The standard fixes std::mt19937_64, but not the
/// distributions and not std::shuffle; and libraries differ in the last bit of std::log.)
class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}

  /// Uniform in 0 … n-1; n at least 1.
  Index below(Index n) {
    const auto range = static_cast<std::uint64_t>(n);
    const std::uint64_t uneven = (UINT64_MAX % range + 1) % range;  // numbers beyond the last whole multiple of n
    std::uint64_t draw = engine_();
    while (draw > UINT64_MAX - uneven) draw = engine_();
    return static_cast<Index>(draw % range);
  }

  /// Uniform in [0, 1), a multiple of 2^-53.
  double uniform() { return static_cast<double>(engine_() >> 11) * 0x1p-53; }

  /// True with the given probability.
  bool chance(double probability) { return uniform() < probability; }

  /// Standard normal, by Marsaglia's polar method; two draws come of one pair, the second is kept.
  double normal() {
    if (has_spare_) {
      has_spare_ = false;
      return spare_;
    }
    double u, v, s;
    do {
      u = 2 * uniform() - 1;
      v = 2 * uniform() - 1;
      s = std::fma(u, u, v * v);
    } while (s >= 1 || s == 0);
    const double factor = std::sqrt(-2 * natural_log(s) / s);
    spare_ = v * factor;
    has_spare_ = true;
    return u * factor;
  }

  /// Every order of `items` is equally likely.
  template <class T>
  void shuffle(std::vector<T>& items) {
    for (std::size_t i = items.size(); i > 1; --i)
      std::swap(items[i - 1], items[static_cast<std::size_t>(below(static_cast<Index>(i)))]);
  }

 private:
  /// log x for x above 0, to about an ulp, of operations that IEEE 754 rounds alike everywhere: x = m·2^e with m in
  /// [√½, √2), log m = 2·artanh t, t = (m-1)/(m+1), |t| < 0.172. Every sum of a product is an explicit fma, because
  /// compilers contract the others as they like.
  static double natural_log(double x) {
    constexpr double kLog2 = 0.693147180559945309417232121458;
    int exponent;
    double m = std::frexp(x, &exponent);
    if (m < 0.70710678118654752) {
      m *= 2;
      --exponent;
    }
    const double t = (m - 1) / (m + 1), t2 = t * t;
    double series = 1.0 / 23;  // the term after it is below 2^-60
    for (int k = 21; k >= 1; k -= 2) series = std::fma(series, t2, 1.0 / k);
    return std::fma(static_cast<double>(exponent), kLog2, 2 * t * series);
  }

  std::mt19937_64 engine_;
  double spare_ = 0;
  bool has_spare_ = false;
};

}  // namespace headwise::regroup
