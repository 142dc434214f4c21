// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstring>
#include <span>
#include <vector>

#include "headwise/core/error.hpp"
#include "headwise/core/heads.hpp"
#include "headwise/core/view.hpp"
#include "headwise/parallel/executor.hpp"
#include "headwise/parallel/serial.hpp"

namespace headwise {

/// QK-norm (Henry et al. 2020, arXiv 2010.04245; as RMSNorm in Qwen3 and Gemma 3): every head of a query or a key becomes
///   x · weight / sqrt(mean(x²) + epsilon),  the mean over head_dim,
/// before RoPE. Models whose weights are stored less 1 (Gemma in the files of transformers) need 1 added. Without a weight
/// it is Llama 4's norm, which that model takes after RoPE: where RoPE's attention_factor is 1 it changes no length, and the
/// order makes no difference but for rounding. Computed in double and rounded once; finite numbers never overflow on the way. A head's bits depend on the
/// head alone.
class QkNorm {
 public:
  /// weight [head_dim], finite; empty: 1. epsilon finite and above 0. Throws std::invalid_argument.
  explicit QkNorm(Index head_dim, std::span<const float> weight = {}, float epsilon = 1e-6f)
      : head_dim_(head_dim), epsilon_(epsilon), weight_(weight.begin(), weight.end()) {
    require(head_dim >= 1 && head_dim <= kMaxHeadDim, "head_dim (", head_dim, ") of a QkNorm must be 1 to ",
            kMaxHeadDim);
    require(weight.empty() || std::ssize(weight) == head_dim, "weight (", weight.size(),
            " numbers) of a QkNorm must be empty or hold head_dim (", head_dim, ")");
    for (std::size_t d = 0; d < weight.size(); ++d)
      require(std::isfinite(weight[d]), "weight[", d, "] (", weight[d], ") of a QkNorm must be finite");
    require(std::isfinite(epsilon) && epsilon > 0, "epsilon (", epsilon, ") of a QkNorm must be finite and above 0");
  }

  Index head_dim() const { return head_dim_; }
  float epsilon() const { return epsilon_; }
  /// Empty: 1.
  std::span<const float> weight() const { return weight_; }

  /// Norms one head, head_dim consecutive floats.
  void apply(float* head) const {
    const double factor =
        1.0 / std::sqrt(sum_of_squares(head) / static_cast<double>(head_dim_) + static_cast<double>(epsilon_));
    if (weight_.empty())
      scale(head, factor, [](Index) { return 1.0f; });
    else
      scale(head, factor, [&](Index d) { return weight_[static_cast<std::size_t>(d)]; });
  }
  /// Norms x [sequence][token][head][head_dim] in place.
  template <Executor E = Serial>
  void apply(View<float> x, E&& executor = Serial{}) const {
    require(x.dim() == head_dim_, "dim (", x.dim(), ") of x must be the head_dim (", head_dim_, ") of the QkNorm");
    const Index tokens = x.tokens(), dim = x.strides().dim;
    ExecutorRef(executor).parallel_for(x.sequences() * tokens, [&](Index i) {
      for (Index h = 0; h < x.heads(); ++h) {
        float* const row = &x(i / tokens, i % tokens, h, 0);
        if (dim == 1) {
          apply(row);
          continue;
        }
        float dense[kMaxHeadDim];
        for (Index d = 0; d < head_dim_; ++d) dense[d] = row[d * dim];
        apply(dense);
        for (Index d = 0; d < head_dim_; ++d) row[d * dim] = dense[d];
      }
    });
  }

 private:
  static constexpr Index kChunk = 8;  // of constant size, for compilers to make vectors of it

  /// Each square is exact, so that it makes no difference whether compilers fuse it into the sum.
  double sum_of_squares(const float* x) const {
    double sums[kChunk] = {};
    Index d = 0;
    for (; d + kChunk <= head_dim_; d += kChunk)
      for (Index j = 0; j < kChunk; ++j) sums[j] += static_cast<double>(x[d + j]) * static_cast<double>(x[d + j]);
    for (; d < head_dim_; ++d) sums[d % kChunk] += static_cast<double>(x[d]) * static_cast<double>(x[d]);
    for (Index n = kChunk / 2; n > 0; n /= 2)
      for (Index j = 0; j < n; ++j) sums[j] += sums[j + n];
    return sums[0];
  }
  template <class WeightAt>
  void scale(float* x, double factor, WeightAt weight_at) const {
    const auto scaled = [&](Index d) {
      return static_cast<float>(static_cast<double>(x[d]) * factor * static_cast<double>(weight_at(d)));
    };
    Index d = 0;
    for (; d + kChunk <= head_dim_; d += kChunk) {
      float out[kChunk];
      for (Index j = 0; j < kChunk; ++j) out[j] = scaled(d + j);
      std::memcpy(x + d, out, sizeof out);
    }
    for (; d < head_dim_; ++d) x[d] = scaled(d);
  }

  Index head_dim_;
  float epsilon_;
  std::vector<float> weight_;
};

}  // namespace headwise
