// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>

#include "headwise/core/error.hpp"
#include "headwise/regroup/attention_weights.hpp"

namespace headwise::regroup {

/// Inner products between KV heads, [head][head], of keys and of values apart: all that a pooling error needs to know.
struct HeadGram {
  Eigen::MatrixXd key, value;

  /// Keys and values as they are.
  Eigen::MatrixXd sum() const { return key + value; }
  /// Each divided by its trace, so that neither drowns the other (keys of real models are often ten times as long).
  Eigen::MatrixXd balanced() const {
    const double keys = key.trace(), values = value.trace();
    return key / (keys > 0 ? keys : 1) + value / (values > 0 ? values : 1);
  }
};

/// Inner products of the K and of the V projections, each with its bias as one more column. The pooling error of their
/// sum is the weight-sharing error of QCQA (Joshi et al. 2024).
/// Throws std::invalid_argument on weights that AttentionWeights::check refuses.
inline HeadGram weight_gram(const AttentionWeights& weights) {
  weights.check();
  const auto gram = [&](const detail::KvProjection& projection) {
    MatrixD rows(weights.num_kv_heads, projection.dim * projection.columns());
    for (Index g = 0; g < weights.num_kv_heads; ++g) {
      const MatrixD head = projection.head(g);
      rows.row(g) = Eigen::Map<const Eigen::RowVectorXd>(head.data(), head.size());
    }
    return Eigen::MatrixXd(rows * rows.transpose());
  };
  return {gram(detail::keys_of(weights)), gram(detail::values_of(weights))};
}

namespace detail {

/// Throws std::invalid_argument unless `gram` is square, finite and symmetric up to rounding.
inline void check_gram(const Eigen::MatrixXd& gram) {
  require(gram.rows() >= 1 && gram.rows() == gram.cols(), "gram (", gram.rows(), " x ", gram.cols(),
          ") must have one row and one column per head");
  for (Index i = 0; i < gram.rows(); ++i)
    for (Index j = 0; j < gram.cols(); ++j)
      require(std::isfinite(gram(i, j)), "gram(", i, ", ", j, ") (", gram(i, j), ") must be finite");
  const double rounding = 1e-9 * gram.cwiseAbs().maxCoeff();
  for (Index i = 0; i < gram.rows(); ++i)
    for (Index j = 0; j < i; ++j)
      require(std::abs(gram(i, j) - gram(j, i)) <= rounding, "gram(", i, ", ", j, ") (", gram(i, j),
              ") must equal gram(", j, ", ", i, ") (", gram(j, i), ")");
}

}  // namespace detail

}  // namespace headwise::regroup
