// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <numeric>
#include <string_view>
#include <vector>

#include "evaluator.hpp"
#include "headwise/regroup.hpp"

namespace quality {

using headwise::regroup::Partition;

/// A way to make one K and V of several.
struct Method {
  std::string_view name;
  headwise::regroup::PoolMethod pool;
  headwise::regroup::PoolScale scale = headwise::regroup::PoolScale::none;
  bool align = false;
};

inline constexpr std::array<Method, 8> kMethods = {{
    {"mean", headwise::regroup::PoolMethod::mean},
    {"first", headwise::regroup::PoolMethod::first},
    {"medoid", headwise::regroup::PoolMethod::medoid},
    {"random", headwise::regroup::PoolMethod::random},
    {"mean, renormed", headwise::regroup::PoolMethod::mean, headwise::regroup::PoolScale::renorm},
    {"mean, times root of size", headwise::regroup::PoolMethod::mean, headwise::regroup::PoolScale::sqrt_size},
    {"mean, aligned", headwise::regroup::PoolMethod::mean, headwise::regroup::PoolScale::none, true},
    {"mean, aligned and renormed", headwise::regroup::PoolMethod::mean, headwise::regroup::PoolScale::renorm, true},
}};

inline const Method& method_named(std::string_view name) {
  const auto found = std::ranges::find(kMethods, name, &Method::name);
  headwise::require(found != kMethods.end(), "method (", name, ") must be one that is known");
  return *found;
}

/// The conversions of one model's layers.
class Conversions {
 public:
  Conversions(const Evaluator& evaluator, std::uint64_t seed) : evaluator_(evaluator), seed_(seed) {}

  /// A layer's KV heads pooled over a partition.
  AttentionWeights pooled(const AttentionWeights& weights, const Partition& partition, const Method& method,
                          Index layer) const {
    const headwise::regroup::PoolingOptions options{method.pool, method.scale,
                                                    seed_ + static_cast<std::uint64_t>(layer)};
    if (!method.align) return headwise::regroup::pool(weights, partition, options);
    return headwise::regroup::pool_aligned(weights, partition, {.rope = evaluator_.model().shape().rope}, options);
  }
  /// A layer with one KV head.
  Evaluator::Change to_one(Index layer, const Method& method) const {
    const AttentionWeights& weights = evaluator_.attention(layer);
    return {layer, pooled(weights, Partition::neighbours(weights.num_kv_heads, 1), method, layer)};
  }
  Evaluator::Variant all_to_one(const std::vector<Index>& layers, const Method& method) const {
    Evaluator::Variant variant;
    for (const Index layer : layers) variant.changes.push_back(to_one(layer, method));
    return variant;
  }

  headwise::regroup::WeightDistances distances(Index layer) const {
    return headwise::regroup::WeightDistances(evaluator_.attention(layer));
  }
  /// All layers, those first whose KV heads are the most alike: by the weight-sharing error of one group.
  std::vector<Index> layers_by_error() const {
    std::vector<Index> order(static_cast<std::size_t>(evaluator_.num_layers()));
    std::vector<double> errors;
    for (Index l = 0; l < evaluator_.num_layers(); ++l)
      errors.push_back(distances(l).error(Partition::neighbours(evaluator_.attention(l).num_kv_heads, 1)));
    std::iota(order.begin(), order.end(), Index{0});
    std::ranges::stable_sort(order, {}, [&](Index l) { return errors[static_cast<std::size_t>(l)]; });
    return order;
  }

  /// A layer with a KV head for every query head, these shuffled: the same function, of which nobody sees any more which
  /// heads were one.
  AttentionWeights scattered(Index layer) const {
    const AttentionWeights apart =
        headwise::regroup::degroup(evaluator_.attention(layer), evaluator_.attention(layer).num_heads);
    std::vector<Index> order(static_cast<std::size_t>(apart.num_kv_heads));
    std::iota(order.begin(), order.end(), Index{0});
    headwise::regroup::Random random(seed_ + static_cast<std::uint64_t>(layer));
    random.shuffle(order);
    return headwise::regroup::permute_heads(apart, order);
  }

 private:
  const Evaluator& evaluator_;
  std::uint64_t seed_;
};

}  // namespace quality
