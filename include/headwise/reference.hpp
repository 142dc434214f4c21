// SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "headwise/core/index.hpp"
#include "headwise/core/linkage.hpp"

// The definition of attention with shared key/value heads: double precision, plain loops, one sequence, packed arrays.
// Everything else in the library computes this, faster. It shares no code with what it checks.

namespace headwise::reference {

struct Shape {
  Index query_tokens;  // Tq
  Index key_tokens;    // Tk
  Index num_heads;     // H
  Index num_kv_heads;  // G
  Index head_dim;      // D
  Index value_dim;     // DV
};

struct Parameters {
  std::optional<double> scale{};                             // unset: 1/sqrt(D)
  bool causal = true;                                        // a query at p sees keys 0 … p
  std::optional<Index> window{};                             // a query at p sees keys from p − window + 1 on
  Index num_sink_tokens = 0;                                 // so many first keys no window hides from the left
  std::optional<Index> window_right{};                       // a query at p sees keys up to p + window_right
  double softcap = 0;                                        // s → softcap·tanh(s/softcap); 0: none
  std::span<const float> alibi_slopes{};                     // [H] adds −slope·|p − key|; empty: none
  std::function<double(Index head, Index distance)> bias{};  // adds bias(h, key − p); empty: none
  std::optional<Index> key_length{};                         // keys that exist; unset: Tk
  std::optional<Index> query_length{};                       // query tokens that exist; unset: Tq
  std::span<const Index> kv_head_of{};                       // [H] the KV head of each query head; empty: h / (H/G)
  std::optional<Index> chunk_size{};                         // a query at p sees no key before its chunk of so many
  Index prefix_length = 0;                                   // keys before it are hidden from nobody on their left
  Index key_start = 0;                                       // the first key that exists
  std::function<double(Index position)> temperature{};       // factor on scores; empty: 1
  std::span<const double> sink_logits{};                     // [H] scores without a value; empty: none
  // of query token i and key t, beside the rules above:
  std::function<bool(Index head, Index i, Index t)> visible{};                    // empty: all are
  std::function<double(Index head, Index i, Index t)> added{};                    // a term of the score; −∞ hides
  std::function<double(double score, Index head, Index p, Index t)> transform{};  // the score, last of all
  bool keep_scores = false;                                                       // fills what Result says of scores
};

struct Result {
  std::vector<double> output;  // [Tq][H][DV]
  std::vector<double> lse;     // [Tq][H] natural logarithm of the sum of exp(score)
  // on request (keep_scores), [Tq][H][Tk] each; what does not exist is −inf, a weight 0
  std::vector<double> scaled;      // scale·temperature·(q·k), of hidden keys too
  std::vector<double> softcapped;  // these after the softcap
  std::vector<double> scores;      // as they enter the softmax, hidden ones −inf
  std::vector<double> weights;     // softmax of these, hidden ones 0
};

/// Whether the query at p does not see key t for where they stand.
inline bool hides(const Parameters& parameters, Index p, Index t) {
  if (t < parameters.key_start) return true;
  if (t >= parameters.prefix_length) {
    if (parameters.causal && t > p) return true;
    if (parameters.window_right && t > p + *parameters.window_right) return true;
  }
  if (t < parameters.key_start + parameters.num_sink_tokens) return false;
  if (parameters.window && t <= p - *parameters.window) return true;
  const Index start = parameters.key_start;  // chunks are counted from it
  return parameters.chunk_size && p >= start && t < p - (p - start) % *parameters.chunk_size;
}

/// q [Tq][H][D], k [Tk][G][D], v [Tk][G][DV] → output and lse.
///
/// Query token i stands at position p = Tk − Tq + i among the keys (lengths in place of Tk and Tq where given).
///   score  = scale·temperature·(q·k) → softcap → ALiBi, bias, added → transform
///   output = Σ softmax(score)·v over the visible keys
/// A hidden key is never read (but for scores before masks, where these are asked for), and a key whose score is −inf
/// counts as not there. A query that sees no key, or that does not exist, has output 0 and lse −inf (one that exists, its
/// sink logit where there is one). A NaN or an infinity that is visible goes where arithmetic takes it.
Result attend(const Shape& shape, std::span<const double> q, std::span<const double> k, std::span<const double> v,
              const Parameters& parameters = {});

}  // namespace headwise::reference

#if !defined(HEADWISE_DECLARE_ONLY)

#include <cmath>
#include <limits>

namespace headwise::reference {

HEADWISE_API Result attend(const Shape& shape, std::span<const double> q, std::span<const double> k,
                           std::span<const double> v, const Parameters& parameters) {
  const auto [Tq, Tk, H, G, D, DV] = shape;
  const auto at = [](std::span<const double> x, Index i) { return x[static_cast<std::size_t>(i)]; };
  const double infinity = std::numeric_limits<double>::infinity();
  const double scale = parameters.scale.value_or(1 / std::sqrt(static_cast<double>(D)));
  const Index keys = parameters.key_length.value_or(Tk), queries = parameters.query_length.value_or(Tq);

  Result result;
  result.output.assign(static_cast<std::size_t>(Tq * H * DV), 0.0);
  result.lse.assign(static_cast<std::size_t>(Tq * H), -infinity);

  if (parameters.keep_scores)
    for (auto* const kept : {&result.scaled, &result.softcapped, &result.scores, &result.weights})
      kept->assign(static_cast<std::size_t>(Tq * H * Tk), kept == &result.weights ? 0.0 : -infinity);

  std::vector<double> weights(static_cast<std::size_t>(Tk));
  for (Index i = 0; i < queries; ++i) {
    for (Index h = 0; h < H; ++h) {
      const Index p = keys - queries + i;
      const Index g = parameters.kv_head_of.empty() ? h / (H / G) : parameters.kv_head_of[static_cast<std::size_t>(h)];

      const auto kept = [&](std::vector<double>& all, Index t) -> double& {
        return all[static_cast<std::size_t>((i * H + h) * Tk + t)];
      };
      for (Index t = parameters.key_start; parameters.keep_scores && t < keys; ++t) {  // hidden or not
        double dot = 0;
        for (Index d = 0; d < D; ++d) dot += at(q, (i * H + h) * D + d) * at(k, (t * G + g) * D + d);
        const double score = scale * dot * (parameters.temperature ? parameters.temperature(p) : 1.0),
                     cap = parameters.softcap;
        kept(result.scaled, t) = score;
        kept(result.softcapped, t) = cap != 0 ? cap * std::tanh(score / cap) : score;
      }

      double largest = -infinity;
      for (Index t = 0; t < keys; ++t) {
        double& score = weights[static_cast<std::size_t>(t)];
        score = -infinity;
        if (hides(parameters, p, t)) continue;
        if (parameters.visible && !parameters.visible(h, i, t)) continue;
        const double added = parameters.added ? parameters.added(h, i, t) : 0;
        if (added == -infinity) continue;
        double dot = 0;
        for (Index d = 0; d < D; ++d) dot += at(q, (i * H + h) * D + d) * at(k, (t * G + g) * D + d);
        score = scale * dot;
        if (parameters.temperature) score *= parameters.temperature(p);
        if (parameters.softcap != 0) score = parameters.softcap * std::tanh(score / parameters.softcap);
        if (!parameters.alibi_slopes.empty())
          score -= static_cast<double>(parameters.alibi_slopes[static_cast<std::size_t>(h)]) *
                   std::abs(static_cast<double>(p - t));
        if (parameters.bias) score += parameters.bias(h, t - p);
        score += added;
        if (parameters.transform) score = parameters.transform(score, h, p, t);
        if (score > largest || std::isnan(score)) largest = score;  // a NaN stays: no comparison with it is true
      }

      for (Index t = 0; parameters.keep_scores && t < keys; ++t)
        kept(result.scores, t) = weights[static_cast<std::size_t>(t)];

      double sink = -infinity;
      if (!parameters.sink_logits.empty()) sink = parameters.sink_logits[static_cast<std::size_t>(h)];
      if (largest == -infinity) {  // nothing visible
        result.lse[static_cast<std::size_t>(i * H + h)] = sink;
        continue;
      }
      if (sink > largest) largest = sink;
      double sum = std::exp(sink - largest);
      for (Index t = 0; t < keys; ++t) {
        double& weight = weights[static_cast<std::size_t>(t)];
        if (weight == -infinity) continue;
        weight = std::exp(weight - largest);
        sum += weight;
      }
      result.lse[static_cast<std::size_t>(i * H + h)] = largest + std::log(sum);
      for (Index t = 0; t < keys; ++t) {
        const double weight = weights[static_cast<std::size_t>(t)];
        if (weight == -infinity) continue;
        if (parameters.keep_scores) kept(result.weights, t) = weight / sum;
        for (Index d = 0; d < DV; ++d)
          result.output[static_cast<std::size_t>((i * H + h) * DV + d)] += weight / sum * at(v, (t * G + g) * DV + d);
      }
    }
  }
  return result;
}

}  // namespace headwise::reference

#endif  // !HEADWISE_DECLARE_ONLY
