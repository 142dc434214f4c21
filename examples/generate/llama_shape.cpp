// SPDX-License-Identifier: MIT
#include "llama_shape.hpp"

#include <cmath>

namespace generate {

namespace {

// Far above every model, and small enough that products of two sizes fit in 64 bits.
constexpr std::int64_t kLargest = std::int64_t{1} << 30;

Index size(const Gguf& file, const std::string& key, std::int64_t most = kLargest) {
  const std::int64_t value = file.integer(key);
  if (value < 1 || value > most)
    file.fail(key + " (" + std::to_string(value) + ") must be 1 to " + std::to_string(most));
  return value;
}

Index size_or(const Gguf& file, const std::string& key, Index otherwise, std::int64_t most = kLargest) {
  return file.has(key) ? size(file, key, most) : otherwise;
}

double positive(const Gguf& file, const std::string& key) {
  const double value = file.number(key);
  if (!(std::isfinite(value) && value > 0))
    file.fail(key + " (" + std::to_string(value) + ") must be finite and above 0");
  return value;
}

headwise::nn::RopeScaling read_scaling(const Gguf& file) {
  const std::string type_key = "llama.rope.scaling.type", factor_key = "llama.rope.scaling.factor";
  if (file.has("llama.rope.scale_linear"))  // the key of older files
    return headwise::nn::LinearScaling{positive(file, "llama.rope.scale_linear")};
  if (!file.has(type_key) || file.text(type_key) == "none") return {};
  if (file.text(type_key) != "linear")
    file.fail(type_key + " is " + in_quotes(file.text(type_key)) + "; read are 'none' and 'linear'");
  return headwise::nn::LinearScaling{positive(file, factor_key)};
}

}  // namespace

LlamaShape::LlamaShape(const Gguf& file) {
  const std::string_view architecture = file.text("general.architecture");
  if (architecture != "llama") file.fail("general.architecture is " + in_quotes(architecture) + "; read is 'llama'");
  if (file.has("llama.expert_count") && file.integer("llama.expert_count") != 0)
    file.fail("llama.expert_count (" + std::to_string(file.integer("llama.expert_count")) +
              ") must be 0: no mixture of experts");

  num_layers = size(file, "llama.block_count");
  hidden_size = size(file, "llama.embedding_length");
  feed_forward_size = size(file, "llama.feed_forward_length");
  context_length = size(file, "llama.context_length");
  norm_epsilon = positive(file, "llama.attention.layer_norm_rms_epsilon");

  num_heads = size(file, "llama.attention.head_count", std::int64_t{1} << 20);
  num_kv_heads = size_or(file, "llama.attention.head_count_kv", num_heads);
  if (num_heads % num_kv_heads != 0)
    file.fail("llama.attention.head_count (" + std::to_string(num_heads) + ") must be a multiple of head_count_kv (" +
              std::to_string(num_kv_heads) + ")");
  if (!file.has("llama.attention.key_length") && hidden_size % num_heads != 0)
    file.fail("llama.embedding_length (" + std::to_string(hidden_size) +
              ") must be a multiple of attention.head_count (" + std::to_string(num_heads) +
              ") where attention.key_length is not given");
  head_dim = size_or(file, "llama.attention.key_length", hidden_size / num_heads);
  value_dim = size_or(file, "llama.attention.value_length", head_dim);
  for (const Index dim : {head_dim, value_dim})
    if (dim > headwise::kMaxHeadDim)
      file.fail("the heads have " + std::to_string(dim) + " dimensions and must have at most " +
                std::to_string(headwise::kMaxHeadDim));

  // llama.cpp's files hold the rows of the query and key weights in the order that makes a pair two neighbours
  rope.style = headwise::nn::RopeStyle::interleaved;
  rope.base = file.has("llama.rope.freq_base") ? positive(file, "llama.rope.freq_base") : 10000.0;
  rope.rotary_dim = size_or(file, "llama.rope.dimension_count", head_dim, head_dim);
  if (rope.rotary_dim % 2 != 0)
    file.fail("llama.rope.dimension_count (" + std::to_string(rope.rotary_dim) + ") must be even");
  rope.scaling = read_scaling(file);
  if (const auto* linear = std::get_if<headwise::nn::LinearScaling>(&rope.scaling); linear && linear->factor < 1)
    file.fail("llama.rope.scaling.factor (" + std::to_string(linear->factor) + ") must be at least 1");
}

}  // namespace generate
