// SPDX-License-Identifier: MIT
#include "serve/requests.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "serve/progress.hpp"

namespace serve {
namespace {

using testing::HasSubstr;

TEST(PromptLines, AreTextOrJson) {
  const auto lines =
      read_prompt_lines("in the\n\n{\"prompt\": \"a\\nb\", \"max_tokens\": 7}\r\n{\"prompt\": \"\"}\n x ", "f");
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(lines[0].prompt, "in the");
  EXPECT_EQ(lines[0].max_tokens, std::nullopt);
  EXPECT_EQ(lines[1].prompt, "a\nb");
  EXPECT_EQ(lines[1].max_tokens, 7);
  EXPECT_EQ(lines[2].prompt, "");
  EXPECT_EQ(lines[3].prompt, " x ");
  EXPECT_TRUE(read_prompt_lines("", "f").empty());
  EXPECT_TRUE(read_prompt_lines("\n\r\n", "f").empty());
}

std::string problem(const std::string& text) {
  try {
    read_prompt_lines(text, "prompts");
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

TEST(PromptLines, NameTheLineThatIsWrong) {
  EXPECT_THAT(problem("a\n{\"prompt\": "), HasSubstr("prompts:2: is not JSON"));
  EXPECT_THAT(problem("{\"max_tokens\": 3}"), HasSubstr("prompts:1: prompt is missing"));
  EXPECT_THAT(problem("\n\n{\"prompt\": 4}"), HasSubstr("prompts:3: prompt (4) must be a string"));
  EXPECT_THAT(problem("{\"prompt\": \"a\", \"max_tokens\": -1}"), HasSubstr("max_tokens (-1) must be an integer"));
  EXPECT_THAT(problem("{\"prompt\": \"a\", \"max_token\": 1}"), HasSubstr("max_token (1) must be"));
}

TEST(Progress, IsSilentForAShortRun) {
  Progress progress(10, 0.5);
  EXPECT_EQ(progress.at(0.9, 9, 100, 1, 1, 8), std::nullopt);
}

TEST(Progress, ShowsABarAtIntervals) {
  Progress progress(8, 0.5);
  EXPECT_EQ(progress.at(2, 2, 100, 3, 5, 9),
            "[######..................] 2 of 8 prompts, 3 running, 100 tokens (50 per s), 5 of 9 pages");
  EXPECT_EQ(progress.at(2.4, 3, 110, 3, 5, 9), std::nullopt);
  EXPECT_THAT(progress.at(2.6, 8, 110, 0, 0, 9).value(), testing::StartsWith("[########################] 8 of 8"));
}

}  // namespace
}  // namespace serve
