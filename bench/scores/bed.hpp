// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "compare/figures.hpp"
#include "headwise/attention/attention.hpp"
#include "headwise/cache/kv_cache.hpp"
#include "scores/variants.hpp"

namespace scores {

/// A variant with its times, in turns with the others that it was measured with.
struct Measured {
  Variant variant;
  double error = 0, error_limit = 0;  // of its results against the definition, relative, of the worst row
  std::vector<double> seconds{};

  bool verified() const { return error <= error_limit; }  // false for NaN
};

/// A cache of several layers, so that decoding meets cold ones, in which variants of a call are timed. T: how it stores.
template <class T>
class Bed {
 public:
  /// Of calls of up to shape.queries.
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

  /// Checks the variants of a call of so many queries, then times them in turns, each round from another one on, `rounds`
  /// times after one that does not count.
  std::vector<Measured> measure(const std::vector<Variant>& variants, Index queries, int rounds, ExecutorRef executor) {
    std::vector<Measured> all;
    std::vector<Call> calls;
    for (const Variant& variant : variants) {
      all.push_back({variant, error_of(variant, executor),
                     2 * std::sqrt(2.0 / 3.0) * headwise::epsilon_of(headwise::Stored<T>::storage) + 0x1p-15});
      calls.push_back(call_of(variant, queries, shape_.keys));
    }
    for (int round = -1; round < rounds; ++round)
      for (std::size_t i = 0; i < all.size(); ++i) {
        const std::size_t next = (i + static_cast<std::size_t>(round + 1)) % all.size();
        layer_ = (layer_ + 1) % cache_.num_layers();
        const auto from = std::chrono::steady_clock::now();
        run(calls[next], executor);
        const std::chrono::duration<double> time = std::chrono::steady_clock::now() - from;
        if (round >= 0) all[next].seconds.push_back(time.count());
      }
    return all;
  }

 private:
  static constexpr Index kBlock = 256, kChecked = 3, kCheckedKeys = 1100;

  View<const float> rows(const std::vector<float>& x, Index tokens) const {
    return {x.data(), tokens, shape_.num_kv_heads, shape_.head_dim};
  }

  /// `queries` tokens at the end of the first `keys`, or of those that the variant is of.
  Call call_of(const Variant& variant, Index queries, Index keys) {
    if (variant.keys > 0) keys = std::min(variant.keys, keys);
    const Index heads = shape_.num_heads, dim = shape_.head_dim;
    Call call{.shape = {heads, shape_.num_kv_heads, dim, queries, keys},
              .queries = View<const float>(queries_.data(), queries, heads, dim),
              .keys = cache_.layer(0),
              .outputs = View<float>(output_.data(), queries, heads, dim)};
    call.options.key_lengths = call.keep(std::vector<Index>{keys});
    variant.ask(call);
    return call;
  }

  void run(const Call& call, ExecutorRef executor) {
    if (call.before) call.before(executor);
    attention_(call.queries, cache_.layer(layer_), call.outputs, call.options, executor);
  }

  /// Of a call of few queries and keys, which the definition does in no time.
  double error_of(const Variant& variant, ExecutorRef executor) {
    const Index most = std::min(kCheckedKeys, shape_.keys);
    const Call call = call_of(variant, std::min(kChecked, most), most);
    const auto [H, G, D, queries, keys] = call.shape;
    std::ranges::fill(output_, std::numeric_limits<float>::quiet_NaN());
    run(call, executor);
    Definition definition{.call = call};
    definition.queries.assign(queries_.begin(), queries_.begin() + queries * H * D);
    variant.define(definition);
    std::vector<double> k, v;
    for (Index t = 0; t < keys; ++t)
      for (Index i = 0; i < G * D; ++i) {
        const std::size_t at = static_cast<std::size_t>(t % kBlock * G * D + i);
        k.push_back(static_cast<double>(keys_[at]));
        v.push_back(static_cast<double>(values_[at]));
      }
    const auto expected =
        headwise::reference::attend({queries, keys, H, G, D, D}, definition.queries, k, v, definition.parameters);
    double worst = call.error_beside ? call.error_beside(expected) : 0;
    for (Index row = 0; row < queries * H && !std::isnan(worst); ++row) {
      const auto from = static_cast<std::size_t>(row * D), count = static_cast<std::size_t>(D);
      const double error =
          difference_of(std::span(output_).subspan(from, count), std::span(expected.output).subspan(from, count));
      if (!(error <= worst)) worst = error;
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
