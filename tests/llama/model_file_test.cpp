// SPDX-License-Identifier: MIT
// Model files whose settings or tensors no model can have.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "llama/model/model.hpp"
#include "llama/text/tokenizer.hpp"
#include "tests/llama/loaded_model.hpp"

namespace llama {
namespace {

using headwise::Serial;
using llama_test::GgufWriter;
using llama_test::read_in_chunks;
using llama_test::TinyModel;
using testing::HasSubstr;

std::string problem(const GgufWriter& writer) {
  const auto bytes = writer.bytes();
  try {
    const Gguf file(bytes, "m");
    Serial serial;
    Model model(file, ModelShape(file), serial);
    return "";
  } catch (const GgufError& error) {
    return error.what();
  }
}

TEST(LlamaFile, NamesAMissingSetting) {
  EXPECT_EQ(problem(GgufWriter()), "m: key 'general.architecture' is missing");
  EXPECT_EQ(problem(GgufWriter().text("general.architecture", "llama")), "m: key 'llama.block_count' is missing");
}

TEST(LlamaFile, NamesWhatItDoesNotRun) {
  EXPECT_THAT(problem(GgufWriter().text("general.architecture", "mamba")),
              HasSubstr("general.architecture is 'mamba'"));
  EXPECT_THAT(problem(TinyModel().write().u32("llama.expert_count", 8)), HasSubstr("llama.expert_count (8) must be 0"));
  EXPECT_THAT(problem(TinyModel().write().text("llama.rope.scaling.type", "yarn")),
              HasSubstr("llama.rope.scaling.type ('yarn') must be 'none' or 'linear'"));
  EXPECT_THAT(problem(TinyModel().write().tensor("rope_freqs.weight", {3}, std::vector<float>{1, 1, 1})),
              HasSubstr("tensor 'rope_freqs.weight' is none that a plain Llama model has"));
}

TEST(LlamaFile, NamesImpossibleSettings) {
  const auto with = [](auto change) {
    TinyModel tiny;
    change(tiny);
    return problem(tiny.write());
  };
  EXPECT_THAT(with([](TinyModel& m) { m.kv_heads = 3; }),
              HasSubstr("head_count (4) must be a multiple of head_count_kv (3)"));
  EXPECT_THAT(with([](TinyModel& m) { m.layers = 0; }), HasSubstr("llama.block_count (0) must be 1 to"));
  EXPECT_THAT(with([](TinyModel& m) { m.rotary_dim = 8; }), HasSubstr("llama.rope.dimension_count (8) must be 1 to 6"));
  EXPECT_THAT(with([](TinyModel& m) { m.rotary_dim = 3; }), HasSubstr("llama.rope.dimension_count (3) must be even"));
  EXPECT_THAT(with([](TinyModel& m) { m.base = -1; }), HasSubstr("llama.rope.freq_base"));
  EXPECT_THAT(with([](TinyModel& m) { m.base = std::nanf(""); }), HasSubstr("llama.rope.freq_base"));
  EXPECT_THAT(with([](TinyModel& m) { m.epsilon = 0; }), HasSubstr("layer_norm_rms_epsilon"));
  EXPECT_THAT(with([](TinyModel& m) { m.head_dim = 600; }), HasSubstr("600 dimensions and must have at most 576"));
}

TEST(LlamaFile, NamesHeadsThatCannotBe) {
  const auto with = [](auto change) {
    TinyModel tiny;
    tiny.architecture = "headwise";
    change(tiny);
    return problem(tiny.write());
  };
  EXPECT_THAT(with([](TinyModel& m) {
                m.layer_kv_heads = {2, 2, 2};
              }),
              HasSubstr("headwise.attention.head_count_kv (3 numbers) must hold one for each of the 2 layers"));
  EXPECT_THAT(with([](TinyModel& m) {
                m.layer_kv_heads = {2, 3};
              }),
              HasSubstr("must be a multiple of head_count_kv (3)"));
  EXPECT_THAT(with([](TinyModel& m) { m.layer_kv_heads = {2, 0}; }), HasSubstr("head_count_kv (0) must be 1 to 4"));
  EXPECT_THAT(with([](TinyModel& m) { m.head_map = {0, 0, 1}; }), HasSubstr("head_map (3 numbers) must hold one for"));
  EXPECT_THAT(with([](TinyModel& m) { m.head_map = {0, 0, 1, 1, 0, 0, 1, 2}; }),
              HasSubstr("headwise.attention.head_map of layer 1: headwise: kv_head_of[3] (2) must be 0 to"));
  EXPECT_THAT(with([](TinyModel& m) { m.kv_source = {0}; }), HasSubstr("kv_source (1 numbers) must hold one for"));
  EXPECT_THAT(with([](TinyModel& m) { m.kv_source = {1, 1}; }), HasSubstr("kv_source[0] (1) must be 0 to 0"));
  EXPECT_THAT(with([](TinyModel& m) {
                m.kv_source = {0, 0};
                m.layer_kv_heads = {2, 1};
              }),
              HasSubstr("lets layer 1 (1 KV heads) read layer 0 (2): both must have as many"));
}

TEST(LlamaFile, MakesNothingForLayersThatItCannotHold) {
  TinyModel tiny;
  GgufWriter writer;
  tiny.layers = 1u << 30;  // some hundred bytes are made for each layer
  tiny.write_settings(writer);
  TinyModel().write_weights(writer);
  EXPECT_THAT(problem(writer), HasSubstr("llama.block_count (1073741824) must be at most the tensors in the file (20)"));
}

TEST(LlamaFile, NamesTensorsThatAreMissingOrOfAnotherShape) {
  TinyModel tiny, shallow;
  GgufWriter empty;
  shallow.layers = 1;
  shallow.write_settings(empty);
  empty.tensor("output_norm.weight", {20}, std::vector<float>(20));
  EXPECT_EQ(problem(empty), "m: tensor 'token_embd.weight' is missing");
  empty.tensor("token_embd.weight", {4, 2}, std::vector<float>(8));
  EXPECT_EQ(problem(empty),
            "m: tensor 'token_embd.weight' (4 x 2 x 1 x 1) must be 20 x 2 x 1 x 1 by the model's settings");
  TinyModel deeper;
  GgufWriter lacking;
  deeper.layers = 3;
  deeper.write_settings(lacking);
  tiny.write_weights(lacking);
  EXPECT_EQ(problem(lacking), "m: tensor 'blk.2.attn_norm.weight' is missing");
}

TEST(LlamaFile, LinearScalingStretchesPositions) {
  TinyModel tiny;
  GgufWriter stretched = tiny.write();
  stretched.text("llama.rope.scaling.type", "linear").f32("llama.rope.scaling.factor", 4);
  const auto bytes = stretched.bytes();
  const ModelShape shape(Gguf(bytes, "m"));
  const auto* linear = std::get_if<headwise::nn::LinearScaling>(&shape.rope.scaling);
  ASSERT_NE(linear, nullptr);
  EXPECT_EQ(linear->factor, 4);
}

TEST(LlamaFile, NoChangedByteOfTheHeadCrashes) {
  TinyModel tiny;
  tiny.layers = 1;
  const GgufWriter writer = tiny.write();
  const auto bytes = writer.bytes();
  const std::size_t head = writer.head().size();
  int refused = 0;
  for (std::size_t at = 0; at < head; ++at)
    for (const auto flip : {std::byte{0x01}, std::byte{0xff}}) {
      auto changed = bytes;
      changed[at] ^= flip;
      try {
        const Gguf file(changed, "m");
        const Tokenizer tokenizer(file);
        const auto ids = tokenizer.encode("the <|end|> 12", true).ids;
        Serial serial;
        const Model model(file, ModelShape(file), serial);
        if (model.vocabulary_size() == tokenizer.vocabulary_size() && !ids.empty()) read_in_chunks(model, ids, 3);
      } catch (const GgufError&) {
        ++refused;
      }
    }
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace llama
