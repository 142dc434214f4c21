// SPDX-License-Identifier: MIT
#include "headwise/core/heads.hpp"

#include "tests/support/errors.hpp"

namespace headwise {
namespace {

using testing::expect_error;

static_assert(Heads<32, 8, 128>{}.num_heads() == 32 && Heads<32, 8, 128>{}.num_kv_heads() == 8);
static_assert(Heads<32, 8, 128>{}.head_dim() == 128 && Heads<32, 8, 128>{}.value_dim() == 128);
static_assert(Heads<32, 8, 128, 64>{}.value_dim() == 64 && Heads<32, 8, 128>{}.group_size() == 4);
static_assert(Heads<>(6, 2, 80).value_dim() == 80 && Heads<>(6, 2, 80, 40).value_dim() == 40);
static_assert(Heads<32, 8, 128>::is_static && !Heads<32, dynamic, 128>::is_static && !Heads<>::is_static);
static_assert(!Heads<32, 8, 128>::needs_map && Heads<30, 8, 128>::needs_map && !Heads<>::needs_map);
static_assert(std::is_empty_v<Heads<32, 8, 128>> || sizeof(Heads<32, 8, 128>) <= 4, "static counts take no room");

TEST(Heads, CountsCanBeTypesOrValues) {
  const Heads<> all_dynamic{32, 8, 128};
  EXPECT_EQ(all_dynamic.num_heads(), 32);
  EXPECT_EQ(all_dynamic.num_kv_heads(), 8);
  EXPECT_EQ(all_dynamic.head_dim(), 128);
  EXPECT_EQ(all_dynamic.value_dim(), 128);
  EXPECT_EQ(all_dynamic.group_size(), 4);
  const Heads<dynamic, dynamic, 128> mixed{9, 3, 128};
  EXPECT_EQ(mixed.num_heads(), 9);
  EXPECT_EQ(mixed.head_dim(), 128);
}

TEST(Heads, OneShapeConvertsBetweenItsSpellings) {
  const Heads<> values = Heads<32, 8, 128, 64>{};
  EXPECT_EQ(values.num_kv_heads(), 8);
  EXPECT_EQ(values.value_dim(), 64);
  const Heads<32, 8, 128, 64> types = values;
  EXPECT_EQ(types.num_heads(), 32);
}

TEST(Heads, ValuesThatDisagreeWithTheTypeAreNamed) {
  expect_error([] { (void)Heads<32, 8, 128>{32, 4, 128}; }, {"num_kv_heads (4)", "must be 8"});
  expect_error([] { (void)Heads<32, 8, 128>{Heads<>{16, 8, 128}}; }, {"num_heads (16)", "must be 32"});
  expect_error([] { (void)Heads<dynamic, dynamic, 128>{32, 8, 64}; }, {"head_dim (64)", "must be 128"});
}

TEST(Heads, CountsOutOfRangeAreNamed) {
  expect_error([] { (void)Heads<>{0, 1, 64}; }, {"num_heads (0)", "at least 1"});
  expect_error([] { (void)Heads<>{-4, 1, 64}; }, {"num_heads (-4)", "at least 1"});
  expect_error([] { (void)Heads<>{4, 0, 64}; }, {"num_kv_heads (0)", "1 to num_heads (4)"});
  expect_error([] { (void)Heads<>{4, -1, 64}; }, {"num_kv_heads (-1)", "1 to num_heads (4)"});
  expect_error([] { (void)Heads<>{4, 5, 64}; }, {"num_kv_heads (5)", "1 to num_heads (4)"});
  expect_error([] { (void)Heads<>{4, 2, 0}; }, {"head_dim (0)", "1 to 576"});
  expect_error([] { (void)Heads<>{4, 2, 577}; }, {"head_dim (577)", "1 to 576"});
  expect_error([] { (void)Heads<>{4, 2, 64, -1}; }, {"value_dim (-1)", "1 to 576"});
  expect_error([] { (void)Heads<>{4, 2, 64, 577}; }, {"value_dim (577)", "1 to 576"});
}

TEST(Heads, HeadCountsThatDoNotDivideAreAllowedHere) {
  const Heads<> heads{71, 4, 64};  // a HeadMap says who reads what
  EXPECT_EQ(heads.num_kv_heads(), 4);
}

}  // namespace
}  // namespace headwise
