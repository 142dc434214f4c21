// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "headwise/core/error.hpp"
#include "headwise/core/head_map.hpp"
#include "headwise/core/heads.hpp"
#include "headwise/nn/linear.hpp"
#include "headwise/regroup/partition.hpp"

namespace headwise::regroup {

/// Row-major like nn::Matrix, for sums that must not lose digits.
using MatrixD = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// The weights of one attention layer, as nn::MultiHeadAttention takes them: heads lie one after another, head by head.
/// Functions of regroup/ take one and return a new one; none changes its argument.
struct AttentionWeights {
  Index num_heads = 0;
  Index num_kv_heads = 0;
  Index head_dim = 0;
  Index value_dim = 0;

  nn::Matrix query{};   // [num_heads·head_dim][hidden_size]
  nn::Matrix key{};     // [num_kv_heads·head_dim][hidden_size]
  nn::Matrix value{};   // [num_kv_heads·value_dim][hidden_size]
  nn::Matrix output{};  // [hidden_size][num_heads·value_dim]

  // One number per row of the matrix, or empty: none.
  nn::Vector query_bias{}, key_bias{}, value_bias{}, output_bias{};

  /// Which KV head each query head reads. Unset: consecutive groups of equal size. Results of regroup/ are unset
  /// whenever that is what they are.
  std::optional<HeadMap> head_map{};

  Index hidden_size() const { return query.cols(); }

  /// head_map, or the map that it means where it is unset. Throws std::invalid_argument where num_heads is then no
  /// multiple of num_kv_heads.
  HeadMap map() const { return head_map ? *head_map : HeadMap::contiguous(num_heads, num_kv_heads); }
  /// Sets head_map, or unsets it where `map` is what unset means.
  void set_map(HeadMap map) {
    bool plain = num_heads % num_kv_heads == 0;
    for (Index h = 0; plain && h < num_heads; ++h) plain = map.kv_head_of(h) == h / (num_heads / num_kv_heads);
    head_map.reset();
    if (!plain) head_map = std::move(map);
  }

  // The rows (for the output: the columns) of one head; h a query head, g a KV head.
  auto query_block(Index h) const { return query.middleRows(h * head_dim, head_dim); }
  auto query_block(Index h) { return query.middleRows(h * head_dim, head_dim); }
  auto key_block(Index g) const { return key.middleRows(g * head_dim, head_dim); }
  auto key_block(Index g) { return key.middleRows(g * head_dim, head_dim); }
  auto value_block(Index g) const { return value.middleRows(g * value_dim, value_dim); }
  auto value_block(Index g) { return value.middleRows(g * value_dim, value_dim); }
  auto output_block(Index h) const { return output.middleCols(h * value_dim, value_dim); }
  auto output_block(Index h) { return output.middleCols(h * value_dim, value_dim); }

  /// Throws std::invalid_argument on impossible counts or a map of other counts; on any shape that disagrees with them,
  /// naming all such; and on a weight or bias that is infinite or NaN, naming the first.
  void check() const {
    require(value_dim >= 1, "value_dim (", value_dim, ") must be 1 to ", kMaxHeadDim);
    const Heads<> heads(num_heads, num_kv_heads, head_dim, value_dim);
    const HeadMap used = map();
    require(used.num_heads() == num_heads && used.num_kv_heads() == num_kv_heads, "head_map (", used.num_heads(),
            " query heads, ", used.num_kv_heads(), " KV heads) must map num_heads (", num_heads, ") to num_kv_heads (",
            num_kv_heads, ")");
    check_shapes();
    for (const auto& [name, matrix] : matrices()) check_finite(name, *matrix);
    for (const auto& [name, vector, size] : biases()) check_finite(name, *vector);
  }

 private:
  struct NamedMatrix {
    const char* name;
    const nn::Matrix* matrix;
  };
  struct NamedBias {
    const char* name;
    const nn::Vector* vector;
    Index size;
  };
  std::vector<NamedMatrix> matrices() const {
    return {{"query", &query}, {"key", &key}, {"value", &value}, {"output", &output}};
  }
  std::vector<NamedBias> biases() const {
    return {{"query_bias", &query_bias, num_heads * head_dim},
            {"key_bias", &key_bias, num_kv_heads * head_dim},
            {"value_bias", &value_bias, num_kv_heads * value_dim},
            {"output_bias", &output_bias, hidden_size()}};
  }

  void check_shapes() const {
    const Index hidden = hidden_size();
    require(hidden >= 1, "query (", query.rows(), " x 0) of AttentionWeights must have one column per feature");
    const std::pair<Index, Index> want[] = {{num_heads * head_dim, hidden},
                                            {num_kv_heads * head_dim, hidden},
                                            {num_kv_heads * value_dim, hidden},
                                            {hidden, num_heads * value_dim}};
    std::ostringstream faults;
    const auto comma = [&]() -> std::ostream& { return faults.view().empty() ? faults : faults << "; "; };
    const std::vector<NamedMatrix> all = matrices();
    for (std::size_t i = 0; i < all.size(); ++i) {
      const nn::Matrix& m = *all[i].matrix;
      if (m.rows() != want[i].first || m.cols() != want[i].second)
        comma() << all[i].name << " (" << m.rows() << " x " << m.cols() << ") must be " << want[i].first << " x "
                << want[i].second;
    }
    for (const auto& [name, vector, size] : biases())
      if (vector->size() != 0 && vector->size() != size)
        comma() << name << " (" << vector->size() << " numbers) must hold " << size << " or none";
    require(faults.view().empty(), "AttentionWeights of ", num_heads, " heads, ", num_kv_heads, " KV heads, head_dim ",
            head_dim, ", value_dim ", value_dim, " disagree: ", faults.view());
  }

  template <class M>
  static void check_finite(const char* name, const M& m) {
    if (m.allFinite()) return;
    for (Index i = 0; i < m.rows(); ++i)
      for (Index j = 0; j < m.cols(); ++j)
        require(std::isfinite(m(i, j)), name, " (", m(i, j), " at row ", i, ", column ", j,
                ") of AttentionWeights must be finite");
  }
};

namespace detail {

/// The heads of K or of V as what they compute from (x, 1): [dim][hidden_size], with the bias as one more column where
/// there is one.
struct KvProjection {
  const nn::Matrix& weight;
  const nn::Vector& bias;
  Index dim;

  Index columns() const { return weight.cols() + (bias.size() > 0 ? 1 : 0); }
  MatrixD head(Index g) const {
    MatrixD block(dim, columns());
    block.leftCols(weight.cols()) = weight.middleRows(g * dim, dim).cast<double>();
    if (bias.size() > 0) block.col(weight.cols()) = bias.segment(g * dim, dim).cast<double>();
    return block;
  }
};

inline KvProjection keys_of(const AttentionWeights& w) { return {w.key, w.key_bias, w.head_dim}; }
inline KvProjection values_of(const AttentionWeights& w) { return {w.value, w.value_bias, w.value_dim}; }

/// Writes `block`, as KvProjection::head gives it, to head g; an empty bias takes none.
inline void set_head(nn::Matrix& weight, nn::Vector& bias, Index g, const MatrixD& block) {
  const Index dim = block.rows();
  weight.middleRows(g * dim, dim) = block.leftCols(weight.cols()).cast<float>();
  if (bias.size() > 0) bias.segment(g * dim, dim) = block.col(weight.cols()).cast<float>();
}

/// Throws std::invalid_argument unless the partition divides the KV heads of the weights.
inline void check_divides(const Partition& partition, const AttentionWeights& weights) {
  require(partition.num_heads() == weights.num_kv_heads, "partition (", partition.num_heads(),
          " heads) must divide num_kv_heads (", weights.num_kv_heads, ") heads");
}

}  // namespace detail

}  // namespace headwise::regroup
