// SPDX-License-Identifier: MIT
#pragma once

#include <optional>
#include <vector>

#include "headwise/nn/check_sharing.hpp"
#include "headwise/nn/multi_head_attention.hpp"
#include "tests/nn/module_definition.hpp"

namespace headwise::testing {

inline constexpr Index kHidden = 48;

/// A small layer of grouped-query attention: 6 query heads of 8 dimensions, 2 KV heads.
inline nn::MultiHeadAttentionOptions small_layer(std::optional<RopeOptions> rope = {}) {
  return {.hidden_size = kHidden, .num_heads = 6, .num_kv_heads = 2, .rope = rope};
}

/// Layers of one model, h ← h + attention(h), over both kinds of cache. A borrower's Wk and Wv are drawn and unused.
struct Layers {
  KvSharing sharing;
  std::vector<nn::MultiHeadAttention> modules;
  std::vector<ModuleWeights> weights;

  explicit Layers(const std::vector<nn::MultiHeadAttentionOptions>& options, std::optional<KvSharing> kv_sharing = {})
      : sharing(kv_sharing.value_or(KvSharing::none(std::ssize(options)))) {
    unsigned seed = 0;
    for (const auto& one : options) {
      modules.emplace_back(one);
      const ModuleWeights& w = weights.emplace_back(modules.back(), seed += 100);
      if (one.borrows_kv)
        modules.back().set_weights({w.wq, w.bq}, {w.wo, w.bo});
      else
        w.give_to(modules.back());
    }
    nn::check_sharing(modules, sharing);
  }
  std::vector<LayerShape> shapes() const {
    std::vector<LayerShape> result;
    for (const auto& module : modules) result.push_back(module.cache_shape());
    return result;
  }
  std::vector<LayerShape> ring_shapes() const {
    std::vector<LayerShape> result;
    for (const auto& module : modules) result.push_back(module.ring_shape());
    return result;
  }
  template <class T>
  PagedCache<T> paged(Index pages) const {
    return PagedCache<T>(shapes(), sharing, pages);
  }
  template <class T>
  KvCache<T> alone() const {
    return KvCache<T>(shapes(), sharing, 1300);
  }
  /// What enters each layer, and what leaves the last: [layer + 1][token][hidden].
  std::vector<nn::Matrix> trace(const nn::Matrix& x, KvCache<>& cache, const nn::ForwardOptions& call = {}) const {
    std::vector<nn::Matrix> h{x};
    for (Index l = 0; l < std::ssize(modules); ++l)
      h.push_back(h.back() + modules[static_cast<std::size_t>(l)].forward(h.back(), cache, l, call));
    return h;
  }
  nn::Matrix forward(const nn::Matrix& x, KvCache<>& cache, const nn::ForwardOptions& call = {}) const {
    return trace(x, cache, call).back();
  }
  template <class E = Serial>
  nn::Matrix forward(const nn::Matrix& x, AnyPagedCache& cache, nn::RaggedBatch& batch, E&& executor = Serial{}) const {
    nn::Workspace workspace;
    nn::Matrix h = x;
    for (Index l = 0; l < std::ssize(modules); ++l) {
      nn::Matrix y = h;
      modules[static_cast<std::size_t>(l)].forward(y, cache, batch, l, y, workspace, executor);  // y may be x
      h += y;
    }
    return h;
  }
};

}  // namespace headwise::testing
