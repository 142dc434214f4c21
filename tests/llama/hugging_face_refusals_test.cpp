// SPDX-License-Identifier: MIT
#include "llama/file/hugging_face.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "llama/model/model.hpp"
#include "llama/text/tokenizer.hpp"
#include "tests/llama/hugging_face_folder.hpp"

namespace llama {
namespace {

using llama_test::Bytes;
using llama_test::HuggingFaceFolder;
using llama_test::TinyModel;
using testing::HasSubstr;

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

TEST(HuggingFaceRefusals, NamesWhatItDoesNotDo) {
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

TEST(HuggingFaceRefusals, NamesImpossibleSettings) {
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

TEST(HuggingFaceRefusals, NamesTensorsThatAreMissingOrOfAnotherShapeOrNoneOfTheModels) {
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

TEST(HuggingFaceRefusals, NamesPartsThatContradictTheirIndex) {
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

TEST(HuggingFaceRefusals, NamesATokenizerThatItDoesNotRun) {
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

TEST(HuggingFaceRefusals, NamesATokenizerThatContradictsItself) {
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

TEST(HuggingFaceRefusals, NamesFilesThatAreNotThere) {
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

TEST(HuggingFaceRefusals, NoChangedByteCrashes) {
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
        const auto bytes = read_hugging_face(folder.path()).gguf.bytes();
        const Gguf file(bytes, "m");
        Tokenizer(file).encode("the <|end|> 12", true);
        headwise::Serial serial;
        const Model converted(file, ModelShape(file), serial);
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
