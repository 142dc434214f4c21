// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "headwise/core/view.hpp"
#include "headwise/headwise.hpp"

// What a cache should hold, as plain vectors, and the layers that all caches of these tests have.

namespace headwise::testing {

inline constexpr Index kLayers = 2, kSequences = 3;

inline const std::vector<LayerShape>& plain_layers() {
  static const std::vector<LayerShape> layers{{2, 20, 24}, {1, 32, 32}};
  return layers;
}

/// The same of which values are the first dimensions of the keys.
inline const std::vector<LayerShape>& latent_layers() {
  static const std::vector<LayerShape> layers{
      {.num_kv_heads = 2, .head_dim = 36, .value_dim = 24, .values_in_keys = true},
      {.num_kv_heads = 1, .head_dim = 48, .value_dim = 32, .values_in_keys = true}};
  return layers;
}

/// What turns the keys of a layer: all of their dimensions, or those that are not the value's.
inline Rope rope_of(const LayerShape& shape) {
  return Rope(shape.head_dim, {.rotary_begin = shape.values_in_keys ? shape.value_dim : 0});
}

/// The keys and values of one token in one layer, [kv_head][dim].
struct Token {
  std::vector<float> key, value;
  double key_slack = 0;  ///< roundings of the key beyond the first, in units of epsilon
};
using Tokens = std::vector<Token>;

/// tokens [sequence][layer]
class Model {
 public:
  explicit Model(const std::vector<LayerShape>& layers) : layers_(layers) {}

  Tokens& at(Index sequence, Index layer) { return tokens_[index(sequence)][index(layer)]; }
  const Tokens& at(Index sequence, Index layer) const { return tokens_[index(sequence)][index(layer)]; }
  std::vector<Tokens>& sequence(Index b) { return tokens_[index(b)]; }
  const LayerShape& shape(Index layer) const { return layers_[index(layer)]; }

  /// `count` more tokens of a layer, of numbers that no other token has.
  Tokens fresh(Index layer, Index count) {
    const LayerShape& s = shape(layer);
    std::uniform_real_distribution<float> uniform(-2.0f, 2.0f);
    Tokens result(index(count));
    for (Token& t : result) {
      t.key.resize(index(s.num_kv_heads * s.head_dim));
      t.value.resize(index(s.num_kv_heads * s.value_dim));
      for (float& x : t.key) x = uniform(generator_);
      for (float& x : t.value) x = uniform(generator_);
      for (Index g = 0; g < s.num_kv_heads && s.values_in_keys; ++g)
        std::copy_n(t.key.begin() + g * s.head_dim, s.value_dim, t.value.begin() + g * s.value_dim);
    }
    return result;
  }

  static std::size_t index(Index i) { return static_cast<std::size_t>(i); }

 private:
  std::vector<LayerShape> layers_;
  std::vector<std::vector<Tokens>> tokens_{index(kSequences), std::vector<Tokens>(index(kLayers))};
  std::mt19937 generator_{11};
};

/// Tokens as the packed arrays of a call, in T.
template <class T>
struct Packed {
  std::vector<T> keys, values;
  View<const T> k, v;

  Packed(const Tokens& tokens, const LayerShape& s) {
    for (const Token& t : tokens) {
      for (const float x : t.key) keys.emplace_back(x);
      for (const float x : t.value) values.emplace_back(x);
    }
    if (keys.empty()) keys.resize(1), values.resize(1);
    k = View<const T>(keys.data(), std::ssize(tokens), s.num_kv_heads, s.head_dim);
    v = View<const T>(values.data(), std::ssize(tokens), s.num_kv_heads, s.value_dim);
  }
};

/// Turns the heads of a key by `distance` positions, in double, with the frequencies of plain RoPE of halves.
inline void turn(Token& token, const LayerShape& shape, Index distance) {
  const Index begin = shape.values_in_keys ? shape.value_dim : 0, pairs = (shape.head_dim - begin) / 2;
  for (Index g = 0; g < shape.num_kv_heads; ++g)
    for (Index i = 0; i < pairs; ++i) {
      const double angle =
          static_cast<double>(distance) * std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(pairs));
      float& x = token.key[Model::index(g * shape.head_dim + begin + i)];
      float& y = token.key[Model::index(g * shape.head_dim + begin + i + pairs)];
      const double a = x, b = y;
      x = static_cast<float>(a * std::cos(angle) - b * std::sin(angle));
      y = static_cast<float>(b * std::cos(angle) + a * std::sin(angle));
    }
}

}  // namespace headwise::testing
