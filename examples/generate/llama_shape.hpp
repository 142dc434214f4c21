// SPDX-License-Identifier: MIT
#pragma once

#include "gguf.hpp"
#include "headwise/nn/rope.hpp"

namespace generate {

/// The sizes and settings of a Llama-architecture model, as its file states them.
struct LlamaShape {
  Index num_layers = 0;
  Index hidden_size = 0;
  Index feed_forward_size = 0;
  Index num_heads = 0;
  Index num_kv_heads = 0;
  Index head_dim = 0;
  Index value_dim = 0;
  Index context_length = 0;  // tokens the model was trained for
  double norm_epsilon = 0;
  headwise::nn::RopeOptions rope;

  /// Throws GgufError if the file is of another architecture, if a setting is missing or impossible, or if it asks for
  /// something that is not done here (experts, YaRN, unequal layers): never a silently wrong model.
  explicit LlamaShape(const Gguf& file);
};

}  // namespace generate
