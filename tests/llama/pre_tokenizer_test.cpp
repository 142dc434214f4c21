// SPDX-License-Identifier: MIT
#include "llama/text/pre_tokenizer.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>

#include "llama/text/unicode.hpp"

namespace llama {
namespace {

using testing::ElementsAre;

auto gpt2(std::string_view text) { return split(text, PreTokenizer::gpt2); }
auto smollm(std::string_view text) { return split(text, PreTokenizer::smollm); }

TEST(PreTokenizer, AWordTakesOneSpaceBeforeIt) {
  EXPECT_THAT(gpt2("Hello  big world"), ElementsAre("Hello", " ", " big", " world"));
}

TEST(PreTokenizer, OnlyTheSpaceCharacterGoesWithAWord) {
  EXPECT_THAT(gpt2("a\tb\n c\u00a0d"), ElementsAre("a", "\t", "b", "\n", " c", "\u00a0", "d"));
}

TEST(PreTokenizer, WhiteSpaceAtTheEndIsOnePiece) {
  EXPECT_THAT(gpt2("a \n\n "), ElementsAre("a", " \n\n "));
  EXPECT_THAT(gpt2("   "), ElementsAre("   "));
}

TEST(PreTokenizer, EnglishContractionsAreCutOff) {
  EXPECT_THAT(
      gpt2("it's we'll they've I'm you'd aren't we're"),
      ElementsAre("it", "'s", " we", "'ll", " they", "'ve", " I", "'m", " you", "'d", " aren", "'t", " we", "'re"));
}

TEST(PreTokenizer, ContractionsAreLowerCaseAndComeBeforeOtherMarks) {
  EXPECT_THAT(gpt2("it'S 'tis ''s"), ElementsAre("it", "'", "S", " '", "tis", " ''", "s"));
  EXPECT_THAT(gpt2("'sick"), ElementsAre("'s", "ick"));
}

TEST(PreTokenizer, LettersNumbersAndMarksAreApart) {
  EXPECT_THAT(gpt2("abc123,.!x ½ Ⅷ"), ElementsAre("abc", "123", ",.!", "x", " ½", " Ⅷ"));
}

TEST(PreTokenizer, SmollmTakesEveryDigitAlone) {
  EXPECT_THAT(smollm("in 2024, 3½٣"), ElementsAre("in", " ", "2", "0", "2", "4", ",", " ", "3", "½", "٣"));
  EXPECT_THAT(gpt2("in 2024"), ElementsAre("in", " 2024"));
}

TEST(PreTokenizer, SmollmCutsWhiteSpaceBeforeADigitAsAtAnEnd) {
  EXPECT_THAT(smollm("a  1 b"), ElementsAre("a", "  ", "1", " b"));
  EXPECT_THAT(gpt2("a  1 b"), ElementsAre("a", " ", " 1", " b"));
}

TEST(PreTokenizer, LettersOfEveryScriptMakeWords) {
  EXPECT_THAT(gpt2("naïve 日本語 русский עברית"), ElementsAre("naïve", " 日本語", " русский", " עברית"));
}

TEST(PreTokenizer, ACombiningMarkIsNoLetter) { EXPECT_THAT(gpt2("e\u0301a"), ElementsAre("e", "\u0301", "a")); }

TEST(PreTokenizer, BytesThatAreNoUtf8AreMarks) {
  EXPECT_THAT(gpt2("ab\xff\xfe cd\xc3"), ElementsAre("ab", "\xff\xfe", " cd", "\xc3"));
}

TEST(PreTokenizer, NothingHasNoPieces) {
  EXPECT_TRUE(gpt2("").empty());
  EXPECT_TRUE(smollm("").empty());
}

TEST(PreTokenizer, PiecesOfAnyBytesAreThoseBytes) {
  std::mt19937 random(1);
  for (int trial = 0; trial < 5000; ++trial) {
    std::string text;
    for (auto i = random() % 40; i > 0; --i)
      text += random() % 2 == 0 ? " \n'st1"[random() % 6] : static_cast<char>(random());
    for (const auto kind : {PreTokenizer::gpt2, PreTokenizer::smollm}) {
      std::string joined;
      for (const auto piece : split(text, kind)) {
        ASSERT_FALSE(piece.empty());
        joined += piece;
      }
      ASSERT_EQ(joined, text);
    }
  }
}

TEST(UnicodeClasses, AreThoseOfTheStandard) {
  for (const char32_t letter :
       {U'a', U'Z', U'ª', U'é', U'ß', U'Ж', U'א', U'ع', U'अ', U'中', U'ʰ', U'ǅ', U'\U00020000', U'\U0001d400'})
    EXPECT_EQ(class_of(letter), CharClass::letter) << std::hex << static_cast<std::uint32_t>(letter);
  for (const char32_t number : {U'0', U'9', U'²', U'½', U'٣', U'Ⅷ', U'〇', U'①', U'\U0001d7ce'})
    EXPECT_EQ(class_of(number), CharClass::number) << std::hex << static_cast<std::uint32_t>(number);
  for (const char32_t space : {U' ', U'\t', U'\n', U'\v', U'\f', U'\r', U'\x85', U'\xa0', U'\u1680', U'\u2003',
                               U'\u2028', U'\u2029', U'\u202f', U'\u205f', U'\u3000'})
    EXPECT_EQ(class_of(space), CharClass::space) << std::hex << static_cast<std::uint32_t>(space);
  for (const char32_t other :
       {U'\0', U'\x1c', U'\x1f', U'!', U'_', U'\u0301', U'\u200b', U'\u180e', U'€', U'😀', U'\ue000', U'\U0010ffff',
        static_cast<char32_t>(0x110000), static_cast<char32_t>(0xffffffff)})
    EXPECT_EQ(class_of(other), CharClass::other) << std::hex << static_cast<std::uint32_t>(other);
}

}  // namespace
}  // namespace llama
