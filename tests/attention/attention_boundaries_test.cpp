// SPDX-License-Identifier: MIT
// Groups given as boundaries for one call (Options::group_boundaries) mean what a map of the same groups means.
#include <array>
#include <string>

#include "tests/attention/oracle.hpp"

namespace headwise {
namespace {

using namespace testing;
using List = std::vector<Index>;

List boundaries_of(const List& sizes) {
  List result{0};
  for (const Index size : sizes) result.push_back(result.back() + size);
  return result;
}

/// Sizes of 4 groups of 12 query heads.
const List kSizes[] = {{3, 3, 3, 3}, {1, 2, 4, 5}, {0, 0, 12, 0}, {12, 0, 0, 0}, {5, 0, 0, 7}, {1, 1, 1, 9}};
constexpr std::array<float, 12> kSlopes{0.5f, 0.25f, 0.125f, 0.0625f, 1.0f, 0.0f, 0.1f, 0.75f, 0.3f, 0.01f, 0.9f, 0.2f};

/// One sequence of several.
Inputs alone(const Inputs& in, Index b) {
  Inputs one(in.heads, 1, in.query_tokens, in.key_tokens);
  const auto copy = [b](const std::vector<float>& from, std::vector<float>& to) {
    std::copy_n(from.begin() + b * std::ssize(to), to.size(), to.begin());
  };
  copy(in.q, one.q);
  copy(in.k, one.k);
  copy(in.v, one.v);
  return one;
}

struct Lengths {
  Index queries, keys;
};

class Boundaries : public EveryIsa {};

TEST_P(Boundaries, GiveTheBitsOfAMapOfTheSameBlocks) {
  ThreadPool pool(3);
  for (const auto& [queries, keys] : {Lengths{1, 0}, Lengths{2, 1}, Lengths{1, 1100}, Lengths{40, 70}})
    for (const List& sizes : kSizes) {
      const Inputs in({12, 4, 24, 16}, 2, queries, keys, 11, {.coarse = false});
      const HeadMap blocks = HeadMap::blocks(sizes);
      const List boundaries = boundaries_of(sizes);
      for (const Storage storage : kAllStorages)
        for (const Source source : {Source::cache, Source::packed_rows}) {
          const Route route{.source = source, .storage = storage};
          for (const Options& options : {Options{}, Options{.window = 60, .alibi_slopes = kSlopes}}) {
            Options by_call = options;
            by_call.group_boundaries = boundaries;
            const Results expected = run(in, route, options, Serial{}, &blocks);
            EXPECT_EQ(run(in, route, by_call), expected);
            EXPECT_EQ(run(in, route, by_call, pool), expected);
          }
          if (HasFailure()) return;
        }
    }
}

TEST_P(Boundaries, MeanWhatTheDefinitionSays) {
  for (const auto& [queries, keys] : {Lengths{1, 0}, Lengths{1, 1}, Lengths{1, 100}, Lengths{9, 70}})
    for (const List& sizes : kSizes) {
      const Inputs in({12, 4, 40}, 1, queries, keys, 12);
      const List boundaries = boundaries_of(sizes);
      for (const Storage storage : kAllStorages)
        for (const Source source : {Source::cache, Source::scattered_rows})
          expect_defined(in, {.source = source, .storage = storage},
                         {.alibi_slopes = kSlopes, .group_boundaries = boundaries});
      if (HasFatalFailure()) return;
    }
}

TEST_P(Boundaries, MayDifferFromSequenceToSequence) {
  const Index sequences = std::ssize(kSizes);
  List all;
  for (const List& sizes : kSizes)
    for (const Index number : boundaries_of(sizes)) all.push_back(number);
  ThreadPool pool(3);
  for (const auto& [queries, keys] : {Lengths{1, 1100}, Lengths{30, 70}}) {
    const Inputs in({12, 4, 16}, sequences, queries, keys, 13, {.coarse = false});
    for (const Storage storage : kAllStorages)
      for (const Source source : {Source::cache, Source::packed_rows}) {
        const Route route{.source = source, .storage = storage};
        const Options options{.alibi_slopes = kSlopes, .group_boundaries = all};
        const Results batch = run(in, route, options);
        EXPECT_EQ(run(in, route, options, pool), batch);
        Results one_by_one;
        for (Index b = 0; b < sequences; ++b) {
          const List own = boundaries_of(kSizes[static_cast<std::size_t>(b)]);
          const Results one = run(alone(in, b), route, {.alibi_slopes = kSlopes, .group_boundaries = own});
          one_by_one.output.insert(one_by_one.output.end(), one.output.begin(), one.output.end());
          one_by_one.lse.insert(one_by_one.lse.end(), one.lse.begin(), one.lse.end());
        }
        EXPECT_EQ(batch, one_by_one);
        if (HasFailure()) return;
      }
  }
  const Inputs coarse({12, 4, 24}, sequences, 3, 100, 14);
  expect_defined(coarse, {}, {.group_boundaries = all});
}

TEST_P(Boundaries, LeaveOutSequencesWithoutQueriesOrKeys) {
  const Inputs in({12, 4, 24}, 3, 4, 80, 15);
  const List keys{0, 80, 33}, queries{4, 0, 3}, boundaries{0, 1, 1, 6, 12, 0, 3, 6, 9, 12, 0, 12, 12, 12, 12};
  expect_defined(in, {}, {.key_lengths = keys, .query_lengths = queries, .group_boundaries = boundaries});
}

HEADWISE_FOR_EVERY_ISA(Boundaries);

TEST(Attention, BoundariesTakeThePlaceOfTheAttentionsOwnMap) {
  const Inputs in({6, 2, 32}, 1, 4, 50, 16);
  const HeadMap cyclic = HeadMap::cyclic(6, 2);
  const List boundaries{0, 3, 6};
  EXPECT_EQ(run(in, {}, {.group_boundaries = boundaries}, Serial{}, &cyclic), run(in));
  EXPECT_NE(run(in, {}, {}, Serial{}, &cyclic), run(in));
}

TEST(Attention, BoundariesServeHeadCountsThatDoNotDivide) {
  const Inputs in({7, 3, 16}, 1, 2, 30, 17);
  const HeadMap balanced = HeadMap::balanced(7, 3);
  const List boundaries{0, 5, 6, 7};
  expect_defined(in, {}, {.group_boundaries = boundaries}, &balanced);
}

}  // namespace
}  // namespace headwise
