// SPDX-License-Identifier: MIT
#include "llama/model/model.hpp"

#include <algorithm>
#include <cmath>

namespace llama {

namespace {

/// y = x / rms(x) · weight for each row. The sum runs in double and in order, so a row's result is its own.
void rms_norm(const Matrix& x, const Vector& weight, double epsilon, Matrix& y, ExecutorRef executor) {
  y.resize(x.rows(), x.cols());
  executor.parallel_for(x.rows(), [&](Index row) {
    double squares = 0;
    for (Index i = 0; i < x.cols(); ++i) squares += static_cast<double>(x(row, i)) * x(row, i);
    const auto scale = static_cast<float>(1.0 / std::sqrt(squares / static_cast<double>(x.cols()) + epsilon));
    for (Index i = 0; i < x.cols(); ++i) y(row, i) = x(row, i) * scale * weight(i);
  });
}

/// gate = silu(gate) · up, element by element.
void swiglu(Matrix& gate, const Matrix& up, ExecutorRef executor) {
  constexpr Index block = 512;
  executor.parallel_for(headwise::ceil_div(gate.size(), block), [&](Index item) {
    const Index end = std::min(gate.size(), (item + 1) * block);
    for (Index i = item * block; i < end; ++i) {
      const float x = gate.data()[i];
      gate.data()[i] = x / (1.0f + std::exp(-x)) * up.data()[i];
    }
  });
}

}  // namespace

void Model::set_attention(Index layer, headwise::nn::MultiHeadAttention attention) {
  headwise::require(layer >= 0 && layer < shape_.num_layers, "layer (", layer, ") must be 0 to num_layers - 1 (",
                    shape_.num_layers - 1, ")");
  headwise::require(attention.options().hidden_size == shape_.hidden_size, "hidden_size (",
                    attention.options().hidden_size, ") of the attention must be the model's (", shape_.hidden_size,
                    ")");
  auto& held = weights_.layers[static_cast<std::size_t>(layer)].attention;
  held = std::move(attention);
}

void Model::check_tokens(std::span<const TokenId> tokens, Index room) const {
  const Index count = std::ssize(tokens);
  headwise::require(count >= 1 && count <= room, "tokens (", count, ") must be 1 to the room in the cache (", room,
                    ")");
  check_ids(tokens);
}

void Model::check_ids(std::span<const TokenId> tokens) const {
  for (const TokenId token : tokens)
    headwise::require(token >= 0 && token < vocabulary_size(), "token (", token, ") must be 0 to ",
                      vocabulary_size() - 1);
}

Matrix Model::embed(std::span<const TokenId> tokens) const {
  Matrix states(std::ssize(tokens), shape_.hidden_size);
  for (Index t = 0; t < states.rows(); ++t) states.row(t) = weights_.embedding.row(tokens[static_cast<std::size_t>(t)]);
  return states;
}

Matrix Model::read(std::span<const SequenceTokens> parts, headwise::AnyPagedCache& cache, Scratch& scratch,
                   ExecutorRef executor, const ReadHooks& hooks) const {
  headwise::require(hooks.key_driven.empty(), "key_driven (", hooks.key_driven.size(),
                    " layers) must be empty for a paged cache, which keeps no norms of keys");
  headwise::nn::RaggedBatch& batch = scratch.batch;
  batch.clear();
  std::vector<TokenId> tokens;
  std::vector<Index> counts, held;
  for (const SequenceTokens& part : parts) {
    check_ids(part.tokens);
    batch.add(part.sequence, std::ssize(part.tokens));
    tokens.insert(tokens.end(), part.tokens.begin(), part.tokens.end());
    counts.push_back(std::ssize(part.tokens));
    held.push_back(cache.num_tokens(0, part.sequence));
  }
  cache.reserve(batch.sequences(), counts);  // so that no layer wants pages
  try {
    const auto attend = [&](Index i, Matrix& x) {
      attention(i).forward(x, cache, batch, i, x, scratch.attention, executor);
    };
    run_layers(embed(tokens), 0, attend, scratch, executor, hooks);
  } catch (...) {
    for (std::size_t b = 0; b < parts.size(); ++b) cache.truncate(parts[b].sequence, held[b]);
    throw;
  }
  Matrix last(batch.num_sequences(), shape_.hidden_size);
  for (Index b = 0; b < last.rows(); ++b) last.row(b) = scratch.residual.row(batch.offset(b + 1) - 1);
  return final_states(last, executor);
}

void Model::run_layers(Matrix states, Index first_layer, const Attend& attend, Scratch& scratch, ExecutorRef executor,
                       const ReadHooks& hooks) const {
  headwise::require(first_layer >= 0 && first_layer <= shape_.num_layers, "first_layer (", first_layer,
                    ") must be 0 to ", shape_.num_layers);
  headwise::require(states.cols() == shape_.hidden_size, "states (", states.cols(), " columns) must have hidden_size (",
                    shape_.hidden_size, ") columns");
  Matrix &x = scratch.residual, &normed = scratch.normed;
  x = std::move(states);
  for (Index i = first_layer; i < shape_.num_layers; ++i) {
    if (hooks.before_layer) hooks.before_layer(i, x);
    rms_norm(x, layer(i).attention_norm, shape_.norm_epsilon, normed, executor);
    if (hooks.attention_input) hooks.attention_input(i, normed);
    attend(i, normed);
    x += normed;
    run_feed_forward(layer(i), scratch, executor);
    if (hooks.after_layer) hooks.after_layer();
  }
}

void Model::run_feed_forward(const ModelLayer& layer, Scratch& scratch, ExecutorRef executor) const {
  Matrix &x = scratch.residual, &normed = scratch.normed;
  rms_norm(x, layer.feed_forward_norm, shape_.norm_epsilon, normed, executor);
  scratch.gate.resize(x.rows(), shape_.feed_forward_size);
  scratch.up.resize(x.rows(), shape_.feed_forward_size);
  layer.gate(normed, scratch.gate, executor);
  layer.up(normed, scratch.up, executor);
  swiglu(scratch.gate, scratch.up, executor);
  layer.down(scratch.gate, normed, executor);
  x += normed;
}

Matrix Model::final_states(const Matrix& residual, ExecutorRef executor) const {
  Matrix hidden;
  rms_norm(residual, weights_.output_norm, shape_.norm_epsilon, hidden, executor);
  return hidden;
}

Vector Model::logits(const Vector& hidden, ExecutorRef executor) const {
  Vector logits(vocabulary_size());
  weights_.output(hidden.transpose(), Eigen::Map<Matrix>(logits.data(), 1, logits.size()), executor);
  return logits;
}

Matrix Model::logits(const Matrix& hidden, ExecutorRef executor) const {
  Matrix logits(hidden.rows(), vocabulary_size());
  weights_.output(hidden, logits, executor);
  return logits;
}

}  // namespace llama
