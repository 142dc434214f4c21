// SPDX-License-Identifier: MIT
#include "headwise/regroup/key_driven/groups.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "tests/support/errors.hpp"

namespace headwise::regroup {
namespace {

using headwise::testing::expect_error;
using Norms = std::vector<double>;
using List = std::vector<Index>;

List list(std::span<const Index> x) { return {x.begin(), x.end()}; }

TEST(KeyDrivenGroups, BeginWithEqualGroups) {
  EXPECT_EQ(list(KeyDrivenGroups(8, 2).boundaries()), (List{0, 4, 8}));
  const KeyDrivenGroups each(8, 2, 3, {.scope = KeyDrivenScope::per_sequence});
  EXPECT_EQ(list(each.boundaries()), (List{0, 4, 8, 0, 4, 8, 0, 4, 8}));
}

TEST(KeyDrivenGroups, FollowTheNormsAtEveryCall) {
  KeyDrivenGroups groups(12, 3);
  EXPECT_EQ(list(groups.update(Norms{1, 2, 3})), (List{0, 2, 6, 12}));
  EXPECT_EQ(list(groups.update(Norms{3, 2, 1})), (List{0, 6, 10, 12}));
  EXPECT_EQ(list(groups.boundaries()), (List{0, 6, 10, 12}));
  EXPECT_EQ(list(groups.update(Norms{0, 0, 0})), (List{0, 4, 8, 12}));
}

TEST(KeyDrivenGroups, AllocateInTheirMode) {
  KeyDrivenGroups groups(12, 3, 1, {.mode = KeyDrivenMode::authors_minmax});
  EXPECT_EQ(list(groups.update(Norms{1, 2, 3})), (List{0, 0, 4, 12}));
}

TEST(KeyDrivenGroups, ByDifferenceFollowWhatHasChangedSinceTheUpdateBefore) {
  KeyDrivenGroups groups(8, 2, 1, {.dynamics = KeyDrivenDynamics::diff});
  EXPECT_EQ(list(groups.update(Norms{1, 3})), (List{0, 2, 8}));   // nothing kept yet: 1, 3
  EXPECT_EQ(list(groups.update(Norms{4, 4})), (List{0, 6, 8}));   // 3, 1
  EXPECT_EQ(list(groups.update(Norms{2, 10})), (List{0, 2, 8}));  // |4 − 2|, |4 − 10|
  EXPECT_EQ(list(groups.update(Norms{2, 10})), (List{0, 4, 8}));  // no change: equal groups
}

TEST(KeyDrivenGroups, ByAverageKeepATenthOfTheUpdateBefore) {
  KeyDrivenGroups groups(40, 2, 1, {.dynamics = KeyDrivenDynamics::ema});
  EXPECT_EQ(list(groups.update(Norms{10, 30})), (List{0, 10, 40}));  // 9, 27
  EXPECT_EQ(list(groups.update(Norms{30, 10})), (List{0, 28, 40}));  // 27 + 1, 9 + 3
  EXPECT_EQ(list(groups.update(Norms{10, 10})), (List{0, 22, 40}));  // 9 + 3, 9 + 1: kept are norms, not averages
}

TEST(KeyDrivenGroups, AreDecidedOnceInAWindow) {
  KeyDrivenGroups groups(8, 2, 1, {.dynamics = KeyDrivenDynamics::diff, .window = 3});
  EXPECT_EQ(list(groups.update(Norms{1, 3})), (List{0, 2, 8}));
  EXPECT_EQ(list(groups.update(Norms{9, 3})), (List{0, 2, 8}));
  EXPECT_EQ(list(groups.update(Norms{9, 9})), (List{0, 2, 8}));
  EXPECT_EQ(list(groups.update(Norms{4, 4})), (List{0, 6, 8}));  // against 1, 3
  EXPECT_EQ(list(groups.update(Norms{9, 4})), (List{0, 6, 8}));
}

TEST(KeyDrivenGroups, OfABatchAddTheNormsOfItsSequences) {
  KeyDrivenGroups groups(8, 2, 2);
  EXPECT_EQ(list(groups.update(Norms{1, 0, 2, 1})), (List{0, 6, 8}));
}

TEST(KeyDrivenGroups, OfEachSequenceAreThoseOfItAlone) {
  for (const KeyDrivenDynamics dynamics : {KeyDrivenDynamics::none, KeyDrivenDynamics::diff, KeyDrivenDynamics::ema}) {
    KeyDrivenOptions options{.dynamics = dynamics, .window = 2};
    KeyDrivenGroups first(12, 3, 1, options), second(12, 3, 1, options);
    options.scope = KeyDrivenScope::per_sequence;
    KeyDrivenGroups both(12, 3, 2, options);
    for (int step = 0; step < 9; ++step) {
      const double x = step;
      const Norms a{1 + x * x, 2 + x, 3}, b{2, 1 + 3 * x, 7 + x * x * x};
      Norms all = a;
      all.insert(all.end(), b.begin(), b.end());
      List expected = list(first.update(a));
      for (const Index number : second.update(b)) expected.push_back(number);
      ASSERT_EQ(list(both.update(all)), expected) << step;
    }
  }
}

TEST(KeyDrivenGroups, StayFrozenAfterTheFirstUpdateUntilTheyAreReset) {
  KeyDrivenGroups groups(8, 2, 2, {.scope = KeyDrivenScope::frozen});
  EXPECT_EQ(list(groups.update(Norms{1, 0, 2, 1})), (List{0, 6, 8}));
  for (int i = 0; i < 5; ++i) EXPECT_EQ(list(groups.update(Norms{0, 5, 0, 5})), (List{0, 6, 8}));
  groups.reset();
  EXPECT_EQ(list(groups.boundaries()), (List{0, 4, 8}));
  EXPECT_EQ(list(groups.update(Norms{0, 5, 0, 5})), (List{0, 0, 8}));
}

TEST(KeyDrivenGroups, OfImpossibleShapesAreNamed) {
  expect_error([] { KeyDrivenGroups(0, 1); }, {"num_heads (0)", "1 to"});
  expect_error([] { KeyDrivenGroups(4, 5); }, {"num_kv_heads (5)", "num_heads (4)"});
  expect_error([] { KeyDrivenGroups(4, 0); }, {"num_kv_heads (0)"});
  expect_error([] { KeyDrivenGroups(4, 2, 0); }, {"num_sequences (0)"});
  expect_error([] { KeyDrivenGroups(4, 2, 1, {.window = 0}); }, {"window (0)", "at least 1"});
}

TEST(KeyDrivenGroups, KeepTheirStateWhenNormsAreRefused) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  KeyDrivenGroups groups(8, 2, 1, {.dynamics = KeyDrivenDynamics::diff, .window = 2});
  groups.update(Norms{1, 3});
  expect_error([&] { groups.update(Norms{1, nan}); }, {"norms[1] (nan)", "finite"});  // also where none is due
  expect_error([&] { groups.update(Norms{-1, 1}); }, {"norms[0] (-1)", "at least 0"});
  expect_error([&] { groups.update(Norms{1, 1, 1}); }, {"norms (3 numbers)", "(1 x 2)"});
  EXPECT_EQ(list(groups.boundaries()), (List{0, 2, 8}));
  groups.update(Norms{2, 2});
  EXPECT_EQ(list(groups.update(Norms{4, 4})), (List{0, 6, 8}));  // the third good call, against 1, 3
}

/// What KeyDrivenGroups asks of a cache.
struct CacheOfNorms {
  Norms squares;  // [sequence][kv_head]
  struct Shape {
    Index num_kv_heads;
  };
  Index num_sequences() const { return std::ssize(squares) / 2; }
  Shape layer_shape(Index) const { return {2}; }
  double key_norm_squares(Index, Index sequence, Index kv_head) const {
    return squares[static_cast<std::size_t>(2 * sequence + kv_head)];
  }
};

TEST(KeyDrivenGroups, TakeRootsOfTheSquaresOfACache) {
  KeyDrivenGroups groups(8, 2);
  EXPECT_EQ(list(groups(CacheOfNorms{{1, 9}}, 4)), (List{0, 2, 8}));
  KeyDrivenGroups batch(12, 2, 2);
  EXPECT_EQ(list(batch(CacheOfNorms{{1, 9, 4, 36}}, 0)), (List{0, 3, 12}));  // 1 + 2, 3 + 6
}

TEST(KeyDrivenGroups, NameACacheThatDoesNotFit) {
  KeyDrivenGroups groups(8, 2), other(8, 4);
  expect_error([&] { groups(CacheOfNorms{{1, 9, 1, 9}}, 0); }, {"num_sequences of the cache (2)", "(1)"});
  expect_error([&] { other(CacheOfNorms{{1, 9}}, 0); }, {"num_kv_heads of layer 0 of the cache (2)", "(4)"});
  groups(CacheOfNorms{{1, 9}}, 3);
  expect_error([&] { groups(CacheOfNorms{{1, 9}}, 2); }, {"layer (2)", "must be 3", "one for each layer"});
}

}  // namespace
}  // namespace headwise::regroup
