// SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "headwise/core/head_map.hpp"
#include "headwise/core/index.hpp"
#include "headwise/position/rope.hpp"
#include "headwise/score/options.hpp"
#include "headwise/score/relative_bias.hpp"
#include "headwise/score/score_function.hpp"

namespace headwise::nn {

using headwise::DynamicNtkScaling;
using headwise::LinearScaling;
using headwise::Llama3Scaling;
using headwise::LongRopeScaling;
using headwise::ProportionalScaling;
using headwise::Rope;  // NOLINT: nn::RopeOptions beside nn::MultiHeadAttention
using headwise::RopeOptions;
using headwise::RopeScaling;
using headwise::RopeSectionOrder;
using headwise::RopeStyle;
using headwise::YarnScaling;

/// What a MultiHeadAttention is. Only hidden_size and num_heads must be given.
struct MultiHeadAttentionOptions {
  /// Features of a token, in and out.
  Index hidden_size = 0;
  Index num_heads = 0;
  /// Unset: num_heads (plain multi-head attention). 1: multi-query; between: grouped-query.
  std::optional<Index> num_kv_heads{};
  /// Unset: hidden_size / num_heads, which must then be whole.
  std::optional<Index> head_dim{};
  /// Unset: head_dim.
  std::optional<Index> value_dim{};
  bool query_bias = false, key_bias = false, value_bias = false, output_bias = false;
  /// Unset: no rotary positions.
  std::optional<RopeOptions> rope{};
  /// QK-norm (headwise::QkNorm) of queries and keys before RoPE, with this epsilon and the weights of set_qk_norm. Unset:
  /// none.
  std::optional<float> qk_norm_epsilon{};

  // How scores are made and which keys the layer's pattern shows: as in headwise::Options, for self-attention. Cross-attention
  // takes scale and softcap alone. What a mask or a position says of this text's tokens is an argument of forward
  // (ForwardOptions).
  std::optional<float> scale{};
  bool causal = true;
  std::optional<Index> window{};
  Index num_sink_tokens = 0;
  std::optional<Index> window_right{};
  std::optional<Index> chunk_size{};
  std::optional<Temperature> temperature{};
  float softcap = 0.0f;
  std::vector<float> alibi_slopes{};
  /// T5's relative position bias, which the layers of a model may share; unset: none. T5's scale is 1.
  std::shared_ptr<const RelativeBias> relative_bias{};
  /// Refers to a callable, which must live as long as the module.
  ScoreFunction score_function{};
  std::vector<float> sink_logits{};
  /// Which KV head each query head reads; unset: consecutive groups of equal size.
  std::optional<HeadMap> head_map{};
  /// Cross-Layer Attention: the layer has no key and value projections and attends to those of another layer in the same
  /// cache (KvSharing). num_kv_heads, dimensions and rope are that layer's; key_bias and value_bias must be off.
  bool borrows_kv = false;
};

}  // namespace headwise::nn
