// SPDX-License-Identifier: MIT
#include "llama.hpp"

#include <algorithm>
#include <cmath>

namespace generate {

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

template <class T>
Vector Llama::read(std::span<const TokenId> tokens, headwise::KvCache<T>& cache, Scratch& scratch, ExecutorRef executor,
                   const std::function<void()>& after_layer) const {
  const Index count = std::ssize(tokens), room = cache.max_tokens() - cache.num_tokens();
  headwise::require(count >= 1 && count <= room, "tokens (", count, ") must be 1 to the room in the cache (", room,
                    ")");
  for (const TokenId token : tokens)
    headwise::require(token >= 0 && token < vocabulary_size(), "token (", token, ") must be 0 to ",
                      vocabulary_size() - 1);

  Matrix& x = scratch.residual;
  x.resize(count, shape_.hidden_size);
  for (Index t = 0; t < count; ++t) x.row(t) = weights_.embedding.row(tokens[static_cast<std::size_t>(t)]);

  Matrix& normed = scratch.normed;
  for (Index i = 0; i < shape_.num_layers; ++i) {
    const LlamaLayer& layer = weights_.layers[static_cast<std::size_t>(i)];
    rms_norm(x, layer.attention_norm, shape_.norm_epsilon, normed, executor);
    layer.attention.forward(normed, cache, i, normed, scratch.attention, executor);
    x += normed;

    rms_norm(x, layer.feed_forward_norm, shape_.norm_epsilon, normed, executor);
    scratch.gate.resize(count, shape_.feed_forward_size);
    scratch.up.resize(count, shape_.feed_forward_size);
    layer.gate(normed, scratch.gate, executor);
    layer.up(normed, scratch.up, executor);
    swiglu(scratch.gate, scratch.up, executor);
    layer.down(scratch.gate, normed, executor);
    x += normed;
    if (after_layer) after_layer();
  }

  const Matrix last = x.bottomRows(1);
  rms_norm(last, weights_.output_norm, shape_.norm_epsilon, normed, executor);
  return normed.row(0);
}

Vector Llama::logits(const Vector& hidden, ExecutorRef executor) const {
  Vector logits(vocabulary_size());
  weights_.output(hidden.transpose(), Eigen::Map<Matrix>(logits.data(), 1, logits.size()), executor);
  return logits;
}

template Vector Llama::read(std::span<const TokenId>, headwise::KvCache<float>&, Scratch&, ExecutorRef,
                            const std::function<void()>&) const;
template Vector Llama::read(std::span<const TokenId>, headwise::KvCache<headwise::bf16>&, Scratch&, ExecutorRef,
                            const std::function<void()>&) const;
template Vector Llama::read(std::span<const TokenId>, headwise::KvCache<headwise::f16>&, Scratch&, ExecutorRef,
                            const std::function<void()>&) const;

}  // namespace generate
