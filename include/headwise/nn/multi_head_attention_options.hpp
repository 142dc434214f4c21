// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <memory>
#include <optional>
#include <span>
#include <tuple>
#include <vector>

#include "headwise/core/error.hpp"
#include "headwise/core/head_map.hpp"
#include "headwise/core/heads.hpp"
#include "headwise/core/index.hpp"
#include "headwise/position/rope.hpp"
#include "headwise/score/options.hpp"
#include "headwise/score/relative_bias.hpp"

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

  // The rest as in headwise::Options, for self-attention; cross-attention takes scale and softcap alone.
  std::optional<float> scale{};
  bool causal = true;
  std::optional<Index> window{};
  std::optional<Index> window_right{};
  float softcap = 0.0f;
  std::vector<float> alibi_slopes{};
  /// T5's relative position bias, which the layers of a model may share; unset: none. T5's scale is 1.
  std::shared_ptr<const RelativeBias> relative_bias{};
  /// Which KV head each query head reads; unset: consecutive groups of equal size.
  std::optional<HeadMap> head_map{};
  /// Cross-Layer Attention: the layer has no key and value projections and attends to those of another layer in the same
  /// cache (KvSharing). num_kv_heads, dimensions and rope are that layer's; key_bias and value_bias must be off.
  bool borrows_kv = false;
};

namespace detail {

/// The options with every unset count filled in. Throws std::invalid_argument that names the first impossible one.
inline MultiHeadAttentionOptions resolve(MultiHeadAttentionOptions options) {
  constexpr Index kMaxHidden = Index{1} << 30, kMaxHeads = Index{1} << 20;
  require(options.hidden_size >= 1 && options.hidden_size <= kMaxHidden, "hidden_size (", options.hidden_size,
          ") must be 1 to ", kMaxHidden);
  require(options.num_heads >= 1 && options.num_heads <= kMaxHeads, "num_heads (", options.num_heads, ") must be 1 to ",
          kMaxHeads);
  if (!options.num_kv_heads) options.num_kv_heads = options.num_heads;
  if (!options.head_dim) {
    require(options.hidden_size % options.num_heads == 0, "hidden_size (", options.hidden_size,
            ") must be a multiple of num_heads (", options.num_heads, "); set head_dim where it is not their quotient");
    options.head_dim = options.hidden_size / options.num_heads;
  }
  // 0 means head_dim to Heads, here it is a mistake
  if (options.value_dim)
    require(*options.value_dim != 0, "value_dim (0) must be 1 to ", kMaxHeadDim, ", or unset: head_dim");
  if (!options.value_dim) options.value_dim = options.head_dim;
  const Heads<> heads(options.num_heads, *options.num_kv_heads, *options.head_dim, *options.value_dim);
  if (options.head_map) {
    require(options.head_map->num_heads() == heads.num_heads(), "head_map (", options.head_map->num_heads(),
            " query heads) must map num_heads (", heads.num_heads(), ") query heads");
    require(options.head_map->num_kv_heads() == heads.num_kv_heads(), "head_map (", options.head_map->num_kv_heads(),
            " KV heads) must map to num_kv_heads (", heads.num_kv_heads(), ") KV heads");
  } else {
    options.head_map = HeadMap::contiguous(heads.num_heads(), heads.num_kv_heads());
  }
  if (options.qk_norm_epsilon)
    require(std::isfinite(*options.qk_norm_epsilon) && *options.qk_norm_epsilon > 0, "qk_norm_epsilon (",
            *options.qk_norm_epsilon, ") must be finite and above 0");
  if (options.rope) options.rope = Rope(heads.head_dim(), *options.rope).options();
  return options;
}

/// Whether layers of these resolved options may share the plan of a step.
inline bool attend_alike(const MultiHeadAttentionOptions& a, const MultiHeadAttentionOptions& b) {
  const auto parts = [](const MultiHeadAttentionOptions& o) {
    return std::tie(o.num_heads, o.num_kv_heads, o.head_dim, o.value_dim, o.scale, o.causal, o.window, o.window_right,
                    o.softcap, o.alibi_slopes, o.relative_bias, o.head_map);
  };
  return parts(a) == parts(b);
}

/// The options of one attention call. Refers to `options`.
inline headwise::Options attention_options(const MultiHeadAttentionOptions& options) {
  headwise::Options result;
  result.scale = options.scale;
  result.causal = options.causal;
  result.window = options.window;
  result.window_right = options.window_right;
  result.softcap = options.softcap;
  result.alibi_slopes = options.alibi_slopes;
  result.relative_bias = options.relative_bias.get();
  return result;
}

}  // namespace detail

}  // namespace headwise::nn
