// SPDX-License-Identifier: MIT
#pragma once

#include <numeric>
#include <vector>

#include "headwise/regroup/attention_weights.hpp"
#include "headwise/regroup/convert/permutation.hpp"

namespace headwise::regroup {

namespace detail {

/// KV head g becomes copies[g] equal ones, side by side, which divide its query heads evenly in order.
inline AttentionWeights degroup(const AttentionWeights& weights, const std::vector<Index>& copies) {
  const HeadMap map = weights.map();
  std::vector<Index> kv_order, kv_head_of(static_cast<std::size_t>(weights.num_heads));
  for (Index g = 0; g < weights.num_kv_heads; ++g) {
    const auto readers = map.query_heads_of(g);
    const Index count = copies[static_cast<std::size_t>(g)], first = std::ssize(kv_order);
    for (Index j = 0; j < std::ssize(readers); ++j)
      kv_head_of[static_cast<std::size_t>(readers[static_cast<std::size_t>(j)])] =
          first + j * count / std::ssize(readers);
    kv_order.insert(kv_order.end(), static_cast<std::size_t>(count), g);
  }
  return gather(weights, all_heads(weights.num_heads), kv_order, kv_head_of);
}

}  // namespace detail

/// More KV heads that compute the same: every KV head becomes num_kv_heads / weights.num_kv_heads equal ones, side by
/// side (repeat_interleave), which divide its query heads evenly, in order. Query heads stay where they are and read the
/// same numbers, so a pass gives the same bits.
///
/// Throws std::invalid_argument on weights that AttentionWeights::check refuses; where num_kv_heads is no multiple of the
/// weights' or exceeds num_heads; and, with head_map unset, where num_heads is no multiple of num_kv_heads. (With a map,
/// a KV head with fewer query heads than copies leaves some copies unread.)
inline AttentionWeights degroup(const AttentionWeights& weights, Index num_kv_heads) {
  weights.check();
  require(num_kv_heads >= weights.num_kv_heads && num_kv_heads <= weights.num_heads &&
              num_kv_heads % weights.num_kv_heads == 0,
          "num_kv_heads (", num_kv_heads, ") must be a multiple of the weights' num_kv_heads (", weights.num_kv_heads,
          ") and at most num_heads (", weights.num_heads, ")");
  require(weights.head_map || weights.num_heads % num_kv_heads == 0, "num_heads (", weights.num_heads,
          ") must be a multiple of num_kv_heads (", num_kv_heads, "); set head_map for unequal groups");
  return detail::degroup(
      weights, std::vector<Index>(static_cast<std::size_t>(weights.num_kv_heads), num_kv_heads / weights.num_kv_heads));
}

/// The same layer in a form that needs no map: contiguous groups of equal size, as every format can store them. Their
/// size is the greatest common divisor of the groups' sizes, and the KV heads of larger groups are repeated (unread ones
/// dropped): with 5 + 3 + 1 query heads, 9 KV heads; with 4 + 2, 3.
///
/// Throws std::invalid_argument on weights that AttentionWeights::check refuses.
inline AttentionWeights to_equal_groups(const AttentionWeights& weights) {
  weights.check();
  const HeadMap map = weights.map();
  Index size = 0;
  for (Index g = 0; g < weights.num_kv_heads; ++g) size = std::gcd(size, std::ssize(map.query_heads_of(g)));
  std::vector<Index> copies;
  for (Index g = 0; g < weights.num_kv_heads; ++g) copies.push_back(std::ssize(map.query_heads_of(g)) / size);
  return make_contiguous(detail::degroup(weights, copies));
}

}  // namespace headwise::regroup
