// SPDX-License-Identifier: MIT
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "headwise/parallel/thread_pool.hpp"
#include "headwise/regroup/attention_weights.hpp"
#include "llama/model/model.hpp"

namespace quality {

using headwise::Index;
using headwise::regroup::AttentionWeights;
using llama::Matrix;
using llama::TokenId;

/// A text as windows of equal length, each read from an empty cache.
struct Text {
  std::string name;
  std::vector<std::vector<TokenId>> windows;
};

/// How well a model predicts a text.
struct Quality {
  double cross_entropy = 0;  // nats per token
  double kl = 0;             // nats per token, from the original model to this one
};

/// Measures changed models against the original. Every token but the first of a window is predicted; the original's
/// distributions and states are kept, so that a change of layer l costs a pass from layer l on.
class Evaluator {
 public:
  /// `model` must be the original when this is made, and is changed only through here afterwards.
  Evaluator(llama::Model& model, std::vector<AttentionWeights> attention, std::vector<Text> texts,
            headwise::ThreadPool& pool);

  const llama::Model& model() const { return model_; }
  Index num_layers() const { return std::ssize(attention_); }
  const std::vector<Text>& texts() const { return texts_; }
  headwise::ThreadPool& pool() const { return pool_; }
  /// The original attention of a layer.
  const AttentionWeights& attention(Index layer) const { return attention_[static_cast<std::size_t>(layer)]; }
  const std::vector<AttentionWeights>& attention() const { return attention_; }

  /// The original on a text: kl is 0.
  Quality baseline(std::size_t text) const { return {baselines_[text].cross_entropy, 0}; }

  /// A layer with other weights.
  struct Change {
    Index layer;
    AttentionWeights weights;
  };
  /// A model that differs from the original.
  struct Variant {
    std::vector<Change> changes{};
    headwise::KvSharing sharing = headwise::KvSharing::none(1);  // of one layer: the model's own
    const headwise::regroup::KeyDrivenOptions* key_driven = nullptr;
    Index chunk = 0;                                // tokens read at a time; 0: a window
    std::optional<headwise::CacheOptions> cache{};  // how keys and values are stored; unset: f32
  };
  /// Measures it on a text; the model is the original again afterwards.
  Quality measure(const Variant& variant, std::size_t text);
  /// Bytes of keys and values that a token takes, f32 where no cache is named.
  Index kv_bytes_per_token(const Variant& variant) const;

 private:
  struct Baseline {
    std::vector<Matrix> log_probabilities;    // [window], [token][vocabulary]
    std::vector<std::vector<Matrix>> states;  // [window][layer], what comes into the layer
    double cross_entropy = 0;
  };

  void make_baseline(std::size_t text);
  void apply(const Variant& variant);
  void restore(const Variant& variant);
  Matrix hidden_states(const Variant& variant, std::size_t text, std::size_t window, Index first_layer);
  Matrix log_probabilities(const Matrix& hidden) const;

  llama::Model& model_;
  std::vector<AttentionWeights> attention_;
  std::vector<Text> texts_;
  headwise::ThreadPool& pool_;
  headwise::KvSharing own_sharing_;
  std::vector<Baseline> baselines_;  // [text]
  llama::Model::Scratch scratch_;
};

}  // namespace quality
