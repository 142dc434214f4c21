// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <limits>
#include <optional>
#include <span>

#include "headwise/core/error.hpp"
#include "headwise/core/head_map.hpp"
#include "headwise/core/index.hpp"
#include "headwise/score/mask.hpp"
#include "headwise/score/mask_function.hpp"
#include "headwise/score/relative_bias.hpp"
#include "headwise/score/score_function.hpp"
#include "headwise/score/tile_set.hpp"
#include "headwise/score/tree_mask.hpp"

namespace headwise {

class QkNorm;  // position/qk_norm.hpp
class Rope;    // position/rope.hpp

/// Llama 4's temperature: scores of a query at p have the factor 1 + strength·log(1 + floor((p + 1) / floor_scale)), so that
/// attention over long texts stays as sharp (Meta, Llama 4, 2025: `attn_scale` and `floor_scale`; of its layers without
/// RoPE).
struct Temperature {
  Index floor_scale = 8192;  // at least 1
  float strength = 0.1f;

  float at(Index position) const {
    if (position < 0) return 1.0f;
    return 1.0f + strength * static_cast<float>(std::log1p(static_cast<double>((position + 1) / floor_scale)));
  }
  friend bool operator==(const Temperature&, const Temperature&) = default;
};

/// How scores are made and which keys a query sees. Applied in this order:
///   queries normed → turned by RoPE → scale · temperature → softcap → ALiBi, relative bias, additive
///   mask → score function → masks → softmax, with sink logits → ·V
///
/// Positions. Token i of Tq query tokens of a sequence with Tk keys stands at p = Tk − Tq + i (bottom-right aligned):
/// the newest query stands at the newest key, so prefill, appending to a cache and decode are one rule.
/// Spans are read during the call only.
struct Options {
  /// Queries are normed head by head, and turned by RoPE, where a call gathers them, so that q may be what a projection gave:
  /// to the bits of QkNorm::apply, Rope::apply and a call without. (AppendOptions does the same to keys.) Null: q is as it
  /// should be. Read during the call only; with a plan, during its calls.
  const QkNorm* query_norm = nullptr;
  const Rope* query_rope = nullptr;
  /// Where query_rope takes query tokens to stand, each number 0 … 2^53: [sequence][token] as in q (ragged: [token]), or
  /// [sequence][token][3] of a rope with sections: temporal, height and width. Those beyond query_lengths are never read.
  /// Nothing else looks at them: masks, windows and biases count tokens. Empty: p.
  std::span<const Index> query_positions{};
  /// Factor on q·k; unset: 1/sqrt(head_dim).
  std::optional<float> scale{};
  /// A query at p sees keys 0 … p. Turn off for cross-attention and encoders.
  bool causal = true;
  /// Left window: a query at p sees keys from p − window + 1 on: `window` keys with its own. Unset: all.
  std::optional<Index> window{};
  /// Sink tokens: the left window hides none of the first num_sink_tokens keys, which everything else may (Xiao et al.,
  /// Efficient Streaming Language Models with Attention Sinks, 2023, arXiv 2309.17453). Positions stay those of the text.
  Index num_sink_tokens = 0;
  /// Right window: a query at p sees keys up to p + window_right. Unset: all (causal is the stricter 0).
  std::optional<Index> window_right{};
  /// Chunked attention (Llama 4): a query sees no key before its chunk. Chunks of chunk_size tokens, at least 1, begin at key
  /// 0, or where key_starts says. Unset: one chunk.
  std::optional<Index> chunk_size{};
  /// Prefix-LM: all queries of sequence b see the keys before prefix_lengths[b], 0 … its keys, though they lie to the
  /// right, past causal and window_right. Left windows and chunks hide them as they hide others. Empty: none.
  std::span<const Index> prefix_lengths{};
  /// Padding on the left: the first key of each sequence, 0 … its keys; those before are as if they were not there, and
  /// never read. Positions count them all the same; sink tokens are counted from there. Empty: 0.
  std::span<const Index> key_starts{};
  /// Factor on the scores of a query that depends on its position; unset: none.
  std::optional<Temperature> temperature{};
  /// s → softcap·tanh(s / softcap); 0: none.
  float softcap = 0.0f;
  /// ALiBi: adds −slope·|p − key position|, one slope per query head; empty: none.
  std::span<const float> alibi_slopes{};
  /// T5's relative position bias of each query head; null: none. Read during the call only.
  const RelativeBias* relative_bias = nullptr;
  /// The user's own change of a score, last of all; none by default. Refers to the user's object.
  ScoreFunction score_function{};
  /// gpt-oss: a score of each query head that takes part in the softmax and has no value: the weights of the keys add up to
  /// less than 1 and lse holds it too. −∞: none. A row without keys gives 0 and lse sink_logits[head]. Where partial results are
  /// merged, of one part only. Empty: none.
  std::span<const float> sink_logits{};
  /// A boolean or additive mask in the caller's memory; unset: none. What it refers to must outlive a plan too. For masks
  /// that say everything, as ONNX's and PyTorch's, turn `causal` off.
  std::optional<Mask> mask{};
  /// Speculative decoding: which nodes of a draft tree, the query tokens, see each other; unset: all that the rest allows.
  std::optional<TreeMask> tree_mask{};
  /// Block-sparse attention: the tiles of keys that queries may see; null: all. Must outlive a plan too.
  const TileSet* tile_set = nullptr;
  /// The caller's own mask, compiled with the caller's code; unset: none.
  std::optional<MaskFunction> mask_function{};
  /// Keys of each sequence, 0 … what the source holds; empty: all. What lies beyond is never read.
  std::span<const Index> key_lengths{};
  /// Query tokens of each sequence, 0 … the tokens of q; empty: all. The outputs of the rest are 0, their lse −inf.
  std::span<const Index> query_lengths{};
  /// Ragged batches: q, the outputs and lse hold the tokens of all sequences one behind another, [1][tokens][head][dim],
  /// those of sequence b being query_offsets[b] … query_offsets[b+1]−1: as many numbers as sequences of keys and one,
  /// never falling, from 0 to the tokens of q. A sequence may have none. So prompts, appended tokens and decoding mix in
  /// one call without padding. Empty: as many tokens of each sequence; not together with query_lengths.
  std::span<const Index> query_offsets{};
  /// Whether sequences that begin in the very same tiles (see TileSource) read them together, once for the rows of all:
  /// wherever they can, never, or, unset, where the call is faster for it. In whole segments of 1024 tokens that all their
  /// queries see, by sequences of few rows (up to 128 queries times heads of a group) that follow each other in the batch.
  /// No bit of the results depends on it.
  std::optional<bool> share_prefix{};
  /// Which KV head each query head reads, for this call; null: the map of the Attention.
  const HeadMap* head_map = nullptr;
  /// The same for groups of consecutive query heads, as plain numbers: KV head g is read by query heads b[g] … b[g+1]−1,
  /// with num_kv_heads + 1 numbers b that never fall from 0 to num_heads; a group may be empty. Or so many numbers for
  /// each sequence, one list after another. They may change from call to call at no cost: nothing is built or allocated.
  /// Empty: the map; not together with head_map.
  std::span<const Index> group_boundaries{};
};

namespace detail {

inline void check_sink_logits(std::span<const float> logits, Index num_heads) {
  if (logits.empty()) return;
  require(std::ssize(logits) == num_heads, "sink_logits (", logits.size(),
          " logits) must hold one logit per query head (", num_heads, ")");
  for (std::size_t h = 0; h < logits.size(); ++h)
    require(logits[h] < std::numeric_limits<float>::infinity(), "sink_logits[", h, "] (", logits[h],
            ") must be finite, or -infinity for none");
}

/// Throws std::invalid_argument that names the first option with an impossible value. Lengths are checked against the
/// call's shapes elsewhere.
inline void check_options(const Options& options, Index num_heads) {
  if (options.scale) require(std::isfinite(*options.scale), "scale (", *options.scale, ") must be finite");
  require(std::isfinite(options.softcap) && options.softcap >= 0, "softcap (", options.softcap,
          ") must be finite and at least 0 (0: none)");
  if (options.window) require(*options.window >= 0, "window (", *options.window, ") must be at least 0");
  require(options.num_sink_tokens >= 0, "num_sink_tokens (", options.num_sink_tokens, ") must be at least 0");
  if (options.window_right)
    require(*options.window_right >= 0, "window_right (", *options.window_right, ") must be at least 0");
  if (options.chunk_size)
    require(*options.chunk_size >= 1, "chunk_size (", *options.chunk_size, ") must be at least 1");
  if (options.temperature) {
    require(options.temperature->floor_scale >= 1, "floor_scale (", options.temperature->floor_scale,
            ") of temperature must be at least 1");
    require(std::isfinite(options.temperature->strength), "strength (", options.temperature->strength,
            ") of temperature must be finite");
  }
  if (!options.alibi_slopes.empty()) {
    require(std::ssize(options.alibi_slopes) == num_heads, "alibi_slopes (", options.alibi_slopes.size(),
            " slopes) must hold one slope per query head (", num_heads, ")");
    for (std::size_t h = 0; h < options.alibi_slopes.size(); ++h)
      require(std::isfinite(options.alibi_slopes[h]), "alibi_slopes[", h, "] (", options.alibi_slopes[h],
              ") must be finite");
  }
  if (options.relative_bias)
    require(options.relative_bias->num_heads() == num_heads, "relative_bias (of ", options.relative_bias->num_heads(),
            " heads) must be of num_heads (", num_heads, ") query heads");
  check_sink_logits(options.sink_logits, num_heads);
}

}  // namespace detail

}  // namespace headwise
