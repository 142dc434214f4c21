// SPDX-License-Identifier: MIT
#include "llama/file/hugging_face.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "llama/file/dequantize.hpp"
#include "llama/model/model.hpp"
#include "llama/text/tokenizer.hpp"
#include "tests/llama/hugging_face_folder.hpp"

namespace llama {
namespace {

using headwise::Serial;
using llama_test::Bytes;
using llama_test::HuggingFaceFolder;
using llama_test::TinyModel;
using testing::ElementsAre;

Vector logits_of(const Gguf& file, std::span<const TokenId> tokens) {
  Serial serial;
  const Model model(file, ModelShape(file), serial);
  auto cache = model.make_cache<float>(std::ssize(tokens));
  Model::Scratch scratch;
  return model.logits(model.read(tokens, cache, scratch, serial), serial);
}

/// What a folder gives, as a file in memory.
struct Read {
  explicit Read(const HuggingFaceFolder& folder) : Read(folder.path()) {}
  explicit Read(const std::string& path) : bytes(read_hugging_face(path).gguf.bytes()), file(bytes, "m") {}
  std::vector<std::byte> bytes;
  Gguf file;
};

void expect_the_same_model(const TinyModel& model, const Gguf& from_folder) {
  TinyModel copy = model;
  const auto bytes = copy.write().bytes();
  const Gguf file(bytes, "t");
  const std::string text = "the thin 12 things\n  in <|end|> 2024";
  for (const bool special : {false, true}) {
    const auto ids = Tokenizer(file).encode(text, special).ids;
    EXPECT_EQ(Tokenizer(from_folder).encode(text, special).ids, ids);
    EXPECT_EQ(logits_of(from_folder, ids), logits_of(file, ids));  // bit for bit
  }
}

TEST(HuggingFace, GivesTheModelAndTheTokensThatAGgufFileGives) {
  for (const bool tied : {true, false})
    for (const bool biases : {false, true}) {
      TinyModel model;
      model.tied = tied;
      model.biases = biases;
      TinyModel weighted = model;
      const HuggingFaceFolder folder(weighted);
      folder.write();
      expect_the_same_model(model, Read(folder).file);
    }
}

TEST(HuggingFace, ReadsAModelInParts) {
  TinyModel model, weighted;
  const HuggingFaceFolder folder(weighted);
  folder.write_in_parts("model.layers.0.self_attn.q_proj.weight");
  expect_the_same_model(model, Read(folder).file);
}

TEST(HuggingFace, HasTheKeysOfLlamaCppsConverter) {
  TinyModel model;
  HuggingFaceFolder folder(model);
  folder.config["vocab_size"] = model.vocabulary() + 2;
  folder.tensors["model.embed_tokens.weight"].shape[0] += 2;
  for (std::uint32_t i = 0; i < 2 * model.hidden; ++i) folder.tensors["model.embed_tokens.weight"].data.put(0.0f);
  folder.config["rope_scaling"] = {{"type", "linear"}, {"factor", 2.5}};
  folder.config["pad_token_id"] = 5;
  folder.tokenizer["added_tokens"].push_back(
      {{"id", model.vocabulary()}, {"content", "two words"}, {"special", false}});
  folder.files["tokenizer_config.json"] =
      R"({"bos_token":{"content":"the"},"eos_token":"<|end|>","chat_template":"{{ x }}","add_prefix_space":false})";
  folder.write();
  const Read read(folder);
  const Gguf& file = read.file;

  EXPECT_EQ(file.text("general.architecture"), "llama");
  EXPECT_EQ(file.text("general.type"), "model");
  EXPECT_EQ(file.text("general.name"), std::filesystem::path(folder.path()).filename().string());
  EXPECT_EQ(file.integer("general.file_type"), 0);
  EXPECT_EQ(file.integer("general.quantization_version"), 2);
  EXPECT_EQ(file.integer("llama.block_count"), 2);
  EXPECT_EQ(file.integer("llama.context_length"), 300);
  EXPECT_EQ(file.integer("llama.embedding_length"), 20);
  EXPECT_EQ(file.integer("llama.feed_forward_length"), 28);
  EXPECT_EQ(file.integer("llama.attention.head_count"), 4);
  EXPECT_EQ(file.integer("llama.attention.head_count_kv"), 2);
  EXPECT_EQ(file.integer("llama.attention.key_length"), 6);
  EXPECT_EQ(file.integer("llama.attention.value_length"), 6);
  EXPECT_EQ(file.number("llama.attention.layer_norm_rms_epsilon"), 1e-5f);
  EXPECT_EQ(file.number("llama.rope.freq_base"), 100.0);
  EXPECT_EQ(file.integer("llama.rope.dimension_count"), 6);
  EXPECT_EQ(file.text("llama.rope.scaling.type"), "linear");
  EXPECT_EQ(file.number("llama.rope.scaling.factor"), 2.5);
  EXPECT_EQ(file.integer("llama.vocab_size"), 265);
  EXPECT_EQ(file.text("tokenizer.ggml.model"), "gpt2");
  EXPECT_EQ(file.text("tokenizer.ggml.pre"), "smollm");
  EXPECT_THAT(file.texts("tokenizer.ggml.merges"), ElementsAre("t h", "th e", "Ġ t", "Ġt h", "Ġth e", "i n"));
  EXPECT_EQ(file.integer("tokenizer.ggml.bos_token_id"), 258);
  EXPECT_EQ(file.integer("tokenizer.ggml.eos_token_id"), 0);
  EXPECT_EQ(file.integer("tokenizer.ggml.padding_token_id"), 5);
  EXPECT_FALSE(file.boolean("tokenizer.ggml.add_bos_token"));
  EXPECT_FALSE(file.boolean("tokenizer.ggml.add_space_prefix"));
  EXPECT_EQ(file.text("tokenizer.chat_template"), "{{ x }}");
  auto tokens = model.tokens();
  tokens.insert(tokens.end(), {"two words", "[PAD264]"});
  EXPECT_EQ(
      std::vector<std::string>(file.texts("tokenizer.ggml.tokens").begin(), file.texts("tokenizer.ggml.tokens").end()),
      tokens);
  std::vector<std::int64_t> kinds(265, 1);
  kinds[0] = 3;    // control
  kinds[263] = 4;  // user-defined
  kinds[264] = 5;  // unused
  EXPECT_EQ(file.integers("tokenizer.ggml.token_type"), kinds);
  EXPECT_EQ(file.entries().size(), 30u);  // these and no others
}

TEST(HuggingFace, HasNoKeysForWhatConfigLeavesOut) {
  TinyModel model;
  model.heads = model.kv_heads = 2;
  model.head_dim = 10;
  HuggingFaceFolder folder(model);
  for (const char* key : {"head_dim", "num_key_value_heads", "rope_theta", "rope_scaling", "model_type", "hidden_act",
                          "attention_bias", "mlp_bias"})
    folder.config.erase(key);
  folder.write();
  const Read read(folder);
  EXPECT_FALSE(read.file.has("llama.attention.head_count_kv"));
  EXPECT_FALSE(read.file.has("llama.attention.key_length"));
  EXPECT_FALSE(read.file.has("llama.rope.scaling.type"));
  EXPECT_EQ(read.file.number("llama.rope.freq_base"), 10000);
  EXPECT_EQ(read.file.integer("llama.rope.dimension_count"), 10);
  EXPECT_EQ(ModelShape(read.file).kv_heads_of(0).count, 2);
}

TEST(HuggingFace, TakesRotaryParametersWhereVersion5WritesThem) {
  TinyModel model;
  HuggingFaceFolder folder(model);
  folder.config.erase("rope_theta");
  folder.config.erase("rope_scaling");
  folder.config["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 500.0}};
  folder.write();
  EXPECT_EQ(Read(folder).file.number("llama.rope.freq_base"), 500);
  folder.config["rope_parameters"] = {{"rope_type", "linear"}, {"factor", 4.0}, {"rope_theta", 500.0}};
  folder.write();
  EXPECT_EQ(Read(folder).file.number("llama.rope.scaling.factor"), 4);
}

TEST(HuggingFace, InterleavesTheTwoHalvesOfEachQueryAndKeyHead) {
  TinyModel model;
  model.layers = 1;
  HuggingFaceFolder folder(model);
  auto& query = folder.tensors["model.layers.0.self_attn.q_proj.weight"];
  query.data = Bytes();
  for (std::uint32_t row = 0; row < 4 * 6; ++row)
    for (std::uint32_t column = 0; column < model.hidden; ++column)
      query.data.put(static_cast<float>(100 * row + column));
  folder.write();
  const Read read(folder);
  const Tensor& tensor = read.file.tensor("blk.0.attn_q.weight");
  std::vector<float> numbers(24 * 20);
  dequantize(*tensor.format, tensor.data.data(), std::ssize(numbers), numbers.data());
  const int order[] = {0, 3, 1, 4, 2, 5};  // of a head's rows
  for (std::size_t row = 0; row < 24; ++row)
    for (std::size_t column = 0; column < 20; ++column)
      ASSERT_EQ(numbers[row * 20 + column],
                static_cast<float>(100 * (row / 6 * 6 + static_cast<std::size_t>(order[row % 6])) + column));
}

/// A tensor of a folder as a matrix (one row for a vector).
Matrix matrix_of(const HuggingFaceFolder& folder, const std::string& name) {
  const auto& tensor = folder.tensors.at(name);
  const auto columns = static_cast<Index>(tensor.shape.back());
  const auto& bytes = tensor.data.all();
  return Eigen::Map<const Matrix>(reinterpret_cast<const float*>(bytes.data()),
                                  std::ssize(bytes) / columns / static_cast<Index>(sizeof(float)), columns);
}

// Hugging Face's weights under Hugging Face's rotary embedding are what the converted ones must be.
TEST(HuggingFace, AttentionIsThatOfTheHalfSplitRotaryEmbedding) {
  TinyModel model;
  model.biases = true;
  const HuggingFaceFolder folder(model);
  folder.write();
  const Read read(folder);
  Serial serial;
  const Model converted(read.file, ModelShape(read.file), serial);

  headwise::nn::MultiHeadAttentionOptions options;
  options.hidden_size = model.hidden;
  options.num_heads = model.heads;
  options.num_kv_heads = model.kv_heads;
  options.head_dim = model.head_dim;
  options.rope.emplace();
  options.rope->style = headwise::nn::RopeStyle::half_split;
  options.rope->base = static_cast<double>(model.base);
  options.query_bias = options.key_bias = options.value_bias = options.output_bias = true;
  headwise::nn::MultiHeadAttention attention(options);
  const auto linear = [&](const std::string& name) {
    const std::string full = "model.layers.1.self_attn." + name;
    return Linear(matrix_of(folder, full + ".weight"), matrix_of(folder, full + ".bias").row(0).transpose());
  };
  attention.set_weights(linear("q_proj"), linear("k_proj"), linear("v_proj"), linear("o_proj"));

  Matrix input(9, model.hidden);
  for (Index i = 0; i < input.size(); ++i) input.data()[i] = std::sin(static_cast<float>(i * i));
  const auto forward = [&](const headwise::nn::MultiHeadAttention& module) {
    headwise::KvCache<float> cache(std::vector{module.cache_shape()}, input.rows());
    headwise::nn::Workspace workspace;
    Matrix output(input.rows(), input.cols());
    module.forward(input, cache, 0, output, workspace, serial);
    return output;
  };
  // sums of about 20 products of numbers of about 1, in another order
  EXPECT_LT((forward(attention) - forward(converted.attention(1))).cwiseAbs().maxCoeff(), 2e-6f);
}

TEST(HuggingFace, KeepsTheTypeOfMatricesAndWidensVectors) {
  for (const auto& [dtype, type, file_type] :
       {std::tuple("F16", TensorType::f16, 1), std::tuple("BF16", TensorType::bf16, 32)}) {
    TinyModel model;
    model.biases = true;
    const HuggingFaceFolder folder(model, dtype);
    folder.write();
    const Read read(folder);
    EXPECT_EQ(read.file.integer("general.file_type"), file_type);
    for (const Tensor& tensor : read.file.tensors()) {
      EXPECT_EQ(tensor.format->type, tensor.rows() > 1 ? type : TensorType::f32) << tensor.name;
      std::vector<float> numbers(static_cast<std::size_t>(tensor.sizes[0] * tensor.rows()));
      dequantize(*tensor.format, tensor.data.data(), std::ssize(numbers), numbers.data());
      std::vector<float> expected = model.weights.at(std::string(tensor.name));
      for (float& value : expected)
        value = type == TensorType::f16 ? headwise::from_f16_bits(headwise::to_f16_bits(value))
                                        : headwise::from_bf16_bits(headwise::to_bf16_bits(value));
      EXPECT_EQ(numbers, expected) << tensor.name;
    }
  }
}

TEST(HuggingFace, RecognisesThePreTokenizerOfGpt2) {
  TinyModel model;
  HuggingFaceFolder folder(model);
  folder.tokenizer["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  folder.write();
  EXPECT_EQ(Read(folder).file.text("tokenizer.ggml.pre"), "gpt-2");
  folder.tokenizer["pre_tokenizer"] = {{"type", "Sequence"},
                                       {"pretokenizers", {{{"type", "ByteLevel"}, {"add_prefix_space", false}}}}};
  folder.write();
  EXPECT_EQ(Read(folder).file.text("tokenizer.ggml.pre"), "gpt-2");
}

TEST(HuggingFace, ReadsMergesInPairs) {
  TinyModel model, weighted;
  HuggingFaceFolder folder(weighted);
  Json pairs = Json::array();
  for (const auto& [left, right] : {std::pair("t", "h"), std::pair("th", "e"), std::pair("Ġ", "t"),
                                    std::pair("Ġt", "h"), std::pair("Ġth", "e"), std::pair("i", "n")})
    pairs.push_back({left, right});
  folder.tokenizer["model"]["merges"] = pairs;
  folder.write();
  expect_the_same_model(model, Read(folder).file);
}

TEST(HuggingFace, TakesSpecialTokensFromTheFirstFileThatHasThem) {
  TinyModel model;
  HuggingFaceFolder folder(model);
  folder.config.erase("eos_token_id");
  folder.write();
  EXPECT_FALSE(Read(folder).file.has("tokenizer.ggml.eos_token_id"));
  folder.files["generation_config.json"] = R"({"eos_token_id":[7,8],"bos_token_id":-1})";
  folder.write();
  EXPECT_EQ(Read(folder).file.integer("tokenizer.ggml.eos_token_id"), 7);
  EXPECT_FALSE(Read(folder).file.has("tokenizer.ggml.bos_token_id"));
  folder.config["eos_token_id"] = 6;
  folder.write();
  EXPECT_EQ(Read(folder).file.integer("tokenizer.ggml.eos_token_id"), 6);
  folder.files["tokenizer_config.json"] = R"({"eos_token":"<|end|>"})";
  folder.write();
  EXPECT_EQ(Read(folder).file.integer("tokenizer.ggml.eos_token_id"), 0);
}

TEST(HuggingFace, BeginsTextsAsThePostProcessorDoes) {
  TinyModel model;
  HuggingFaceFolder folder(model);
  folder.files["tokenizer_config.json"] = R"({"bos_token":"<|end|>","add_bos_token":true})";
  folder.write();
  EXPECT_TRUE(Read(folder).file.boolean("tokenizer.ggml.add_bos_token"));
  const Json bytes = {{"type", "ByteLevel"}}, text = {{"Sequence", {{"id", "A"}}}},
             token = {{"SpecialToken", {{"id", "<|end|>"}}}};
  folder.tokenizer["post_processor"] = bytes;
  folder.write();
  EXPECT_FALSE(Read(folder).file.boolean("tokenizer.ggml.add_bos_token"));
  const Json with_token = {{"type", "TemplateProcessing"}, {"single", {token, text}}};
  folder.tokenizer["post_processor"] = {{"type", "Sequence"}, {"processors", {bytes, with_token}}};
  folder.write();
  EXPECT_TRUE(Read(folder).file.boolean("tokenizer.ggml.add_bos_token"));
  EXPECT_EQ(Tokenizer(Read(folder).file).encode("in", false).ids.size(), 2u);
}

TEST(HuggingFace, ReadsTheChatTemplateFromItsOwnFile) {
  TinyModel model;
  HuggingFaceFolder folder(model);
  folder.files["chat_template.jinja"] = "{{ messages }}";
  folder.write();
  EXPECT_EQ(Read(folder).file.text("tokenizer.chat_template"), "{{ messages }}");
}

TEST(HuggingFace, TiedOutputWeightsMayStandInTheFileAgain) {
  TinyModel model;
  HuggingFaceFolder folder(model);
  folder.tensors["lm_head.weight"] = folder.tensors["model.embed_tokens.weight"];
  folder.tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = {"F32", {1}, Bytes().put(1.0f)};
  folder.write();
  EXPECT_EQ(Read(folder).file.find_tensor("output.weight"), nullptr);
}

}  // namespace
}  // namespace llama
