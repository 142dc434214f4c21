// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "headwise/nn/linear.hpp"
#include "tests/nn/random_matrix.hpp"

namespace headwise::testing {

/// K and V projections [head · dim][hidden] of one layer.
struct LayerWeights {
  Index num_heads, head_dim, value_dim;
  nn::Matrix key, value;
};

/// Heads that have nothing in common.
inline LayerWeights random_layer(Index num_heads, unsigned seed) {
  const Index head_dim = 3, value_dim = 2, hidden = 8;
  return {num_heads, head_dim, value_dim, random_matrix(num_heads * head_dim, hidden, 2 * seed + 1),
          random_matrix(num_heads * value_dim, hidden, 2 * seed + 2)};
}

/// Heads that are copies of the prototype `cluster[head]` plus noise in -noise … noise.
inline LayerWeights planted_layer(const std::vector<Index>& cluster, float noise, unsigned seed) {
  LayerWeights layer = random_layer(std::ssize(cluster), seed);
  const LayerWeights prototypes = random_layer(*std::ranges::max_element(cluster) + 1, seed + 5000);
  for (Index h = 0; h < layer.num_heads; ++h) {
    const Index c = cluster[static_cast<std::size_t>(h)];
    auto key = layer.key.middleRows(h * layer.head_dim, layer.head_dim);
    auto value = layer.value.middleRows(h * layer.value_dim, layer.value_dim);
    key = (noise * key + prototypes.key.middleRows(c * layer.head_dim, layer.head_dim)).eval();
    value = (noise * value + prototypes.value.middleRows(c * layer.value_dim, layer.value_dim)).eval();
  }
  return layer;
}

/// Σ_{h∈group} ‖W_h − mean‖² of K or V, element by element as it is written.
inline double naive_group_error(const nn::Matrix& weight, Index dim, const std::vector<Index>& group) {
  double error = 0;
  for (Index i = 0; i < dim; ++i)
    for (Index j = 0; j < weight.cols(); ++j) {
      double sum = 0;
      for (const Index h : group) sum += weight(h * dim + i, j);
      for (const Index h : group) {
        const double difference = weight(h * dim + i, j) - sum / static_cast<double>(group.size());
        error += difference * difference;
      }
    }
  return error;
}

inline double naive_group_error(const LayerWeights& layer, const std::vector<Index>& group) {
  return naive_group_error(layer.key, layer.head_dim, group) + naive_group_error(layer.value, layer.value_dim, group);
}

/// The weight-sharing error by its definition. labels[head] is the head's group, a number below the heads.
inline double naive_sharing_error(const LayerWeights& layer, const std::vector<Index>& labels) {
  double error = 0;
  for (Index g = 0; g < layer.num_heads; ++g) {
    std::vector<Index> group;
    for (Index h = 0; h < layer.num_heads; ++h)
      if (labels[static_cast<std::size_t>(h)] == g) group.push_back(h);
    error += naive_group_error(layer, group);
  }
  return error;
}

/// visit(labels, groups) for every partition: each head joins a group of those before it or opens one.
template <class Visit>
void naive_partitions(std::vector<Index>& labels, Index head, Index groups, Visit& visit) {
  if (head == std::ssize(labels)) return visit(labels, groups);
  for (Index g = 0; g <= groups; ++g) {
    labels[static_cast<std::size_t>(head)] = g;
    naive_partitions(labels, head + 1, std::max(groups, g + 1), visit);
  }
}

/// [groups] → the smallest error of all partitions into so many groups that `allowed(labels, groups)` lets pass,
/// infinite where there are none.
template <class Allowed>
std::vector<double> naive_best_errors(const LayerWeights& layer, Allowed&& allowed) {
  std::vector<double> of_set(std::size_t{1} << layer.num_heads);  // [bits of the heads]: the error of such a group
  for (std::size_t set = 0; set < of_set.size(); ++set) {
    std::vector<Index> group;
    for (Index h = 0; h < layer.num_heads; ++h)
      if (set >> h & 1) group.push_back(h);
    of_set[set] = naive_group_error(layer, group);
  }
  std::vector<double> best(static_cast<std::size_t>(layer.num_heads) + 1, std::numeric_limits<double>::infinity());
  std::vector<Index> labels(static_cast<std::size_t>(layer.num_heads));
  auto visit = [&](const std::vector<Index>& of, Index groups) {
    if (!allowed(of, groups)) return;
    std::vector<std::size_t> sets(static_cast<std::size_t>(groups), 0);
    for (std::size_t h = 0; h < of.size(); ++h) sets[static_cast<std::size_t>(of[h])] |= std::size_t{1} << h;
    double error = 0;
    for (const std::size_t set : sets) error += of_set[set];
    double& smallest = best[static_cast<std::size_t>(groups)];
    smallest = std::min(smallest, error);
  };
  naive_partitions(labels, 0, 0, visit);
  return best;
}

}  // namespace headwise::testing
