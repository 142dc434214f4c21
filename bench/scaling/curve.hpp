// SPDX-License-Identifier: MIT
#pragma once

#include <optional>
#include <vector>

#include "scaling/runner.hpp"

namespace scaling {

/// The results of one phase, storage and number of threads by length, over all keys or through the window.
struct Curve {
  Phase phase;
  Storage storage;
  Index threads;
  bool windowed;
  std::vector<const Result*> points;

  const Result* at(Index tokens) const {
    for (const Result* point : points)
      if (point->timed.tokens == tokens) return point;
    return nullptr;
  }
};

/// Every curve of the results, in their order.
std::vector<Curve> curves_of(const std::vector<Result>& results);

/// y grows as n^exponent, by least squares over the logarithms; unset: fewer than two lengths.
std::optional<double> fitted_exponent(const std::vector<double>& n, const std::vector<double>& y);

/// How time grows with the length, and how the work does that should set it (Case::work).
struct Growth {
  std::optional<double> time, work;
  double
      spread;  // by how much the slowest round of a length takes longer than its fastest one, median over the lengths
};
Growth growth_of(const Curve& curve);

}  // namespace scaling
