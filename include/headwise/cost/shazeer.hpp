// SPDX-License-Identifier: MIT
#pragma once

#include <string>

#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"
#include "headwise/cost/attention_layer.hpp"
#include "headwise/cost/checked.hpp"
#include "headwise/cost/model_shape.hpp"

// The analysis of "Fast Transformer Decoding: One Write-Head is All You Need" (Shazeer 2019, arXiv 1911.02150): how many
// elements of memory are accessed per multiply-add, in decoding and in training. Hardware that does far more
// multiply-adds than memory accesses idles unless this ratio is small.
namespace headwise::cost::shazeer {

/// One layer of self-attention with head_dim k = hidden_size / num_heads for keys and values, as the paper assumes.
struct Setting {
  Index batch = 1;         // b
  Index tokens = 1;        // n: decoding steps, or the length of training sequences
  Index hidden_size = 0;   // d
  Index num_heads = 1;     // h
  Index num_kv_heads = 1;  // G: h is multi-head, 1 is multi-query
};

/// Elements accessed and multiply-adds made.
struct Traffic {
  double elements = 0, multiply_adds = 0;
  double elements_per_multiply_add() const { return elements / multiply_adds; }
};

namespace detail {

using cost::detail::number;

/// Throws std::invalid_argument that names what cannot be.
inline void check(const Setting& s) {
  require(s.batch >= 1, "batch (", s.batch, ") must be at least 1");
  require(s.tokens >= 1, "tokens (", s.tokens, ") must be at least 1");
  const AttentionLayer layer({.hidden_size = s.hidden_size, .num_heads = s.num_heads, .num_kv_heads = s.num_kv_heads});
}

/// 2·d²·(1 + G/h): the four projections.
inline double projection_weights(const Setting& s) {
  const double d = number(s.hidden_size);
  return 2 * d * d * (1 + number(s.num_kv_heads) / number(s.num_heads));
}
/// G·k: elements of one token's keys, and of its values.
inline double kv_width(const Setting& s) { return number(s.num_kv_heads) * number(s.hidden_size / s.num_heads); }

}  // namespace detail

/// Decoding `tokens` tokens one by one, exactly. Every step reads the projections; x, q, o and y are 4·b·d elements; the
/// new keys and values are written, and all there are so far are read.
inline Traffic decoding(const Setting& s) {
  detail::check(s);
  const double b = detail::number(s.batch), n = detail::number(s.tokens), d = detail::number(s.hidden_size);
  const double gk = detail::kv_width(s), weights = detail::projection_weights(s);
  return {.elements = n * weights + b * gk * n * (n + 1) + 4 * b * d * n + 2 * b * gk * n,
          .multiply_adds = b * n * weights + b * d * n * (n + 1)};
}

/// Training (its forward pass) on sequences of `tokens` tokens at once: every tensor of the paper's batched attention is
/// accessed once, the logits and weights of all h·n² pairs among them, masked or not.
inline Traffic training(const Setting& s) {
  detail::check(s);
  const double b = detail::number(s.batch), n = detail::number(s.tokens), d = detail::number(s.hidden_size);
  const double gk = detail::kv_width(s), weights = detail::projection_weights(s);
  return {.elements = weights + 4 * b * d * n + 2 * b * gk * n + 2 * b * detail::number(s.num_heads) * n * n,
          .multiply_adds = b * n * weights + 2 * b * d * n * n};
}

/// What Θ(…) of decoding holds: G·n/(h·d) + 1/b, that is n/d + 1/b for multi-head and n/(d·h) + 1/b for multi-query
/// attention. Only for n ≤ d, else refused: the exact ratio saturates at G/h for n ≫ d, where this grows without end.
/// (The terms of order 1/d, for x, q, o and y, are left out: they matter only where b is far above d.)
inline double decoding_asymptotic(const Setting& s) {
  detail::check(s);
  require(s.tokens <= s.hidden_size, "tokens (", s.tokens, ") must be at most hidden_size (", s.hidden_size,
          "): beyond, the published order of decoding does not hold");
  return detail::kv_width(s) * detail::number(s.tokens) /
             (detail::number(s.hidden_size) * detail::number(s.hidden_size)) +
         1 / detail::number(s.batch);
}

/// What O(…) of training holds: 1/k + 1/(b·n), an upper bound up to a constant. Only for n ≤ d, else refused.
inline double training_asymptotic(const Setting& s) {
  detail::check(s);
  require(s.tokens <= s.hidden_size, "tokens (", s.tokens, ") must be at most hidden_size (", s.hidden_size,
          "): beyond, the published bound of training does not hold");
  return detail::number(s.num_heads) / detail::number(s.hidden_size) +
         1 / (detail::number(s.batch) * detail::number(s.tokens));
}

/// The paper's encoder-decoder for translation: 6 + 6 layers of hidden size 1024, feed-forward of two matrices, every
/// attention (encoder, decoder, cross) with these heads; norms and vocabulary left out. The rows that it compares, all of
/// 176,160,768 parameters: (num_heads, num_kv_heads, head_dim, feed_forward)
///   (8, 8, 128, 4096)   (8, 1, 128, 5440)   (1, 1, 128, 6784)   (2, 2, 64, 6784)   (4, 4, 32, 6784)   (8, 8, 16, 6784)
inline ModelShape translation_model(Index num_heads, Index num_kv_heads, Index head_dim, Index feed_forward) {
  const AttentionShape attention{
      .hidden_size = 1024, .num_heads = num_heads, .num_kv_heads = num_kv_heads, .head_dim = head_dim};
  const FeedForward network{.size = feed_forward, .gated = false};
  ModelShape shape = ModelShape::uniform(
      "Shazeer 2019", 6, {.attention = attention, .cross_attention = attention, .feed_forward = network});
  shape.encoder_layers.assign(6, {.attention = attention, .feed_forward = network});
  return shape;
}

}  // namespace headwise::cost::shazeer
