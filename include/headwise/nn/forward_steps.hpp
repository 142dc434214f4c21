// SPDX-License-Identifier: MIT
#pragma once

#include <optional>

#include "headwise/attention/attention.hpp"
#include "headwise/cache/kv_cache.hpp"
#include "headwise/cache/kv_rows.hpp"
#include "headwise/cache/paged_cache.hpp"
#include "headwise/core/error.hpp"
#include "headwise/core/heads.hpp"
#include "headwise/core/index.hpp"
#include "headwise/nn/forward_options.hpp"
#include "headwise/nn/multi_head_attention_options.hpp"
#include "headwise/nn/ragged_batch.hpp"
#include "headwise/nn/resolved_options.hpp"
#include "headwise/nn/workspace.hpp"
#include "headwise/parallel/executor.hpp"

// Where the tokens of a forward pass come to: what differs between passes without a cache, over a KvCache and over a
// PagedCache. Each says which rows of x are a sequence's and where these stand, takes their keys and values and back again,
// and attends. To what fits: nn/check_cache.hpp comes before.

namespace headwise::nn::detail {

/// A layer as a step needs to know it.
struct LayerRef {
  const Attention<Heads<>>& attention;
  const MultiHeadAttentionOptions& options;
};

/// One sequence that attends to itself.
class LoneStep {
 public:
  LoneStep(Index tokens, const ForwardOptions& call) : tokens_(tokens), call_(call) {
    require(!call.groups, "groups (given) must not be given without a KvCache");
  }

  Index num_sequences() const { return 1; }
  /// Sequences of the activations' views.
  Index view_sequences() const { return 1; }
  Index offset(Index b) const { return b * tokens_; }
  Index first_position(Index) const { return 0; }
  const ForwardOptions& call() const { return call_; }

  void append(const Activations&) {}
  void take_back() {}
  void attend(const LayerRef& layer, const Activations& a, ExecutorRef run) const {
    layer.attention(View<const float>(a.query()), KvRows(a.key(), a.value()), a.output(),
                    attention_options(layer.options, call_), run);
  }

 private:
  Index tokens_;
  const ForwardOptions& call_;
};

/// The next tokens of every sequence of a KvCache, equally many of each.
class CacheStep {
 public:
  CacheStep(Index rows, KvCache<>& cache, Index layer, bool borrows, const ForwardOptions& call)
      : cache_(cache), layer_(layer), tokens_(rows / cache.num_sequences()), borrows_(borrows), call_(call) {}

  Index num_sequences() const { return cache_.num_sequences(); }
  Index view_sequences() const { return cache_.num_sequences(); }
  Index offset(Index b) const { return b * tokens_; }
  /// Behind what the cache holds or, where the producer has appended, at the first of as many tokens at its end.
  Index first_position(Index b) const { return cache_.num_tokens(layer_, b) - (borrows_ ? tokens_ : 0); }
  const ForwardOptions& call() const { return call_; }

  void append(const Activations& a) { cache_.append(layer_, a.key(), a.value()); }
  void take_back() {
    for (Index b = 0; b < num_sequences(); ++b) cache_.truncate(layer_, b, cache_.num_tokens(layer_, b) - tokens_);
  }
  void attend(const LayerRef& layer, const Activations& a, ExecutorRef run) const {
    headwise::Options options = attention_options(layer.options, call_);
    if (call_.groups) options.group_boundaries = call_.groups(cache_, layer_);
    layer.attention(View<const float>(a.query()), cache_.layer(layer_), a.output(), options, run);
  }

 private:
  KvCache<>& cache_;
  Index layer_, tokens_;
  bool borrows_;
  const ForwardOptions& call_;
};

/// A ragged batch over a PagedCache.
class RaggedStep {
 public:
  RaggedStep(AnyPagedCache& cache, RaggedBatch& batch, Index layer, bool borrows)
      : cache_(cache), batch_(batch), layer_(layer), borrows_(borrows) {}

  Index num_sequences() const { return batch_.num_sequences(); }
  Index view_sequences() const { return 1; }
  Index offset(Index b) const { return batch_.offset(b); }
  Index first_position(Index b) const { return num_tokens(b) - (borrows_ ? batch_.num_tokens(b) : 0); }
  const ForwardOptions& call() const { return batch_.options(); }

  void append(const Activations& a) {
    cache_.append_ragged(layer_, batch_.sequences(), batch_.offsets(), a.key(), a.value());
  }
  void take_back() {
    for (Index b = 0; b < num_sequences(); ++b)
      cache_.truncate(layer_, batch_.sequence(b), num_tokens(b) - batch_.num_tokens(b));
  }
  void attend(const LayerRef& layer, const Activations& a, ExecutorRef run) const {
    const PagedLayer keys = cache_.layer(layer_, batch_.sequences());
    const AttentionPlan& plan = batch_.plan(layer.attention, layer.options, layer_, keys, run);
    layer.attention(plan, layer_options(layer.options), View<const float>(a.query()), keys, a.output(), run);
  }

 private:
  Index num_tokens(Index b) const { return cache_.num_tokens(layer_, batch_.sequence(b)); }

  AnyPagedCache& cache_;
  RaggedBatch& batch_;
  Index layer_;
  bool borrows_;
};

}  // namespace headwise::nn::detail
