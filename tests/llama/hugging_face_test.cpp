// SPDX-License-Identifier: MIT
#include "llama/file/hugging_face.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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
using testing::HasSubstr;
using testing::UnorderedElementsAreArray;

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

/// What is wrong with a folder that `change` was done to.
template <class F>
std::string problem(F&& change) {
  TinyModel model;
  HuggingFaceFolder folder(model);
  change(folder);
  folder.write();
  try {
    read_hugging_face(folder.path());
    return "";
  } catch (const ModelFileError& error) {
    std::string text = error.what();
    const std::size_t at = text.find(folder.path() + "/");
    return at == 0 ? text.substr(folder.path().size() + 1) : text;
  }
}

std::string with_setting(const char* key, const Json& value) {
  return problem([&](HuggingFaceFolder& folder) { folder.config[key] = value; });
}
std::string without_setting(const char* key) {
  return problem([&](HuggingFaceFolder& folder) { folder.config.erase(key); });
}

TEST(HuggingFace, NamesWhatItDoesNotDo) {
  EXPECT_EQ(with_setting("architectures", {"MistralForCausalLM"}),
            "config.json: architectures ([\"MistralForCausalLM\"]) must be [\"LlamaForCausalLM\"]");
  EXPECT_EQ(without_setting("architectures"), "config.json: architectures is missing");
  EXPECT_EQ(with_setting("model_type", "mistral"),
            "config.json: model_type (\"mistral\") is not done here; done is 'llama'");
  EXPECT_EQ(with_setting("hidden_act", "gelu"), "config.json: hidden_act (\"gelu\") is not done here; done is 'silu'");
  EXPECT_THAT(with_setting("quantization_config", {{"quant_method", "gptq"}}),
              HasSubstr("quantization_config ({\"quant_method\":\"gptq\"}) is not done here"));
  EXPECT_EQ(with_setting("sliding_window", 4096),
            "config.json: sliding_window (4096) is not done here: every layer must see the whole context");
  EXPECT_EQ(with_setting("layer_types", {"full_attention", "sliding_attention"}),
            "config.json: layer_types ([\"full_attention\",\"sliding_attention\"]) must hold \"full_attention\" only");
  EXPECT_EQ(with_setting("partial_rotary_factor", 0.5),
            "config.json: partial_rotary_factor (0.5) is not done here; done is 1");
  EXPECT_EQ(with_setting("rope_scaling", {{"rope_type", "llama3"}, {"factor", 8.0}}),
            "config.json: rope_type of rope_scaling (\"llama3\") is not done here; done are 'default' and 'linear'");
  EXPECT_EQ(with_setting("rope_scaling", {{"type", "dynamic"}, {"factor", 8.0}}),
            "config.json: type of rope_scaling (\"dynamic\") is not done here; done are 'default' and 'linear'");
  EXPECT_EQ(with_setting("rope_parameters", {{"partial_rotary_factor", 0.25}}),
            "config.json: partial_rotary_factor of rope_parameters (0.25) is not done here; done is 1");
  EXPECT_THAT(with_setting("rope_parameters", {{"full_attention", Json::object()}}),
              HasSubstr("full_attention of rope_parameters ({}) is not done here: all layers must rotate alike"));
}

TEST(HuggingFace, NamesImpossibleSettings) {
  for (const char* key : {"num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads",
                          "max_position_embeddings", "vocab_size", "rms_norm_eps"})
    EXPECT_EQ(without_setting(key), std::string("config.json: ") + key + " is missing");
  for (const char* value : {"0", "-1", "1.5", "\"2\"", "[2]", "1073741825", "18446744073709551615"})
    EXPECT_EQ(with_setting("num_hidden_layers", Json::parse(value)),
              std::string("config.json: num_hidden_layers (") + value + ") must be an integer from 1 to 1073741824");
  EXPECT_EQ(with_setting("num_key_value_heads", 5),
            "config.json: num_key_value_heads (5) must be an integer from 1 to 4");
  EXPECT_EQ(with_setting("num_key_value_heads", 3),
            "config.json: num_attention_heads (4) must be a multiple of num_key_value_heads (3)");
  EXPECT_EQ(with_setting("head_dim", 5),
            "config.json: head_dim (5) gives heads of 5 dimensions, which must be an even number");
  EXPECT_EQ(problem([](HuggingFaceFolder& folder) {
              folder.config.erase("head_dim");
              folder.config["num_attention_heads"] = folder.config["num_key_value_heads"] = 3;
            }),
            "config.json: hidden_size (20) must be a multiple of num_attention_heads (3) where head_dim is not given");
  for (const char* value : {"0", "-1e-5", "\"1\"", "1e-300", "1e300"})
    EXPECT_EQ(
        with_setting("rms_norm_eps", Json::parse(value)),
        "config.json: rms_norm_eps (" + Json::parse(value).dump() + ") must be a number above 0 that a float can hold");
  EXPECT_EQ(with_setting("tie_word_embeddings", "yes"),
            "config.json: tie_word_embeddings (\"yes\") must be true or false");
  EXPECT_EQ(with_setting("rope_scaling", {{"type", "linear"}}), "config.json: factor of rope_scaling is missing");
  EXPECT_EQ(with_setting("rope_scaling", 2), "config.json: rope_scaling (2) must be a JSON object");
  EXPECT_EQ(problem([](HuggingFaceFolder& folder) { folder.config = {1}; }),
            "config.json: ([1]) must be a JSON object");
}

TEST(HuggingFace, NamesTensorsThatAreMissingOrOfAnotherShapeOrNoneOfTheModels) {
  EXPECT_EQ(problem([](HuggingFaceFolder& folder) { folder.tensors.erase("model.norm.weight"); }),
            "model.safetensors: tensor 'model.norm.weight' is missing");
  EXPECT_EQ(with_setting("num_hidden_layers", 3),
            "model.safetensors: tensor 'model.layers.2.input_layernorm.weight' is missing");
  EXPECT_EQ(with_setting("tie_word_embeddings", false), "model.safetensors: tensor 'lm_head.weight' is missing");
  EXPECT_EQ(with_setting("attention_bias", true),
            "model.safetensors: tensor 'model.layers.0.self_attn.q_proj.bias' is missing");
  EXPECT_EQ(with_setting("vocab_size", 1 << 30),
            "model.safetensors: tensor 'model.embed_tokens.weight' (263 x 20) must be 1073741824 x 20 by config.json");
  EXPECT_EQ(
      with_setting("num_key_value_heads", 4),
      "model.safetensors: tensor 'model.layers.0.self_attn.k_proj.weight' (12 x 20) must be 24 x 20 by config.json");
  EXPECT_EQ(
      with_setting("num_hidden_layers", 1),
      "model.safetensors: tensor 'model.layers.1.input_layernorm.weight' is none that this model has by config.json");
  EXPECT_THAT(problem([](HuggingFaceFolder& folder) {
                folder.tensors["lm_head.weight"] = folder.tensors["model.embed_tokens.weight"];
                folder.tensors["lm_head.weight"].data = Bytes();
                for (int i = 0; i < 263 * 20; ++i) folder.tensors["lm_head.weight"].data.put(1.0f);
              }),
              HasSubstr("tensor 'lm_head.weight' must be 'model.embed_tokens.weight' again"));
  EXPECT_THAT(problem([](HuggingFaceFolder& folder) { folder.tensors["model.norm.weight"].dtype = "F64"; }),
              HasSubstr("dtype of tensor 'model.norm.weight' (\"F64\") is not read"));
}

TEST(HuggingFace, NamesPartsThatContradictTheirIndex) {
  const std::string first = HuggingFaceFolder::kParts[0], second = HuggingFaceFolder::kParts[1];
  const auto problem_with = [](auto&& change) -> std::string {
    TinyModel model;
    HuggingFaceFolder folder(model);
    Json index = folder.write_in_parts("model.layers.0.self_attn.q_proj.weight");
    change(index["weight_map"], folder);
    folder.write_file("model.safetensors.index.json", index.dump());
    try {
      read_hugging_face(folder.path());
      return "";
    } catch (const std::runtime_error& error) {
      return std::string(error.what()).substr(folder.path().size() + 1);
    }
  };
  const std::string index = "model.safetensors.index.json: ";
  EXPECT_EQ(problem_with([&](Json& map, auto&) { map["model.norm.weight"] = first; }),
            index + "says that tensor 'model.norm.weight' is in '" + first + "'");
  EXPECT_EQ(problem_with([&](Json& map, auto&) { map.erase("model.norm.weight"); }),
            index + "does not say that tensor 'model.norm.weight' is in '" + second + "'");
  EXPECT_EQ(problem_with([&](Json& map, auto&) { map["more"] = second; }),
            index + "says that tensor 'more' is in '" + second + "'");
  EXPECT_EQ(problem_with([&](Json& map, auto&) { map["more"] = "model-3.safetensors"; }),
            "model-3.safetensors: cannot be opened: No such file or directory");
  for (const char* elsewhere : {"../model.safetensors", "/etc/passwd", "..", ""})
    EXPECT_EQ(problem_with([&](Json& map, auto&) { map["model.norm.weight"] = elsewhere; }),
              index + "model.norm.weight of weight_map (\"" + elsewhere + "\") must be the name of a file beside it");
  EXPECT_EQ(problem_with([&](Json& map, auto&) { map["model.norm.weight"] = 1; }),
            index + "model.norm.weight of weight_map (1) must be a string");
  EXPECT_EQ(
      problem_with([&](Json&, auto& folder) {
        folder.write_file(first, llama_test::safetensors({{"model.norm.weight", folder.tensors["model.norm.weight"]}}));
      }),
      index + "does not say that tensor 'model.norm.weight' is in '" + first + "'");
}

TEST(HuggingFace, NamesATokenizerThatItDoesNotRun) {
  const auto with = [](const char* where, const Json& value) {
    return problem([&](HuggingFaceFolder& folder) { folder.tokenizer[Json::json_pointer(where)] = value; });
  };
  const std::string unread =
      ") is not done here; done is ByteLevel (use_regex, not add_prefix_space), alone or after Digits "
      "(individual_digits)";
  const Json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  for (const Json& value : {Json{{"type", "Whitespace"}}, Json{{"type", "ByteLevel"}},
                            Json{{"type", "ByteLevel"}, {"add_prefix_space", true}},
                            Json{{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}},
                            Json{{"type", "Sequence"}, {"pretokenizers", Json::array()}},
                            Json{{"type", "Sequence"}, {"pretokenizers", {bytes, bytes}}},
                            Json{{"type", "Sequence"}, {"pretokenizers", {{{"type", "Digits"}}, bytes}}}})
    EXPECT_THAT(with("/pre_tokenizer", value), HasSubstr(unread.substr(1))) << value;
  EXPECT_EQ(with("/pre_tokenizer", nullptr), "tokenizer.json: pre_tokenizer is missing");
  EXPECT_EQ(with("/model/type", "Unigram"), "tokenizer.json: type of model (\"Unigram\") is not read; read is 'BPE'");
  EXPECT_EQ(with("/model/byte_fallback", true), "tokenizer.json: byte_fallback of model (true) is not done here");
  EXPECT_EQ(with("/model/ignore_merges", true), "tokenizer.json: ignore_merges of model (true) is not done here");
  EXPECT_EQ(with("/model/dropout", 0.1), "tokenizer.json: dropout of model (0.1) is not done here");
  EXPECT_EQ(with("/model/end_of_word_suffix", "</w>"),
            "tokenizer.json: end_of_word_suffix of model (\"</w>\") is not done here");
  EXPECT_EQ(with("/normalizer", {{"type", "NFC"}}), "tokenizer.json: normalizer ({\"type\":\"NFC\"}) is not done here");
  EXPECT_EQ(with("/post_processor", {{"type", "BertProcessing"}}),
            "tokenizer.json: type of post_processor (\"BertProcessing\") is not done here; done are ByteLevel and "
            "TemplateProcessing");
  const Json text = {{"Sequence", {{"id", "A"}}}}, token = {{"SpecialToken", {{"id", "<|end|>"}}}};
  EXPECT_THAT(with("/post_processor", {{"type", "TemplateProcessing"}, {"single", {text, token}}}),
              HasSubstr("is not done here; done is the text alone or after one token"));
  EXPECT_THAT(with("/post_processor", {{"type", "TemplateProcessing"}, {"single", {token, text}}}),
              HasSubstr("(\"<|end|>\") must be the token that begins a text"));
  for (const char* key : {"add_prefix_space", "add_eos_token"})
    EXPECT_EQ(problem([&](HuggingFaceFolder& folder) {
                folder.files["tokenizer_config.json"] = Json({{key, true}}).dump();
              }),
              std::string("tokenizer_config.json: ") + key + " (true) is not done here");
}

TEST(HuggingFace, NamesATokenizerThatContradictsItself) {
  const auto with = [](const char* where, const Json& value) {
    return problem([&](HuggingFaceFolder& folder) { folder.tokenizer[Json::json_pointer(where)] = value; });
  };
  EXPECT_EQ(with("/model/vocab/the", 263),
            "tokenizer.json: the of vocab of model (263) must be an integer from 0 to 262");
  EXPECT_EQ(with("/model/vocab/the", 5), "tokenizer.json: gives token '\\xc4\\x84' the id 5, and token 'the' the same");
  EXPECT_EQ(with("/added_tokens/0/id", 1),
            "tokenizer.json: gives token '<|end|>' the id 1, and token '\\xc4\\x80' the same");
  EXPECT_EQ(problem([](HuggingFaceFolder& folder) {
              folder.tokenizer["model"]["vocab"].erase("the");
              folder.tokenizer["added_tokens"][0]["id"] = 258;
            }),
            "tokenizer.json: gives token '<|end|>' the id 258, and the id 0 as well");
  EXPECT_EQ(with("/added_tokens/0/content", 1),
            "tokenizer.json: content of an element of added_tokens (1) must be a string");
  EXPECT_EQ(with("/added_tokens", {1}), "tokenizer.json: an element of added_tokens (1) must be a JSON object");
  EXPECT_EQ(with("/model/merges/2", 1), "tokenizer.json: element 2 of merges must be two tokens");
  EXPECT_EQ(with("/model/merges/2", {"a", "b", "c"}), "tokenizer.json: element 2 of merges must be two tokens");
  EXPECT_EQ(with("/model/merges/2", "ab"),
            "tokenizer.json: element 2 ('ab') of merges must be two tokens without spaces");
  EXPECT_EQ(with("/model/merges/2", {"a", "b c"}),
            "tokenizer.json: element 2 ('a b c') of merges must be two tokens without spaces");
  EXPECT_EQ(with_setting("eos_token_id", 263), "config.json: eos_token_id (263) must be an integer from -1 to 262");
  EXPECT_EQ(with_setting("eos_token_id", {"a"}), "config.json: eos_token_id (\"a\") must be an integer from -1 to 262");
}

TEST(HuggingFace, NamesFilesThatAreNotThere) {
  TinyModel model;
  const HuggingFaceFolder folder(model);
  const auto problem_without = [&](const char* name) -> std::string {
    folder.write();
    std::filesystem::remove(folder.path(name));
    try {
      read_hugging_face(folder.path());
      return "";
    } catch (const std::runtime_error& error) {
      return error.what();
    }
  };
  EXPECT_EQ(problem_without("config.json"),
            folder.path("config.json") + ": cannot be opened: No such file or directory");
  EXPECT_EQ(problem_without("tokenizer.json"),
            folder.path("tokenizer.json") + ": cannot be opened: No such file or directory");
  EXPECT_EQ(problem_without("model.safetensors"),
            folder.path() + ": holds neither model.safetensors nor model.safetensors.index.json");
}

TEST(HuggingFace, NoChangedByteCrashes) {
  TinyModel model;
  model.layers = 1;
  HuggingFaceFolder folder(model);
  folder.files["tokenizer_config.json"] =
      R"({"bos_token":{"content":"the"},"eos_token":"<|end|>","add_bos_token":true})";
  folder.write();
  int refused = 0, read = 0;
  const auto change_bytes = [&](const char* name, const std::string& whole, std::size_t count, std::size_t step) {
    for (std::size_t at = 0; at < count; at += step) {
      constexpr int flips[] = {0x01, 0x10, 0xff};
      std::string changed = whole;
      changed[at] = static_cast<char>(changed[at] ^ flips[at / step % 3]);
      folder.write_file(name, changed);
      try {
        const Read converted(folder);
        Tokenizer(converted.file).encode("the <|end|> 12", true);
        Serial serial;
        Model(converted.file, ModelShape(converted.file), serial);
        ++read;
      } catch (const ModelFileError&) {
        ++refused;
      } catch (const GgufError&) {
        ++refused;
      }
    }
    folder.write_file(name, whole);
  };
  const auto change_each_byte = [&](const char* name, const std::string& whole) {
    change_bytes(name, whole, whole.size(), 1);
  };
  change_each_byte("config.json", folder.config.dump());
  change_each_byte("tokenizer_config.json", folder.files["tokenizer_config.json"]);
  const std::string tokenizer = folder.tokenizer.dump();
  change_bytes("tokenizer.json", tokenizer, tokenizer.size(), 7);
  const auto tensors = llama_test::safetensors(folder.tensors).all();
  std::uint64_t header = 0;
  std::memcpy(&header, tensors.data(), sizeof header);
  change_bytes("model.safetensors", {reinterpret_cast<const char*>(tensors.data()), tensors.size()}, 8 + header, 3);
  EXPECT_GT(refused, 800);
  EXPECT_GT(read, 100);
}

}  // namespace
}  // namespace llama
