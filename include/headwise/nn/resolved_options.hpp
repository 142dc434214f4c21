// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <tuple>

#include "headwise/attention/attention_plan.hpp"
#include "headwise/cache/cache_options.hpp"
#include "headwise/cache/check.hpp"
#include "headwise/core/error.hpp"
#include "headwise/core/head_map.hpp"
#include "headwise/core/heads.hpp"
#include "headwise/core/index.hpp"
#include "headwise/nn/forward_options.hpp"
#include "headwise/nn/multi_head_attention_options.hpp"
#include "headwise/position/rope.hpp"
#include "headwise/score/options.hpp"

// What the options of a module mean to attention and to caches.

namespace headwise::nn::detail {

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

/// The options of one attention call. Refers to `options`.
inline headwise::Options attention_options(const MultiHeadAttentionOptions& options, const ForwardOptions& call = {}) {
  headwise::Options result;
  result.scale = options.scale;
  result.causal = options.causal;
  result.window = options.window;
  result.num_sink_tokens = options.num_sink_tokens;
  result.window_right = options.window_right;
  result.chunk_size = options.chunk_size;
  result.temperature = options.temperature;
  result.softcap = options.softcap;
  result.alibi_slopes = options.alibi_slopes;
  result.relative_bias = options.relative_bias.get();
  result.score_function = options.score_function;
  result.sink_logits = options.sink_logits;
  result.prefix_lengths = call.prefix_lengths;
  result.key_starts = call.key_starts;
  result.mask = call.mask;
  result.tree_mask = call.tree_mask;
  result.tile_set = call.tile_set;
  result.mask_function = call.mask_function;
  return result;
}

/// What is a layer's own where layers share the plan of a step.
inline LayerOptions layer_options(const MultiHeadAttentionOptions& options) {
  return {.sink_logits = options.sink_logits};
}

/// Whether layers of these resolved options may share the plan of a step: they differ in layer_options at most.
inline bool attend_alike(const MultiHeadAttentionOptions& a, const MultiHeadAttentionOptions& b) {
  const auto parts = [](const MultiHeadAttentionOptions& o) {
    return std::tie(o.num_heads, o.num_kv_heads, o.head_dim, o.value_dim, o.scale, o.causal, o.window,
                    o.num_sink_tokens, o.window_right, o.chunk_size, o.temperature, o.softcap, o.alibi_slopes,
                    o.relative_bias, o.score_function, o.head_map);
  };
  return parts(a) == parts(b);
}

/// Tokens before a query, its own among them, that it sees at most; 0: all.
inline Index reach(const MultiHeadAttentionOptions& options) {
  constexpr Index kAll = headwise::detail::kMaxTokens;
  const Index reach = std::min(options.window.value_or(kAll), options.chunk_size.value_or(kAll));
  return reach >= kAll ? 0 : std::max(reach, Index{1});  // a window of 0 sees nothing
}

}  // namespace headwise::nn::detail
