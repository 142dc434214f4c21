// SPDX-License-Identifier: MIT
#pragma once

#include <utility>

#include "headwise/nn/multi_head_attention.hpp"
#include "headwise/regroup/attention_weights.hpp"

namespace headwise::regroup {

/// A module that runs these weights. Counts, biases and the head map are the weights'; everything else (RoPE, scale,
/// masks, softcap, ALiBi) is taken from `like`. Where like.borrows_kv is set, the K and V projections are left out: a
/// layer that reads another's. Throws std::invalid_argument as AttentionWeights::check and the module do.
inline nn::MultiHeadAttention to_module(const AttentionWeights& weights, nn::MultiHeadAttentionOptions like = {}) {
  weights.check();
  like.hidden_size = weights.hidden_size();
  like.num_heads = weights.num_heads;
  like.num_kv_heads = weights.num_kv_heads;
  like.head_dim = weights.head_dim;
  like.value_dim = weights.value_dim;
  like.query_bias = weights.query_bias.size() > 0;
  like.key_bias = !like.borrows_kv && weights.key_bias.size() > 0;
  like.value_bias = !like.borrows_kv && weights.value_bias.size() > 0;
  like.output_bias = weights.output_bias.size() > 0;
  like.head_map = weights.head_map;
  nn::MultiHeadAttention module(std::move(like));
  if (module.borrows_kv())
    module.set_weights({weights.query, weights.query_bias}, {weights.output, weights.output_bias});
  else
    module.set_weights({weights.query, weights.query_bias}, {weights.key, weights.key_bias},
                       {weights.value, weights.value_bias}, {weights.output, weights.output_bias});
  return module;
}

}  // namespace headwise::regroup
