// SPDX-License-Identifier: MIT
#include "headwise/core/kv_sharing.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "tests/support/errors.hpp"

namespace headwise {
namespace {

using testing::expect_error;
using Sources = std::vector<Index>;

Sources sources_of(const KvSharing& sharing) { return {sharing.sources().begin(), sharing.sources().end()}; }

TEST(KvSharing, OfNoneHasEveryLayerAsItsOwnProducer) {
  const KvSharing none = KvSharing::none(4);
  EXPECT_EQ(sources_of(none), (Sources{0, 1, 2, 3}));
  EXPECT_EQ(none.producers(), (Sources{0, 1, 2, 3}));
  EXPECT_EQ(none.num_producers(), 4);
  EXPECT_EQ(none.num_layers(), 4);
}

TEST(KvSharing, OfPairsHasTheFirstOfEachAsProducer) {
  const KvSharing cla2 = KvSharing::every(6, 2);
  EXPECT_EQ(sources_of(cla2), (Sources{0, 0, 2, 2, 4, 4}));
  for (Index l = 0; l < 6; ++l) {
    EXPECT_EQ(cla2.is_producer(l), l % 2 == 0);
    EXPECT_EQ(cla2.source(l), l / 2 * 2);
  }
}

TEST(KvSharing, ShrinksTheFirstGroupWhereLayersAreNoMultiple) {
  EXPECT_EQ(sources_of(KvSharing::every(10, 3)), (Sources{0, 1, 1, 1, 4, 4, 4, 7, 7, 7}));
  EXPECT_EQ(KvSharing::every(10, 3).producers(), (Sources{0, 1, 4, 7}));
  EXPECT_EQ(KvSharing::every(5, 2).producers(), (Sources{0, 1, 3}));
  EXPECT_EQ(KvSharing::every(11, 4).producers(), (Sources{0, 3, 7}));
}

TEST(KvSharing, HasAsManyProducersAsGroups) {
  for (Index layers = 1; layers <= 40; ++layers)
    for (Index group = 1; group <= layers; ++group)
      EXPECT_EQ(KvSharing::every(layers, group).num_producers(), (layers + group - 1) / group)
          << layers << ", " << group;
}

TEST(KvSharing, OfAllLayersHasOneProducer) {
  EXPECT_EQ(sources_of(KvSharing::every(3, 3)), (Sources{0, 0, 0}));
  EXPECT_EQ(sources_of(KvSharing::every(1, 1)), (Sources{0}));
}

TEST(KvSharing, KeepsTheEnds) {
  EXPECT_EQ(sources_of(KvSharing::keep_ends(7, 2)), (Sources{0, 1, 2, 2, 4, 4, 6}));
  EXPECT_EQ(sources_of(KvSharing::keep_ends(8, 3)), (Sources{0, 1, 1, 1, 4, 4, 4, 7}));
  EXPECT_EQ(sources_of(KvSharing::keep_ends(2, 1)), (Sources{0, 1}));
  EXPECT_EQ(sources_of(KvSharing::keep_ends(3, 1)), (Sources{0, 1, 2}));
}

TEST(KvSharing, LeavesOneEndDense) {
  EXPECT_EQ(sources_of(KvSharing::dense_front(6, 2)), (Sources{0, 1, 2, 2, 2, 2}));
  EXPECT_EQ(sources_of(KvSharing::dense_back(6, 2)), (Sources{0, 0, 0, 0, 4, 5}));
  EXPECT_EQ(sources_of(KvSharing::dense_front(3, 0)), (Sources{0, 0, 0}));
  EXPECT_EQ(sources_of(KvSharing::dense_back(3, 0)), (Sources{0, 0, 0}));
  EXPECT_EQ(sources_of(KvSharing::dense_front(3, 2)), (Sources{0, 1, 2}));
  EXPECT_EQ(sources_of(KvSharing::dense_back(3, 2)), (Sources{0, 1, 2}));
}

TEST(KvSharing, OfTwentyLayersHasThePublishedProducers) {
  EXPECT_EQ(KvSharing::by_name("none", 20).num_producers(), 20);
  EXPECT_EQ(KvSharing::by_name("cla2", 20).num_producers(), 10);
  EXPECT_EQ(KvSharing::by_name("cla3", 20).num_producers(), 7);
  EXPECT_EQ(KvSharing::by_name("cla4", 20).num_producers(), 5);
  for (const char* name : {"keep-ends", "dense-front", "dense-back"})
    EXPECT_EQ(KvSharing::by_name(name, 20).num_producers(), 11) << name;
}

TEST(KvSharing, IsFoundByName) {
  EXPECT_EQ(KvSharing::by_name("none", 5), KvSharing::none(5));
  EXPECT_EQ(KvSharing::by_name("cla1", 5), KvSharing::none(5));
  EXPECT_EQ(KvSharing::by_name("cla2", 5), KvSharing::every(5, 2));
  EXPECT_EQ(KvSharing::by_name("cla3", 10), KvSharing::every(10, 3));
  EXPECT_EQ(KvSharing::by_name("cla12", 30), KvSharing::every(30, 12));
  EXPECT_EQ(KvSharing::by_name("keep-ends", 20), KvSharing::keep_ends(20, 2));
  EXPECT_EQ(KvSharing::by_name("dense-front", 21), KvSharing::dense_front(21, 10));
  EXPECT_EQ(KvSharing::by_name("dense-back", 21), KvSharing::dense_back(21, 10));
}

TEST(KvSharing, OfAnUnknownNameListsTheNames) {
  for (const char* name :
       {"", "cla", "CLA2", "cla2 ", "cla-2", "cla+2", "cla2x", "cla 2", "keepends", "cla99999999999999999999"})
    expect_error([&] { KvSharing::by_name(name, 20); }, {"the name (" + std::string(name) + ")", "none, cla<n>", "cla2",
                                                         "keep-ends, dense-front or dense-back"});
  expect_error([] { KvSharing::by_name("cla0", 20); }, {"layers_per_group (0)", "1 to num_layers (20)"});
  expect_error([] { KvSharing::by_name("cla21", 20); }, {"layers_per_group (21)", "1 to num_layers (20)"});
  expect_error([] { KvSharing::by_name("none", 0); }, {"num_layers (0)", "1 to 1048576"});
}

TEST(KvSharing, MayBeAnyWithoutForwardReferences) {
  // reads across others, as in no named pattern
  const KvSharing any = KvSharing::from_sources(Sources{0, 1, 0, 1, 4, 0});
  EXPECT_EQ(any.producers(), (Sources{0, 1, 4}));
  EXPECT_EQ(any.source(5), 0);
  EXPECT_EQ(any, KvSharing::from_sources(Sources{0, 1, 0, 1, 4, 0}));
  EXPECT_NE(any, KvSharing::none(6));
}

TEST(KvSharing, MistakesAreNamed) {
  const Index huge = std::numeric_limits<Index>::max();
  for (const Index count : {Index{0}, Index{-1}, huge}) {
    const std::string text = "num_layers (" + std::to_string(count) + ")";
    expect_error([&] { KvSharing::none(count); }, {text});
    expect_error([&] { KvSharing::every(count, 1); }, {text, "1 to 1048576"});
    expect_error([&] { KvSharing::keep_ends(count, 1); }, {text, "1 to 1048576"});
    expect_error([&] { KvSharing::dense_front(count, 0); }, {text, "1 to 1048576"});
    expect_error([&] { KvSharing::dense_back(count, 0); }, {text, "1 to 1048576"});
  }
  expect_error([] { KvSharing::every(10, 0); }, {"layers_per_group (0)", "1 to num_layers (10)"});
  expect_error([] { KvSharing::every(10, 11); }, {"layers_per_group (11)", "1 to num_layers (10)"});
  expect_error([] { KvSharing::keep_ends(1, 1); }, {"num_layers (1)", "at least 2"});
  expect_error([] { KvSharing::keep_ends(6, 5); }, {"layers_per_group (5)", "between the ends (4)"});
  expect_error([] { KvSharing::keep_ends(6, 0); }, {"layers_per_group (0)", "between the ends (4)"});
  expect_error([] { KvSharing::keep_ends(2, 0); }, {"layers_per_group (0)"});
  expect_error([] { KvSharing::dense_front(6, 6); }, {"dense (6)", "0 to num_layers - 1 (5)"});
  expect_error([] { KvSharing::dense_back(6, -1); }, {"dense (-1)", "0 to num_layers - 1 (5)"});
  expect_error([] { KvSharing::from_sources({}); }, {"num_layers (0)"});
  expect_error([] { KvSharing::from_sources(Sources{0, 2, 2}); }, {"kv_source[1] (2)", "0 to 1", "later"});
  expect_error([] { KvSharing::from_sources(Sources{0, -1}); }, {"kv_source[1] (-1)", "0 to 1"});
  expect_error(
      [] {
        KvSharing::from_sources(Sources{0, 0, 1});
      },
      {"kv_source[2] (1)", "makes its own keys and values", "1 reads those of layer 0"});
  const KvSharing sharing = KvSharing::every(4, 2);
  expect_error([&] { sharing.source(4); }, {"layer (4)", "0 to num_layers - 1 (3)"});
  expect_error([&] { sharing.is_producer(-1); }, {"layer (-1)", "0 to num_layers - 1 (3)"});
}

}  // namespace
}  // namespace headwise
