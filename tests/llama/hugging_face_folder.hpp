// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "headwise/core/storage.hpp"
#include "tests/llama/tiny_model.hpp"

namespace llama_test {

using Json = nlohmann::json;

/// A tensor as a .safetensors file has it.
struct NewTensor {
  std::string dtype;
  std::vector<std::size_t> shape;
  Bytes data;
};
using NewTensors = std::map<std::string, NewTensor>;

inline Bytes safetensors(const NewTensors& tensors) {
  Json header = {{"__metadata__", {{"format", "pt"}}}};
  Bytes data;
  for (const auto& [name, tensor] : tensors) {
    const std::size_t begin = data.size();
    data.add(tensor.data);
    header[name] = {{"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {begin, data.size()}}};
  }
  return Bytes().text(header.dump()).add(data);
}

/// A TinyModel as a folder of Hugging Face's form, gone when this is. What it holds may be changed before write().
class HuggingFaceFolder {
 public:
  Json config, tokenizer;
  NewTensors tensors;
  std::map<std::string, std::string> files;  // more of them, by name
  std::string dtype = "F32";                 // of the tensors to come

  /// Gives the model its weights, if it has none.
  explicit HuggingFaceFolder(TinyModel& model, std::string type = "F32") : dtype(std::move(type)), model_(model) {
    std::string name = std::filesystem::temp_directory_path() / "hugging_face_XXXXXX";
    if (!::mkdtemp(name.data())) throw std::runtime_error("no folder for the test");
    path_ = name;
    if (model_.weights.empty()) model_.write();
    make_config();
    make_tokenizer();
    make_tensors();
  }
  HuggingFaceFolder(const HuggingFaceFolder&) = delete;
  HuggingFaceFolder& operator=(const HuggingFaceFolder&) = delete;
  ~HuggingFaceFolder() { std::filesystem::remove_all(path_); }

  std::string path(const std::string& name = "") const { return name.empty() ? path_ : path_ / name; }

  /// Everything, with the tensors in one file.
  void write() const {
    write_all_but_tensors();
    write_file("model.safetensors", safetensors(tensors));
  }
  /// Everything, with the tensors in two files: those that come first in the alphabet, up to `last`, and the others.
  Json write_in_parts(const std::string& last) const {
    write_all_but_tensors();
    NewTensors parts[2];
    Json map;
    for (const auto& [name, tensor] : tensors) {
      const bool second = name > last;
      parts[second][name] = tensor;
      map[name] = kParts[second];
    }
    for (const bool second : {false, true}) write_file(kParts[second], safetensors(parts[second]));
    const Json index = {{"metadata", {{"total_size", 0}}}, {"weight_map", map}};
    write_file("model.safetensors.index.json", index.dump());
    return index;
  }
  void write_file(const std::string& name, const std::string& text) const {
    std::ofstream(path_ / name, std::ios::binary) << text;
  }
  void write_file(const std::string& name, const Bytes& bytes) const {
    write_file(name, std::string(reinterpret_cast<const char*>(bytes.all().data()), bytes.size()));
  }

  static constexpr const char* kParts[] = {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"};

 private:
  void write_all_but_tensors() const {
    write_file("config.json", config.dump());
    write_file("tokenizer.json", tokenizer.dump());
    for (const auto& [name, text] : files) write_file(name, text);
  }

  void make_config() {
    config = {{"architectures", {"LlamaForCausalLM"}},
              {"model_type", "llama"},
              {"hidden_act", "silu"},
              {"num_hidden_layers", model_.layers},
              {"hidden_size", model_.hidden},
              {"intermediate_size", model_.feed_forward},
              {"num_attention_heads", model_.heads},
              {"num_key_value_heads", model_.kv_heads},
              {"head_dim", model_.head_dim},
              {"max_position_embeddings", model_.context},
              {"vocab_size", model_.vocabulary()},
              {"rope_theta", model_.base},
              {"rope_scaling", nullptr},
              {"rms_norm_eps", model_.epsilon},
              {"attention_bias", model_.biases},
              {"mlp_bias", false},
              {"tie_word_embeddings", model_.tied},
              {"eos_token_id", 0},
              {"torch_dtype", "float32"}};
  }

  void make_tokenizer() {
    Json vocabulary;
    const auto tokens = model_.tokens();
    for (std::size_t id = 0; id < tokens.size(); ++id) vocabulary[tokens[id]] = id;
    const Json digits = {{"type", "Digits"}, {"individual_digits", true}};
    const Json bytes = {
        {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
    tokenizer = {{"version", "1.0"},
                 {"added_tokens", {{{"id", 0}, {"content", tokens[0]}, {"special", true}, {"normalized", false}}}},
                 {"normalizer", nullptr},
                 {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", {digits, bytes}}}},
                 {"post_processor", nullptr},
                 {"decoder", bytes},
                 {"model",
                  {{"type", "BPE"},
                   {"dropout", nullptr},
                   {"unk_token", tokens[0]},
                   {"continuing_subword_prefix", nullptr},
                   {"end_of_word_suffix", nullptr},
                   {"byte_fallback", false},
                   {"ignore_merges", false},
                   {"vocab", vocabulary},
                   {"merges", {"t h", "th e", "Ġ t", "Ġt h", "Ġth e", "i n"}}}}};
  }

  void make_tensors() {
    add("token_embd.weight", "model.embed_tokens.weight", model_.hidden);
    for (std::uint32_t i = 0; i < model_.layers; ++i) {
      const std::string from = "blk." + std::to_string(i) + ".", to = "model.layers." + std::to_string(i) + ".";
      add(from + "attn_norm.weight", to + "input_layernorm.weight", 0);
      add(from + "attn_q.weight", to + "self_attn.q_proj.weight", model_.hidden, true);
      add(from + "attn_k.weight", to + "self_attn.k_proj.weight", model_.hidden, true);
      add(from + "attn_v.weight", to + "self_attn.v_proj.weight", model_.hidden);
      add(from + "attn_output.weight", to + "self_attn.o_proj.weight", model_.heads * model_.head_dim);
      if (model_.biases) {
        add(from + "attn_q.bias", to + "self_attn.q_proj.bias", 0, true);
        add(from + "attn_k.bias", to + "self_attn.k_proj.bias", 0, true);
        add(from + "attn_v.bias", to + "self_attn.v_proj.bias", 0);
        add(from + "attn_output.bias", to + "self_attn.o_proj.bias", 0);
      }
      add(from + "ffn_norm.weight", to + "post_attention_layernorm.weight", 0);
      add(from + "ffn_gate.weight", to + "mlp.gate_proj.weight", model_.hidden);
      add(from + "ffn_up.weight", to + "mlp.up_proj.weight", model_.hidden);
      add(from + "ffn_down.weight", to + "mlp.down_proj.weight", model_.feed_forward);
    }
    add("output_norm.weight", "model.norm.weight", 0);
    if (!model_.tied) add("output.weight", "lm_head.weight", model_.hidden);
  }

  /// columns: 0 for a vector. rotated: rows 2i and 2i + 1 of each head go to i and i + dim/2.
  void add(const std::string& from, const std::string& to, std::size_t columns, bool rotated = false) {
    const std::vector<float>& values = model_.weights.at(from);
    const std::size_t width = std::max<std::size_t>(columns, 1), rows = values.size() / width,
                      half = model_.head_dim / 2;
    NewTensor tensor{dtype, {rows}, {}};
    if (columns > 0) tensor.shape.push_back(columns);
    for (std::size_t row = 0; row < rows; ++row) {
      const std::size_t head = row / model_.head_dim, i = row % model_.head_dim;
      const std::size_t source = rotated ? head * model_.head_dim + 2 * (i % half) + i / half : row;
      for (std::size_t c = 0; c < width; ++c) put(values[source * width + c], tensor.data);
    }
    tensors[to] = tensor;
  }
  void put(float value, Bytes& data) const {
    if (dtype == "F32")
      data.put(value);
    else
      data.put(dtype == "F16" ? headwise::to_f16_bits(value) : headwise::to_bf16_bits(value));
  }

  TinyModel& model_;
  std::filesystem::path path_;
};

}  // namespace llama_test
