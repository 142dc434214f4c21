// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>

#include "headwise/core/error.hpp"
#include "headwise/nn/linear.hpp"
#include "headwise/parallel/executor.hpp"
#include "headwise/parallel/serial.hpp"
#include "headwise/regroup/attention_weights.hpp"
#include "headwise/regroup/search/head_gram.hpp"

namespace headwise::regroup {

/// How alike the KV heads of a layer are on calibration tokens: inner products and cosines between their keys and between
/// their values, summed over the tokens. Keys are taken before RoPE; since RoPE turns all heads of a token alike, keys
/// after it give the same sums. Memory does not grow with the tokens.
///
/// After Chen, Zhang, Gao, Mullins, Constantinides, Zhao: "Optimised Grouped-Query Attention Mechanism for Transformers"
/// (2024), whose activation-informed groups are found by asym_gqa.hpp.
class ActivationStatistics {
 public:
  /// Throws std::invalid_argument on counts that are not at least 1.
  ActivationStatistics(Index num_kv_heads, Index head_dim, Index value_dim)
      : head_dim_(head_dim), value_dim_(value_dim) {
    require(num_kv_heads >= 1, "num_kv_heads (", num_kv_heads, ") must be at least 1");
    require(head_dim >= 1, "head_dim (", head_dim, ") must be at least 1");
    require(value_dim >= 1, "value_dim (", value_dim, ") must be at least 1");
    const Eigen::MatrixXd zero = Eigen::MatrixXd::Zero(num_kv_heads, num_kv_heads);
    products_ = cosines_ = {zero, zero};
  }
  /// For the KV heads of these weights.
  explicit ActivationStatistics(const AttentionWeights& weights)
      : ActivationStatistics(weights.num_kv_heads, weights.head_dim, weights.value_dim) {}

  Index num_kv_heads() const { return products_.key.rows(); }
  Index head_dim() const { return head_dim_; }
  Index value_dim() const { return value_dim_; }
  Index num_tokens() const { return num_tokens_; }

  /// Adds tokens: keys [token][num_kv_heads·head_dim], before RoPE, and values [token][num_kv_heads·value_dim].
  /// Throws std::invalid_argument, with nothing added, where a shape differs or a number is infinite or NaN.
  void add(const nn::MatrixRef& keys, const nn::MatrixRef& values) {
    check("keys", keys, num_kv_heads(), head_dim_);
    check("values", values, num_kv_heads(), value_dim_);
    require(keys.rows() == values.rows(), "keys (", keys.rows(), " tokens) and values (", values.rows(),
            " tokens) must hold the same tokens");
    accumulate(keys, head_dim_, products_.key, cosines_.key);
    accumulate(values, value_dim_, products_.value, cosines_.value);
    num_tokens_ += keys.rows();
  }

  /// Adds the keys and values that the weights make of x [token][hidden_size], what enters the layer's projections (in a
  /// decoder block, after its norm). Throws std::invalid_argument on weights of other KV heads or of another hidden_size;
  /// and, with nothing added, where x or what comes of it is infinite or NaN.
  template <Executor E = Serial>
  void add_inputs(const nn::MatrixRef& x, const AttentionWeights& weights, E&& executor = Serial{}) {
    weights.check();
    require(weights.num_kv_heads == num_kv_heads() && weights.head_dim == head_dim_ && weights.value_dim == value_dim_,
            "weights (num_kv_heads ", weights.num_kv_heads, ", head_dim ", weights.head_dim, ", value_dim ",
            weights.value_dim, ") must have num_kv_heads ", num_kv_heads(), ", head_dim ", head_dim_, ", value_dim ",
            value_dim_);
    check("x", x, 1, weights.hidden_size());
    ActivationStatistics added(weights);
    nn::Matrix keys, values;
    for (Index t = 0; t < x.rows(); t += kBlock) {
      const auto block = x.middleRows(t, std::min(kBlock, x.rows() - t));
      keys.resize(block.rows(), weights.key.rows());
      values.resize(block.rows(), weights.value.rows());
      project(block, weights.key, weights.key_bias, keys, executor);
      project(block, weights.value, weights.value_bias, values, executor);
      added.add(keys, values);
    }
    merge(added);
  }

  /// Adds what another has seen, as if its tokens had been added here. Throws std::invalid_argument where its heads
  /// differ.
  void merge(const ActivationStatistics& other) {
    require(other.num_kv_heads() == num_kv_heads() && other.head_dim_ == head_dim_ && other.value_dim_ == value_dim_,
            "other (num_kv_heads ", other.num_kv_heads(), ", head_dim ", other.head_dim_, ", value_dim ",
            other.value_dim_, ") must have num_kv_heads ", num_kv_heads(), ", head_dim ", head_dim_, ", value_dim ",
            value_dim_);
    products_.key += other.products_.key;
    products_.value += other.products_.value;
    cosines_.key += other.cosines_.key;
    cosines_.value += other.cosines_.value;
    num_tokens_ += other.num_tokens_;
  }

  /// Γ_hh' = Σ over tokens of <k_h, k_h'> and of <v_h, v_h'>: its pooling error is that of the keys and values.
  /// This and the following throw std::invalid_argument before any token was added.
  HeadGram gram() const {
    check_tokens();
    return products_;
  }
  /// The mean over tokens of cos(k_i, k_j) and of cos(v_i, v_j); of a zero vector, 0.
  HeadGram cosines() const {
    check_tokens();
    const double tokens = static_cast<double>(num_tokens_);
    return {cosines_.key / tokens, cosines_.value / tokens};
  }
  /// S_ij = ½·(E cos(k_i, k_j) + E cos(v_i, v_j)). It is a gram too, that of heads scaled to one length: searching on it
  /// groups by direction alone.
  Eigen::MatrixXd similarity() const { return 0.5 * cosines().sum(); }

 private:
  static constexpr Index kBlock = 64;  // tokens that are widened to double at a time

  void check_tokens() const {
    require(num_tokens_ >= 1,
            "num_tokens (0) of ActivationStatistics must be at least 1; add calibration tokens first");
  }

  static void check(const char* name, const nn::MatrixRef& x, Index heads, Index dim) {
    require(x.cols() == heads * dim, name, " (", x.rows(), " x ", x.cols(), ") must have ", heads * dim, " columns");
    if (x.allFinite()) return;
    for (Index t = 0; t < x.rows(); ++t)
      for (Index i = 0; i < x.cols(); ++i)
        require(std::isfinite(x(t, i)), name, " (", x(t, i), " at token ", t, ", head ", i / dim, ", dimension ",
                i % dim, ") must be finite");
  }

  template <class E>
  static void project(const nn::MatrixRef& x, const nn::Matrix& weight, const nn::Vector& bias, nn::Matrix& y,
                      E& executor) {
    nn::Linear::view(weight.data(), weight.rows(), weight.cols(), bias.size() > 0 ? bias.data() : nullptr)(x, y,
                                                                                                           executor);
  }

  static void accumulate(const nn::MatrixRef& x, Index dim, Eigen::MatrixXd& products, Eigen::MatrixXd& cosines) {
    const Index heads = products.rows();
    for (Index t = 0; t < x.rows(); t += kBlock) {
      const Index tokens = std::min(kBlock, x.rows() - t);
      MatrixD wide(heads, tokens * dim), unit(heads, tokens * dim);  // a head's vectors side by side
      for (Index h = 0; h < heads; ++h)
        for (Index i = 0; i < tokens; ++i) {
          const Eigen::RowVectorXd vector = x.block(t + i, h * dim, 1, dim).cast<double>();
          const double length = vector.norm();
          wide.row(h).segment(i * dim, dim) = vector;
          unit.row(h).segment(i * dim, dim) = vector / (length > 0 ? length : 1);
        }
      products.noalias() += wide * wide.transpose();
      cosines.noalias() += unit * unit.transpose();
    }
  }

  Index head_dim_, value_dim_;
  Index num_tokens_ = 0;
  HeadGram products_, cosines_;  // summed over tokens
};

}  // namespace headwise::regroup
