// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <concepts>
#include <utility>

#include "headwise/attention/attend.hpp"
#include "headwise/attention/attention_plan.hpp"
#include "headwise/attention/check.hpp"
#include "headwise/attention/packed_rows.hpp"
#include "headwise/cache/kv_blocks.hpp"
#include "headwise/cache/kv_cache.hpp"
#include "headwise/cache/kv_rows.hpp"
#include "headwise/core/heads.hpp"
#include "headwise/parallel/serial.hpp"

namespace headwise {

/// Attention of one layer shape, as a function object:
///   output = softmax(scale·q·kᵀ, masked)·v,  query head i reading KV head head_map().kv_head_of(i).
/// One call serves prefill, appending any number of new tokens after cached ones, decode and cross-attention, for MHA,
/// GQA and MQA alike; see Options for scores, masks and positions. Holds no state between calls: calls from several
/// threads are safe as long as none changes what another reads or writes.
template <class HeadsType = Heads<>>
class Attention {
 public:
  /// Heads known at compile time, consecutive query heads sharing a KV head.
  Attention()
    requires HeadsType::is_static
      : map_(HeadMap::contiguous(heads_.num_heads(), heads_.num_kv_heads())) {
    static_assert(!HeadsType::needs_map,
                  "num_heads must be a multiple of num_kv_heads; pass a HeadMap for unequal groups");
  }

  /// Consecutive query heads share a KV head: num_heads must be a multiple of num_kv_heads.
  explicit Attention(HeadsType heads)
      : heads_(heads), map_(HeadMap::contiguous(heads.num_heads(), heads.num_kv_heads())) {}

  /// Any grouping; the map's counts must be those of `heads`.
  Attention(HeadsType heads, HeadMap map) : heads_(heads), map_(std::move(map)) {
    require(map_.num_heads() == heads_.num_heads(), "num_heads of the head map (", map_.num_heads(),
            ") must equal num_heads (", heads_.num_heads(), ")");
    require(map_.num_kv_heads() == heads_.num_kv_heads(), "num_kv_heads of the head map (", map_.num_kv_heads(),
            ") must equal num_kv_heads (", heads_.num_kv_heads(), ")");
  }

  const HeadsType& heads() const { return heads_; }
  const HeadMap& head_map() const { return map_; }

  /// queries  [sequence][token][head][head_dim] of f32, f16 or bf16; ragged (Options::query_offsets): one sequence
  /// keys     a KvCache of one layer, cache.layer(i), KvRows or KvBlocks over the caller's memory, or any TileSource
  /// outputs  a view [sequence][token][head][value_dim] of f32, f16 or bf16, or {view, lse view}; must not overlap inputs
  /// Throws std::invalid_argument, before reading or writing anything, when shapes, options or lengths do not fit.
  template <class Q, class Source, class E = const Serial&>
    requires Executor<std::remove_reference_t<E>>
  void operator()(View<Q> queries, const Source& keys, const Outputs& outputs, const Options& options = {},
                  E&& executor = kSerial) const {
    const ConstArray q = View<const Q>(queries).array();
    const auto& layer = layer_of(keys);
    const detail::Problem call{shape_of(q.tokens, detail::source_ref(layer), options),
                               q,
                               outputs,
                               scale_of(options),
                               options.query_norm,
                               options.sink_logits};
    detail::check(call, Heads<>(heads_));
    detail::attend(call, ExecutorRef(executor));
  }

  /// Works out who does what in a step whose layers are of one shape, for operator()(plan, …). Into a plan of an earlier
  /// step: in its memory, so that nothing is allocated for a step of no larger shape.
  /// query_tokens  the tokens of q: of each sequence, or of all with Options::query_offsets
  /// keys          those of one layer, with the step's tokens appended: their lengths count, nothing is read
  /// options       those of the calls; their spans are copied. What relative_bias, masks, tile_set, functions, query_norm and
  ///               query_rope refer to must outlive the plan; turns of queries are worked out here, once for all layers
  /// executor      on which as many threads are counted; a call may use another one
  /// Throws std::invalid_argument when shapes, options or lengths do not fit; an earlier plan is as it was then.
  template <class Source, class E = const Serial&>
    requires Executor<std::remove_reference_t<E>>
  void plan(AttentionPlan& plan, Index query_tokens, const Source& keys, const Options& options = {},
            E&& executor = kSerial) const {
    const auto& layer = layer_of(keys);
    const detail::CallShape shape = shape_of(query_tokens, detail::source_ref(layer), options);
    detail::check(shape, Heads<>(heads_));
    plan.make(shape, Heads<>(heads_), ExecutorRef(executor));
  }
  template <class Source, class E = const Serial&>
    requires Executor<std::remove_reference_t<E>>
  AttentionPlan plan(Index query_tokens, const Source& keys, const Options& options = {},
                     E&& executor = kSerial) const {
    AttentionPlan made;
    plan(made, query_tokens, keys, options, executor);
    return made;
  }

  /// One layer's call of a planned step, under the plan's options: the same bits as the call above, without its planning.
  /// Throws std::invalid_argument, before reading or writing anything, when the plan is empty or the call is of another
  /// shape than it: tokens of q, sequences, tokens of each sequence of keys, heads, head map.
  template <class Q, class Source, class E = const Serial&>
    requires Executor<std::remove_reference_t<E>>
  void operator()(const AttentionPlan& plan, View<Q> queries, const Source& keys, const Outputs& outputs,
                  E&& executor = kSerial) const {
    (*this)(plan, LayerOptions{}, queries, keys, outputs, executor);
  }
  /// The same with what is this layer's own.
  template <class Q, class Source, class E = const Serial&>
    requires Executor<std::remove_reference_t<E>>
  void operator()(const AttentionPlan& plan, const LayerOptions& layer_options, View<Q> queries, const Source& keys,
                  const Outputs& outputs, E&& executor = kSerial) const {
    const ConstArray q = View<const Q>(queries).array();
    const auto& layer = layer_of(keys);
    const detail::SourceRef source = detail::source_ref(layer);
    plan.check(source, q.tokens, Heads<>(heads_), map_);
    const Options& options = plan.options();
    const detail::Problem call{plan.shape(source),
                               q,
                               outputs,
                               scale_of(options),
                               layer_options.query_norm ? layer_options.query_norm : options.query_norm,
                               layer_options.sink_logits.empty() ? options.sink_logits : layer_options.sink_logits,
                               &plan.turns()};
    detail::check(call, Heads<>(heads_));
    detail::attend(call, plan.work(), ExecutorRef(executor));
  }

 private:
  static constexpr Serial kSerial{};

  /// The one layer of a cache, or the source itself.
  template <class Source>
  static decltype(auto) layer_of(const Source& keys) {
    if constexpr (requires { keys.layer(Index{0}); }) {
      require(keys.num_layers() == 1, "keys (a cache of ", keys.num_layers(),
              " layers) must be one layer; pass cache.layer(i)");
      return keys.layer(0);
    } else {
      return (keys);
    }
  }

  detail::CallShape shape_of(Index query_tokens, const detail::SourceRef& source, const Options& options) const {
    return {query_tokens, source, {options.head_map ? *options.head_map : map_, options.group_boundaries}, &options};
  }

  float scale_of(const Options& options) const {
    return options.scale.value_or(1.0f / std::sqrt(static_cast<float>(heads_.head_dim())));
  }

  HeadsType heads_;
  HeadMap map_;
};

/// Multi-head attention: each of H query heads has its own K and V.
template <Index H, Index D, Index DV = D>
using Mha = Attention<Heads<H, H, D, DV>>;
/// Grouped-query attention: H query heads share KV heads of K and V.
template <Index H, Index KV, Index D, Index DV = D>
using Gqa = Attention<Heads<H, KV, D, DV>>;
/// Multi-query attention: all H query heads share one K and V.
template <Index H, Index D, Index DV = D>
using Mqa = Attention<Heads<H, 1, D, DV>>;

}  // namespace headwise
