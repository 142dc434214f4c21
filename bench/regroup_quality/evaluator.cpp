// SPDX-License-Identifier: MIT
#include "evaluator.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "headwise/regroup/key_driven/groups.hpp"

namespace quality {

Evaluator::Evaluator(llama::Model& model, std::vector<AttentionWeights> attention, std::vector<Text> texts,
                     headwise::ThreadPool& pool)
    : model_(model),
      attention_(std::move(attention)),
      texts_(std::move(texts)),
      pool_(pool),
      own_sharing_(model.shape().sharing) {
  headwise::require(num_layers() == model.shape().num_layers, "attention (", num_layers(),
                    " layers) must be that of the model's ", model.shape().num_layers, " layers");
  baselines_.resize(texts_.size());
  for (std::size_t text = 0; text < texts_.size(); ++text) make_baseline(text);
}

void Evaluator::make_baseline(std::size_t text) {
  Baseline& baseline = baselines_[text];
  double total = 0;
  Index count = 0;
  for (const std::vector<TokenId>& tokens : texts_[text].windows) {
    auto& states = baseline.states.emplace_back();
    auto cache = model_.make_cache<float>(std::ssize(tokens));
    const llama::ReadHooks hooks{.before_layer = [&](Index, const Matrix& x) { states.push_back(x); }};
    const Matrix hidden = model_.read_all(std::span(tokens), cache, scratch_, pool_, hooks);
    const Matrix& logs = baseline.log_probabilities.emplace_back(log_probabilities(hidden.topRows(hidden.rows() - 1)));
    for (Index t = 0; t < logs.rows(); ++t)
      total -= static_cast<double>(logs(t, tokens[static_cast<std::size_t>(t) + 1]));
    count += logs.rows();
  }
  baseline.cross_entropy = total / static_cast<double>(count);
}

/// [token][vocabulary]; the sum of a row's probabilities is taken in double.
Matrix Evaluator::log_probabilities(const Matrix& hidden) const {
  Matrix logits = model_.logits(hidden, pool_);
  headwise::ExecutorRef(pool_).parallel_for(logits.rows(), [&](Index t) {
    auto row = logits.row(t).array();
    const float largest = row.maxCoeff();
    double sum = 0;
    constexpr Index block = 1024;  // so that float adds up few numbers at a time
    for (Index i = 0; i < row.size(); i += block)
      sum += static_cast<double>((row.segment(i, std::min(block, row.size() - i)) - largest).exp().sum());
    row -= largest + static_cast<float>(std::log(sum));
  });
  return logits;
}

void Evaluator::apply(const Variant& variant) {
  const headwise::KvSharing& sharing = variant.sharing.num_layers() == num_layers() ? variant.sharing : own_sharing_;
  model_.set_sharing(sharing);
  for (const Change& change : variant.changes)
    model_.set_attention(change.layer, llama::make_attention(model_.shape(), change.weights));
  for (Index l = 0; l < num_layers(); ++l) {
    if (sharing.is_producer(l)) continue;
    const auto changed = std::ranges::find(variant.changes, l, &Change::layer);
    const AttentionWeights& weights = changed == variant.changes.end() ? attention(l) : changed->weights;
    model_.set_attention(l, llama::make_attention(model_.shape(), weights, true));
  }
}

void Evaluator::restore(const Variant& variant) {
  model_.set_sharing(own_sharing_);
  for (Index l = 0; l < num_layers(); ++l) {
    const bool changed = std::ranges::find(variant.changes, l, &Change::layer) != variant.changes.end();
    if (changed || model_.attention(l).borrows_kv() == own_sharing_.is_producer(l))
      model_.set_attention(l, llama::make_attention(model_.shape(), attention(l), !own_sharing_.is_producer(l)));
  }
}

Matrix Evaluator::hidden_states(const Variant& variant, std::size_t text, std::size_t window, Index first_layer) {
  const std::vector<TokenId>& tokens = texts_[text].windows[window];
  const Index count = std::ssize(tokens);
  headwise::CacheOptions options =
      variant.cache.value_or(headwise::CacheOptions{.key_storage = headwise::Storage::f32});
  options.key_norms = variant.key_driven != nullptr;
  auto cache = model_.make_cache(count, options);
  if (variant.chunk == 0) {
    Matrix states = baselines_[text].states[window][static_cast<std::size_t>(first_layer)];
    return model_.read_states(std::move(states), first_layer, cache, scratch_, pool_);
  }
  std::vector<headwise::regroup::KeyDrivenGroups> groups;
  if (variant.key_driven)
    for (Index l = 0; l < num_layers(); ++l)
      groups.emplace_back(attention(l).num_heads, attention(l).num_kv_heads, 1, *variant.key_driven);
  const llama::ReadHooks hooks{.key_driven = groups};
  Matrix hidden(count, model_.shape().hidden_size);
  for (Index at = 0; at < count; at += variant.chunk) {
    const Index length = std::min(variant.chunk, count - at);
    hidden.middleRows(at, length) =
        model_.read_all(std::span(tokens).subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(length)),
                        cache, scratch_, pool_, hooks);
  }
  return hidden;
}

Quality Evaluator::measure(const Variant& variant, std::size_t text) {
  Index first = num_layers();
  for (const Change& change : variant.changes) first = std::min(first, change.layer);
  if (variant.sharing.num_layers() == num_layers() || variant.chunk > 0 || variant.cache) first = 0;
  apply(variant);
  double cross_entropy = 0, kl = 0;
  Index count = 0;
  for (std::size_t window = 0; window < texts_[text].windows.size(); ++window) {
    const std::vector<TokenId>& tokens = texts_[text].windows[window];
    const Matrix hidden = hidden_states(variant, text, window, std::min(first, num_layers() - 1));
    const Matrix& before = baselines_[text].log_probabilities[window];
    const Matrix after = log_probabilities(hidden.topRows(before.rows()));
    std::vector<double> divergence(static_cast<std::size_t>(before.rows()));
    headwise::ExecutorRef(pool_).parallel_for(before.rows(), [&](Index t) {
      const auto p = before.row(t).array(), q = after.row(t).array();
      divergence[static_cast<std::size_t>(t)] = (p.exp() * (p - q)).cast<double>().sum();
    });
    for (Index t = 0; t < before.rows(); ++t) {
      kl += divergence[static_cast<std::size_t>(t)];
      cross_entropy -= static_cast<double>(after(t, tokens[static_cast<std::size_t>(t) + 1]));
    }
    count += before.rows();
  }
  restore(variant);
  return {cross_entropy / static_cast<double>(count), kl / static_cast<double>(count)};
}

Index Evaluator::kv_bytes_per_token(const Variant& variant) const {
  if (variant.cache) return model_.make_cache(1, *variant.cache).bytes_per_token();
  const headwise::KvSharing& sharing = variant.sharing.num_layers() == num_layers() ? variant.sharing : own_sharing_;
  Index floats = 0;
  for (Index l = 0; l < num_layers(); ++l) {
    if (!sharing.is_producer(l)) continue;
    const auto changed = std::ranges::find(variant.changes, l, &Change::layer);
    const AttentionWeights& weights = changed == variant.changes.end() ? attention(l) : changed->weights;
    floats += weights.num_kv_heads * (weights.head_dim + weights.value_dim);
  }
  return floats * static_cast<Index>(sizeof(float));
}

}  // namespace quality
