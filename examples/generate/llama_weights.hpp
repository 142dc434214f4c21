// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

#include "gguf.hpp"
#include "headwise/nn.hpp"
#include "llama_shape.hpp"

namespace generate {

using headwise::ExecutorRef;
using headwise::nn::Linear;
using headwise::nn::Matrix;
using headwise::nn::Vector;

struct LlamaLayer {
  Vector attention_norm;  // [hidden]
  headwise::nn::MultiHeadAttention attention;
  Vector feed_forward_norm;  // [hidden]
  Linear gate, up;           // [feed_forward][hidden]
  Linear down;               // [hidden][feed_forward]
};

/// The weights of a Llama model as floats.
struct LlamaWeights {
  Matrix embedding;  // [token][hidden]
  std::vector<LlamaLayer> layers;
  Vector output_norm;  // [hidden]
  Linear output;       // [token][hidden]; refers to `embedding` where the file has no tensor of its own for it

  /// Throws GgufError if a tensor is missing, has another shape than the model, or is none of this model's.
  LlamaWeights(const Gguf& file, const LlamaShape& shape, ExecutorRef executor);
  LlamaWeights(const LlamaWeights&) = delete;
  LlamaWeights& operator=(const LlamaWeights&) = delete;
};

}  // namespace generate
