// SPDX-License-Identifier: MIT
#pragma once

#include <optional>

#include "llama/file/gguf_writer.hpp"
#include "llama/file/json.hpp"

namespace llama {

/// What config.json says of a LlamaForCausalLM model.
struct HuggingFaceConfig {
  Index num_layers, hidden_size, feed_forward_size, num_heads, context_length, vocabulary_size;
  std::optional<Index> num_kv_heads, head_dim;  // where they are stated
  double norm_epsilon;
  double rope_base = 10000;
  std::optional<double> rope_stretch;  // linear scaling
  bool attention_bias, feed_forward_bias;
  bool tied;  // the output weights are the embedding

  /// Throws ModelFileError if something is missing, impossible or not done here.
  explicit HuggingFaceConfig(const JsonObject& file);

  Index kv_heads() const { return num_kv_heads.value_or(num_heads); }
  Index dim() const { return head_dim.value_or(hidden_size / num_heads); }

  /// The keys "llama.…" of a GGUF file.
  void write(GgufWriter& gguf) const;

 private:
  void read_rope(const JsonObject& file);
};

}  // namespace llama
