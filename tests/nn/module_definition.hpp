// SPDX-License-Identifier: MIT
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <complex>
#include <span>
#include <vector>

#include "headwise/nn/multi_head_attention.hpp"
#include "headwise/reference.hpp"
#include "tests/nn/random_matrix.hpp"

namespace headwise::testing {

/// Weights of a module, kept for the definition below.
struct ModuleWeights {
  nn::Matrix wq, wk, wv, wo;
  nn::Vector bq, bk, bv, bo;  // empty: none
  nn::Vector query_norm, key_norm;

  explicit ModuleWeights(const nn::MultiHeadAttention& module, unsigned seed = 100) {
    const auto& o = module.options();
    const Index d = o.hidden_size, H = o.num_heads, G = *o.num_kv_heads, dk = *o.head_dim, dv = *o.value_dim;
    // 1/sqrt(inputs) keeps activations near 1, as in a model
    const auto weight = [&](Index rows, Index columns) {
      return nn::Matrix(random_matrix(rows, columns, ++seed) * (1.7f / std::sqrt(static_cast<float>(columns))));
    };
    const auto bias = [&](bool given, Index size) { return given ? random_vector(size, ++seed) : nn::Vector(); };
    wq = weight(H * dk, d), wk = weight(G * dk, d), wv = weight(G * dv, d), wo = weight(d, H * dv);
    bq = bias(o.query_bias, H * dk), bk = bias(o.key_bias, G * dk), bv = bias(o.value_bias, G * dv);
    bo = bias(o.output_bias, d);
    query_norm = bias(o.qk_norm_epsilon.has_value(), dk), key_norm = bias(o.qk_norm_epsilon.has_value(), dk);
  }
  void give_to(nn::MultiHeadAttention& module) const {
    module.set_weights({wq, bq}, {wk, bk}, {wv, bv}, {wo, bo});
    const auto numbers = [](const nn::Vector& v) { return std::span(v.data(), static_cast<std::size_t>(v.size())); };
    if (query_norm.size() > 0) module.set_qk_norm(numbers(query_norm), numbers(key_norm));
  }
};

inline Eigen::MatrixXd project(const Eigen::MatrixXd& x, const nn::Matrix& w, const nn::Vector& b) {
  Eigen::MatrixXd y = x * w.transpose().cast<double>();
  if (b.size() > 0) y.rowwise() += b.transpose().cast<double>();
  return y;
}

/// What a call says of the tokens of its sequence, for the definition.
struct DefinitionCall {
  std::vector<std::array<Index, 3>> positions{};  // [token]: temporal, height, width; empty: a token's number
  reference::Parameters rules{};                  // what the layer's options do not say: visible, added, transform, …
};

/// Which of a token's three positions turns pair i.
inline std::size_t axis_of_pair(const nn::RopeOptions& rope, Index i) {
  const auto [t, h, w] = rope.sections;
  if (t + h + w == 0) return 0;
  if (rope.section_order == nn::RopeSectionOrder::consecutive) return i < t ? 0 : i < t + h ? 1 : 2;
  const auto turn = static_cast<std::size_t>(i % 3);
  return i < 3 * rope.sections[turn] ? turn : 0;
}

/// Turns the heads of m [token][head · dim], whose first token is token `first` of its sequence.
inline void turn_by_definition(Eigen::MatrixXd& m, const nn::RopeOptions& options, Index dim, Index first,
                               const DefinitionCall& call) {
  const nn::Rope rope(dim, options);
  const Index pairs = rope.rotary_dim() / 2;
  const bool interleaved = options.style == nn::RopeStyle::interleaved;
  for (Index t = 0; t < m.rows(); ++t)
    for (Index start = 0; start < m.cols(); start += dim)
      for (Index i = 0; i < pairs; ++i) {
        const Index position = call.positions.empty()
                                   ? first + t
                                   : call.positions[static_cast<std::size_t>(first + t)][axis_of_pair(options, i)];
        double& a = m(t, start + (interleaved ? 2 * i : i));
        double& b = m(t, start + (interleaved ? 2 * i + 1 : i + pairs));
        const auto z = std::complex<double>(a, b) *
                       std::polar(rope.attention_factor(),
                                  static_cast<double>(position) * rope.frequencies()[static_cast<std::size_t>(i)]);
        a = z.real();
        b = z.imag();
      }
}

/// The heads of m [token][head · dim], normed.
inline void norm_by_definition(Eigen::MatrixXd& m, const nn::Vector& weight, Index dim, float epsilon) {
  for (Index t = 0; t < m.rows(); ++t)
    for (Index start = 0; start < m.cols(); start += dim) {
      auto head = m.row(t).segment(start, dim);
      head /= std::sqrt(head.squaredNorm() / static_cast<double>(dim) + static_cast<double>(epsilon));
      head.array() *= weight.transpose().cast<double>().array();
    }
}

/// The module by its definition, in double: x attends to `memory` (x itself: self-attention), of which its tokens are the
/// last. One sequence.
inline Eigen::MatrixXd module_definition(const nn::MultiHeadAttention& module, const ModuleWeights& w,
                                         const nn::Matrix& x_float, const nn::Matrix& memory_float, bool cross = false,
                                         const DefinitionCall& call = {}) {
  const auto& o = module.options();
  const Index H = o.num_heads, G = *o.num_kv_heads, dk = *o.head_dim, dv = *o.value_dim;
  const Eigen::MatrixXd x = x_float.cast<double>(), memory = memory_float.cast<double>();
  Eigen::MatrixXd q = project(x, w.wq, w.bq), k = project(memory, w.wk, w.bk), v = project(memory, w.wv, w.bv);
  const Index Tq = q.rows(), Tk = k.rows();
  if (o.qk_norm_epsilon) {
    norm_by_definition(q, w.query_norm, dk, *o.qk_norm_epsilon);
    norm_by_definition(k, w.key_norm, dk, *o.qk_norm_epsilon);
  }
  if (o.rope && !cross) {
    turn_by_definition(q, *o.rope, dk, Tk - Tq, call);
    turn_by_definition(k, *o.rope, dk, 0, call);
  }

  reference::Parameters rules = call.rules;
  if (o.scale) rules.scale = static_cast<double>(*o.scale);
  rules.softcap = static_cast<double>(o.softcap);
  rules.causal = o.causal && !cross;
  std::vector<Index> kv_head_of;
  for (Index h = 0; h < H; ++h) kv_head_of.push_back(o.head_map->kv_head_of(h));
  rules.kv_head_of = kv_head_of;
  const std::vector<double> sinks(o.sink_logits.begin(), o.sink_logits.end());
  if (!cross) {
    rules.window = o.window;
    rules.num_sink_tokens = o.num_sink_tokens;
    rules.window_right = o.window_right;
    rules.chunk_size = o.chunk_size;
    rules.alibi_slopes = o.alibi_slopes;
    rules.sink_logits = sinks;
    if (o.relative_bias)
      rules.bias = [&](Index head, Index distance) { return static_cast<double>((*o.relative_bias)(head, distance)); };
    if (o.temperature)
      rules.temperature = [t = *o.temperature](Index p) {
        return 1 + static_cast<double>(t.strength) *
                       std::log(1 + std::floor((static_cast<double>(p) + 1) / static_cast<double>(t.floor_scale)));
      };
  }
  const auto rows = [](const Eigen::MatrixXd& m) {
    std::vector<double> all;
    for (Index t = 0; t < m.rows(); ++t)
      for (Index i = 0; i < m.cols(); ++i) all.push_back(m(t, i));
    return all;
  };
  const reference::Result result = reference::attend({Tq, Tk, H, G, dk, dv}, rows(q), rows(k), rows(v), rules);
  Eigen::MatrixXd attended(Tq, H * dv);
  for (Index t = 0; t < Tq; ++t)
    for (Index i = 0; i < H * dv; ++i) attended(t, i) = result.output[static_cast<std::size_t>(t * H * dv + i)];
  return project(attended, w.wo, w.bo);
}

/// Activations are near 1; a few hundred roundings of 2^-24 in the longest sum, of which most cancel (seen: 9 at most).
inline constexpr double kModuleTolerance = 32 * 0x1p-24;

inline void expect_near(const nn::Matrix& got, const Eigen::MatrixXd& want, double tolerance = kModuleTolerance) {
  ASSERT_EQ(got.rows(), want.rows());
  ASSERT_EQ(got.cols(), want.cols());
  for (Index t = 0; t < got.rows(); ++t)
    for (Index d = 0; d < got.cols(); ++d)
      ASSERT_NEAR(static_cast<double>(got(t, d)), want(t, d), tolerance) << "token " << t << " feature " << d;
}

}  // namespace headwise::testing
