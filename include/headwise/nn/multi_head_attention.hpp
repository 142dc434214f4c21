// SPDX-License-Identifier: MIT
#pragma once

#include <span>
#include <utility>

#include "headwise/attention/attention.hpp"
#include "headwise/cache/kv_cache.hpp"
#include "headwise/cache/paged_cache.hpp"
#include "headwise/nn/attention_projections.hpp"
#include "headwise/nn/check_cache.hpp"
#include "headwise/nn/forward_options.hpp"
#include "headwise/nn/forward_steps.hpp"
#include "headwise/nn/linear.hpp"
#include "headwise/nn/multi_head_attention_options.hpp"
#include "headwise/nn/query_key_changes.hpp"
#include "headwise/nn/ragged_batch.hpp"
#include "headwise/nn/resolved_options.hpp"
#include "headwise/nn/workspace.hpp"
#include "headwise/parallel/executor.hpp"
#include "headwise/parallel/serial.hpp"

namespace headwise::nn {

/// A layer of attention as models have it, on Eigen matrices:
///   q, k, v = x·Wqᵀ + bq, x·Wkᵀ + bk, x·Wvᵀ + bv;  q, k normed, turned by RoPE;  y = attention(q, k, v)·Woᵀ + bo
/// What it is, MultiHeadAttentionOptions say; what it is told of the tokens of a call, ForwardOptions.
///
/// x and y are [token][hidden_size]. With a cache of B sequences, x holds the tokens of sequence 0, then those of
/// sequence 1 …, equally many of each; they are appended to the cache (k after RoPE) and stand behind what it holds. So a
/// prompt, a piece of one and a single new token are the same call, and a token's y comes out bit for bit the same in each
/// (but see DynamicNtkScaling), with any executor.
///
/// With borrows_kv (Cross-Layer Attention, Brandon et al. 2024, arXiv 2405.12981) it has no Wk and Wv, appends nothing and
/// attends to the keys and values of the layer that is its source in the cache's KvSharing. That layer's module must have
/// taken this step's tokens before: x stands at the positions of the last tokens it appended.
///
/// All forward functions are const and may run at the same time with workspaces and caches of their own. On
/// std::invalid_argument, and on what ForwardOptions::groups throws, y and the cache's tokens are as they were. y may be x.
class MultiHeadAttention {
 public:
  using Options = MultiHeadAttentionOptions;

  explicit MultiHeadAttention(Options options)
      : options_(detail::resolve(std::move(options))),
        attention_(Heads<>(options_.num_heads, *options_.num_kv_heads, *options_.head_dim, *options_.value_dim),
                   *options_.head_map),
        projections_(options_),
        changes_(options_) {
    headwise::detail::check_options(detail::attention_options(options_), options_.num_heads);
    require(!options_.borrows_kv || !options_.key_bias, "key_bias (true) must be false where borrows_kv is true");
    require(!options_.borrows_kv || !options_.value_bias, "value_bias (true) must be false where borrows_kv is true");
  }

  /// The options with every unset count filled in.
  const Options& options() const { return options_; }
  const Heads<>& heads() const { return attention_.heads(); }
  /// Whether it attends to the keys and values of another layer.
  bool borrows_kv() const { return options_.borrows_kv; }
  /// Numbers in the weights and biases, those of norms and sink logits included; a borrower has no key and value weights.
  Index parameters() const {
    return projections_.parameters() + changes_.parameters() + std::ssize(options_.sink_logits);
  }
  /// Bytes of K and V that one token adds to a cache of `storage`, without the padding of its dimensions; 0 of a borrower.
  Index kv_bytes_per_token(Storage storage) const {
    return projections_.new_kv_heads() * (heads().head_dim() + heads().value_dim()) * size_of(storage);
  }
  /// What a cache needs to know of this layer; of a borrower, the shape of what it reads. Every token is kept.
  LayerShape cache_shape() const { return {heads().num_kv_heads(), heads().head_dim(), heads().value_dim()}; }
  /// The same as a ring of a KvCache that keeps what the layer's window or chunks let a query see, and its sink tokens.
  /// Every token of a layer that sees them all.
  LayerShape ring_shape() const {
    LayerShape shape = cache_shape();
    shape.window = detail::reach(options_);
    shape.num_sink_tokens = shape.window > 0 ? options_.num_sink_tokens : 0;
    return shape;
  }

  /// Sets all weights, each a Linear that keeps or refers to its numbers; a Matrix converts to one that keeps them.
  ///   query   [num_heads·head_dim][hidden_size]       rows head by head
  ///   key     [num_kv_heads·head_dim][hidden_size]
  ///   value   [num_kv_heads·value_dim][hidden_size]
  ///   output  [hidden_size][num_heads·value_dim]
  /// Throws std::invalid_argument when a shape differs, or a bias is there or missing against the options.
  void set_weights(Linear query, Linear key, Linear value, Linear output) {
    require(!borrows_kv(),
            "key and value weights (given) must not be given where borrows_kv is true: set_weights(query, output)");
    projections_.set_weights(std::move(query), std::move(key), std::move(value), std::move(output));
  }
  /// The same for a layer that borrows keys and values.
  void set_weights(Linear query, Linear output) {
    require(borrows_kv(), "key and value weights (missing) must be given where borrows_kv is false");
    projections_.set_weights(std::move(query), {}, {}, std::move(output));
  }

  /// Sets the weights of the norms that qk_norm_epsilon asks for, each [head_dim], or empty: 1, as they are before. A layer
  /// that borrows keys has none of keys. Throws std::invalid_argument.
  void set_qk_norm(std::span<const float> query_weight, std::span<const float> key_weight) {
    changes_.set_norms(options_, query_weight, key_weight);
  }

  /// Self-attention of one sequence, all of its tokens at once, without a cache.
  template <Executor E = Serial>
  Matrix forward(const MatrixRef& x, const ForwardOptions& call = {}, E&& executor = Serial{}) const {
    return made(x, [&](Matrix& y, Workspace& workspace) { forward(x, y, workspace, call, executor); });
  }
  template <Executor E>
  Matrix forward(const MatrixRef& x, E&& executor) const {
    return forward(x, ForwardOptions{}, executor);
  }
  /// The same into y [token][hidden_size].
  template <Executor E = Serial>
  void forward(const MatrixRef& x, Eigen::Ref<Matrix> y, Workspace& workspace, const ForwardOptions& call = {},
               E&& executor = Serial{}) const {
    projections_.check(x, y);
    check_makes_kv("forward without a cache");
    run(x, detail::LoneStep(x.rows(), call), y, workspace, ExecutorRef(executor));
  }
  template <Executor E>
  void forward(const MatrixRef& x, Eigen::Ref<Matrix> y, Workspace& workspace, E&& executor) const {
    forward(x, y, workspace, ForwardOptions{}, executor);
  }

  /// Self-attention of the next tokens of every sequence of a cache: prefill, append, decode and drafts.
  template <Executor E = Serial>
  Matrix forward(const MatrixRef& x, KvCache<>& cache, Index layer = 0, const ForwardOptions& call = {},
                 E&& executor = Serial{}) const {
    return made(x, [&](Matrix& y, Workspace& workspace) { forward(x, cache, layer, y, workspace, call, executor); });
  }
  template <Executor E>
  Matrix forward(const MatrixRef& x, KvCache<>& cache, Index layer, E&& executor) const {
    return forward(x, cache, layer, ForwardOptions{}, executor);
  }
  /// The same into y [token][hidden_size].
  template <Executor E = Serial>
  void forward(const MatrixRef& x, KvCache<>& cache, Index layer, Eigen::Ref<Matrix> y, Workspace& workspace,
               const ForwardOptions& call = {}, E&& executor = Serial{}) const {
    projections_.check(x, y);
    detail::check_cache("x", x.rows(), cache, layer, cache_shape());
    detail::check_role(borrows_kv(), x.rows() / cache.num_sequences(), cache, layer);
    run(x, detail::CacheStep(x.rows(), cache, layer, borrows_kv(), call), y, workspace, ExecutorRef(executor));
  }
  template <Executor E>
  void forward(const MatrixRef& x, KvCache<>& cache, Index layer, Eigen::Ref<Matrix> y, Workspace& workspace,
               E&& executor) const {
    forward(x, cache, layer, y, workspace, ForwardOptions{}, executor);
  }

  /// Self-attention of the next tokens of some sequences of a paged cache, any number of each, in one call: pieces of
  /// prompts and single tokens side by side. x and y [token][hidden_size] as the batch says, which holds the ForwardOptions
  /// too. A token's y is bit for bit the one it has alone and in a KvCache. Throws OutOfPages too, with nothing changed.
  template <Executor E = Serial>
  Matrix forward(const MatrixRef& x, AnyPagedCache& cache, RaggedBatch& batch, Index layer = 0,
                 E&& executor = Serial{}) const {
    return made(x, [&](Matrix& y, Workspace& workspace) { forward(x, cache, batch, layer, y, workspace, executor); });
  }
  /// The same into y [token][hidden_size].
  template <Executor E = Serial>
  void forward(const MatrixRef& x, AnyPagedCache& cache, RaggedBatch& batch, Index layer, Eigen::Ref<Matrix> y,
               Workspace& workspace, E&& executor = Serial{}) const {
    projections_.check(x, y);
    detail::check_batch(x.rows(), cache, batch, layer, cache_shape());
    detail::check_role(borrows_kv(), cache, batch, layer);
    run(x, detail::RaggedStep(cache, batch, layer, borrows_kv()), y, workspace, ExecutorRef(executor));
  }

  /// Cross-attention, once per memory: appends the keys and values of memory [token][hidden_size], split over the
  /// sequences as x is, to a layer of a cache that holds none yet. No RoPE.
  template <Executor E = Serial>
  void fill_cross(const MatrixRef& memory, KvCache<>& cache, Index layer = 0, E&& executor = Serial{}) const {
    projections_.check_input("memory", memory);
    check_makes_kv("fill_cross");
    detail::check_cache("memory", memory.rows(), cache, layer, cache_shape());
    for (Index b = 0; b < cache.num_sequences(); ++b)
      require(cache.num_tokens(layer, b) == 0, "layer ", layer, " of the cache (", cache.num_tokens(layer, b),
              " tokens) must be empty before fill_cross; clear the cache first");
    if (memory.rows() == 0) return;
    Workspace workspace;
    const ExecutorRef run(executor);
    const detail::Activations a = projections_.project_memory(memory, cache.num_sequences(), workspace, run);
    changes_.norm_keys(a, run);
    cache.append(layer, a.key(), a.value());
  }

  /// Cross-attention of x to what fill_cross stored: every token sees all of its sequence's memory; of the options for
  /// scores and masks, scale and softcap alone apply. The cache is only read.
  template <Executor E = Serial>
  Matrix forward_cross(const MatrixRef& x, const KvCache<>& cache, Index layer = 0, E&& executor = Serial{}) const {
    return made(x, [&](Matrix& y, Workspace& workspace) { forward_cross(x, cache, layer, y, workspace, executor); });
  }
  /// The same into y [token][hidden_size].
  template <Executor E = Serial>
  void forward_cross(const MatrixRef& x, const KvCache<>& cache, Index layer, Eigen::Ref<Matrix> y,
                     Workspace& workspace, E&& executor = Serial{}) const {
    projections_.check(x, y);
    detail::check_cache("x", x.rows(), cache, layer, cache_shape());
    if (x.rows() == 0) return;
    const ExecutorRef run(executor);
    const detail::Activations a = projections_.project_queries(x, cache.num_sequences(), workspace, run);
    changes_.norm_queries(a, run);
    const headwise::Options options{.scale = options_.scale, .causal = false, .softcap = options_.softcap};
    attention_(View<const float>(a.query()), cache.layer(layer), a.output(), options, run);
    projections_.project_output(a, y, run);
  }

 private:
  /// Every pass of self-attention, of arguments that were checked.
  template <class Step>
  void run(const MatrixRef& x, Step step, Eigen::Ref<Matrix> y, Workspace& workspace, ExecutorRef run) const {
    if (x.rows() == 0) return;
    const detail::Activations a = projections_.project(x, step.view_sequences(), workspace, run);
    changes_.norm_queries(a, run);
    changes_.norm_keys(a, run);
    changes_.turn(a, step, step.call().positions, workspace.positions_, run);
    if (!borrows_kv()) step.append(a);
    try {
      step.attend({attention_, options_}, a, run);
      projections_.project_output(a, y, run);
    } catch (...) {
      if (!borrows_kv()) step.take_back();
      throw;
    }
  }

  /// y in memory of its own, as forward(y, workspace) makes it.
  template <class Forward>
  Matrix made(const MatrixRef& x, Forward forward) const {
    Matrix y(x.rows(), options_.hidden_size);
    Workspace workspace;
    forward(y, workspace);
    return y;
  }

  void check_makes_kv(const char* call) const {
    require(!borrows_kv(), "borrows_kv (true) must be false for ", call, ": there are no key and value weights");
  }

  Options options_;
  Attention<Heads<>> attention_;
  detail::AttentionProjections projections_;
  detail::QueryKeyChanges changes_;
};

}  // namespace headwise::nn
