// SPDX-License-Identifier: MIT
#include "regroup/layer_list.hpp"

#include <gtest/gtest.h>

#include "tests/support/errors.hpp"

namespace regroup_tool {
namespace {

using Chosen = std::vector<bool>;
constexpr double kErrors[] = {3, 1, 2, 1, 5};

TEST(LayerList, NamesAllLayersSomeAndRanges) {
  EXPECT_EQ(choose_layers("all", kErrors), (Chosen{true, true, true, true, true}));
  EXPECT_EQ(choose_layers("0", kErrors), (Chosen{true, false, false, false, false}));
  EXPECT_EQ(choose_layers("4,1", kErrors), (Chosen{false, true, false, false, true}));
  EXPECT_EQ(choose_layers("0,2-4", kErrors), (Chosen{true, false, true, true, true}));
  EXPECT_EQ(choose_layers("1-1", kErrors), (Chosen{false, true, false, false, false}));
}

TEST(LayerList, NamesThoseOfTheLowestAndHighestErrors) {
  EXPECT_EQ(choose_layers("lowest:0", kErrors), Chosen(5, false));
  EXPECT_EQ(choose_layers("lowest:1", kErrors), (Chosen{false, true, false, false, false}));
  EXPECT_EQ(choose_layers("lowest:3", kErrors), (Chosen{false, true, true, true, false}));
  EXPECT_EQ(choose_layers("highest:2", kErrors), (Chosen{true, false, false, false, true}));
  EXPECT_EQ(choose_layers("highest:5", kErrors), Chosen(5, true));
}

TEST(LayerList, RefusesWhatIsNoListOfTheModelsLayers) {
  using headwise::testing::expect_error;
  for (const char* text : {"", "x", "1,", "1-", "-1", "1,,2", "0x1", "lowest:", "lowest:x", "1 "})
    expect_error([&] { choose_layers(text, kErrors); }, {"--layers (", text});
  expect_error([] { choose_layers("5", kErrors); }, {"0 to 4", "'5'"});
  expect_error([] { choose_layers("3-2", kErrors); }, {"'3-2'"});
  expect_error([] { choose_layers("0-5", kErrors); }, {"'0-5'"});
  expect_error([] { choose_layers("highest:6", kErrors); }, {"5 layers"});
}

}  // namespace
}  // namespace regroup_tool
