// SPDX-License-Identifier: MIT
#include "llama/file/hugging_face_config.hpp"

#include <string>

#include "llama/file/gguf.hpp"

namespace llama {

namespace {

// Far above every model, and small enough that products of two sizes fit in 64 bits.
constexpr Index kLargest = Index{1} << 30;

/// A text that must be one of two where it is stated.
void check_text(const JsonObject& file, const char* key, std::string_view one, std::string_view other) {
  if (file.has(key) && file.text(key) != one && file.text(key) != other)
    file.fail(key, "is not done here; done is " + in_quotes(one));
}

void check_that_llama_is_all(const JsonObject& file) {
  const Json& architectures = file.array("architectures");
  if (architectures.size() != 1 || architectures[0] != "LlamaForCausalLM")
    file.fail("architectures", "must be [\"LlamaForCausalLM\"]");
  check_text(file, "model_type", "llama", "llama");
  check_text(file, "hidden_act", "silu", "swish");
  if (file.has("quantization_config"))
    file.fail("quantization_config", "is not done here: weights must be F32, F16 or BF16");
  if (file.has("sliding_window") && file.boolean("use_sliding_window", true))
    file.fail("sliding_window", "is not done here: every layer must see the whole context");
  if (file.has("layer_types"))
    for (const Json& type : file.array("layer_types"))
      if (type != "full_attention") file.fail("layer_types", "must hold \"full_attention\" only");
}

}  // namespace

HuggingFaceConfig::HuggingFaceConfig(const JsonObject& file) {
  check_that_llama_is_all(file);
  const auto size = [&](const char* key) { return file.integer(key, 1, kLargest); };
  num_layers = size("num_hidden_layers");
  hidden_size = size("hidden_size");
  feed_forward_size = size("intermediate_size");
  num_heads = size("num_attention_heads");
  context_length = size("max_position_embeddings");
  vocabulary_size = size("vocab_size");
  norm_epsilon = file.positive("rms_norm_eps");
  if (file.has("num_key_value_heads")) num_kv_heads = file.integer("num_key_value_heads", 1, num_heads);
  if (num_heads % kv_heads() != 0)
    file.fail("num_attention_heads", "must be a multiple of num_key_value_heads (" + std::to_string(kv_heads()) + ")");
  if (file.has("head_dim"))
    head_dim = size("head_dim");
  else if (hidden_size % num_heads != 0)
    file.fail("hidden_size", "must be a multiple of num_attention_heads (" + std::to_string(num_heads) +
                                 ") where head_dim is not given");
  if (dim() % 2 != 0)
    file.fail(head_dim ? "head_dim" : "hidden_size",
              "gives heads of " + std::to_string(dim()) + " dimensions, which must be an even number");
  read_rope(file);
  attention_bias = file.boolean("attention_bias", false);
  feed_forward_bias = file.boolean("mlp_bias", false);
  tied = file.boolean("tie_word_embeddings", false);
}

void HuggingFaceConfig::read_rope(const JsonObject& file) {
  if (file.has("rope_theta")) rope_base = file.positive("rope_theta");
  if (file.has("partial_rotary_factor") && file.value("partial_rotary_factor") != 1)
    file.fail("partial_rotary_factor", "is not done here; done is 1");
  for (const char* key : {"rope_scaling", "rope_parameters"}) {  // the latter since version 5
    if (!file.has(key)) continue;
    const JsonObject rope = file.object(key);
    if (rope.has("rope_theta")) rope_base = rope.positive("rope_theta");
    if (rope.has("partial_rotary_factor") && rope.value("partial_rotary_factor") != 1)
      rope.fail("partial_rotary_factor", "is not done here; done is 1");
    for (const char* each : {"full_attention", "sliding_attention"})
      if (rope.has(each)) rope.fail(each, "is not done here: all layers must rotate alike");
    const char* name = rope.has("rope_type") ? "rope_type" : "type";  // older files have the latter
    const std::string type = rope.has(name) ? rope.text(name) : "default";
    if (type == "linear")
      rope_stretch = rope.positive("factor");
    else if (type != "default")
      rope.fail(name, "is not done here; done are 'default' and 'linear'");
  }
}

void HuggingFaceConfig::write(GgufWriter& gguf) const {
  const auto size = [&](const char* key, Index value) {
    gguf.set(std::string("llama.") + key, static_cast<std::uint32_t>(value));
  };
  size("block_count", num_layers);
  size("context_length", context_length);
  size("embedding_length", hidden_size);
  size("feed_forward_length", feed_forward_size);
  size("attention.head_count", num_heads);
  if (num_kv_heads) size("attention.head_count_kv", *num_kv_heads);
  if (rope_stretch) {
    gguf.set("llama.rope.scaling.type", "linear");
    gguf.set("llama.rope.scaling.factor", static_cast<float>(*rope_stretch));
  }
  gguf.set("llama.rope.freq_base", static_cast<float>(rope_base));
  gguf.set("llama.attention.layer_norm_rms_epsilon", static_cast<float>(norm_epsilon));
  if (head_dim) {
    size("attention.key_length", *head_dim);
    size("attention.value_length", *head_dim);
  }
  size("vocab_size", vocabulary_size);
  size("rope.dimension_count", dim());
}

}  // namespace llama
