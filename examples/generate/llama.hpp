// SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <span>

#include "byte_pairs.hpp"
#include "llama_weights.hpp"

namespace generate {

/// A Llama-architecture model: token ids in, logits of the next token out. Every result is the same bit for bit for any
/// number of threads and however the tokens are cut into calls.
class Llama {
 public:
  /// Reads and dequantizes all weights. Throws GgufError.
  Llama(const Gguf& file, const LlamaShape& shape, ExecutorRef executor)
      : shape_(shape), weights_(file, shape, executor) {}

  const LlamaShape& shape() const { return shape_; }
  Index vocabulary_size() const { return weights_.embedding.rows(); }

  /// An empty cache for up to max_tokens tokens of one sequence, stored as T (float, bf16, f16).
  template <class T>
  headwise::KvCache<T> make_cache(Index max_tokens) const {
    std::vector<headwise::LayerShape> layers;
    for (const LlamaLayer& layer : weights_.layers) layers.push_back(layer.attention.cache_shape());
    return {layers, max_tokens};
  }

  /// Memory that is kept between calls.
  struct Scratch {
    headwise::nn::Workspace attention;
    Matrix residual, normed, gate, up;  // [token][…]
  };

  /// Reads `tokens` (at least 1, each 0 … vocabulary_size − 1), which follow what the cache holds, and appends their
  /// keys and values to it. Returns the final hidden state of the last one, [hidden]. `after_layer`, if set, is called
  /// after each layer. Throws std::invalid_argument, with the cache unchanged, if an id is out of range or the cache is full.
  template <class T>
  Vector read(std::span<const TokenId> tokens, headwise::KvCache<T>& cache, Scratch& scratch, ExecutorRef executor,
              const std::function<void()>& after_layer = {}) const;

  /// Logits [vocabulary_size] of the token that follows a final hidden state.
  Vector logits(const Vector& hidden, ExecutorRef executor) const;

 private:
  LlamaShape shape_;
  LlamaWeights weights_;
};

}  // namespace generate
