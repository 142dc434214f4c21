// SPDX-License-Identifier: MIT
#include "llama/file/gguf.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <random>

#include "llama/file/dequantize.hpp"
#include "tests/llama/gguf_writer.hpp"

namespace llama {
namespace {

using llama_test::Bytes;
using llama_test::GgufWriter;
using testing::HasSubstr;

/// One value of every type, arrays, and three tensors.
GgufWriter small_file() {
  GgufWriter file;
  file.key("u8", 0, Bytes().put(std::uint8_t{200}))
      .key("i8", 1, Bytes().put(std::int8_t{-7}))
      .key("u16", 2, Bytes().put(std::uint16_t{60000}))
      .key("i16", 3, Bytes().put(std::int16_t{-30000}))
      .u32("u32", 4000000000u)
      .key("i32", 5, Bytes().put(std::int32_t{-2000000000}))
      .f32("f32", 1.5f)
      .boolean("yes", true)
      .text("text", "two words")
      .key("u64", 10, Bytes().put(std::uint64_t{1} << 40))
      .key("i64", 11, Bytes().put(-(std::int64_t{1} << 40)))
      .key("f64", 12, Bytes().put(-0.25))
      .texts("texts", {"a", "", "ccc"})
      .i32s("i32s", {1, -2, 3})
      .tensor("vector", {3}, std::vector<float>{1, 2, 3})
      .tensor("matrix", {2, 3}, std::vector<float>{1, 2, 3, 4, 5, 6})
      .tensor("blocks", {64}, 8, Bytes().raw(std::string(68, 'x')));
  return file;
}

/// Why the bytes are refused; empty if they are not.
std::string problem(const std::vector<std::byte>& bytes) {
  try {
    Gguf(bytes, "model.gguf");
    return "";
  } catch (const GgufError& error) {
    EXPECT_THAT(error.what(), testing::StartsWith("model.gguf: "));
    return error.what();
  }
}
std::string problem(const GgufWriter& file) { return problem(file.bytes()); }

/// Reads every byte of every tensor, as a model does.
void touch_all(const Gguf& file) {
  for (const Tensor& tensor : file.tensors()) {
    std::vector<float> row(static_cast<std::size_t>(tensor.sizes[0]));
    for (Index i = 0; i < tensor.rows(); ++i)
      dequantize(*tensor.format, tensor.data.data() + i * tensor.row_bytes(), tensor.sizes[0], row.data());
  }
}

TEST(Gguf, ValuesOfEveryTypeAreRead) {
  const auto bytes = small_file().bytes();
  const Gguf file(bytes, "model.gguf");
  EXPECT_EQ(file.integer("u8"), 200);
  EXPECT_EQ(file.integer("i8"), -7);
  EXPECT_EQ(file.integer("u16"), 60000);
  EXPECT_EQ(file.integer("i16"), -30000);
  EXPECT_EQ(file.integer("u32"), 4000000000);
  EXPECT_EQ(file.integer("i32"), -2000000000);
  EXPECT_EQ(file.integer("u64"), Index{1} << 40);
  EXPECT_EQ(file.integer("i64"), -(Index{1} << 40));
  EXPECT_EQ(file.number("f32"), 1.5);
  EXPECT_EQ(file.number("f64"), -0.25);
  EXPECT_EQ(file.number("i8"), -7);
  EXPECT_TRUE(file.boolean("yes"));
  EXPECT_EQ(file.text("text"), "two words");
  EXPECT_THAT(file.texts("texts"), testing::ElementsAre("a", "", "ccc"));
  EXPECT_THAT(file.integers("i32s"), testing::ElementsAre(1, -2, 3));
}

TEST(Gguf, TensorsHaveTheirSizesFormatAndData) {
  const auto bytes = small_file().bytes();
  const Gguf file(bytes, "model.gguf");
  ASSERT_EQ(file.tensors().size(), 3u);
  const Tensor& matrix = file.tensor("matrix");
  EXPECT_THAT(matrix.sizes, testing::ElementsAre(2, 3, 1, 1));
  EXPECT_EQ(matrix.rows(), 3);
  EXPECT_EQ(matrix.row_bytes(), 8);
  float second_row[2];
  dequantize(*matrix.format, matrix.data.data() + matrix.row_bytes(), 2, second_row);
  EXPECT_THAT(second_row, testing::ElementsAre(3.0f, 4.0f));
  EXPECT_EQ(file.tensor("blocks").data.size(), 68u);
  EXPECT_EQ(file.find_tensor("none"), nullptr);
}

TEST(Gguf, TheAlignmentKeyIsFollowed) {
  GgufWriter file;
  file.alignment = 128;
  file.u32("general.alignment", 128).tensor("a", {1}, std::vector<float>{7}).tensor("b", {1}, std::vector<float>{8});
  const auto bytes = file.bytes();
  float value;
  const Gguf read(bytes, "m");
  dequantize(*read.tensor("b").format, read.tensor("b").data.data(), 1, &value);
  EXPECT_EQ(value, 8);
}

TEST(Gguf, AFileCutAtAnyByteIsRefused) {
  const auto bytes = small_file().bytes();
  ASSERT_EQ(problem(bytes), "");
  // each prefix in memory of exactly its size, so that a sanitizer sees a read past it
  for (std::size_t size = 0; size < bytes.size(); ++size)
    EXPECT_NE(problem({bytes.begin(), bytes.begin() + static_cast<Index>(size)}), "") << "cut to " << size << " bytes";
}

TEST(Gguf, NoChangedByteCrashes) {
  const auto bytes = small_file().bytes();
  int refused = 0;
  for (std::size_t at = 0; at < bytes.size(); ++at)
    for (int change = 0; change < 10; ++change) {
      auto changed = bytes;
      changed[at] = change < 8 ? bytes[at] ^ (std::byte{1} << change) : change == 8 ? std::byte{0} : std::byte{0xff};
      try {
        touch_all(Gguf(changed, "m"));
      } catch (const GgufError&) {
        ++refused;
      }
    }
  EXPECT_GT(refused, 1000);  // most of the head is checked
}

TEST(Gguf, NoRandomDamageCrashes) {
  const auto bytes = small_file().bytes();
  const std::size_t head = small_file().head().size();
  std::mt19937 random(5);
  for (int trial = 0; trial < 20000; ++trial) {
    auto changed = bytes;
    for (int i = 0; i < 3; ++i) changed[random() % head] = static_cast<std::byte>(random());
    try {
      touch_all(Gguf(changed, "m"));
    } catch (const GgufError&) {
    }
  }
}

TEST(Gguf, AWrongMagicNumberIsNamed) {
  GgufWriter file = small_file();
  file.magic = "GGML";
  EXPECT_THAT(problem(file), HasSubstr("is not a GGUF file: it begins with 'GGML'"));
}

TEST(Gguf, AnotherVersionIsNamed) {
  GgufWriter file = small_file();
  file.version = 2;
  EXPECT_THAT(problem(file), HasSubstr("version (2) must be 3"));
}

TEST(Gguf, ABigEndianFileIsNamed) {
  GgufWriter file = small_file();
  file.version = 0x03000000;
  EXPECT_THAT(problem(file), HasSubstr("big-endian"));
}

TEST(Gguf, AbsurdCountsAreRefusedBeforeAnythingIsAllocated) {
  for (const std::uint64_t extra : {std::uint64_t{1} << 20, std::uint64_t{1} << 40, std::uint64_t{1} << 63}) {
    GgufWriter keys = small_file(), tensors = small_file();
    keys.extra_keys = extra;
    tensors.extra_tensors = extra;
    EXPECT_THAT(problem(keys), testing::AllOf(HasSubstr("announces"), HasSubstr("keys")));
    EXPECT_THAT(problem(tensors), testing::AllOf(HasSubstr("announces"), HasSubstr("tensors")));
  }
}

TEST(Gguf, AbsurdLengthsAreRefused) {
  const std::uint64_t huge = std::numeric_limits<std::uint64_t>::max();
  EXPECT_THAT(problem(GgufWriter().key("s", 8, Bytes().put(huge))), HasSubstr("in the middle of the value of key 's'"));
  for (const std::uint32_t element : {0u, 4u, 8u, 12u})
    EXPECT_THAT(problem(GgufWriter().key("a", 9, Bytes().put(element).put(huge))),
                HasSubstr("elements of the value of key 'a'"));
  // times 8 bytes this wraps to 8
  EXPECT_THAT(
      problem(GgufWriter().key("a", 9, Bytes().put(10u).put((std::uint64_t{1} << 61) + 1).put(std::uint64_t{0}))),
      HasSubstr("elements of the value of key 'a'"));
}

TEST(Gguf, TypesThatDoNotExistAreNamed) {
  EXPECT_THAT(problem(GgufWriter().key("k", 13, Bytes().put(std::uint64_t{0}))), HasSubstr("'k' has type 13"));
  EXPECT_THAT(problem(GgufWriter().key("k", 9, Bytes().put(77u).put(std::uint64_t{0}))), HasSubstr("array of type 77"));
  EXPECT_THAT(problem(GgufWriter().key("k", 9, Bytes().put(9u).put(std::uint64_t{0}))), HasSubstr("array of arrays"));
}

TEST(Gguf, ABooleanIsZeroOrOne) {
  EXPECT_THAT(problem(GgufWriter().key("k", 7, Bytes().put(std::uint8_t{2}))),
              HasSubstr("boolean (2) and must be 0 or 1"));
}

TEST(Gguf, NamesStandOnce) {
  EXPECT_THAT(problem(GgufWriter().u32("k", 1).u32("k", 1)), HasSubstr("key 'k' stands in the file twice"));
  EXPECT_THAT(problem(GgufWriter().tensor("t", {1}, std::vector<float>{1}).tensor("t", {1}, std::vector<float>{1})),
              HasSubstr("tensor 't' stands in the file twice"));
}

TEST(Gguf, NamesHaveALengthInRange) {
  EXPECT_THAT(problem(GgufWriter().u32("", 1)), HasSubstr("has 0 bytes"));
  EXPECT_THAT(problem(GgufWriter().u32(std::string(65536, 'k'), 1)), HasSubstr("has 65536 bytes"));
  EXPECT_THAT(problem(GgufWriter().tensor("", {1}, std::vector<float>{1})), HasSubstr("has 0 bytes"));
  EXPECT_THAT(problem(GgufWriter().tensor(std::string(65, 't'), {1}, std::vector<float>{1})),
              HasSubstr("has 65 bytes"));
}

TEST(Gguf, UnprintableNamesAreShownAsCodes) {
  EXPECT_THAT(problem(GgufWriter().u32("\x1b[31m\xff", 1).u32("\x1b[31m\xff", 1)), HasSubstr("'\\x1b[31m\\xff'"));
}

TEST(Gguf, TheAlignmentIsAPowerOfTwoInRange) {
  for (const std::uint32_t alignment : {0u, 1u, 4u, 33u, 131072u})
    EXPECT_THAT(problem(GgufWriter().u32("general.alignment", alignment)), HasSubstr("'general.alignment'"));
  EXPECT_THAT(problem(GgufWriter().text("general.alignment", "32")),
              HasSubstr("holds a string and must hold an integer"));
}

TEST(Gguf, TensorsHaveOneToFourDimensions) {
  EXPECT_THAT(problem(GgufWriter().describe("t", {}, 0, 0)), HasSubstr("has 0 dimensions"));
  EXPECT_THAT(problem(GgufWriter().describe("t", {1, 1, 1, 1, 1}, 0, 0)), HasSubstr("has 5 dimensions"));
}

TEST(Gguf, DimensionsThatCannotBeAreRefused) {
  const std::uint64_t huge = std::uint64_t{1} << 63;
  const Bytes data = Bytes().raw(std::string(4096, 'x'));
  EXPECT_THAT(problem(GgufWriter().tensor("t", {0}, 0, data)), HasSubstr("dimension 0 (0) of tensor 't'"));
  EXPECT_THAT(problem(GgufWriter().tensor("t", {4, huge}, 0, data)), HasSubstr("dimension 1 (9223372036854775808)"));
  EXPECT_THAT(problem(GgufWriter().tensor("t", {std::numeric_limits<std::uint64_t>::max()}, 0, data)),
              HasSubstr("dimension 0"));
  // each fits, their product (2^48) or its bytes do not
  EXPECT_THAT(problem(GgufWriter().tensor("t", {4096, 4096, 4096, 4096}, 0, data)), HasSubstr("beyond the 4096 bytes"));
}

TEST(Gguf, TypesThatAreNotReadAreNamed) {
  EXPECT_THAT(problem(GgufWriter().tensor("t", {256}, 13, Bytes().raw(std::string(176, 'x')))),
              testing::AllOf(HasSubstr("tensor 't' has type 13"), HasSubstr("Q4_K")));
  EXPECT_THAT(problem(GgufWriter().tensor("t", {1}, 4000000000u, Bytes().put(0))), HasSubstr("type 4000000000"));
}

TEST(Gguf, RowsAreWholeBlocks) {
  EXPECT_THAT(problem(GgufWriter().tensor("t", {48}, 2, Bytes().raw(std::string(64, 'x')))),
              HasSubstr("48 elements, not a multiple of the 32 in a block of Q4_0"));
}

TEST(Gguf, OffsetsAreAligned) {
  EXPECT_THAT(problem(small_file().describe("t", {1}, 0, 8)), HasSubstr("offset (8) of tensor 't' must be a multiple"));
}

TEST(Gguf, OffsetsLieInTheFile) {
  for (const std::uint64_t offset : {std::uint64_t{1} << 20, std::uint64_t{1} << 63, ~std::uint64_t{31}})
    EXPECT_THAT(problem(small_file().describe("t", {1}, 0, offset)), HasSubstr("tensor 't' has its data at offset"));
}

TEST(Gguf, TensorsDoNotShareBytes) {
  EXPECT_THAT(problem(small_file().describe("t", {1}, 0, 0)), HasSubstr("share bytes"));
}

TEST(Gguf, AMissingKeyIsNamed) {
  const auto bytes = small_file().bytes();
  const Gguf file(bytes, "m");
  EXPECT_FALSE(file.has("none"));
  EXPECT_THAT([&] { file.integer("none"); }, testing::ThrowsMessage<GgufError>("m: key 'none' is missing"));
  EXPECT_THAT([&] { file.tensor("none"); }, testing::ThrowsMessage<GgufError>("m: tensor 'none' is missing"));
}

TEST(Gguf, AValueOfAnotherKindIsNamed) {
  const auto bytes = small_file().key("large", 10, Bytes().put(~std::uint64_t{0})).bytes();
  const Gguf file(bytes, "m");
  const auto says = [](const char* text) { return testing::ThrowsMessage<GgufError>(HasSubstr(text)); };
  EXPECT_THAT([&] { file.integer("text"); }, says("key 'text' holds a string and must hold an integer"));
  EXPECT_THAT([&] { file.integer("f32"); }, says("holds a float and must hold an integer"));
  EXPECT_THAT([&] { file.integer("large"); }, says("holds an integer above 2^63"));
  EXPECT_THAT([&] { file.number("yes"); }, says("holds a boolean and must hold a number"));
  EXPECT_THAT([&] { file.boolean("u8"); }, says("holds an integer and must hold a boolean"));
  EXPECT_THAT([&] { file.text("texts"); }, says("holds an array and must hold a string"));
  EXPECT_THAT([&] { file.texts("text"); }, says("holds a string and must hold an array of strings"));
  EXPECT_THAT([&] { file.texts("i32s"); }, says("must hold an array of strings"));
  EXPECT_THAT([&] { file.integers("texts"); }, says("must hold an array of integers"));
}

}  // namespace
}  // namespace llama
