// SPDX-License-Identifier: MIT
#include "headwise/cost/format.hpp"

#include <limits>

#include "tests/support/errors.hpp"

namespace headwise::cost {
namespace {

using testing::expect_error;

TEST(ElementFormat, StoragesTakeTheirSize) {
  EXPECT_EQ(ElementFormat(Storage::f32).bytes(100), 400);
  EXPECT_EQ(ElementFormat(Storage::f16).bytes(100), 200);
  EXPECT_EQ(ElementFormat(Storage::bf16).bytes(100), 200);
  EXPECT_EQ(ElementFormat(Storage::bf16).bytes(0), 0);
}

TEST(ElementFormat, QuantizedOnesHaveScalesForEachGroup) {
  EXPECT_EQ(ElementFormat::int8().bytes(128), 128 + 4 * 2);  // 8.5 bits, as Q8_0
  EXPECT_EQ(ElementFormat::int4().bytes(128), 64 + 4 * 2);   // 4.5 bits, as Q4_0
  EXPECT_EQ(ElementFormat::int4(64, 4).bytes(128), 64 + 2 * 4);
  EXPECT_EQ(ElementFormat::int8(128, 4).bytes(128), 128 + 4);  // one f32 scale per token and head
  EXPECT_EQ(ElementFormat::fp8().bytes(128), 128);
}

TEST(ElementFormat, PartsOfBytesAndOfGroupsTakeWholeOnes) {
  EXPECT_EQ(ElementFormat(4).bytes(3), 2);
  EXPECT_EQ(ElementFormat(3).bytes(8), 3);
  EXPECT_EQ(ElementFormat(3).bytes(9), 4);
  EXPECT_EQ(ElementFormat::int8().bytes(33), 33 + 2 * 2);
}

TEST(ElementFormat, RefusesWhatCannotBe) {
  expect_error([] { ElementFormat(Index{0}); }, {"bits (0)", "1 to 64"});
  expect_error([] { ElementFormat(65); }, {"bits (65)"});
  expect_error([] { ElementFormat(8, -1); }, {"group (-1)"});
  expect_error([] { ElementFormat(8, 32, -2); }, {"group_bytes (-2)"});
  expect_error([] { ElementFormat(8, 0, 2); }, {"group_bytes (2)", "group (0)"});
  expect_error([] { ElementFormat(Storage::f32).bytes(-1); }, {"count (-1)"});
  expect_error([] { ElementFormat(Storage::f32).bytes(std::numeric_limits<Index>::max()); }, {"below 2^63"});
}

}  // namespace
}  // namespace headwise::cost
