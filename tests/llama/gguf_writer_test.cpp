// SPDX-License-Identifier: MIT
#include "llama/file/gguf_writer.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <fstream>

#include "llama/file/dequantize.hpp"
#include "llama/file/mapped_file.hpp"
#include "llama/file/new_file.hpp"
#include "tests/llama/tiny_model.hpp"

namespace llama {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

/// A folder of the test's own, gone afterwards.
class NewFiles : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "new_files_XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string path(const char* name) const { return folder_ / name; }
  std::ptrdiff_t files() const {
    return std::distance(std::filesystem::directory_iterator(folder_), std::filesystem::directory_iterator());
  }
  static std::string contents(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  static void write(NewFile& file, std::string_view text) {
    file.write(std::as_bytes(std::span(text.data(), text.size())));
  }

  std::filesystem::path folder_;
};

TEST_F(NewFiles, AppearWholeWithCommit) {
  NewFile file(path("a"));
  write(file, "one ");
  write(file, "two");
  EXPECT_EQ(file.size(), 7u);
  EXPECT_FALSE(std::filesystem::exists(path("a")));
  file.commit();
  EXPECT_EQ(contents(path("a")), "one two");
  EXPECT_EQ(files(), 1);
}

TEST_F(NewFiles, LeaveNothingWithoutCommitAndWhatWasThereStays) {
  std::ofstream(path("a")) << "old";
  {
    NewFile file(path("a"));
    write(file, std::string(3u << 20, 'x'));  // more than is buffered
  }
  EXPECT_EQ(contents(path("a")), "old");
  EXPECT_EQ(files(), 1);
}

TEST_F(NewFiles, KeepTheModeOfWhatTheyReplace) {
  std::ofstream(path("a")) << "old";
  std::filesystem::permissions(path("a"), std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  NewFile file(path("a"));
  file.commit();
  EXPECT_EQ(std::filesystem::status(path("a")).permissions(),
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
}

TEST_F(NewFiles, NameTheFileThatCannotBeWritten) {
  try {
    NewFile file(path("none/a"));
    FAIL();
  } catch (const std::runtime_error& error) {
    EXPECT_THAT(error.what(), HasSubstr("none/a: cannot be created: No such file"));
  }
  std::filesystem::create_directory(path("folder"));
  std::ofstream(path("folder/x")) << "x";
  try {
    NewFile file(path("folder"));
    file.commit();
    FAIL();
  } catch (const std::runtime_error& error) {
    EXPECT_THAT(error.what(), HasSubstr("folder: cannot be written"));
  }
  EXPECT_EQ(files(), 1);
}

using GgufWriting = NewFiles;

TEST_F(GgufWriting, WhatIsWrittenIsRead) {
  GgufWriter writer(64);
  writer.set("a.u32", 7u);
  writer.set("a.f32", 0.5f);
  writer.set("a.bool", true);
  writer.set("a.text", "word");
  writer.set("a.i32s", std::vector<std::int32_t>{3, -1});
  writer.set("a.texts", std::vector<std::string>{"x", "yz"});
  writer.set("general.alignment", 64u);
  writer.set("a.u32", 8u);  // in its place
  writer.set("a.gone", 1u);
  writer.erase("a.gone");
  const std::vector<float> numbers = {1, -2.5f, 3, 4, 5, 65504.0f};
  writer.add_matrix("m32", numbers.data(), 2, 3, TensorType::f32);
  writer.add_matrix("m16", numbers.data(), 3, 2, TensorType::f16);
  writer.add_matrix("mb16", numbers.data(), 3, 2, TensorType::bf16);
  writer.add_vector("v", numbers.data(), 6);
  writer.write(path("w.gguf"));

  const MappedFile mapped(path("w.gguf"));
  const Gguf file(mapped.bytes(), "w");
  EXPECT_EQ(file.entries().size(), 7u);
  EXPECT_EQ(file.entries().front().key, "a.u32");
  EXPECT_EQ(file.integer("a.u32"), 8);
  EXPECT_EQ(file.number("a.f32"), 0.5);
  EXPECT_TRUE(file.boolean("a.bool"));
  EXPECT_EQ(file.text("a.text"), "word");
  EXPECT_THAT(file.integers("a.i32s"), ElementsAre(3, -1));
  EXPECT_THAT(file.texts("a.texts"), ElementsAre("x", "yz"));
  EXPECT_FALSE(file.has("a.gone"));
  EXPECT_EQ(file.alignment(), 64);
  for (const Tensor& tensor : file.tensors()) {
    std::vector<float> read(6);
    dequantize(*tensor.format, tensor.data.data(), 6, read.data());
    std::vector<float> expected = numbers;
    if (tensor.format->type == TensorType::bf16) expected[5] = 65536.0f;  // 8 bits of 65504
    EXPECT_EQ(read, expected) << tensor.name;
  }
  EXPECT_THAT(file.tensor("m32").sizes, ElementsAre(3, 2, 1, 1));
  EXPECT_THAT(file.tensor("v").sizes, ElementsAre(6, 1, 1, 1));
}

TEST_F(GgufWriting, ACopyOfAModelHasItsKeysAndTensorsByteForByte) {
  const auto bytes = llama_test::TinyModel().write().bytes();
  const Gguf file(bytes, "tiny");
  GgufWriter writer(file.alignment());
  for (const GgufEntry& entry : file.entries()) writer.set(entry.key, entry);
  for (const Tensor& tensor : file.tensors()) writer.add(tensor);
  writer.write(path("copy.gguf"));

  const MappedFile mapped(path("copy.gguf"));
  const Gguf copy(mapped.bytes(), "copy");
  ASSERT_EQ(copy.entries().size(), file.entries().size());
  for (std::size_t i = 0; i < file.entries().size(); ++i) {
    EXPECT_EQ(copy.entries()[i].key, file.entries()[i].key);
    EXPECT_EQ(copy.entries()[i].type, file.entries()[i].type);
    EXPECT_TRUE(std::ranges::equal(copy.entries()[i].value, file.entries()[i].value)) << file.entries()[i].key;
  }
  ASSERT_EQ(copy.tensors().size(), file.tensors().size());
  for (const Tensor& tensor : file.tensors()) {
    EXPECT_EQ(copy.tensor(tensor.name).sizes, tensor.sizes);
    EXPECT_TRUE(std::ranges::equal(copy.tensor(tensor.name).data, tensor.data)) << tensor.name;
  }
}

TEST_F(GgufWriting, RefusesATensorTwiceAndQuantizedTypes) {
  GgufWriter writer;
  const float one = 1;
  writer.add_vector("v", &one, 1);
  EXPECT_THROW(writer.add_vector("v", &one, 1), std::invalid_argument);
  EXPECT_THROW(writer.add_matrix("q", &one, 1, 1, TensorType::q8_0), std::invalid_argument);
}

TEST_F(GgufWriting, TheBytesInMemoryAreThoseOfTheFile) {
  GgufWriter writer;
  const float numbers[] = {1, 2, 3};
  writer.set("a", "b");
  writer.add_vector("v", numbers, 3);
  writer.add_vector("w", numbers, 2);
  writer.write(path("w.gguf"));
  const MappedFile mapped(path("w.gguf"));
  EXPECT_TRUE(std::ranges::equal(writer.bytes(), mapped.bytes()));
}

TEST_F(GgufWriting, AFullDiskLeavesWhatWasThere) {  // a limit on the size of files stands for it
  std::ofstream(path("w.gguf")) << "old";
  GgufWriter writer;
  const std::vector<float> numbers(1 << 20);
  writer.add_vector("v", numbers.data(), std::ssize(numbers));
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit small = before;
  small.rlim_cur = 100000;
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  std::string message;
  try {
    writer.write(path("w.gguf"));
  } catch (const std::runtime_error& error) {
    message = error.what();
  }
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_THAT(message, HasSubstr("w.gguf: cannot be written: File too large"));
  EXPECT_EQ(contents(path("w.gguf")), "old");
  EXPECT_EQ(files(), 1);
}

}  // namespace
}  // namespace llama
