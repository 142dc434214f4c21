// SPDX-License-Identifier: MIT
#include "llama/file/safetensors.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "llama/file/dequantize.hpp"
#include "tests/llama/gguf_writer.hpp"

namespace llama {
namespace {

using llama_test::Bytes;
using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::byte> file_of(std::string_view header, const Bytes& data = {}) {
  return Bytes().text(header).add(data).all();
}

std::string problem(const std::vector<std::byte>& bytes) {
  try {
    const Safetensors file(bytes, "m");
    return "";
  } catch (const ModelFileError& error) {
    return error.what();
  }
}

/// What is wrong with a file of that header and 16 bytes of data.
std::string problem(std::string_view header) {
  return problem(file_of(header, Bytes().put(std::uint64_t{1}).put(std::uint64_t{2})));
}

std::vector<float> numbers(const StoredTensor& tensor) {
  Index count = 1;
  for (const Index size : tensor.sizes) count *= size;
  std::vector<float> out(static_cast<std::size_t>(count));
  dequantize(*tensor.format, tensor.data.data(), count, out.data());
  return out;
}

/// Three tensors, which the header names in another order than their data has.
std::vector<std::byte> good_file() {
  const Bytes data = Bytes()
                         .put(1.5f)
                         .put(-2.0f)
                         .put(0.1f)
                         .put(std::uint16_t{0x3c00})   // 1 in f16
                         .put(std::uint16_t{0xc000})   // -2 in f16
                         .put(std::uint16_t{0x4049});  // 3.140625 in bf16
  return file_of(R"({"__metadata__":{"format":"pt"},)"
                 R"("c":{"dtype":"BF16","shape":[],"data_offsets":[16,18]},)"
                 R"("none":{"dtype":"F32","shape":[3,0],"data_offsets":[12,12]},)"
                 R"("a":{"dtype":"F32","shape":[1,3],"data_offsets":[0,12]},)"
                 R"("b":{"dtype":"F16","shape":[2],"data_offsets":[12,16]}}   )",
                 data);
}

TEST(Safetensors, ReadsEachTypeOfTensor) {
  const auto bytes = good_file();
  const Safetensors file(bytes, "m");
  ASSERT_EQ(file.tensors().size(), 4u);
  EXPECT_EQ(file.tensors()[0].name, "a");
  EXPECT_EQ(file.tensors()[1].name, "none");
  EXPECT_EQ(file.tensors()[3].name, "c");
  EXPECT_THAT(file.find_tensor("a")->sizes, ElementsAre(1, 3));
  EXPECT_THAT(numbers(*file.find_tensor("a")), ElementsAre(1.5f, -2.0f, 0.1f));
  EXPECT_EQ(file.find_tensor("b")->format->type, TensorType::f16);
  EXPECT_THAT(numbers(*file.find_tensor("b")), ElementsAre(1, -2));
  EXPECT_THAT(numbers(*file.find_tensor("c")), ElementsAre(3.140625f));
  EXPECT_THAT(numbers(*file.find_tensor("none")), ElementsAre());
  EXPECT_EQ(file.find_tensor("d"), nullptr);
}

TEST(Safetensors, MayHaveNoTensors) {
  const auto bytes = file_of("{}");
  EXPECT_TRUE(Safetensors(bytes, "m").tensors().empty());
}

TEST(Safetensors, EveryCutIsRefused) {
  const auto whole = good_file();
  ASSERT_EQ(problem(whole), "");
  for (std::size_t size = 0; size < whole.size(); ++size)
    EXPECT_NE(problem({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)}), "") << size << " bytes";
  EXPECT_EQ(problem({whole.begin(), whole.begin() + 7}),
            "m: ends after 7 bytes, in the middle of the length of its header (8 bytes)");
  EXPECT_THAT(problem({whole.begin(), whole.end() - 1}),
              HasSubstr("data_offsets of tensor 'c' ([16,18]) lies beyond the 17 bytes of data in the file"));
}

TEST(Safetensors, NamesAHeaderThatIsNone) {
  EXPECT_EQ(problem(Bytes().put(std::uint64_t{9}).raw("{}").all()),
            "m: announces a header of 9 bytes, beyond the 2 that follow");
  EXPECT_EQ(problem(Bytes().put(~std::uint64_t{0}).raw("{}").all()),
            "m: announces a header of 18446744073709551615 bytes and may have at most 100000000");
  EXPECT_EQ(problem(file_of("")), "m: has a header that does not begin with '{'");
  EXPECT_EQ(problem(file_of(" {}")), "m: has a header that does not begin with '{'");
  EXPECT_EQ(problem(file_of("{]}")), "m: is not JSON: byte 2 of 3 is wrong");
  EXPECT_EQ(problem(file_of("{}{}")), "m: is not JSON: byte 3 of 4 is wrong");
  EXPECT_EQ(problem(file_of("{\"\xff\":1}")), "m: is not JSON: byte 3 of 7 is wrong");
  EXPECT_EQ(problem(file_of(std::string_view("{}\0x", 4))), "m: is not JSON: it holds a zero byte");
  EXPECT_EQ(problem(file_of(R"({"a":1e999})")), "m: has a number that no double can hold");
  EXPECT_EQ(problem(file_of(R"({"a":[1]})")), "m: tensor 'a' ([1]) must be a JSON object");
  EXPECT_EQ(problem(file_of(R"({"__metadata__":{"a":1}})")), "m: __metadata__ must hold strings only; 'a' is none");
  EXPECT_EQ(problem(file_of(R"({"__metadata__":1})")), "m: __metadata__ (1) must be a JSON object");
}

TEST(Safetensors, RefusesDeepNestingWithoutFollowingIt) {
  const std::size_t deep = 5'000'000;
  EXPECT_THAT(problem(file_of(R"({"a":)" + std::string(deep, '['))),
              HasSubstr("has arrays and objects more than 64 deep in each other"));
  std::string objects;
  for (std::size_t i = 0; i < 100'000; ++i) objects += R"({"a":)";
  EXPECT_THAT(problem(file_of(objects)), HasSubstr("more than 64 deep"));
}

TEST(Safetensors, RefusesAKeyTwice) {
  EXPECT_EQ(problem(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                    R"("a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}})"),
            "m: has the key 'a' twice in an object");
  EXPECT_EQ(problem(R"({"a":{"dtype":"F32","shape":[4],"shape":[4],"data_offsets":[0,16]}})"),
            "m: has the key 'shape' twice in an object");
}

TEST(Safetensors, NamesATensorThatContradictsItself) {
  const auto with = [](const std::string& description) { return problem(R"({"a":{)" + description + "}}"); };
  EXPECT_EQ(with(R"("dtype":"F32","shape":[4],"data_offsets":[0,16])"), "");
  EXPECT_EQ(with(R"("shape":[4],"data_offsets":[0,16])"), "m: dtype of tensor 'a' is missing");
  EXPECT_EQ(with(R"("dtype":"F32","data_offsets":[0,16])"), "m: shape of tensor 'a' is missing");
  EXPECT_EQ(with(R"("dtype":"F32","shape":[4])"), "m: data_offsets of tensor 'a' is missing");
  EXPECT_EQ(with(R"("dtype":32,"shape":[4],"data_offsets":[0,16])"), "m: dtype of tensor 'a' (32) must be a string");
  EXPECT_EQ(with(R"("dtype":"I64","shape":[2],"data_offsets":[0,16])"),
            "m: dtype of tensor 'a' (\"I64\") is not read; read are F32, F16 and BF16");
  EXPECT_EQ(with(R"("dtype":"F32","shape":4,"data_offsets":[0,16])"), "m: shape of tensor 'a' (4) must be an array");
  for (const char* shape : {"[-4]", "[4.0]", "[\"4\"]", "[[4]]", "[9223372036854775808]"})
    EXPECT_EQ(with(std::string(R"("dtype":"F32","data_offsets":[0,16],"shape":)") + shape),
              std::string("m: shape of tensor 'a' (") + shape + ") must hold integers from 0 to 9223372036854775807");
  EXPECT_EQ(with(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,16])"),
            "m: shape of tensor 'a' ([4294967296,4294967296]) has more bytes than any file");
  EXPECT_EQ(with(R"("dtype":"F32","shape":[3],"data_offsets":[0,16])"),
            "m: data_offsets of tensor 'a' ([0,16]) has 16 bytes and must have the 12 of its shape");
  for (const char* offsets : {"[]", "[16]", "[16,0]", "[0,16,16]"})
    EXPECT_EQ(with(std::string(R"("dtype":"F32","shape":[4],"data_offsets":)") + offsets),
              std::string("m: data_offsets of tensor 'a' (") + offsets + ") must be [begin, end]");
  EXPECT_EQ(with(R"("dtype":"F32","shape":[4],"data_offsets":[1,17])"),
            "m: data_offsets of tensor 'a' ([1,17]) lies beyond the 16 bytes of data in the file");
}

TEST(Safetensors, EveryByteBelongsToExactlyOneTensor) {
  const auto with = [](const std::string& a, const std::string& b) {
    return problem(R"({"a":{"dtype":"F16","shape":[4],"data_offsets":)" + a +
                   R"(},"b":{"dtype":"F16","shape":[4],"data_offsets":)" + b + "}}");
  };
  EXPECT_EQ(with("[0,8]", "[8,16]"), "");
  EXPECT_EQ(with("[8,16]", "[0,8]"), "");
  EXPECT_EQ(with("[0,8]", "[0,8]"), "m: tensors 'a' and 'b' share bytes");
  EXPECT_EQ(with("[6,14]", "[0,8]"), "m: tensors 'b' and 'a' share bytes");
  const auto only = [](const std::string& offsets) {
    return problem(R"({"a":{"dtype":"F16","shape":[4],"data_offsets":)" + offsets + "}}");
  };
  EXPECT_EQ(only("[8,16]"), "m: has 8 bytes before tensor 'a' that belong to no tensor");
  EXPECT_EQ(only("[0,8]"), "m: has 8 bytes at its end that belong to no tensor");
  EXPECT_EQ(problem("{}"), "m: has 16 bytes at its end that belong to no tensor");
}

TEST(Safetensors, NoChangedByteOfTheHeaderCrashes) {
  const auto whole = good_file();
  const std::size_t data = 18;
  int refused = 0;
  for (std::size_t at = 0; at < whole.size() - data; ++at)
    for (const int flip : {0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xff}) {
      auto changed = whole;
      changed[at] ^= static_cast<std::byte>(flip);
      try {
        const Safetensors file(changed, "m");
        for (const StoredTensor& tensor : file.tensors()) numbers(tensor);
      } catch (const ModelFileError&) {
        ++refused;
      }
    }
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace llama
