// SPDX-License-Identifier: MIT
#pragma once

#include <numeric>
#include <span>
#include <vector>

#include "headwise/regroup/attention_weights.hpp"
#include "headwise/regroup/partition.hpp"

namespace headwise::regroup {

namespace detail {

/// `order` names each of 0 … count-1 once.
inline void check_order(std::span<const Index> order, Index count) {
  require(std::ssize(order) == count, "order (", order.size(), " heads) must name each of the num_kv_heads (", count,
          ") heads once");
  std::vector<bool> seen(order.size(), false);
  for (std::size_t i = 0; i < order.size(); ++i) {
    require(order[i] >= 0 && order[i] < count, "order[", i, "] (", order[i], ") must be 0 to num_kv_heads - 1 (",
            count - 1, ")");
    require(!seen[static_cast<std::size_t>(order[i])], "order[", i, "] (", order[i],
            ") is named before and must be named once");
    seen[static_cast<std::size_t>(order[i])] = true;
  }
}

/// Rows of `dim` per head: head i of the result is head order[i]. Nothing stays nothing.
template <class M>
M gather_rows(const M& from, std::span<const Index> order, Index dim) {
  if (from.size() == 0) return from;
  M result(std::ssize(order) * dim, from.cols());
  for (Index i = 0; i < std::ssize(order); ++i)
    result.middleRows(i * dim, dim) = from.middleRows(order[static_cast<std::size_t>(i)] * dim, dim);
  return result;
}

inline nn::Matrix gather_columns(const nn::Matrix& from, std::span<const Index> order, Index dim) {
  nn::Matrix result(from.rows(), std::ssize(order) * dim);
  for (Index i = 0; i < std::ssize(order); ++i)
    result.middleCols(i * dim, dim) = from.middleCols(order[static_cast<std::size_t>(i)] * dim, dim);
  return result;
}

/// Heads copied to new places: query head i of the result is query_order[i], KV head j is kv_order[j] (which may leave
/// some out and repeat others); query head i reads KV head kv_head_of[i] of the result.
inline AttentionWeights gather(const AttentionWeights& from, std::span<const Index> query_order,
                               std::span<const Index> kv_order, std::span<const Index> kv_head_of) {
  AttentionWeights result{.num_heads = std::ssize(query_order),
                          .num_kv_heads = std::ssize(kv_order),
                          .head_dim = from.head_dim,
                          .value_dim = from.value_dim,
                          .query = gather_rows(from.query, query_order, from.head_dim),
                          .key = gather_rows(from.key, kv_order, from.head_dim),
                          .value = gather_rows(from.value, kv_order, from.value_dim),
                          .output = gather_columns(from.output, query_order, from.value_dim),
                          .query_bias = gather_rows(from.query_bias, query_order, from.head_dim),
                          .key_bias = gather_rows(from.key_bias, kv_order, from.head_dim),
                          .value_bias = gather_rows(from.value_bias, kv_order, from.value_dim),
                          .output_bias = from.output_bias};
  result.set_map(HeadMap::arbitrary(kv_head_of, std::ssize(kv_order)));
  return result;
}

inline std::vector<Index> all_heads(Index count) {
  std::vector<Index> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), Index{0});
  return order;
}

}  // namespace detail

/// Where permute_heads takes its query heads from: the readers of KV head order[0], ascending, then those of order[1] …
/// What a model keeps per query head outside the projections (ALiBi slopes, a relative bias) must move alike.
inline std::vector<Index> query_order(const HeadMap& map, std::span<const Index> order) {
  detail::check_order(order, map.num_kv_heads());
  std::vector<Index> result;
  for (const Index g : order) {
    const auto readers = map.query_heads_of(g);
    result.insert(result.end(), readers.begin(), readers.end());
  }
  return result;
}

/// Moves KV heads, KV head i of the result being order[i], and brings the query heads that read one side by side (rows of
/// the query projection, columns of the output's), in the KV heads' order. So the result's groups are always contiguous
/// and, where they are of equal size, head_map is unset: the kernels' and every file format's fast path. The layer
/// computes what it did: only the order in which heads are summed by the output projection changes.
///
/// Throws std::invalid_argument on weights that AttentionWeights::check refuses and an order that misses or repeats a
/// KV head.
inline AttentionWeights permute_heads(const AttentionWeights& weights, std::span<const Index> order) {
  weights.check();
  const HeadMap map = weights.map();
  const std::vector<Index> queries = query_order(map, order);
  std::vector<Index> kv_head_of;
  for (Index i = 0; i < std::ssize(order); ++i)
    kv_head_of.insert(kv_head_of.end(), map.query_heads_of(order[static_cast<std::size_t>(i)]).size(), i);
  return detail::gather(weights, queries, order, kv_head_of);
}

/// The same with the order that puts the KV heads of each group of a partition side by side. Pooling the result over
/// Partition::blocks(partition.sizes()) is pooling the original over `partition`, with contiguous groups.
inline AttentionWeights permute_heads(const AttentionWeights& weights, const Partition& partition) {
  weights.check();
  detail::check_divides(partition, weights);
  return permute_heads(weights, partition.order());
}

/// The same with the KV heads as they are: query heads that share a KV head come side by side. What pool gives for an
/// arbitrary partition so becomes contiguous.
inline AttentionWeights make_contiguous(const AttentionWeights& weights) {
  return permute_heads(weights, detail::all_heads(weights.num_kv_heads));
}

}  // namespace headwise::regroup
