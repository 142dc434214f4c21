// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <span>

#include "headwise/core/error.hpp"
#include "headwise/core/view.hpp"
#include "headwise/parallel/executor.hpp"
#include "headwise/parallel/serial.hpp"

// Differential attention (Ye et al. 2024, arXiv 2410.05258): what two softmaxes have in common is noise, so one is
// subtracted from the other,
//   output = (softmax(q1·k1ᵀ) − λ·softmax(q2·k2ᵀ))·v,
// which is two attention calls over the same values. Two key heads share a value head, of twice their dim: one call of all
// of them over KvRows or KvBlocks of 2·Hv key heads, whose outputs are the even and the odd heads, or two over views of
// them. In a cache, k1 and k2 are one key of twice the dim, which queries {q1, 0} and {0, q2} read (with the scale of the
// half); nothing is stored twice.

namespace headwise {

/// λ_init of the paper for the layer with this number, the first 0: 0.8 − 0.6·e^(−0.3·layer).
inline double differential_lambda_init(Index layer) {
  require(layer >= 0, "layer (", layer, ") must be at least 0");
  return 0.8 - 0.6 * std::exp(-0.3 * static_cast<double>(layer));
}

/// λ of a layer from its learned vectors, of one size: e^(λq1·λk1) − e^(λq2·λk2) + λ_init. Throws std::invalid_argument
/// where sizes differ.
inline float differential_lambda(std::span<const float> q1, std::span<const float> k1, std::span<const float> q2,
                                 std::span<const float> k2, double lambda_init) {
  require(k1.size() == q1.size() && q2.size() == q1.size() && k2.size() == q1.size(), "k1, q2 and k2 (", k1.size(),
          ", ", q2.size(), " and ", k2.size(), " numbers) must each hold as many numbers as q1 (", q1.size(), ")");
  double first = 0, second = 0;
  for (std::size_t i = 0; i < q1.size(); ++i) {
    first += static_cast<double>(q1[i]) * static_cast<double>(k1[i]);
    second += static_cast<double>(q2[i]) * static_cast<double>(k2[i]);
  }
  return static_cast<float>(std::exp(first) - std::exp(second) + lambda_init);
}

/// first ← first − λ·second, head by head: one fused multiply-add each, rounded to first's type.
///   first, second  outputs of two attention calls, [sequence][token][head][value_dim] each, of any types and strides
///   lambdas        [head], or one for all
/// Throws std::invalid_argument, before changing anything, when shapes do not fit.
template <ElementType T, ElementType U, Executor E = Serial>
void subtract_attention(View<T> first, std::span<const float> lambdas, View<U> second, E&& executor = Serial{}) {
  require(second.sequences() == first.sequences(), "sequences (", second.sequences(),
          ") of second must equal those of first (", first.sequences(), ")");
  require(second.tokens() == first.tokens(), "tokens (", second.tokens(), ") of second must equal those of first (",
          first.tokens(), ")");
  require(second.heads() == first.heads(), "heads (", second.heads(), ") of second must equal those of first (",
          first.heads(), ")");
  require(second.dim() == first.dim(), "dim (", second.dim(), ") of second must equal that of first (", first.dim(),
          ")");
  require(lambdas.size() == 1 || std::ssize(lambdas) == first.heads(), "lambdas (", lambdas.size(),
          " numbers) must hold one, or one per head (", first.heads(), ")");
  ExecutorRef(executor).parallel_for(first.sequences() * first.tokens(), [&](Index row) {
    const Index b = row / first.tokens(), t = row % first.tokens();
    for (Index h = 0; h < first.heads(); ++h) {
      const float lambda = lambdas[lambdas.size() == 1 ? 0 : static_cast<std::size_t>(h)];
      for (Index d = 0; d < first.dim(); ++d) {
        T& to = first(b, t, h, d);
        to = static_cast<T>(std::fma(-lambda, static_cast<float>(second(b, t, h, d)), static_cast<float>(to)));
      }
    }
  });
}
/// The same with one λ for all heads.
template <ElementType T, ElementType U, Executor E = Serial>
void subtract_attention(View<T> first, float lambda, View<U> second, E&& executor = Serial{}) {
  subtract_attention(first, std::span<const float>(&lambda, 1), second, executor);
}

}  // namespace headwise
