// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "compare/figures.hpp"
#include "headwise/attention/attention.hpp"
#include "headwise/cache/kv_cache.hpp"
#include "scores/variants.hpp"

namespace scores {

using headwise::ExecutorRef;
using headwise::View;

/// A call of attention: `queries` tokens at the end of `keys`.
struct Shape {
  Index num_heads, num_kv_heads, head_dim, queries, keys;
};

/// A variant with its times, in turns with the others of its bed.
struct Measured {
  Variant variant;
  double error = 0, error_limit = 0;  // of its output against the definition, relative, of the worst row
  std::vector<double> seconds{};

  bool verified() const { return error <= error_limit; }  // false for NaN
};

/// A cache of several layers, so that decoding meets cold ones, in which variants of a call are timed. T: how it stores.
template <class T>
class Bed {
 public:
  Bed(const Shape& shape, Index layers)
      : shape_(shape),
        heads_(shape.num_heads, shape.num_kv_heads, shape.head_dim),
        attention_(heads_),
        cache_(
            std::vector<headwise::LayerShape>(static_cast<std::size_t>(layers), {shape.num_kv_heads, shape.head_dim}),
            shape.keys) {
    std::mt19937 generator(3);
    std::normal_distribution<float> normal;
    const auto fill = [&](std::vector<float>& x, Index count) {
      x.resize(static_cast<std::size_t>(count));
      for (float& value : x) value = static_cast<float>(T(normal(generator)));
    };
    const Index block = std::min(kBlock, shape.keys);
    fill(keys_, block * shape.num_kv_heads * shape.head_dim);
    fill(values_, block * shape.num_kv_heads * shape.head_dim);
    fill(queries_, std::max(shape.queries, kChecked) * shape.num_heads * shape.head_dim);
    output_.resize(queries_.size());
    for (Index l = 0; l < layers; ++l)
      for (Index done = 0; done < shape.keys; done += kBlock) {
        const Index tokens = std::min(kBlock, shape.keys - done);
        cache_.append(l, rows(keys_, tokens), rows(values_, tokens));
      }
  }

  /// Times the variants in turns, each round from another one on; `rounds` times after one that does not count.
  std::vector<Measured> measure(const std::vector<Variant>& variants, int rounds, ExecutorRef executor) {
    std::vector<Measured> all;
    for (const Variant& variant : variants)
      all.push_back({variant, error_of(variant, executor),
                     2 * std::sqrt(2.0 / 3.0) * headwise::epsilon_of(headwise::Stored<T>::storage) + 0x1p-15});
    for (int round = -1; round < rounds; ++round)
      for (std::size_t i = 0; i < all.size(); ++i) {
        Measured& next = all[(i + static_cast<std::size_t>(round + 1)) % all.size()];
        layer_ = (layer_ + 1) % cache_.num_layers();
        const auto from = std::chrono::steady_clock::now();
        attend(next.variant, shape_.queries, shape_.keys, executor);
        const std::chrono::duration<double> time = std::chrono::steady_clock::now() - from;
        if (round >= 0) next.seconds.push_back(time.count());
      }
    return all;
  }

 private:
  static constexpr Index kBlock = 256, kChecked = 3, kCheckedKeys = 1100;

  View<const float> rows(const std::vector<float>& x, Index tokens) const {
    return {x.data(), tokens, shape_.num_kv_heads, shape_.head_dim};
  }

  void attend(const Variant& variant, Index queries, Index keys, ExecutorRef executor) {
    const Index lengths[] = {variant.keys > 0 ? std::min(variant.keys, keys) : keys};
    Options options;
    options.key_lengths = lengths;
    variant.ask(options);
    attention_(View<const float>(queries_.data(), queries, shape_.num_heads, shape_.head_dim), cache_.layer(layer_),
               View<float>(output_.data(), queries, shape_.num_heads, shape_.head_dim), options, executor);
  }

  /// Of a call of few queries and keys, which the definition does in no time.
  double error_of(const Variant& variant, ExecutorRef executor) {
    const Index keys = std::min({kCheckedKeys, shape_.keys, variant.keys > 0 ? variant.keys : shape_.keys});
    const Index queries = std::min(kChecked, keys);
    std::ranges::fill(output_, std::numeric_limits<float>::quiet_NaN());
    attend(variant, queries, keys, executor);
    const auto [H, G, D] = std::tuple(shape_.num_heads, shape_.num_kv_heads, shape_.head_dim);
    std::vector<double> k, v;
    for (Index t = 0; t < keys; ++t)
      for (Index i = 0; i < G * D; ++i) {
        const std::size_t at = static_cast<std::size_t>(t % kBlock * G * D + i);
        k.push_back(static_cast<double>(keys_[at]));
        v.push_back(static_cast<double>(values_[at]));
      }
    Parameters parameters;
    variant.define(parameters);
    const std::vector<double> q(queries_.begin(), queries_.begin() + queries * H * D);
    const auto expected = headwise::reference::attend({queries, keys, H, G, D, D}, q, k, v, parameters);
    double worst = 0;
    for (std::size_t row = 0; row < static_cast<std::size_t>(queries * H); ++row) {
      double error = 0, total = 0;
      for (std::size_t d = row * static_cast<std::size_t>(D); d < (row + 1) * static_cast<std::size_t>(D); ++d) {
        const double difference = static_cast<double>(output_[d]) - expected.output[d];
        error += difference * difference;
        total += expected.output[d] * expected.output[d];
      }
      const double relative = std::sqrt(error / total);
      if (std::isnan(relative) || relative > worst) worst = relative;
      if (std::isnan(worst)) break;
    }
    return worst;
  }

  Shape shape_;
  headwise::Heads<> heads_;
  headwise::Attention<> attention_;
  headwise::KvCache<T> cache_;
  std::vector<float> keys_, values_, queries_, output_;
  Index layer_ = 0;
};

/// Per cent that a variant takes longer than its base: the median over the rounds of the ratio within a round.
inline double cost_of(const Measured& measured, const std::vector<Measured>& all) {
  const auto base =
      std::ranges::find_if(all, [&](const Measured& m) { return m.variant.name == measured.variant.base; });
  std::vector<double> ratios;
  for (std::size_t i = 0; i < measured.seconds.size(); ++i) ratios.push_back(measured.seconds[i] / base->seconds[i]);
  return (compare::median(std::move(ratios)) - 1) * 100;
}

}  // namespace scores
