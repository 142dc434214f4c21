// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

#include "llama/file/gguf.hpp"
#include "headwise/nn.hpp"
#include "headwise/regroup/attention_weights.hpp"
#include "llama/model/model_shape.hpp"

namespace llama {

using headwise::ExecutorRef;
using headwise::nn::Linear;
using headwise::nn::Matrix;
using headwise::nn::Vector;

struct ModelLayer {
  Vector attention_norm;  // [hidden]
  headwise::nn::MultiHeadAttention attention;
  Vector feed_forward_norm;  // [hidden]
  Linear gate, up;           // [feed_forward][hidden]
  Linear down;               // [hidden][feed_forward]
};

/// The attention weights of a layer, as floats; the keys and values of a borrower are those of the layer it reads. Throws
/// GgufError.
headwise::regroup::AttentionWeights read_attention(const Gguf& file, const ModelShape& shape, Index layer,
                                                   ExecutorRef executor);
/// A layer's attention with these weights, turned by the model's RoPE. Throws std::invalid_argument on weights that are
/// not finite or disagree. A layer that borrows keys and values leaves those of the weights out.
headwise::nn::MultiHeadAttention make_attention(const ModelShape& shape,
                                                const headwise::regroup::AttentionWeights& weights,
                                                bool borrows_kv = false);

/// The weights of a Llama model as floats.
struct ModelWeights {
  Matrix embedding;  // [token][hidden]
  std::vector<ModelLayer> layers;
  Vector output_norm;  // [hidden]
  Linear output;       // [token][hidden]; refers to `embedding` where the file has no tensor of its own for it

  /// Throws GgufError if a tensor is missing, has another shape than the model, or is none of this model's.
  ModelWeights(const Gguf& file, const ModelShape& shape, ExecutorRef executor);
  ModelWeights(const ModelWeights&) = delete;
  ModelWeights& operator=(const ModelWeights&) = delete;
};

}  // namespace llama
