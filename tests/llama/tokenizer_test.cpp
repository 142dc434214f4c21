// SPDX-License-Identifier: MIT
#include "llama/text/tokenizer.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "tests/llama/tiny_model.hpp"

namespace llama {
namespace {

using llama_test::GgufWriter;
using llama_test::TinyModel;
using testing::ElementsAre;
using testing::HasSubstr;

/// A vocabulary that a test makes up: the control tokens, then the user-defined ones, then the bytes, then the rest.
struct Vocabulary {
  std::vector<std::string> control, user_defined, bytes, words, merges;
  std::string model = "gpt2", pre = "gpt-2";

  Vocabulary() {
    for (const char32_t character : kByteCharacters) bytes.push_back(to_utf8(character));
  }
  GgufWriter write() const {
    std::vector<std::string> all;
    std::vector<std::int32_t> types;
    const auto add = [&](const std::vector<std::string>& tokens, std::int32_t type) {
      all.insert(all.end(), tokens.begin(), tokens.end());
      types.resize(all.size(), type);
    };
    add(control, 3);
    add(user_defined, 4);
    add(bytes, 1);
    add(words, 1);
    GgufWriter file;
    file.text("tokenizer.ggml.model", model).text("tokenizer.ggml.pre", pre).texts("tokenizer.ggml.tokens", all);
    file.i32s("tokenizer.ggml.token_type", types).texts("tokenizer.ggml.merges", merges);
    return file;
  }
};

Tokenizer make(const GgufWriter& file) {
  const auto bytes = file.bytes();
  return Tokenizer(Gguf(bytes, "m"));
}
Tokenizer make(const Vocabulary& vocabulary) { return make(vocabulary.write()); }

std::vector<std::string> pieces(const Tokenizer& tokenizer, std::string_view text, bool special = false) {
  std::vector<std::string> out;
  for (const TokenId id : tokenizer.encode(text, special).ids) out.emplace_back(tokenizer.bytes(id));
  return out;
}

Vocabulary small() {
  Vocabulary vocabulary;
  vocabulary.words = {"he", "ll", "hell", "hello", "Ġh", "lo", "aa", "aaaa"};
  vocabulary.merges = {"h e", "l l", "he ll", "hell o", "Ġ h", "l o", "a a", "aa aa"};
  return vocabulary;
}

TEST(Tokenizer, MergesByRankThenFromTheLeft) {
  const Tokenizer tokenizer = make(small());
  EXPECT_THAT(pieces(tokenizer, "hello"), ElementsAre("hello"));
  EXPECT_THAT(pieces(tokenizer, "helo"), ElementsAre("he", "lo"));
  EXPECT_THAT(pieces(tokenizer, "helll"), ElementsAre("hell", "l"));
  EXPECT_THAT(pieces(tokenizer, "aaa"), ElementsAre("aa", "a"));
  EXPECT_THAT(pieces(tokenizer, "aaaaaaa"), ElementsAre("aaaa", "aa", "a"));
}

TEST(Tokenizer, ASpaceIsPartOfTheWord) {
  // "h e" ranks before "Ġ h"
  EXPECT_THAT(pieces(make(small()), "ha ha he"), ElementsAre("h", "a", " h", "a", " ", "he"));
}

TEST(Tokenizer, MergesStayInsideAPiece) {
  Vocabulary vocabulary;
  vocabulary.words = {"a!", "!a", "1a"};
  vocabulary.merges = {"a !", "! a", "1 a"};
  EXPECT_THAT(pieces(make(vocabulary), "a!a1a"), ElementsAre("a", "!", "a", "1", "a"));
}

TEST(Tokenizer, AnyBytesComeBack) {
  const Tokenizer tokenizer = make(small());
  std::mt19937 random(8);
  for (int trial = 0; trial < 3000; ++trial) {
    std::string text, back;
    for (auto i = random() % 50; i > 0; --i)
      text += random() % 2 ? "helo a"[random() % 6] : static_cast<char>(random());
    const auto encoded = tokenizer.encode(text, true);
    for (const TokenId id : encoded.ids) back += tokenizer.bytes(id);
    ASSERT_EQ(back, text);
    ASSERT_EQ(encoded.dropped_bytes, 0);
  }
}

TEST(Tokenizer, AVeryLongPieceIsFast) {  // quadratic merging would not end within the test's time
  const std::string text(400'000, 'a');
  EXPECT_EQ(make(small()).encode(text, false).ids.size(), 100'000u);
}

TEST(Tokenizer, ControlTokensInTheTextAreSpecialOnlyWhenAsked) {
  Vocabulary vocabulary = small();
  vocabulary.control = {"<|a|>", "<|a|><|b|>", "hello"};
  const Tokenizer tokenizer = make(vocabulary);
  EXPECT_THAT(tokenizer.encode("<|a|>", true).ids, ElementsAre(0));
  EXPECT_EQ(tokenizer.encode("<|a|>", false).ids.size(), 5u);
  EXPECT_THAT(pieces(tokenizer, "x<|a|>y", true), ElementsAre("x", "<|a|>", "y"));
  EXPECT_THAT(tokenizer.encode("<|a|><|b|>", true).ids, ElementsAre(1));  // the longest
  EXPECT_EQ(tokenizer.encode("hello", true).ids, std::vector<TokenId>{2});
  EXPECT_NE(tokenizer.encode("hello", false).ids, std::vector<TokenId>{2});
  EXPECT_TRUE(tokenizer.is_control(2));
}

TEST(Tokenizer, TheTextAroundASpecialTokenIsSplitOnItsOwn) {
  Vocabulary vocabulary = small();
  vocabulary.control = {"<|a|>"};
  // the white space before the token is at an end, so it is one piece
  vocabulary.words = {"ĠĠ"};
  vocabulary.merges = {"Ġ Ġ"};
  EXPECT_THAT(pieces(make(vocabulary), "x  <|a|>  y", true), ElementsAre("x", "  ", "<|a|>", " ", " ", "y"));
}

TEST(Tokenizer, UserDefinedTokensAreAlwaysRead) {
  Vocabulary vocabulary = small();
  vocabulary.user_defined = {"<think>"};
  EXPECT_THAT(pieces(make(vocabulary), "a<think>"), ElementsAre("a", "<think>"));
}

TEST(Tokenizer, BytesWithoutATokenAreLeftOutAndCounted) {
  Vocabulary vocabulary;
  std::erase(vocabulary.bytes, "x");
  const Tokenizer tokenizer = make(vocabulary);
  EXPECT_THAT(pieces(tokenizer, "axbx"), ElementsAre("a", "b"));
  EXPECT_EQ(tokenizer.encode("axbx", false).dropped_bytes, 2);
}

TEST(Tokenizer, SmollmSplitsDigits) {
  Vocabulary vocabulary;
  vocabulary.words = {"12"};
  vocabulary.merges = {"1 2"};
  EXPECT_THAT(pieces(make(vocabulary), "12"), ElementsAre("12"));
  vocabulary.pre = "smollm";
  EXPECT_THAT(pieces(make(vocabulary), "12"), ElementsAre("1", "2"));
}

TEST(Tokenizer, TheBeginningOfTextIsPrependedWhereTheFileAsks) {
  Vocabulary vocabulary;
  vocabulary.control = {"<s>"};
  GgufWriter with = vocabulary.write(), without = vocabulary.write();
  with.boolean("tokenizer.ggml.add_bos_token", true).u32("tokenizer.ggml.bos_token_id", 0);
  without.boolean("tokenizer.ggml.add_bos_token", false).u32("tokenizer.ggml.bos_token_id", 0);
  EXPECT_THAT(pieces(make(with), "a"), ElementsAre("<s>", "a"));
  EXPECT_THAT(pieces(make(with), ""), ElementsAre("<s>"));
  EXPECT_THAT(pieces(make(without), "a"), ElementsAre("a"));
}

TEST(Tokenizer, TheFileSaysWhatEndsAText) {
  Vocabulary vocabulary;
  vocabulary.control = {"<s>", "</s>", "<turn>"};
  GgufWriter file = vocabulary.write();
  file.u32("tokenizer.ggml.eos_token_id", 1).u32("tokenizer.ggml.eot_token_id", 2);
  const Tokenizer tokenizer = make(file);
  EXPECT_FALSE(tokenizer.ends_text(0));
  EXPECT_TRUE(tokenizer.ends_text(1));
  EXPECT_TRUE(tokenizer.ends_text(2));
}

TEST(Tokenizer, RefusesWhatItDoesNotRead) {
  const auto says = [](const char* text) { return testing::ThrowsMessage<GgufError>(HasSubstr(text)); };
  const auto refused = [&](auto change, const char* text) {
    Vocabulary vocabulary = small();
    vocabulary.control = {"<s>"};
    change(vocabulary);
    EXPECT_THAT([&] { make(vocabulary); }, says(text));
  };
  refused([](Vocabulary& v) { v.model = "llama"; }, "tokenizer.ggml.model is 'llama'");
  refused([](Vocabulary& v) { v.pre = "qwen2"; }, "tokenizer.ggml.pre is 'qwen2'");
  refused([](Vocabulary& v) { v.words.push_back("two words"); },
          "'two words') is not written in the byte-level alphabet");
  refused([](Vocabulary& v) { v.words.push_back("中"); }, "is not written in the byte-level alphabet");
  refused([](Vocabulary& v) { v.merges.push_back("he"); },
          "element 8 ('he') of tokenizer.ggml.merges must be two tokens");
  refused([](Vocabulary& v) { v.merges.push_back("z z"); }, "joins or makes a token that is not in the vocabulary");
  refused([](Vocabulary& v) { v.merges.push_back("中 a"); }, "is not written in the byte-level alphabet");
}

TEST(Tokenizer, RefusesAFileThatContradictsItself) {
  const auto says = [](const char* text) { return testing::ThrowsMessage<GgufError>(HasSubstr(text)); };
  const auto base = [] {
    GgufWriter file;
    file.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", "gpt-2");
    return file;
  };
  const auto with_tokens = [&] {
    return base().texts("tokenizer.ggml.tokens", {"a", "b"}).texts("tokenizer.ggml.merges", {});
  };
  EXPECT_THAT([&] { make(GgufWriter()); }, says("'tokenizer.ggml.model' is missing"));
  EXPECT_THAT([&] { make(base()); }, says("'tokenizer.ggml.tokens' is missing"));
  EXPECT_THAT([&] { make(base().texts("tokenizer.ggml.tokens", {})); }, says("must hold 1 to 2^31 - 1 tokens"));
  EXPECT_THAT([&] { make(base().texts("tokenizer.ggml.tokens", {"a"})); }, says("'tokenizer.ggml.merges' is missing"));
  EXPECT_THAT([&] { make(with_tokens().i32s("tokenizer.ggml.token_type", {1})); },
              says("one for each of the 2 tokens"));
  EXPECT_THAT([&] { make(with_tokens().i32s("tokenizer.ggml.token_type", {1, 9})); }, says("element 1 (9)"));
  EXPECT_THAT([&] { make(with_tokens().u32("tokenizer.ggml.eos_token_id", 2)); },
              says("eos_token_id (2) must be 0 to 1"));
  EXPECT_THAT([&] { make(with_tokens().boolean("tokenizer.ggml.add_bos_token", true)); },
              says("bos_token_id, which is missing"));
  EXPECT_THAT(
      [&] { make(with_tokens().boolean("tokenizer.ggml.add_bos_token", true).u32("tokenizer.ggml.bos_token_id", 7)); },
      says("bos_token_id (7) must be 0 to 1"));
  EXPECT_NO_THROW(make(with_tokens()));
}

}  // namespace
}  // namespace llama
