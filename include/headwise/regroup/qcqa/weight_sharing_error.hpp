// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"
#include "headwise/nn/linear.hpp"
#include "headwise/regroup/attention_weights.hpp"
#include "headwise/regroup/partition.hpp"

namespace headwise::regroup {

/// The shapes of a layer's key and value heads.
struct HeadShape {
  /// Rows of the key matrix that are one head.
  Index head_dim = 0;
  /// Rows of the value matrix that are one head; unset: head_dim.
  std::optional<Index> value_dim{};
};

/// How far a layer's heads are from each other, and so what it costs to let a group of them share the mean of their
/// weights: the weight-sharing error of QCQA (Joshi et al., "QCQA: Quality and Capacity-aware grouped Query Attention",
/// arXiv 2406.10247),
///
///   WSE(P) = Σ_g Σ_{h∈g} (‖WK_h − mean_g WK‖² + ‖WV_h − mean_g WV‖²).
///
/// The matrices are read once. Then, since Σ_{h∈g} ‖x_h − mean‖² = (1/|g|)·Σ_{h<h'∈g} ‖x_h − x_h'‖², an error costs
/// O(num_heads²). The distances are summed from differences and not taken from a Gram matrix as
/// ‖x‖² + ‖x'‖² − 2⟨x, x'⟩: that leaves rounding where heads are equal, while here equal heads are 0 apart and sharing
/// them costs exactly 0.
class WeightDistances {
 public:
  /// key [num_heads · head_dim][hidden], value [num_heads · value_dim][hidden], head after head. Summed in double.
  /// Throws std::invalid_argument when a dimension is below 1, a matrix is empty or no whole number of heads, the two
  /// disagree about the number of heads or hidden, or a weight is infinite or NaN.
  WeightDistances(const nn::MatrixRef& key, const nn::MatrixRef& value, const HeadShape& shape)
      : WeightDistances(squared_distances(key, value, shape)) {}

  /// Of the KV heads of a layer. Throws std::invalid_argument as above.
  explicit WeightDistances(const AttentionWeights& weights)
      : WeightDistances(weights.key, weights.value, {weights.head_dim, weights.value_dim}) {}

  /// From the squared distances themselves [head][head], of any kind (activations, say): symmetric, none negative,
  /// 0 between a head and itself. Throws std::invalid_argument otherwise.
  static WeightDistances from_matrix(Eigen::MatrixXd squared) {
    require(squared.rows() >= 1 && squared.rows() == squared.cols(), "squared distances (", squared.rows(), " x ",
            squared.cols(), ") must be square and hold at least 1 head");
    for (Index a = 0; a < squared.rows(); ++a)
      for (Index b = 0; b < squared.cols(); ++b)
        require(std::isfinite(squared(a, b)) && squared(a, b) >= 0 && squared(a, b) == squared(b, a) &&
                    (a != b || squared(a, b) == 0),
                "squared distances[", a, "][", b, "] (", squared(a, b),
                ") must be finite, at least 0, symmetric and 0 between a head and itself");
    return WeightDistances(std::move(squared));
  }

  Index num_heads() const { return squared_.rows(); }
  /// ‖WK_a − WK_b‖² + ‖WV_a − WV_b‖².
  double squared_distance(Index a, Index b) const { return squared_(a, b); }

  /// A gram whose pooling error is the weight-sharing error of every partition: what search/ needs.
  Eigen::MatrixXd gram() const { return -0.5 * squared_; }

  /// WSE of a partition: 0 where no head shares, never negative, and growing (but for rounding) where groups are
  /// joined. Throws
  /// std::invalid_argument when the partition has another number of heads.
  double error(const Partition& partition) const {
    require(partition.num_heads() == num_heads(), "partition (", partition.num_heads(),
            " heads) must have as many heads as the weights (", num_heads(), ")");
    double total = 0;
    for (Index g = 0; g < partition.num_groups(); ++g) {
      const auto heads = partition.heads_of(g);
      double pairs = 0;
      for (std::size_t j = 1; j < heads.size(); ++j)
        for (std::size_t i = 0; i < j; ++i) pairs += squared_(heads[i], heads[j]);
      total += pairs / static_cast<double>(heads.size());
    }
    return total;
  }

 private:
  explicit WeightDistances(Eigen::MatrixXd squared) : squared_(std::move(squared)) {}

  static Eigen::MatrixXd squared_distances(const nn::MatrixRef& key, const nn::MatrixRef& value,
                                           const HeadShape& shape) {
    const Index head_dim = shape.head_dim, value_dim = shape.value_dim.value_or(head_dim);
    const Index num_heads = heads_in("key", key, "head_dim", head_dim);
    const Index value_heads = heads_in("value", value, "value_dim", value_dim);
    require(num_heads == value_heads, "key (", num_heads, " heads of ", head_dim, ") and value (", value_heads,
            " heads of ", value_dim, ") must have the same number of heads");
    require(key.cols() == value.cols(), "key (", key.cols(), " columns) and value (", value.cols(),
            " columns) must have the same number of columns, hidden_size");
    Eigen::MatrixXd squared = Eigen::MatrixXd::Zero(num_heads, num_heads);
    add_squared_distances(key, head_dim, squared);
    add_squared_distances(value, value_dim, squared);
    for (Index a = 0; a < num_heads; ++a)
      for (Index b = 0; b < a; ++b) squared(a, b) = squared(b, a);
    return squared;
  }

  static Index heads_in(const char* name, const nn::MatrixRef& weight, const char* dim_name, Index dim) {
    require(dim >= 1, dim_name, " (", dim, ") must be at least 1");
    require(weight.rows() >= 1 && weight.cols() >= 1, name, " (", weight.rows(), " x ", weight.cols(),
            ") must hold at least 1 head");
    require(weight.rows() % dim == 0, name, " (", weight.rows(), " rows) must be a multiple of ", dim_name, " (", dim,
            ")");
    for (Index i = 0; i < weight.rows(); ++i)
      for (Index j = 0; j < weight.cols(); ++j)
        require(std::isfinite(weight(i, j)), name, "[", i, "][", j, "] (", weight(i, j), ") must be finite");
    return weight.rows() / dim;
  }

  // Adds to the pairs a < b. A stretch of one row of every head at a time, which stays in the cache for all pairs.
  static void add_squared_distances(const nn::MatrixRef& weight, Index dim, Eigen::MatrixXd& squared) {
    constexpr Index stretch = 512;
    const Index num_heads = squared.rows();
    Eigen::MatrixXd part(stretch, num_heads);
    for (Index row = 0; row < dim; ++row)
      for (Index column = 0; column < weight.cols(); column += stretch) {
        const Index length = std::min(stretch, weight.cols() - column);
        for (Index h = 0; h < num_heads; ++h)
          part.col(h).head(length) = weight.row(h * dim + row).segment(column, length).transpose().cast<double>();
        for (Index b = 1; b < num_heads; ++b)
          for (Index a = 0; a < b; ++a)
            squared(a, b) += (part.col(a).head(length) - part.col(b).head(length)).squaredNorm();
      }
  }

  Eigen::MatrixXd squared_;  // [head][head]
};

}  // namespace headwise::regroup
