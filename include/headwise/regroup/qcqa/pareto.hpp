// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"

namespace headwise::regroup {

/// What is to be minimised: one number per objective, any number of them, none NaN.
using Objectives = std::vector<double>;

/// Whether a is at least as good as b in every objective and better in one.
inline bool dominates(std::span<const double> a, std::span<const double> b) {
  require(a.size() == b.size(), "points of ", a.size(), " and of ", b.size(),
          " objectives cannot be compared; they must have as many");
  bool better = false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!(a[i] <= b[i])) return false;
    better = better || a[i] < b[i];
  }
  return better;
}

namespace detail {

inline void check_objectives(std::span<const double> objectives, std::size_t expected) {
  require(objectives.size() == expected && expected > 0, "objectives (", objectives.size(),
          " numbers) must hold one per objective, ", expected, " and at least 1");
  for (std::size_t i = 0; i < objectives.size(); ++i)
    require(!std::isnan(objectives[i]), "objectives[", i, "] (NaN) must be a number");
}

}  // namespace detail

/// The points in fronts, as indices that ascend: no point of a front dominates another of it, and every point of front
/// r + 1 is dominated by one of front r. The fast non-dominated sort of NSGA-II (Deb, Pratap, Agarwal, Meyarivan,
/// "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", 2002), O(objectives · points²).
inline std::vector<std::vector<Index>> non_dominated_sort(std::span<const Objectives> points) {
  for (const Objectives& point : points) detail::check_objectives(point, points.front().size());
  std::vector<std::vector<Index>> beaten_by_me(points.size());
  std::vector<Index> beaten_by(points.size(), 0);  // how many points dominate this one, of those in no front yet
  const auto note = [&](std::size_t winner, std::size_t loser) {
    beaten_by_me[winner].push_back(static_cast<Index>(loser));
    ++beaten_by[loser];
  };
  for (std::size_t a = 0; a < points.size(); ++a)
    for (std::size_t b = 0; b < a; ++b) {
      if (dominates(points[a], points[b]))
        note(a, b);
      else if (dominates(points[b], points[a]))
        note(b, a);
    }

  std::vector<std::vector<Index>> fronts;
  std::vector<Index> front;
  for (std::size_t p = 0; p < points.size(); ++p)
    if (beaten_by[p] == 0) front.push_back(static_cast<Index>(p));
  while (!front.empty()) {
    std::vector<Index> next;
    for (const Index p : front)
      for (const Index q : beaten_by_me[static_cast<std::size_t>(p)])
        if (--beaten_by[static_cast<std::size_t>(q)] == 0) next.push_back(q);
    std::ranges::sort(next);
    fronts.push_back(std::exchange(front, std::move(next)));
  }
  return fronts;
}

/// How much room each point of a front has: the sum over objectives of the distance between its neighbours, in units of
/// the front's extent. Infinite for the ends of an objective. One number per entry of `front`, in its order.
inline std::vector<double> crowding_distance(std::span<const Objectives> points, std::span<const Index> front) {
  std::vector<double> distance(front.size(), 0.0);
  if (front.empty()) return distance;
  for (const Index p : front)
    require(p >= 0 && p < std::ssize(points), "front (point ", p, ") must hold indices below ", points.size());
  const auto point = [&](Index place) -> const Objectives& {
    return points[static_cast<std::size_t>(front[static_cast<std::size_t>(place)])];
  };
  for (Index place = 0; place < std::ssize(front); ++place) detail::check_objectives(point(place), point(0).size());

  std::vector<Index> order(front.size());
  for (std::size_t objective = 0; objective < point(0).size(); ++objective) {
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<Index>(i);
    std::ranges::stable_sort(order, {}, [&](Index place) { return point(place)[objective]; });
    const double extent = point(order.back())[objective] - point(order.front())[objective];
    distance[static_cast<std::size_t>(order.front())] = std::numeric_limits<double>::infinity();
    distance[static_cast<std::size_t>(order.back())] = std::numeric_limits<double>::infinity();
    if (!(extent > 0) || std::isinf(extent)) continue;
    for (std::size_t i = 1; i + 1 < order.size(); ++i)
      distance[static_cast<std::size_t>(order[i])] +=
          (point(order[i + 1])[objective] - point(order[i - 1])[objective]) / extent;
  }
  return distance;
}

/// The best trade-offs met so far: solutions none of which dominates another, sorted by their objectives. Of solutions
/// with equal objectives the first to come stays.
template <class Solution>
class ParetoFront {
 public:
  struct Point {
    Objectives objectives;
    Solution solution;
  };

  /// Keeps the solution unless one that is here dominates or equals it, and drops those it dominates; whether it was
  /// kept. Throws std::invalid_argument on NaN and on another number of objectives than before.
  bool add(Objectives objectives, Solution solution) {
    detail::check_objectives(objectives, points_.empty() ? objectives.size() : points_.front().objectives.size());
    for (const Point& point : points_)
      if (point.objectives == objectives || dominates(point.objectives, objectives)) return false;
    std::erase_if(points_, [&](const Point& point) { return dominates(objectives, point.objectives); });
    const auto place = std::ranges::lower_bound(points_, objectives, {}, &Point::objectives);
    points_.insert(place, Point{std::move(objectives), std::move(solution)});
    return true;
  }

  /// Adds every point of another front.
  void merge(const ParetoFront& other) {
    for (const Point& point : other) add(point.objectives, point.solution);
  }

  Index size() const { return std::ssize(points_); }
  bool empty() const { return points_.empty(); }
  const Point& operator[](Index i) const { return points_[static_cast<std::size_t>(i)]; }
  auto begin() const { return points_.begin(); }
  auto end() const { return points_.end(); }

 private:
  std::vector<Point> points_;
};

}  // namespace headwise::regroup
