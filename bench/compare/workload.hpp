// SPDX-License-Identifier: MIT
#pragma once

#include <span>
#include <variant>
#include <vector>

#include "cases.hpp"
#include "headwise/attention/attention.hpp"
#include "headwise/cache/kv_cache.hpp"

namespace compare {

using headwise::ExecutorRef;

/// How far an output is from the reference, and how far it may be: root mean square of the error over that of the
/// reference, of the worst row.
struct Check {
  double error = 0;
  double limit = 0;
  bool passed() const { return error <= limit; }  // false for NaN
};

/// The K/V caches of one head count, as many layers as were asked for (a model's layers are what makes its caches
/// cold), all filled with the same `kv_tokens` tokens of random keys and values; and queries for them.
class Workload {
 public:
  Workload(const Model& model, Index kv_heads, headwise::Storage storage, Index kv_tokens, Index layers,
           Index max_new_tokens);

  Index num_layers() const { return layers_; }
  /// Bytes of K and V over all layers.
  Index bytes() const;

  /// What is timed: attention of the first `new_tokens` queries over one layer. `boundaries` are those of
  /// Options::group_boundaries; none: equal groups.
  void attend(Index layer, Index new_tokens, ExecutorRef executor, std::span<const Index> boundaries = {}) {
    with_layer(layer,
               [&](const auto& keys) { attend_over(keys, new_tokens, {.group_boundaries = boundaries}, executor); });
  }

  /// The same over any source of tiles of this shape.
  template <class Source>
  void attend_over(const Source& keys, Index new_tokens, const headwise::Options& options, ExecutorRef executor) {
    const headwise::View<const float> queries(queries_.data(), new_tokens, heads_.num_heads(), heads_.head_dim());
    const headwise::View<float> output(output_.data(), new_tokens, heads_.num_heads(), heads_.head_dim());
    attention_(queries, keys, output, options, executor);
  }

  /// Calls f(layer), a CacheLayer of the storage type.
  template <class F>
  void with_layer(Index layer, F&& f) const {
    std::visit([&](const auto& cache) { f(cache.layer(layer)); }, cache_);
  }

  /// Compares the output of attend(0, …) with reference.hpp, for a few heads and tokens.
  Check check(Index new_tokens, ExecutorRef executor, std::span<const Index> boundaries = {});

  /// Makes sure that check_output sees what is written from here on.
  void clear_output();
  /// Compares with reference.hpp what causal attention of the first `new_tokens` queries over the first `kv_tokens`
  /// tokens of any layer left as output, each query seeing at most `window` keys.
  Check check_output(Index new_tokens, Index kv_tokens, Index window, std::span<const Index> boundaries = {}) const;

 private:
  template <class T>
  using Cache = headwise::KvCache<T>;
  using AnyCache = std::variant<Cache<float>, Cache<headwise::f16>, Cache<headwise::bf16>>;

  template <class T>
  AnyCache make_cache();

  headwise::Heads<> heads_;
  headwise::Storage storage_;
  Index kv_tokens_, layers_;
  std::vector<float> keys_, values_;  // [kBlock][kv_head][dim], repeated along the tokens; exact in the storage type
  AnyCache cache_;
  headwise::Attention<headwise::Heads<>> attention_;
  std::vector<float> queries_, output_;  // [max_new_tokens][head][dim]
};

}  // namespace compare
