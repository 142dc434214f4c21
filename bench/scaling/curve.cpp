// SPDX-License-Identifier: MIT
#include "scaling/curve.hpp"

#include <algorithm>
#include <cmath>

#include "compare/figures.hpp"

namespace scaling {

std::vector<Curve> curves_of(const std::vector<Result>& results) {
  std::vector<Curve> curves;
  for (const Result& result : results) {
    const Case& c = result.timed;
    const auto same = [&](const Curve& curve) {
      return curve.phase == c.phase && curve.storage == c.storage && curve.threads == c.threads &&
             curve.windowed == c.windowed();
    };
    auto curve = std::ranges::find_if(curves, same);
    if (curve == curves.end()) curve = curves.insert(curves.end(), {c.phase, c.storage, c.threads, c.windowed(), {}});
    curve->points.push_back(&result);
  }
  return curves;
}

std::optional<double> fitted_exponent(const std::vector<double>& n, const std::vector<double>& y) {
  if (n.size() < 2) return {};
  const auto count = static_cast<double>(n.size());
  double mean_x = 0, mean_y = 0, xx = 0, xy = 0;
  for (std::size_t i = 0; i < n.size(); ++i) {
    mean_x += std::log(n[i]) / count;
    mean_y += std::log(y[i]) / count;
  }
  for (std::size_t i = 0; i < n.size(); ++i) {
    const double x = std::log(n[i]) - mean_x;
    xx += x * x;
    xy += x * (std::log(y[i]) - mean_y);
  }
  return xy / xx;
}

Growth growth_of(const Curve& curve) {
  std::vector<double> tokens, seconds, work, spreads;
  for (const Result* point : curve.points) {
    tokens.push_back(static_cast<double>(point->timed.tokens));
    seconds.push_back(point->seconds());
    work.push_back(point->timed.work());
    const auto [fastest, slowest] = std::ranges::minmax(point->samples, {}, &Sample::seconds);
    spreads.push_back(slowest.seconds / fastest.seconds - 1);
  }
  return {fitted_exponent(tokens, seconds), fitted_exponent(tokens, work), compare::median(std::move(spreads))};
}

}  // namespace scaling
