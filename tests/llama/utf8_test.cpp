// SPDX-License-Identifier: MIT
#include "llama/text/utf8.hpp"

#include <gtest/gtest.h>

#include <random>

namespace llama {
namespace {

TEST(Utf8, EveryScalarValueComesBack) {
  for (char32_t value = 0; value <= 0x10ffff; ++value) {
    if (value >= 0xd800 && value < 0xe000) continue;
    const std::string text = to_utf8(value);
    const CodePoint read = first_code_point(text);
    ASSERT_EQ(read.value, value);
    ASSERT_EQ(read.bytes, text.size());
  }
}

TEST(Utf8, WhatIsNoCharacterIsOneInvalidByte) {
  for (const std::string_view text : {"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xc3", "\xc3(", "\xe0\x80\x80",
                                      "\xe0\x9f\xbf", "\xe2\x82", "\xed\xa0\x80", "\xed\xbf\xbf", "\xf0\x80\x80\x80",
                                      "\xf0\x9f\x98", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff"}) {
    EXPECT_EQ(first_code_point(text).value, CodePoint::kInvalid);
    EXPECT_EQ(first_code_point(text).bytes, 1u);
  }
}

TEST(Utf8, AStreamShowsACharacterWhenItIsWhole) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("a\xf0"), "a");
  EXPECT_EQ(stream.push("\x9f\x98"), "");
  EXPECT_EQ(stream.push("\x80!"), "\xf0\x9f\x98\x80!");
  EXPECT_EQ(stream.finish(), "");
}

TEST(Utf8, AStreamReplacesWhatIsNoCharacter) {
  const std::string replacement = "\xef\xbf\xbd";
  Utf8Stream stream;
  EXPECT_EQ(stream.push("a\x80z"), "a" + replacement + "z");
  EXPECT_EQ(stream.push("\xe2\x82"), "");
  EXPECT_EQ(stream.push("x"), replacement + "x");                                   // one for the whole beginning
  EXPECT_EQ(stream.push("\xed\xa0\x80"), replacement + replacement + replacement);  // a surrogate
  EXPECT_EQ(stream.push("\xc3"), "");
  EXPECT_EQ(stream.finish(), replacement);
  EXPECT_EQ(stream.finish(), "");
}

TEST(Utf8, WhatAStreamShowsDoesNotDependOnTheCuts) {
  std::mt19937 random(3);
  for (int trial = 0; trial < 2000; ++trial) {
    std::string text;
    for (int i = 0; i < 20; ++i)
      text += random() % 3 == 0 ? std::string(1, static_cast<char>(random()))
                                : to_utf8(static_cast<char32_t>(random() % 0xd800));
    Utf8Stream whole, pieces;
    std::string at_once = whole.push(text), joined;
    at_once += whole.finish();
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t length = 1 + random() % 4;
      joined += pieces.push(std::string_view(text).substr(at, length));
      at += length;
    }
    joined += pieces.finish();
    ASSERT_EQ(joined, at_once);
    // and it is UTF-8
    for (std::string_view rest = joined; !rest.empty(); rest.remove_prefix(first_code_point(rest).bytes))
      ASSERT_NE(first_code_point(rest).value, CodePoint::kInvalid);
  }
}

}  // namespace
}  // namespace llama
