// SPDX-License-Identifier: MIT
#include "headwise/core/view.hpp"

#include <vector>

#include "tests/support/errors.hpp"

namespace headwise {
namespace {

using testing::expect_error;
constexpr Index kLargest = std::numeric_limits<Index>::max();

TEST(View, PackedViewsAreSequenceTokenHeadDim) {
  std::vector<float> data(2 * 3 * 4 * 5);
  const View<float> view(data.data(), 2, 3, 4, 5);
  EXPECT_EQ(view.sequences(), 2);
  EXPECT_EQ(view.tokens(), 3);
  EXPECT_EQ(view.heads(), 4);
  EXPECT_EQ(view.dim(), 5);
  EXPECT_EQ(&view(1, 2, 3, 4), &data.back());
  EXPECT_EQ(&view(1, 0, 2, 3), &data[60 + 13]);
}

TEST(View, ThreeSizesAreOneSequence) {
  std::vector<float> data(3 * 4 * 5);
  const View<float> view(data.data(), 3, 4, 5);
  EXPECT_EQ(view.sequences(), 1);
  EXPECT_EQ(&view(0, 2, 3, 4), &data.back());
}

TEST(View, StridesMayInterleaveRepeatAndRunBackwards) {
  std::vector<float> data(100);
  const View<float> heads_first(data.data(), 1, 5, 4, 2, {0, 2, 10, 1});
  EXPECT_EQ(&heads_first(0, 3, 2, 1), &data[27]);
  const View<float> repeated(data.data(), 7, 5, 1, 2, {0, 2, 0, 1});
  EXPECT_EQ(&repeated(6, 1, 0, 0), &data[2]);
  const View<float> backwards(data.data() + 99, 1, 50, 1, 2, {0, -2, 0, -1});
  EXPECT_EQ(&backwards(0, 49, 0, 1), &data[0]);
}

TEST(View, ArraysAddressTheSameRows) {
  std::vector<bf16> data(200);
  const View<const bf16> view(data.data(), 2, 5, 4, 2, {100, 3, 20, 1});
  const ConstArray array = view.array();
  EXPECT_EQ(array.storage, Storage::bf16);
  EXPECT_EQ(array.row(1, 3, 2), &view(1, 3, 2, 0));
}

TEST(View, MutableViewsReadAsConst) {
  float x = 3;
  const View<float> view(&x, 1, 1, 1);
  const View<const float> constant = view;
  EXPECT_EQ(constant(0, 0, 0, 0), 3);
  static_assert(!std::is_convertible_v<View<const float>, View<float>>);
}

TEST(View, EigenPointersAreElementsByName) {
  std::uint16_t bits[6] = {};
  const View<Eigen::half> half(reinterpret_cast<Eigen::half*>(bits), 3, 1, 2);
  EXPECT_EQ(half.array().storage, Storage::f16);
  const View<Eigen::bfloat16> brain(reinterpret_cast<Eigen::bfloat16*>(bits), 3, 1, 2);
  EXPECT_EQ(brain.array().storage, Storage::bf16);
}

TEST(View, EmptyViewsNeedNoMemory) {
  EXPECT_EQ(View<float>(nullptr, 0, 4, 8).tokens(), 0);
  EXPECT_EQ(View<float>(nullptr, 3, 0, 8).heads(), 0);
  EXPECT_EQ(View<float>().tokens(), 0);
}

TEST(View, NullPointersToElementsAreNamed) {
  expect_error([] { View<float>(nullptr, 3, 4, 8); }, {"data (null)", "[1][3][4][8]", "96 elements"});
}

TEST(View, NegativeSizesAreNamed) {
  float x = 0;
  expect_error([&] { View<float>(&x, -1, 3, 4, 8); }, {"sequences (-1)", "at least 0"});
  expect_error([&] { View<float>(&x, -2, 4, 8); }, {"tokens (-2)", "at least 0"});
  expect_error([&] { View<float>(&x, 3, -4, 8); }, {"heads (-4)", "at least 0"});
  expect_error([&] { View<float>(&x, 3, 4, -8); }, {"dim (-8)", "at least 0"});
}

TEST(View, SizesAndOffsetsBeyond61BitsAreNamed) {
  float x = 0;
  expect_error([&] { View<float>(&x, Index{1} << 32, Index{1} << 16, Index{1} << 16); },
               {"4294967296", "less than 2^61"});
  expect_error([&] { View<float>(&x, kLargest, kLargest, kLargest, kLargest); }, {"less than 2^61"});
  expect_error([&] { View<float>(&x, 1, 3, 1, 1, {0, kLargest, 0, 1}); }, {"9223372036854775807", "less than 2^61"});
  expect_error([&] { View<float>(&x, 1, 2, 1, 1, {0, std::numeric_limits<Index>::min(), 0, 1}); }, {"less than 2^61"});
  expect_error([&] { View<float>(&x, 1, 2, 2, 1, {0, Index{1} << 60, -(Index{1} << 60) - 1, 1}); }, {"less than 2^61"});
}

TEST(View, StridesOfSingleElementsDoNotMatter) {
  float x = 0;
  const View<float> view(&x, 1, 1, 1, 1, {kLargest, kLargest, kLargest, kLargest});
  EXPECT_EQ(&view(0, 0, 0, 0), &x);
}

TEST(View, ViewsBeyond32BitsAreAddressed) {
  float x = 0;
  const Index tokens = (Index{1} << 33) + 1;
  const View<float> view(&x, 1, tokens, 1, 1, {0, 0, 0, 1});  // one element, repeated
  EXPECT_EQ(&view(0, tokens - 1, 0, 0), &x);
}

}  // namespace
}  // namespace headwise
