// SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <span>
#include <utility>

#include "headwise/regroup/key_driven/groups.hpp"
#include "llama/model/model_weights.hpp"
#include "llama/text/byte_pairs.hpp"

namespace llama {

/// What a caller may watch while tokens are read; each may be unset.
struct ReadHooks {
  /// Called with the states that come into each layer, [token][hidden].
  std::function<void(Index layer, const Matrix& states)> before_layer{};
  /// Called with the input of each layer's attention, normed, [token][hidden].
  std::function<void(Index layer, const Matrix& input)> attention_input{};
  /// Called after each layer.
  std::function<void()> after_layer{};
  /// One for each layer: decide which query heads share a KV head by the keys' norms, which the cache must keep.
  std::span<headwise::regroup::KeyDrivenGroups> key_driven{};
};

/// The next tokens of a sequence of a paged cache.
struct SequenceTokens {
  headwise::SequenceId sequence;
  std::span<const TokenId> tokens;
};

/// A Llama-architecture model: token ids in, logits of the next token out. Every result is the same bit for bit for any
/// number of threads and however the tokens are cut into calls.
class Model {
 public:
  /// Reads and dequantizes all weights. Throws GgufError.
  Model(const Gguf& file, const ModelShape& shape, ExecutorRef executor)
      : shape_(shape), weights_(file, shape, executor) {}

  const ModelShape& shape() const { return shape_; }
  Index vocabulary_size() const { return weights_.embedding.rows(); }
  const headwise::nn::MultiHeadAttention& attention(Index layer) const { return this->layer(layer).attention; }
  /// Gives a layer another attention, of the same hidden size. Caches made before do not fit it if its KV heads differ.
  void set_attention(Index layer, headwise::nn::MultiHeadAttention attention);
  /// Lets layers share keys and values otherwise; their attention must be set accordingly.
  void set_sharing(headwise::KvSharing sharing) { shape_.sharing = std::move(sharing); }

  /// What a cache of the model's layers is made of.
  std::vector<headwise::LayerShape> cache_shapes() const {
    std::vector<headwise::LayerShape> shapes;
    for (const ModelLayer& layer : weights_.layers) shapes.push_back(layer.attention.cache_shape());
    return shapes;
  }
  /// An empty cache for up to max_tokens tokens of one sequence, with keys stored as K and values as V, or as the options
  /// say.
  template <headwise::CacheStorage K = headwise::AnyStorage, headwise::CacheStorage V = K>
  headwise::KvCache<K, V> make_cache(Index max_tokens, headwise::CacheOptions options = {}) const {
    return {cache_shapes(), shape_.sharing, max_tokens, options};
  }

  /// A cache of num_pages pages for many sequences, stored likewise.
  template <headwise::CacheStorage K = headwise::AnyStorage, headwise::CacheStorage V = K>
  headwise::PagedCache<K, V> make_paged_cache(Index num_pages, headwise::PagedOptions options = {}) const {
    return {cache_shapes(), shape_.sharing, num_pages, options};
  }

  /// Memory that is kept between calls.
  struct Scratch {
    headwise::nn::Workspace attention;
    headwise::nn::RaggedBatch batch;
    Matrix residual, normed, gate, up;  // [token][…]
  };

  /// Reads `tokens` (at least 1, each 0 … vocabulary_size − 1), which follow what the cache holds, and appends their
  /// keys and values to it. Returns the final hidden state of the last one, [hidden]. Throws std::invalid_argument, with
  /// the cache unchanged, if an id is out of range or the cache is full.
  template <class K, class V>
  Vector read(std::span<const TokenId> tokens, headwise::KvCache<K, V>& cache, Scratch& scratch, ExecutorRef executor,
              const ReadHooks& hooks = {}) const {
    check_tokens(tokens, cache.max_tokens() - cache.num_tokens());
    run_layers(embed(tokens), 0, attend_in(cache, scratch, executor, hooks), scratch, executor, hooks);
    return final_states(scratch.residual.bottomRows(1), executor).row(0);
  }
  /// The same, with the final hidden states of all of them, [token][hidden].
  template <class K, class V>
  Matrix read_all(std::span<const TokenId> tokens, headwise::KvCache<K, V>& cache, Scratch& scratch,
                  ExecutorRef executor, const ReadHooks& hooks = {}) const {
    check_tokens(tokens, cache.max_tokens() - cache.num_tokens());
    return read_states(embed(tokens), 0, cache, scratch, executor, hooks);
  }
  /// The same for several sequences in one call, each at least 1 token: returns the final hidden state of the last token
  /// of each, [part][hidden]. Throws std::invalid_argument or OutOfPages, with the cache unchanged.
  Matrix read(std::span<const SequenceTokens> parts, headwise::AnyPagedCache& cache, Scratch& scratch,
              ExecutorRef executor, const ReadHooks& hooks = {}) const;

  /// What the layers read for these tokens, [token][hidden].
  Matrix embed(std::span<const TokenId> tokens) const;
  /// The final hidden states of tokens whose `states` come into layer `first_layer` [token][hidden], which were not read
  /// before. Layers before it are not run and append nothing.
  template <class K, class V>
  Matrix read_states(Matrix states, Index first_layer, headwise::KvCache<K, V>& cache, Scratch& scratch,
                     ExecutorRef executor, const ReadHooks& hooks = {}) const {
    run_layers(std::move(states), first_layer, attend_in(cache, scratch, executor, hooks), scratch, executor, hooks);
    return final_states(scratch.residual, executor);
  }

  /// Logits [vocabulary_size] of the token that follows a final hidden state.
  Vector logits(const Vector& hidden, ExecutorRef executor) const;
  /// The same for several, [token][hidden] → [token][vocabulary_size].
  Matrix logits(const Matrix& hidden, ExecutorRef executor) const;

 private:
  const ModelLayer& layer(Index i) const { return weights_.layers[static_cast<std::size_t>(i)]; }
  /// A layer's attention over whatever holds the keys and values: replaces its input x [token][hidden] by its result.
  using Attend = std::function<void(Index layer, Matrix& x)>;
  template <class K, class V>
  Attend attend_in(headwise::KvCache<K, V>& cache, Scratch& scratch, ExecutorRef executor,
                   const ReadHooks& hooks) const {
    return [&, executor](Index i, Matrix& x) {
      headwise::nn::ForwardOptions call;
      if (!hooks.key_driven.empty()) call.groups = hooks.key_driven[static_cast<std::size_t>(i)];
      attention(i).forward(x, cache, i, x, scratch.attention, call, executor);
    };
  }
  void check_tokens(std::span<const TokenId> tokens, Index room) const;
  void check_ids(std::span<const TokenId> tokens) const;
  /// Takes the tokens' states from before a layer to after the last, in scratch.residual.
  void run_layers(Matrix states, Index first_layer, const Attend& attend, Scratch& scratch, ExecutorRef executor,
                  const ReadHooks& hooks) const;
  Matrix final_states(const Matrix& residual, ExecutorRef executor) const;
  void run_feed_forward(const ModelLayer& layer, Scratch& scratch, ExecutorRef executor) const;

  ModelShape shape_;
  ModelWeights weights_;
};

}  // namespace llama
