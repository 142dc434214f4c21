// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "headwise/regroup/attention_weights.hpp"
#include "headwise/regroup/module.hpp"
#include "headwise/regroup/partition.hpp"
#include "tests/nn/random_matrix.hpp"

namespace headwise::testing {

/// Random weights of a layer, with biases if asked, that keep activations near 1, as in a model.
inline regroup::AttentionWeights random_weights(Index H, Index G, Index dk, Index dv, Index hidden, bool biases,
                                                unsigned seed = 1) {
  seed *= 100;
  const auto weight = [&](Index rows, Index columns) {
    return nn::Matrix(random_matrix(rows, columns, ++seed) * (1.7f / std::sqrt(static_cast<float>(columns))));
  };
  const auto bias = [&](Index size) { return biases ? random_vector(size, ++seed) : nn::Vector(); };
  regroup::AttentionWeights w{.num_heads = H, .num_kv_heads = G, .head_dim = dk, .value_dim = dv};
  w.query = weight(H * dk, hidden), w.key = weight(G * dk, hidden), w.value = weight(G * dv, hidden);
  w.output = weight(hidden, H * dv);
  w.query_bias = bias(H * dk), w.key_bias = bias(G * dk), w.value_bias = bias(G * dv), w.output_bias = bias(hidden);
  return w;
}

inline std::vector<Index> random_order(Index count, unsigned seed) {
  std::vector<Index> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), Index{0});
  std::minstd_rand generator(seed);
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[generator() % i]);
  return order;
}

inline regroup::Partition partition_of(std::vector<Index> labels) { return regroup::Partition::from_labels(labels); }

/// What the layer makes of 50 random tokens, with positions turned in.
inline nn::Matrix output_of(const regroup::AttentionWeights& w) {
  return regroup::to_module(w, {.rope = nn::RopeOptions{}}).forward(random_matrix(50, w.hidden_size(), 8));
}

/// Largest difference of two matrices of one shape; infinite for others.
inline double distance(const nn::Matrix& a, const nn::Matrix& b) {
  if (a.rows() != b.rows() || a.cols() != b.cols()) return INFINITY;
  return static_cast<double>((a - b).cwiseAbs().maxCoeff());
}

/// Two forward passes of activations near 1 whose sums run in other orders: a few hundred roundings of 2^-24 in the
/// longest, of which most cancel, as in the tests of nn/.
inline constexpr double kForwardTolerance = 32 * 0x1p-24;

}  // namespace headwise::testing
