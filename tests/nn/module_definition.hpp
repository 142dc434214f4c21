// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <complex>
#include <span>
#include <vector>

#include "headwise/nn/multi_head_attention.hpp"
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

/// The module by its definition, in double: x attends to `memory` (x itself: self-attention). One sequence.
inline Eigen::MatrixXd module_definition(const nn::MultiHeadAttention& module, const ModuleWeights& w,
                                         const nn::Matrix& x_float, const nn::Matrix& memory_float,
                                         bool cross = false) {
  const auto& o = module.options();
  const Index H = o.num_heads, dk = *o.head_dim, dv = *o.value_dim;
  const Eigen::MatrixXd x = x_float.cast<double>(), memory = memory_float.cast<double>();
  Eigen::MatrixXd q = project(x, w.wq, w.bq), k = project(memory, w.wk, w.bk), v = project(memory, w.wv, w.bv);
  const Index Tq = q.rows(), Tk = k.rows();

  if (o.qk_norm_epsilon) {
    const auto norm = [&](Eigen::MatrixXd& m, const nn::Vector& weight) {
      for (Index t = 0; t < m.rows(); ++t)
        for (Index start = 0; start < m.cols(); start += dk) {
          auto head = m.row(t).segment(start, dk);
          const double squares = head.squaredNorm() / static_cast<double>(dk);
          head /= std::sqrt(squares + static_cast<double>(*o.qk_norm_epsilon));
          head.array() *= weight.transpose().cast<double>().array();
        }
    };
    norm(q, w.query_norm);
    norm(k, w.key_norm);
  }

  if (o.rope && !cross) {
    const nn::Rope rope(dk, *o.rope);
    const auto turn = [&](Eigen::MatrixXd& m) {
      const Index pairs = rope.rotary_dim() / 2;
      for (Index t = 0; t < m.rows(); ++t)
        for (Index start = 0; start < m.cols(); start += dk)
          for (Index i = 0; i < pairs; ++i) {
            const bool interleaved = o.rope->style == nn::RopeStyle::interleaved;
            double& a = m(t, start + (interleaved ? 2 * i : i));
            double& b = m(t, start + (interleaved ? 2 * i + 1 : i + pairs));
            const auto z = std::complex<double>(a, b) *
                           std::polar(rope.attention_factor(),
                                      static_cast<double>(t) * rope.frequencies()[static_cast<std::size_t>(i)]);
            a = z.real();
            b = z.imag();
          }
    };
    turn(q);
    turn(k);
  }

  Eigen::MatrixXd attended = Eigen::MatrixXd::Zero(Tq, H * dv);
  for (Index h = 0; h < H; ++h) {
    const Index g = o.head_map->kv_head_of(h);
    for (Index i = 0; i < Tq; ++i) {
      const Index p = cross ? 0 : Tk - Tq + i;
      std::vector<Index> keys;
      std::vector<double> scores;
      for (Index t = 0; t < Tk; ++t) {
        if (!cross &&
            ((o.causal && t > p) || (o.window && t <= p - *o.window) || (o.window_right && t > p + *o.window_right)))
          continue;
        double s = q.row(i).segment(h * dk, dk).dot(k.row(t).segment(g * dk, dk));
        s *= o.scale ? static_cast<double>(*o.scale) : 1 / std::sqrt(static_cast<double>(dk));
        const double cap = static_cast<double>(o.softcap);
        if (cap > 0) s = cap * std::tanh(s / cap);
        if (!cross && !o.alibi_slopes.empty())
          s -= static_cast<double>(o.alibi_slopes[static_cast<std::size_t>(h)]) * std::abs(static_cast<double>(p - t));
        if (!cross && o.relative_bias) s += static_cast<double>((*o.relative_bias)(h, t - p));
        keys.push_back(t);
        scores.push_back(s);
      }
      double sum = 0;
      for (double& s : scores) sum += s = std::exp(s);  // scores are small here
      for (std::size_t n = 0; n < keys.size(); ++n)
        attended.row(i).segment(h * dv, dv) += scores[n] / sum * v.row(keys[n]).segment(g * dv, dv);
    }
  }
  return project(attended, w.wo, w.bo);
}

}  // namespace headwise::testing
