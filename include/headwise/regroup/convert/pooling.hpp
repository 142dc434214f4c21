// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "headwise/regroup/attention_weights.hpp"
#include "headwise/regroup/partition.hpp"
#include "headwise/regroup/random.hpp"

namespace headwise::regroup {

/// What becomes of the K and V projections of a group.
enum class PoolMethod {
  mean,    // their mean
  first,   // the group's first head
  medoid,  // the head with the smallest summed distance to the group's others; of equals the first
  random,  // new weights: every entry normal, with mean 0 and the root mean square that the entries of the layer's K
           // (V) projection have; biases 0. A projection initialised anew, what the other methods have to beat
};

/// How long the pooled projection is made. Heads that differ cancel in a mean, which then is short.
enum class PoolScale {
  none,
  renorm,     // its Frobenius norm becomes the mean of those of the pooled heads; a zero projection stays zero
  sqrt_size,  // times √(heads in the group): what a sum of as many unrelated heads' mean lost
};

struct PoolingOptions {
  PoolMethod method = PoolMethod::mean;
  PoolScale scale = PoolScale::none;
  /// Of `random`; give each layer one of its own.
  std::uint64_t seed = 0;
};

namespace detail {

/// The member of `heads` with the smallest summed distance ‖(K_h, V_h) − (K_h', V_h')‖_F to the others.
inline Index medoid(const KvProjection& keys, const KvProjection& values, std::span<const Index> heads) {
  std::vector<double> summed(heads.size(), 0.0);
  for (std::size_t a = 0; a < heads.size(); ++a)
    for (std::size_t b = a + 1; b < heads.size(); ++b) {
      const double distance = std::sqrt((keys.head(heads[a]) - keys.head(heads[b])).squaredNorm() +
                                        (values.head(heads[a]) - values.head(heads[b])).squaredNorm());
      summed[a] += distance;
      summed[b] += distance;
    }
  return heads[static_cast<std::size_t>(std::ranges::min_element(summed) - summed.begin())];
}

inline MatrixD mean_head(const KvProjection& projection, std::span<const Index> heads) {
  MatrixD sum = projection.head(heads.front());
  for (const Index h : heads.subspan(1)) sum += projection.head(h);
  return sum / static_cast<double>(heads.size());
}

/// Summed in one order with exact squares, so that `random` has the same bits everywhere.
inline double root_mean_square(const nn::Matrix& weight) {
  double sum = 0;
  for (Index i = 0; i < weight.size(); ++i) {
    const double entry = static_cast<double>(weight.data()[i]);
    sum += entry * entry;
  }
  return std::sqrt(sum / static_cast<double>(weight.size()));
}

inline MatrixD random_head(const KvProjection& projection, double deviation, Random& random) {
  MatrixD block = MatrixD::Zero(projection.dim, projection.columns());
  for (Index i = 0; i < block.rows(); ++i)
    for (Index j = 0; j < projection.weight.cols(); ++j) block(i, j) = deviation * random.normal();
  return block;
}

/// The factor of PoolScale on `pooled`, which stands for `heads`.
inline double pool_factor(PoolScale scale, const KvProjection& projection, std::span<const Index> heads,
                          const MatrixD& pooled) {
  if (scale == PoolScale::none) return 1;
  if (scale == PoolScale::sqrt_size) return std::sqrt(static_cast<double>(heads.size()));
  double norms = 0;
  for (const Index h : heads) norms += projection.head(h).norm();
  const double have = pooled.norm();
  return have > 0 ? norms / static_cast<double>(heads.size()) / have : 1;
}

/// One projection, K or V, of all groups. `chosen`: the head that first and medoid keep of each group.
inline void pool_projection(const KvProjection& projection, const Partition& partition, const PoolingOptions& options,
                            std::span<const Index> chosen, Random& random, nn::Matrix& weight, nn::Vector& bias) {
  weight.resize(partition.num_groups() * projection.dim, projection.weight.cols());
  if (projection.bias.size() > 0) bias.resize(weight.rows());
  const double deviation = options.method == PoolMethod::random ? root_mean_square(projection.weight) : 0;
  for (Index g = 0; g < partition.num_groups(); ++g) {
    const std::span<const Index> heads = partition.heads_of(g);
    MatrixD pooled = options.method == PoolMethod::mean     ? mean_head(projection, heads)
                     : options.method == PoolMethod::random ? random_head(projection, deviation, random)
                                                            : projection.head(chosen[static_cast<std::size_t>(g)]);
    pooled *= pool_factor(options.scale, projection, heads, pooled);
    set_head(weight, bias, g, pooled);
  }
}

}  // namespace detail

/// Which KV head each query head reads once the KV heads of a group are one: kv head of h → its group.
inline HeadMap pooled_map(const HeadMap& map, const Partition& partition) {
  std::vector<Index> group_of(static_cast<std::size_t>(map.num_heads()));
  for (Index h = 0; h < map.num_heads(); ++h)
    group_of[static_cast<std::size_t>(h)] = partition.group_of(map.kv_head_of(h));
  return HeadMap::arbitrary(group_of, partition.num_groups());
}

/// Turns multi-head attention into grouped-query attention, or grouped-query attention into fewer groups: the K and V
/// projections (and biases) of each group of `partition`, a partition of the layer's KV heads, become one. Queries and
/// output stay as they are and read the KV head of their group: where groups are not contiguous, through head_map.
/// A bias counts as one more column of its projection, in distances and norms too. Mean pooling commutes with RoPE.
///
/// Ainslie, Lee-Thorp, de Jong, Zemlyanskiy, Lebrón, Sanghai: "GQA: Training Generalized Multi-Query Transformer Models
/// from Multi-Head Checkpoints" (2023), section 2.1, has mean, first and random. The paper then trains on for 5 % of the
/// original steps; without that a model loses much.
///
/// Throws std::invalid_argument on weights that AttentionWeights::check refuses and a partition of another head count.
inline AttentionWeights pool(const AttentionWeights& weights, const Partition& partition,
                             const PoolingOptions& options = {}) {
  weights.check();
  detail::check_divides(partition, weights);
  const detail::KvProjection keys = detail::keys_of(weights), values = detail::values_of(weights);
  std::vector<Index> chosen;
  for (Index g = 0; g < partition.num_groups(); ++g)
    chosen.push_back(options.method == PoolMethod::medoid ? detail::medoid(keys, values, partition.heads_of(g))
                                                          : partition.heads_of(g).front());

  AttentionWeights result{.num_heads = weights.num_heads,
                          .num_kv_heads = partition.num_groups(),
                          .head_dim = weights.head_dim,
                          .value_dim = weights.value_dim,
                          .query = weights.query,
                          .output = weights.output,
                          .query_bias = weights.query_bias,
                          .output_bias = weights.output_bias};
  Random random(options.seed);
  detail::pool_projection(keys, partition, options, chosen, random, result.key, result.key_bias);
  detail::pool_projection(values, partition, options, chosen, random, result.value, result.value_bias);
  result.set_map(pooled_map(weights.map(), partition));
  return result;
}

}  // namespace headwise::regroup
