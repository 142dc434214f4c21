// SPDX-License-Identifier: MIT
// A real model against what others compute with it. Skipped where the model has not been fetched.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include "llama/model/model.hpp"
#include "llama/file/mapped_file.hpp"
#include "llama/text/tokenizer.hpp"

namespace llama {
namespace {

class SmolLM2 : public testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(LLAMA_TEST_MODEL))
      GTEST_SKIP() << LLAMA_TEST_MODEL << " is not there; the target smollm2_model brings it";
  }
};

TEST_F(SmolLM2, TextsHaveTheReferenceTokens) {  // of Hugging Face tokenizers 0.23.3
  const MappedFile mapped(LLAMA_TEST_MODEL);
  const Tokenizer tokenizer(Gguf(mapped.bytes(), "model"));
  std::ifstream file(LLAMA_TEST_TOKEN_IDS);
  int texts = 0;
  for (std::string line; std::getline(file, line); ++texts) {  // special (0 or 1), text in hexadecimal, token ids
    std::istringstream fields(line);
    bool special = false;
    std::string hex, text;
    fields >> special >> hex;
    for (std::size_t i = 0; i < hex.size(); i += 2) text += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
    std::vector<TokenId> expected;
    for (TokenId id; fields >> id;) expected.push_back(id);
    EXPECT_EQ(tokenizer.encode(text, special).ids, expected) << text;
  }
  EXPECT_EQ(texts, 35);
}

TEST_F(SmolLM2, TheFirstStepHasTheReferenceLogits) {
  struct Case {
    std::vector<TokenId> prompt;
    std::vector<std::pair<Index, float>> top;  // token, logit
  };
  const Case cases[] = {
#include "smollm2_reference.inc"
  };
  const MappedFile mapped(LLAMA_TEST_MODEL);
  headwise::ThreadPool pool;
  const Gguf file(mapped.bytes(), "model");
  const Model model(file, ModelShape(file), pool);
  for (const Case& one : cases) {
    auto cache = model.make_cache<float>(std::ssize(one.prompt));
    Model::Scratch scratch;
    const Vector logits = model.logits(model.read(std::span<const TokenId>(one.prompt), cache, scratch, pool), pool);
    for (const auto& [token, logit] : one.top) EXPECT_NEAR(logits(token), logit, 1e-3f) << "token " << token;
  }
}

TEST_F(SmolLM2, AKvCacheHasTheModelsBytesPerToken) {  // 30 layers · 3 KV heads · (64 + 64) numbers
  const MappedFile mapped(LLAMA_TEST_MODEL);
  headwise::ThreadPool pool;
  const Gguf file(mapped.bytes(), "model");
  const Model model(file, ModelShape(file), pool);
  EXPECT_EQ(model.make_cache<float>(64).bytes_per_token(), 30 * 3 * 128 * 4);
  EXPECT_EQ(model.make_cache<headwise::bf16>(64).bytes_per_token(), 30 * 3 * 128 * 2);
}

}  // namespace
}  // namespace llama
