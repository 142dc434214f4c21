// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <optional>
#include <span>
#include <utility>

#include "headwise/attention/attention.hpp"
#include "headwise/cache/kv_cache.hpp"
#include "headwise/cache/kv_rows.hpp"
#include "headwise/cache/paged_cache.hpp"
#include "headwise/nn/attention_projections.hpp"
#include "headwise/nn/check_cache.hpp"
#include "headwise/nn/linear.hpp"
#include "headwise/nn/multi_head_attention_options.hpp"
#include "headwise/nn/ragged_batch.hpp"
#include "headwise/nn/workspace.hpp"
#include "headwise/position/qk_norm.hpp"
#include "headwise/position/rope.hpp"

namespace headwise::nn {

/// What decides in each call which query heads share a KV head: groups(cache, layer) → Options::group_boundaries.
template <class G, class K, class V = K>
concept KvGrouping = !requires(G& matrix) { matrix.rows(); } &&  // Eigen's fail to compile where called so
                     requires(G& groups, const KvCache<K, V>& cache, Index layer) {
                       { groups(cache, layer) } -> std::same_as<std::span<const Index>>;
                     };

/// A layer of attention as models have it, on Eigen matrices:
///   q, k, v = x·Wqᵀ + bq, x·Wkᵀ + bk, x·Wvᵀ + bv;  q, k normed, turned by RoPE;  y = attention(q, k, v)·Woᵀ + bo
/// x and y are [token][hidden_size]. With a cache of B sequences, x holds the tokens of sequence 0, then those of
/// sequence 1 …, equally many of each; they are appended to the cache (k after RoPE) and stand at the positions that
/// follow what it holds. So a prompt, a piece of one and a single new token are the same call, and a token's y comes out
/// bit for bit the same in each (but see DynamicNtkScaling), with any executor.
///
/// With borrows_kv (Cross-Layer Attention, Brandon et al. 2024, arXiv 2405.12981) it has no Wk and Wv, appends nothing and
/// attends to the keys and values of the layer that is its source in the cache's KvSharing. That layer's module must have
/// taken this step's tokens before: x stands at the positions of the last tokens it appended.
///
/// All forward functions are const and may run at the same time with workspaces and caches of their own. On
/// std::invalid_argument, and on what `groups` throws, y and the cache's tokens are as they were. y may be x.
class MultiHeadAttention {
 public:
  using Options = MultiHeadAttentionOptions;

  explicit MultiHeadAttention(Options options)
      : options_(detail::resolve(std::move(options))),
        attention_(Heads<>(options_.num_heads, *options_.num_kv_heads, *options_.head_dim, *options_.value_dim),
                   *options_.head_map),
        projections_(options_) {
    headwise::detail::check_options(detail::attention_options(options_), options_.num_heads);
    require(!options_.borrows_kv || !options_.key_bias, "key_bias (true) must be false where borrows_kv is true");
    require(!options_.borrows_kv || !options_.value_bias, "value_bias (true) must be false where borrows_kv is true");
    if (options_.rope) rope_.emplace(*options_.head_dim, *options_.rope);
    if (options_.qk_norm_epsilon) set_qk_norm({}, {});
  }

  /// The options with every unset count filled in.
  const Options& options() const { return options_; }
  const Heads<>& heads() const { return attention_.heads(); }
  /// Whether it attends to the keys and values of another layer.
  bool borrows_kv() const { return options_.borrows_kv; }
  /// Numbers in the weights and biases, those of norms included; a borrower has no key and value weights.
  Index parameters() const {
    const Index norms = (query_norm_ ? 1 : 0) + (key_norm_ ? 1 : 0);
    return projections_.parameters() + norms * heads().head_dim();
  }
  /// Bytes of K and V that one token adds to a cache of `storage`, without the padding of its dimensions; 0 of a borrower.
  Index kv_bytes_per_token(Storage storage) const {
    return projections_.new_kv_heads() * (heads().head_dim() + heads().value_dim()) * size_of(storage);
  }
  /// What a KvCache needs to know of this layer; of a borrower, the shape of what it reads.
  LayerShape cache_shape() const { return {heads().num_kv_heads(), heads().head_dim(), heads().value_dim()}; }

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
    require(options_.qk_norm_epsilon.has_value(),
            "qk_norm_epsilon (unset) of the options must be given for a layer with weights of QK-norm");
    require(!borrows_kv() || key_weight.empty(), "key_weight (", key_weight.size(),
            " numbers) of QK-norm must be empty where borrows_kv is true: keys were normed by their producer");
    QkNorm query(heads().head_dim(), query_weight, *options_.qk_norm_epsilon);
    if (!borrows_kv()) key_norm_.emplace(heads().head_dim(), key_weight, *options_.qk_norm_epsilon);
    query_norm_ = std::move(query);
  }

  /// Self-attention of one sequence, all of its tokens at once, without a cache.
  template <Executor E = Serial>
  Matrix forward(const MatrixRef& x, E&& executor = Serial{}) const {
    Matrix y(x.rows(), options_.hidden_size);
    Workspace workspace;
    forward(x, y, workspace, executor);
    return y;
  }
  /// The same into y [token][hidden_size].
  template <Executor E = Serial>
  void forward(const MatrixRef& x, Eigen::Ref<Matrix> y, Workspace& workspace, E&& executor = Serial{}) const {
    projections_.check(x, y);
    check_makes_kv("forward without a cache");
    if (x.rows() == 0) return;
    const ExecutorRef run(executor);
    const Activations a = projections_.project(x, 1, workspace, run);
    norm(a, run);
    if (rope_) rope_->apply(a.query_and_key(), 0, run);
    attend(a, KvRows(a.key(), a.value()), detail::attention_options(options_), y, run);
  }

  /// Self-attention of the next tokens of every sequence of a cache: prefill, append and decode.
  template <class K, class V, Executor E = Serial>
  Matrix forward(const MatrixRef& x, KvCache<K, V>& cache, Index layer = 0, E&& executor = Serial{}) const {
    return forward(x, cache, layer, standing_groups<K, V>, executor);
  }
  /// The same into y [token][hidden_size].
  template <class K, class V, Executor E = Serial>
  void forward(const MatrixRef& x, KvCache<K, V>& cache, Index layer, Eigen::Ref<Matrix> y, Workspace& workspace,
               E&& executor = Serial{}) const {
    forward(x, cache, layer, y, workspace, standing_groups<K, V>, executor);
  }
  /// The same with groups of query heads that are decided when the cache holds the new tokens and before they attend:
  /// groups(cache, layer), with the cache const, returns Options::group_boundaries, whose numbers must last for the call.
  template <class K, class V, KvGrouping<K, V> G, Executor E = Serial>
  Matrix forward(const MatrixRef& x, KvCache<K, V>& cache, Index layer, G&& groups, E&& executor = Serial{}) const {
    Matrix y(x.rows(), options_.hidden_size);
    Workspace workspace;
    forward(x, cache, layer, y, workspace, groups, executor);
    return y;
  }
  /// The same into y [token][hidden_size].
  template <class K, class V, KvGrouping<K, V> G, Executor E = Serial>
  void forward(const MatrixRef& x, KvCache<K, V>& cache, Index layer, Eigen::Ref<Matrix> y, Workspace& workspace,
               G&& groups, E&& executor = Serial{}) const {
    projections_.check(x, y);
    detail::check_cache("x", x.rows(), cache, layer, cache_shape());
    detail::check_role(borrows_kv(), x.rows() / cache.num_sequences(), cache, layer);
    if (x.rows() == 0) return;
    const ExecutorRef run(executor);
    const Activations a = projections_.project(x, cache.num_sequences(), workspace, run);
    norm(a, run);
    for (Index b = 0; rope_ && b < a.sequences; ++b)
      rope_->apply(a.query_and_key(b * a.tokens, a.tokens), first_position(cache, layer, b, a.tokens), run);
    if (!borrows_kv()) cache.append(layer, a.key(), a.value());
    try {
      headwise::Options options = detail::attention_options(options_);
      options.group_boundaries = groups(std::as_const(cache), layer);
      attend(a, cache.layer(layer), options, y, run);
    } catch (...) {
      for (Index b = 0; !borrows_kv() && b < a.sequences; ++b)
        cache.truncate(layer, b, cache.num_tokens(layer, b) - a.tokens);
      throw;
    }
  }

  /// Self-attention of the next tokens of some sequences of a paged cache, any number of each, in one call: pieces of
  /// prompts and single tokens side by side. x and y [token][hidden_size] as the batch says. A token's y is bit for bit
  /// the one it has alone and in a KvCache. Throws OutOfPages too, with nothing changed.
  template <Executor E = Serial>
  Matrix forward(const MatrixRef& x, AnyPagedCache& cache, RaggedBatch& batch, Index layer = 0,
                 E&& executor = Serial{}) const {
    Matrix y(x.rows(), options_.hidden_size);
    Workspace workspace;
    forward(x, cache, batch, layer, y, workspace, executor);
    return y;
  }
  /// The same into y [token][hidden_size].
  template <Executor E = Serial>
  void forward(const MatrixRef& x, AnyPagedCache& cache, RaggedBatch& batch, Index layer, Eigen::Ref<Matrix> y,
               Workspace& workspace, E&& executor = Serial{}) const {
    projections_.check(x, y);
    detail::check_batch(x.rows(), cache, batch, layer, cache_shape());
    detail::check_role(borrows_kv(), cache, batch, layer);
    if (x.rows() == 0) return;
    const ExecutorRef run(executor);
    const Activations a = projections_.project(x, 1, workspace, run);
    norm(a, run);
    turn(a, cache, batch, layer, workspace, run);
    if (!borrows_kv()) cache.append_ragged(layer, batch.sequences(), batch.offsets(), a.key(), a.value());
    try {
      const PagedLayer keys = cache.layer(layer, batch.sequences());
      attention_(batch.plan(attention_, options_, layer, keys, run), View<const float>(a.query()), keys, attended(a),
                 run);
      projections_.project_output(a, y, run);
    } catch (...) {
      for (Index b = 0; !borrows_kv() && b < batch.num_sequences(); ++b)
        cache.truncate(layer, batch.sequence(b), cache.num_tokens(layer, batch.sequence(b)) - batch.num_tokens(b));
      throw;
    }
  }

  /// Cross-attention, once per memory: appends the keys and values of memory [token][hidden_size], split over the
  /// sequences as x is, to a layer of a cache that holds none yet. No RoPE.
  template <class K, class V, Executor E = Serial>
  void fill_cross(const MatrixRef& memory, KvCache<K, V>& cache, Index layer = 0, E&& executor = Serial{}) const {
    projections_.check_input("memory", memory);
    check_makes_kv("fill_cross");
    detail::check_cache("memory", memory.rows(), cache, layer, cache_shape());
    for (Index b = 0; b < cache.num_sequences(); ++b)
      require(cache.num_tokens(layer, b) == 0, "layer ", layer, " of the cache (", cache.num_tokens(layer, b),
              " tokens) must be empty before fill_cross; clear the cache first");
    if (memory.rows() == 0) return;
    Workspace workspace;
    const ExecutorRef run(executor);
    const Activations a = projections_.project_memory(memory, cache.num_sequences(), workspace, run);
    if (key_norm_) key_norm_->apply(a.key(), run);
    cache.append(layer, a.key(), a.value());
  }

  /// Cross-attention of x to what fill_cross stored: every token sees all of its sequence's memory; neither RoPE nor
  /// the causal mask, windows and ALiBi apply. The cache is only read.
  template <class K, class V, Executor E = Serial>
  Matrix forward_cross(const MatrixRef& x, const KvCache<K, V>& cache, Index layer = 0, E&& executor = Serial{}) const {
    Matrix y(x.rows(), options_.hidden_size);
    Workspace workspace;
    forward_cross(x, cache, layer, y, workspace, executor);
    return y;
  }
  /// The same into y [token][hidden_size].
  template <class K, class V, Executor E = Serial>
  void forward_cross(const MatrixRef& x, const KvCache<K, V>& cache, Index layer, Eigen::Ref<Matrix> y,
                     Workspace& workspace, E&& executor = Serial{}) const {
    projections_.check(x, y);
    detail::check_cache("x", x.rows(), cache, layer, cache_shape());
    if (x.rows() == 0) return;
    const ExecutorRef run(executor);
    const Activations a = projections_.project_queries(x, cache.num_sequences(), workspace, run);
    if (query_norm_) query_norm_->apply(a.query(), run);
    headwise::Options options;
    options.scale = options_.scale;
    options.softcap = options_.softcap;
    options.causal = false;
    attend(a, cache.layer(layer), options, y, run);
  }

 private:
  using Activations = detail::Activations;

  /// The groups of the options, in every call.
  template <class K, class V>
  static constexpr auto standing_groups = [](const KvCache<K, V>&, Index) { return std::span<const Index>(); };

  void check_makes_kv(const char* call) const {
    require(!borrows_kv(), "borrows_kv (true) must be false for ", call, ": there are no key and value weights");
  }
  /// Where x's first token stands: behind what the cache holds, or, where the producer has appended, at the first of
  /// as many tokens at its end.
  template <class K, class V>
  Index first_position(const KvCache<K, V>& cache, Index layer, Index sequence, Index tokens) const {
    return cache.num_tokens(layer, sequence) - (borrows_kv() ? tokens : 0);
  }

  // Queries and keys are normed and turned where the projections left them, not as they are gathered and appended: they
  // are in cache here, and cos and sin, on all threads, serve both.
  void norm(const Activations& a, ExecutorRef run) const {
    if (query_norm_) query_norm_->apply(a.query(), run);
    if (key_norm_) key_norm_->apply(a.key(), run);
  }
  /// Queries and keys of a ragged batch, by RoPE.
  void turn(const Activations& a, const AnyPagedCache& cache, const RaggedBatch& batch, Index layer,
            Workspace& workspace, ExecutorRef run) const {
    if (!rope_) return;
    const auto first = [&](Index b) {
      return cache.num_tokens(layer, batch.sequence(b)) - (borrows_kv() ? batch.num_tokens(b) : 0);
    };
    if (rope_->depends_on_length()) {  // of each sequence
      for (Index b = 0; b < batch.num_sequences(); ++b)
        rope_->apply(a.query_and_key(batch.offset(b), batch.num_tokens(b)), first(b), run);
      return;
    }
    std::vector<Index>& positions = workspace.positions_;
    positions.clear();
    for (Index b = 0; b < batch.num_sequences(); ++b)
      for (Index t = 0; t < batch.num_tokens(b); ++t)
        positions.insert(positions.end(), static_cast<std::size_t>(rope_->num_axes()), first(b) + t);
    rope_->apply(a.query_and_key(), positions, run);
  }

  View<float> attended(const Activations& a) const {
    return {a.attended, a.sequences, a.tokens, heads().num_heads(), heads().value_dim()};
  }
  template <class Source>
  void attend(const Activations& a, const Source& source, const headwise::Options& options, Eigen::Ref<Matrix> y,
              ExecutorRef run) const {
    attention_(View<const float>(a.query()), source, attended(a), options, run);
    projections_.project_output(a, y, run);
  }

  Options options_;
  Attention<Heads<>> attention_;
  detail::AttentionProjections projections_;
  std::optional<Rope> rope_;
  std::optional<QkNorm> query_norm_, key_norm_;
};

}  // namespace headwise::nn
