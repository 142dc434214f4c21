// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "llama/text/byte_alphabet.hpp"
#include "tests/llama/gguf_writer.hpp"

namespace llama_test {

/// A Llama model small enough to be computed by hand, with random weights, and its file. Settings may be changed before
/// write().
struct TinyModel {
  std::uint32_t layers = 2, hidden = 20, heads = 4, kv_heads = 2, head_dim = 6, rotary_dim = 6, feed_forward = 28;
  std::uint32_t context = 300;
  float base = 100.0f, epsilon = 1e-5f;
  bool tied = true, biases = false;
  std::string architecture = "llama";
  std::vector<std::int32_t> layer_kv_heads;           // [layer], in place of kv_heads
  std::vector<std::int32_t> head_map;                 // [layer][head] → KV head; empty: consecutive heads share one
  std::vector<std::int32_t> kv_source;                // [layer] → layer; empty: each its own
  std::map<std::string, std::vector<float>> weights;  // by tensor name, [row][column]

  std::size_t vocabulary() const { return tokens().size(); }

  /// "<|end|>" (control), the 256 bytes, and a few words.
  std::vector<std::string> tokens() const {
    std::vector<std::string> all = {"<|end|>"};
    for (const char32_t character : llama::kByteCharacters) all.push_back(llama::to_utf8(character));
    for (const char* word : {"th", "the", "Ġt", "Ġth", "Ġthe", "in"}) all.push_back(word);
    return all;
  }

  std::uint32_t kv_heads_of(std::uint32_t layer) const {
    return layer < layer_kv_heads.size() ? static_cast<std::uint32_t>(layer_kv_heads[layer]) : kv_heads;
  }
  std::uint32_t kv_source_of(std::uint32_t layer) const {
    return layer < kv_source.size() ? static_cast<std::uint32_t>(kv_source[layer]) : layer;
  }
  std::size_t kv_head_of(std::uint32_t layer, std::size_t head) const {
    if (head_map.empty()) return head / (heads / kv_heads_of(layer));
    return static_cast<std::size_t>(head_map[layer * heads + head]);
  }

  GgufWriter write() {
    GgufWriter file;
    write_settings(file);
    write_tokenizer(file);
    write_weights(file);
    return file;
  }

  void write_settings(GgufWriter& file) const {
    const auto key = [&](const char* name) { return architecture + "." + name; };
    file.text("general.architecture", architecture)
        .u32(key("block_count"), layers)
        .u32(key("context_length"), context)
        .u32(key("embedding_length"), hidden)
        .u32(key("feed_forward_length"), feed_forward)
        .u32(key("attention.head_count"), heads)
        .u32(key("attention.key_length"), head_dim)
        .u32(key("attention.value_length"), head_dim)
        .u32(key("rope.dimension_count"), rotary_dim)
        .f32(key("rope.freq_base"), base)
        .f32(key("attention.layer_norm_rms_epsilon"), epsilon);
    if (layer_kv_heads.empty())
      file.u32(key("attention.head_count_kv"), kv_heads);
    else
      file.i32s(key("attention.head_count_kv"), layer_kv_heads);
    if (!head_map.empty()) file.i32s(key("attention.head_map"), head_map);
    if (!kv_source.empty()) file.i32s(key("attention.kv_source"), kv_source);
  }

  void write_tokenizer(GgufWriter& file) const {
    std::vector<std::int32_t> types(vocabulary(), 1);
    types[0] = 3;
    file.text("tokenizer.ggml.model", "gpt2")
        .text("tokenizer.ggml.pre", "smollm")
        .texts("tokenizer.ggml.tokens", tokens())
        .i32s("tokenizer.ggml.token_type", types)
        .texts("tokenizer.ggml.merges", {"t h", "th e", "Ġ t", "Ġt h", "Ġth e", "i n"})
        .u32("tokenizer.ggml.eos_token_id", 0);
  }

  void write_weights(GgufWriter& file) {
    const auto add = [&](const std::string& name, std::uint64_t inputs, std::uint64_t outputs) {
      auto& values = weights[name];
      values.resize(inputs * std::max<std::uint64_t>(outputs, 1));
      // norms near 1; matrices so that activations keep their size
      const bool vector = outputs == 0;
      const float scale = vector ? 0.2f : 1.0f / std::sqrt(static_cast<float>(inputs));
      for (float& value : values) value = uniform() * scale + (name.ends_with("norm.weight") ? 1.0f : 0.0f);
      if (vector)
        file.tensor(name, {inputs}, values);
      else
        file.tensor(name, {inputs, outputs}, values);
    };
    add("token_embd.weight", hidden, vocabulary());
    for (std::uint32_t i = 0; i < layers; ++i) {
      const std::string prefix = "blk." + std::to_string(i) + ".";
      add(prefix + "attn_norm.weight", hidden, 0);
      add(prefix + "attn_q.weight", hidden, heads * head_dim);
      if (kv_source_of(i) == i) {
        add(prefix + "attn_k.weight", hidden, kv_heads_of(i) * head_dim);
        add(prefix + "attn_v.weight", hidden, kv_heads_of(i) * head_dim);
      }
      add(prefix + "attn_output.weight", heads * head_dim, hidden);
      if (biases) {
        add(prefix + "attn_q.bias", heads * head_dim, 0);
        add(prefix + "attn_k.bias", kv_heads * head_dim, 0);
        add(prefix + "attn_v.bias", kv_heads * head_dim, 0);
        add(prefix + "attn_output.bias", hidden, 0);
      }
      add(prefix + "ffn_norm.weight", hidden, 0);
      add(prefix + "ffn_gate.weight", hidden, feed_forward);
      add(prefix + "ffn_up.weight", hidden, feed_forward);
      add(prefix + "ffn_down.weight", feed_forward, hidden);
    }
    add("output_norm.weight", hidden, 0);
    if (!tied) add("output.weight", hidden, vocabulary());
  }

 private:
  float uniform() { return static_cast<float>(random_() % 20001) / 10000.0f - 1.0f; }  // -1 … 1
  std::mt19937 random_{11};
};

}  // namespace llama_test
