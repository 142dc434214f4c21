// SPDX-License-Identifier: MIT
#pragma once

#include <headwise/nn.hpp>

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <span>
#include <vector>

// An encoder-decoder in the manner of T5 (Raffel et al. 2020): relative position bias, no scale on the scores, norms
// before every part, ReLU. Its weights are random: it shows how the parts fit together.

namespace encoder_decoder {

using headwise::Index;
using headwise::RelativeBias;
using headwise::nn::Linear;
using headwise::nn::Matrix;
using headwise::nn::MultiHeadAttention;

/// 1: Shazeer's multi-query attention; num_heads: plain multi-head; between: grouped-query.
struct Shape {
  Index vocabulary = 16;
  Index hidden_size = 64, inner_size = 128;
  Index num_heads = 8, head_dim = 16;  // together wider than hidden_size, as in T5
  Index encoder_kv_heads = 8, decoder_kv_heads = 2;
  Index num_layers = 2;  // of each stack
};

struct FeedForward {
  Linear up, down;

  Matrix operator()(const Matrix& x) const {
    Matrix inner(x.rows(), up.outputs()), y(x.rows(), down.outputs());
    up(x, inner);
    inner = inner.cwiseMax(0.0f);
    down(inner, y);
    return y;
  }
};
struct EncoderLayer {
  MultiHeadAttention attention;
  FeedForward feed_forward;
};
struct DecoderLayer {
  MultiHeadAttention self, cross;
  FeedForward feed_forward;
};

/// Each row over its root mean square. The sum goes in order, so that a row's result is its own.
inline Matrix rms_norm(const Matrix& x) {
  Matrix y(x.rows(), x.cols());
  for (Index row = 0; row < x.rows(); ++row) {
    double squares = 0;
    for (Index i = 0; i < x.cols(); ++i) squares += static_cast<double>(x(row, i)) * static_cast<double>(x(row, i));
    const double size = std::sqrt(squares / static_cast<double>(x.cols()) + 1e-6);
    for (Index i = 0; i < x.cols(); ++i) y(row, i) = static_cast<float>(static_cast<double>(x(row, i)) / size);
  }
  return y;
}

/// What the decoder keeps of one source text: the keys and values of every beam's tokens, and those of the encoder's
/// output, once for all beams.
struct DecoderState {
  headwise::KvCache<float> self, memory;
};

class EncoderDecoder {
 public:
  explicit EncoderDecoder(const Shape& shape, unsigned seed = 1) : shape_(shape), generator_(seed) {
    embedding = random(shape.vocabulary, shape.hidden_size, 1.0f);
    output = random(shape.vocabulary, shape.hidden_size, 0.3f);
    const auto encoder_bias = random_bias(true), decoder_bias = random_bias(false);  // each shared by a whole stack
    for (Index i = 0; i < shape.num_layers; ++i) {
      encoder.push_back({attention(shape.encoder_kv_heads, false, encoder_bias), feed_forward()});
      decoder.push_back({attention(shape.decoder_kv_heads, true, decoder_bias),
                         attention(shape.decoder_kv_heads, true, nullptr), feed_forward()});
    }
  }

  const Shape& shape() const { return shape_; }

  /// tokens → memory [token][hidden_size]
  Matrix encode(std::span<const Index> tokens) const {
    Matrix x = embed(tokens);
    for (const EncoderLayer& layer : encoder) {
      x += layer.attention.forward(rms_norm(x));  // every token sees all of them
      x += layer.feed_forward(rms_norm(x));
    }
    return rms_norm(x);
  }

  /// Ready for the first token of each of `beams` texts over the same memory.
  DecoderState start(const Matrix& memory, Index beams, Index max_tokens) const {
    std::vector<headwise::LayerShape> self, cross;
    for (const DecoderLayer& layer : decoder) {
      self.push_back(layer.self.cache_shape());
      cross.push_back(layer.cross.cache_shape());
    }
    DecoderState state{{self, max_tokens, {.num_sequences = beams}}, {cross, memory.rows()}};
    for (std::size_t i = 0; i < decoder.size(); ++i)
      decoder[i].cross.fill_cross(memory, state.memory, static_cast<Index>(i));
    return state;
  }

  /// Reads the next tokens [beam][token] of every beam → log-probabilities of what follows [beam, token][vocabulary].
  Eigen::MatrixXd read(std::span<const Index> tokens, DecoderState& state) const {
    Matrix x = embed(tokens);
    for (std::size_t i = 0; i < decoder.size(); ++i) {
      const DecoderLayer& layer = decoder[i];
      x += layer.self.forward(rms_norm(x), state.self, static_cast<Index>(i));
      // the beams are rows of one sequence here: their keys and values are read once for all of them
      x += layer.cross.forward_cross(rms_norm(x), state.memory, static_cast<Index>(i));
      x += layer.feed_forward(rms_norm(x));
    }
    Matrix logits(x.rows(), shape_.vocabulary);
    Linear::view(output.data(), shape_.vocabulary, shape_.hidden_size)(rms_norm(x), logits);
    return log_softmax(logits);
  }

  // [vocabulary][hidden_size], and the layers; open, so that weights can be set from outside
  Matrix embedding, output;
  std::vector<EncoderLayer> encoder;
  std::vector<DecoderLayer> decoder;

 private:
  MultiHeadAttention attention(Index kv_heads, bool causal, std::shared_ptr<const RelativeBias> bias) {
    MultiHeadAttention layer({.hidden_size = shape_.hidden_size,
                              .num_heads = shape_.num_heads,
                              .num_kv_heads = kv_heads,
                              .head_dim = shape_.head_dim,
                              .scale = 1.0f,
                              .causal = causal,
                              .relative_bias = std::move(bias)});
    const Index d = shape_.hidden_size, q = shape_.num_heads * shape_.head_dim, kv = kv_heads * shape_.head_dim;
    const float unit = 1.7f / std::sqrt(static_cast<float>(d));  // keeps activations near 1
    // what the scores are not divided by is in the weights of the queries
    layer.set_weights(random(q, d, unit / std::sqrt(static_cast<float>(shape_.head_dim))), random(kv, d, unit),
                      random(kv, d, unit), random(d, q, 1.7f / std::sqrt(static_cast<float>(q))));
    return layer;
  }

  FeedForward feed_forward() {
    const Index d = shape_.hidden_size, inner = shape_.inner_size;
    return {random(inner, d, 1.7f / std::sqrt(static_cast<float>(d))),
            random(d, inner, 1.7f / std::sqrt(static_cast<float>(inner)))};
  }

  std::shared_ptr<const RelativeBias> random_bias(bool bidirectional) {
    const Matrix table = random(32, shape_.num_heads, 1.0f);  // T5's layout
    return std::make_shared<const RelativeBias>(
        RelativeBias::from_t5(std::span(table.data(), static_cast<std::size_t>(table.size())), shape_.num_heads,
                              {.bidirectional = bidirectional}));
  }

  /// Uniform in −size … size, the same on every machine.
  Matrix random(Index rows, Index columns, float size) {
    Matrix result(rows, columns);
    for (Index i = 0; i < result.size(); ++i)
      result.data()[i] = (static_cast<float>(generator_() % 65536) / 32768.0f - 1.0f) * size;
    return result;
  }

  Matrix embed(std::span<const Index> tokens) const {
    Matrix x(std::ssize(tokens), shape_.hidden_size);
    for (Index t = 0; t < x.rows(); ++t) x.row(t) = embedding.row(tokens[static_cast<std::size_t>(t)]);
    return x;
  }

  static Eigen::MatrixXd log_softmax(const Matrix& logits) {
    Eigen::MatrixXd result = logits.cast<double>();
    for (Index row = 0; row < result.rows(); ++row) {
      double largest = result(row, 0), sum = 0;
      for (Index i = 1; i < result.cols(); ++i) largest = std::max(largest, result(row, i));
      for (Index i = 0; i < result.cols(); ++i) sum += std::exp(result(row, i) - largest);
      for (Index i = 0; i < result.cols(); ++i) result(row, i) -= largest + std::log(sum);
    }
    return result;
  }

  Shape shape_;
  std::minstd_rand generator_;
};

}  // namespace encoder_decoder
