// SPDX-License-Identifier: MIT
#include "llama/model/model.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "llama/text/tokenizer.hpp"
#include "tests/llama/loaded_model.hpp"
#include "tests/llama/naive_model.hpp"

namespace llama {
namespace {

using headwise::Serial;
using llama_test::GgufWriter;
using llama_test::Loaded;
using llama_test::NaiveModel;
using llama_test::Row;
using llama_test::some_tokens;
using llama_test::TinyModel;
using testing::HasSubstr;

/// Logits after `tokens`, read `chunk` at a time.
template <class T = float, class E = Serial>
Vector read_in_chunks(const Model& model, const std::vector<TokenId>& tokens, std::size_t chunk,
                      E&& executor = Serial{}) {
  auto cache = model.make_cache<T>(std::ssize(tokens));
  Model::Scratch scratch;
  Vector hidden;
  for (std::size_t at = 0; at < tokens.size(); at += chunk)
    hidden = model.read(std::span(tokens).subspan(at, std::min(chunk, tokens.size() - at)), cache, scratch, executor);
  return model.logits(hidden, executor);
}

void expect_equal_to_naive(TinyModel tiny) {
  const Loaded loaded(tiny);
  const NaiveModel naive(tiny);
  for (const std::size_t count : {1u, 2u, 7u, 70u}) {
    const auto tokens = some_tokens(count);
    const Vector logits = read_in_chunks(loaded.model, tokens, count);
    const Row expected = naive.logits(tokens);
    ASSERT_EQ(logits.size(), std::ssize(expected));
    // a few hundred float roundings of numbers of about 1
    for (Index i = 0; i < logits.size(); ++i)
      ASSERT_NEAR(logits(i), expected[static_cast<std::size_t>(i)], 2e-5)
          << "logit " << i << " after " << count << " tokens";
  }
}

TEST(Model, GivesTheLogitsOfTheDefinition) { expect_equal_to_naive({}); }

TEST(Model, HasItsOwnOutputWeightsWhereTheFileDoes) {
  TinyModel tiny;
  tiny.tied = false;
  expect_equal_to_naive(tiny);
}

TEST(Model, AddsBiasesWhereTheFileHasThem) {
  TinyModel tiny;
  tiny.biases = true;
  expect_equal_to_naive(tiny);
}

TEST(Model, RotatesOnlyTheRotaryDimensions) {
  TinyModel tiny;
  tiny.rotary_dim = 4;
  expect_equal_to_naive(tiny);
}

TEST(Model, WorksWithAnyGrouping) {
  for (const std::uint32_t kv_heads : {1u, 4u}) {
    TinyModel tiny;
    tiny.kv_heads = kv_heads;
    expect_equal_to_naive(tiny);
  }
}

TEST(Model, LayersMayHaveOtherNumbersOfKvHeads) {
  TinyModel tiny;
  tiny.layers = 3;
  for (const char* architecture : {"llama", "deci", "headwise"}) {
    tiny.architecture = architecture;
    tiny.layer_kv_heads = {4, 1, 2};
    expect_equal_to_naive(tiny);
  }
}

TEST(Model, QueryHeadsMayReadAnyKvHead) {
  TinyModel tiny;
  tiny.architecture = "headwise";
  tiny.layer_kv_heads = {2, 3};
  tiny.head_map = {1, 0, 1, 1, 2, 0, 2, 2};  // KV head 1 of layer 1 is read by none
  expect_equal_to_naive(tiny);
}

TEST(Model, LayersMayShareKeysAndValues) {
  TinyModel tiny;
  tiny.architecture = "headwise";
  tiny.layers = 4;
  tiny.kv_source = {0, 0, 2, 0};
  expect_equal_to_naive(tiny);
  const Loaded loaded(tiny);
  EXPECT_EQ(loaded.model.make_cache<float>(1).bytes_per_token(), 2 * 2 * (8 + 16) * 4);  // two producers, padded heads
}

TEST(Model, AllStatesOfAPassAreThoseOfEachToken) {
  TinyModel tiny;
  const Loaded loaded(tiny);
  const auto tokens = some_tokens(9);
  auto cache = loaded.model.make_cache<float>(9), other = loaded.model.make_cache<float>(9);
  Model::Scratch scratch;
  Serial serial;
  const Matrix all = loaded.model.read_all(std::span(tokens), cache, scratch, serial);
  const Matrix logits = loaded.model.logits(all, serial);
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    const Vector one = loaded.model.read(std::span(tokens).subspan(t, 1), other, scratch, serial);
    EXPECT_EQ(Vector(all.row(static_cast<Index>(t))), one) << t;
    EXPECT_EQ(Vector(logits.row(static_cast<Index>(t))), loaded.model.logits(one, serial)) << t;
  }
}

TEST(Model, APassMayBeginAtALayer) {
  TinyModel tiny;
  const Loaded loaded(tiny);
  const auto tokens = some_tokens(9);
  Model::Scratch scratch;
  Serial serial;
  std::vector<Matrix> states;
  auto cache = loaded.model.make_cache<float>(9);
  const Matrix whole = loaded.model.read_all(std::span(tokens), cache, scratch, serial,
                                             {.before_layer = [&](Index, const Matrix& x) { states.push_back(x); }});
  ASSERT_EQ(states.size(), 2u);
  EXPECT_EQ(states[0], loaded.model.embed(tokens));
  for (Index layer = 0; layer < 2; ++layer) {
    auto fresh = loaded.model.make_cache<float>(9);
    EXPECT_EQ(loaded.model.read_states(states[static_cast<std::size_t>(layer)], layer, fresh, scratch, serial), whole);
  }
}

TEST(Model, AttentionThatIsReadAndPutBackIsTheSame) {
  TinyModel tiny;
  tiny.biases = true;
  Loaded loaded(tiny);
  const auto tokens = some_tokens(20);
  const Vector before = read_in_chunks(loaded.model, tokens, 20);
  for (Index l = 0; l < 2; ++l) {
    const auto weights = read_attention(loaded.file, loaded.model.shape(), l, loaded.executor);
    loaded.model.set_attention(l, make_attention(loaded.model.shape(), weights));
  }
  EXPECT_EQ(read_in_chunks(loaded.model, tokens, 20), before);
  auto none = read_attention(loaded.file, loaded.model.shape(), 0, loaded.executor);
  EXPECT_THROW(loaded.model.set_attention(2, make_attention(loaded.model.shape(), none)), std::invalid_argument);
}

TEST(Model, GivesTheSameBitsHoweverAPromptIsCut) {
  TinyModel tiny;
  const Loaded loaded(tiny);
  const auto tokens = some_tokens(150);
  const Vector at_once = read_in_chunks(loaded.model, tokens, tokens.size());
  for (const std::size_t chunk : {1u, 7u, 64u, 149u})
    EXPECT_EQ(read_in_chunks(loaded.model, tokens, chunk), at_once) << "chunks of " << chunk;
}

TEST(Model, GivesTheSameBitsForAnyNumberOfThreads) {
  TinyModel tiny;
  const Loaded loaded(tiny);
  const auto tokens = some_tokens(150);
  const Vector serial = read_in_chunks(loaded.model, tokens, 40);
  for (const Index threads : {1, 2, 3}) {
    headwise::ThreadPool pool(threads);
    EXPECT_EQ(read_in_chunks(loaded.model, tokens, 40, pool), serial) << threads << " threads";
  }
}

TEST(Model, StaysNearWithANarrowCache) {
  TinyModel tiny;
  const Loaded loaded(tiny);
  const auto tokens = some_tokens(100);
  const Vector wide = read_in_chunks(loaded.model, tokens, 100);
  // 2^-8 and 2^-11 relative on keys and values of about 1; the sum over tokens averages it down
  EXPECT_LT((read_in_chunks<headwise::bf16>(loaded.model, tokens, 100) - wide).cwiseAbs().maxCoeff(), 0.02f);
  EXPECT_LT((read_in_chunks<headwise::f16>(loaded.model, tokens, 100) - wide).cwiseAbs().maxCoeff(), 0.0025f);
}

TEST(Model, ReportsEveryLayer) {
  TinyModel tiny;
  const Loaded loaded(tiny);
  auto cache = loaded.model.make_cache<float>(3);
  Model::Scratch scratch;
  Serial serial;
  int layers = 0;
  loaded.model.read(std::span<const TokenId>(some_tokens(3)), cache, scratch, serial,
                    {.after_layer = [&] { ++layers; }});
  EXPECT_EQ(layers, 2);
}

TEST(Model, RefusesTokensThatDoNotExistOrDoNotFit) {
  TinyModel tiny;
  const Loaded loaded(tiny);
  auto cache = loaded.model.make_cache<float>(4);
  Model::Scratch scratch;
  Serial serial;
  const auto refused = [&](std::vector<TokenId> tokens) {
    EXPECT_THROW(loaded.model.read(std::span<const TokenId>(tokens), cache, scratch, serial), std::invalid_argument);
    EXPECT_EQ(cache.num_tokens(), 0);
  };
  refused({});
  refused({1, -1});
  refused({1, static_cast<TokenId>(tiny.vocabulary())});
  refused({1, 2, 3, 4, 5});
}

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
