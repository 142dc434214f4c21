// SPDX-License-Identifier: MIT
#include "headwise/regroup/qcqa/pareto.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <random>
#include <vector>

#include "tests/support/errors.hpp"

namespace headwise::regroup {
namespace {

using testing::expect_error;
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// Few different numbers, so that there are ties and duplicates.
std::vector<Objectives> random_points(Index count, std::size_t objectives, unsigned seed) {
  std::minstd_rand generator(seed);
  std::vector<Objectives> points(static_cast<std::size_t>(count), Objectives(objectives));
  for (Objectives& point : points)
    for (double& x : point) x = static_cast<double>(generator() % 8);
  return points;
}

bool naive_dominates(const Objectives& a, const Objectives& b) {
  int worse = 0, better = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    worse += a[i] > b[i];
    better += a[i] < b[i];
  }
  return worse == 0 && better > 0;
}

TEST(Pareto, a_point_dominates_where_it_is_nowhere_worse_and_somewhere_better) {
  EXPECT_TRUE(dominates(Objectives{1, 2}, Objectives{1, 3}));
  EXPECT_TRUE(dominates(Objectives{0, 2, 5}, Objectives{1, 3, 5}));
  EXPECT_FALSE(dominates(Objectives{1, 2}, Objectives{1, 2}));
  EXPECT_FALSE(dominates(Objectives{1, 4}, Objectives{2, 3}));
  EXPECT_FALSE(dominates(Objectives{1, 3}, Objectives{1, 2}));
  EXPECT_FALSE(dominates(Objectives{kNaN, 0}, Objectives{1, 1}));
  expect_error([] { dominates(Objectives{1}, Objectives{1, 2}); }, {"of 1 and of 2", "must have as many"});
}

TEST(Pareto, the_sort_peels_front_after_front_off_the_points) {
  for (const std::size_t objectives : {1u, 2u, 3u, 4u})
    for (unsigned seed = 1; seed <= 5; ++seed) {
      const std::vector<Objectives> points = random_points(60, objectives, seed);
      std::vector<std::vector<Index>> expected;  // what is dominated by nothing that is left, again and again
      std::vector<bool> gone(points.size(), false);
      for (std::size_t left = points.size(); left > 0;) {
        std::vector<Index> front;
        for (std::size_t p = 0; p < points.size(); ++p) {
          bool free = !gone[p];
          for (std::size_t q = 0; q < points.size(); ++q)
            free = free && (gone[q] || !naive_dominates(points[q], points[p]));
          if (free) front.push_back(static_cast<Index>(p));
        }
        for (const Index p : front) gone[static_cast<std::size_t>(p)] = true;
        left -= front.size();
        expected.push_back(front);
      }
      EXPECT_EQ(non_dominated_sort(points), expected);
    }
  EXPECT_TRUE(non_dominated_sort({}).empty());
}

TEST(Pareto, crowding_sums_the_sides_of_the_box_between_a_points_neighbours) {
  // Along the front: (0,8) (1,4) (3,2) (8,0); both objectives extend over 8.
  const std::vector<Objectives> points{{3, 2}, {0, 8}, {9, 9}, {8, 0}, {1, 4}};
  const std::vector<Index> front{0, 1, 3, 4};
  const std::vector<double> expected{7.0 / 8 + 4.0 / 8, kInfinity, kInfinity, 3.0 / 8 + 6.0 / 8};
  EXPECT_EQ(crowding_distance(points, front), expected);
}

TEST(Pareto, crowding_knows_fronts_of_one_of_two_and_without_extent) {
  const std::vector<Objectives> points{{1, 1}, {1, 1}, {1, 1}, {0, 2}};
  EXPECT_EQ(crowding_distance(points, std::vector<Index>{}), std::vector<double>{});
  EXPECT_EQ(crowding_distance(points, std::vector<Index>{2}), std::vector<double>{kInfinity});
  EXPECT_EQ(crowding_distance(points, std::vector<Index>{0, 3}), (std::vector<double>{kInfinity, kInfinity}));
  EXPECT_EQ(crowding_distance(points, std::vector<Index>{0, 1, 2}), (std::vector<double>{kInfinity, 0, kInfinity}));
}

TEST(Pareto, a_front_keeps_what_nothing_dominates_in_order) {
  for (unsigned seed = 1; seed <= 20; ++seed) {
    const std::vector<Objectives> points = random_points(40, 3, seed);
    ParetoFront<std::size_t> front;
    for (std::size_t p = 0; p < points.size(); ++p) front.add(points[p], p);
    for (Index i = 1; i < front.size(); ++i) EXPECT_LT(front[i - 1].objectives, front[i].objectives);
    for (const auto& kept : front) EXPECT_EQ(kept.objectives, points[kept.solution]);
    for (std::size_t p = 0; p < points.size(); ++p) {
      bool dominated = false, first = true, kept = false;
      for (std::size_t q = 0; q < points.size(); ++q) dominated = dominated || naive_dominates(points[q], points[p]);
      for (std::size_t q = 0; q < p; ++q) first = first && points[q] != points[p];
      for (const auto& point : front) kept = kept || point.solution == p;
      EXPECT_EQ(kept, !dominated && first) << "point " << p;
    }
  }
}

TEST(Pareto, a_front_says_whether_it_kept_a_solution_and_takes_in_another_front) {
  ParetoFront<char> front, other;
  EXPECT_TRUE(front.empty());
  EXPECT_TRUE(front.add({1, 5}, 'a'));
  EXPECT_FALSE(front.add({1, 5}, 'b'));
  EXPECT_FALSE(front.add({2, 5}, 'c'));
  EXPECT_TRUE(other.add({0, 6}, 'd'));
  EXPECT_TRUE(other.add({1, 4}, 'e'));
  front.merge(other);
  ASSERT_EQ(front.size(), 2);
  EXPECT_EQ(front[0].solution, 'd');
  EXPECT_EQ(front[1].solution, 'e');
}

TEST(Pareto, refuses_objectives_that_are_nan_missing_or_too_many) {
  ParetoFront<int> front;
  expect_error([&] { front.add({}, 0); }, {"objectives (0 numbers)", "at least 1"});
  expect_error([&] { front.add({1, kNaN}, 0); }, {"objectives[1] (NaN)"});
  EXPECT_TRUE(front.empty());
  front.add({1, 2}, 0);
  expect_error([&] { front.add({1, 2, 3}, 0); }, {"objectives (3 numbers)", "one per objective, 2"});
  const std::vector<Objectives> with_nan{{1, 2}, {kNaN, 1}}, ragged{{1, 2}, {1}};
  expect_error([&] { non_dominated_sort(with_nan); }, {"objectives[0] (NaN)"});
  expect_error([&] { non_dominated_sort(ragged); }, {"objectives (1 numbers)"});
  expect_error([&] { crowding_distance(with_nan, std::vector<Index>{0, 1}); }, {"(NaN)"});
  expect_error([&] { crowding_distance(with_nan, std::vector<Index>{2}); }, {"front (point 2)", "below 2"});
}

}  // namespace
}  // namespace headwise::regroup
