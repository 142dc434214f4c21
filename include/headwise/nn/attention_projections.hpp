// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <utility>

#include "headwise/core/error.hpp"
#include "headwise/nn/linear.hpp"
#include "headwise/nn/multi_head_attention_options.hpp"
#include "headwise/nn/workspace.hpp"
#include "headwise/parallel/executor.hpp"

namespace headwise::nn::detail {

/// The linear maps of a layer of attention: queries, keys and values of its input, and its output of what was attended
/// to. Knows neither positions nor caches.
class AttentionProjections {
 public:
  /// Of resolved options.
  explicit AttentionProjections(const MultiHeadAttentionOptions& options)
      : heads_(options.num_heads, *options.num_kv_heads, *options.head_dim, *options.value_dim),
        hidden_(options.hidden_size),
        new_kv_heads_(options.borrows_kv ? 0 : heads_.num_kv_heads()) {
    const Index H = heads_.num_heads(), G = new_kv_heads_, dk = heads_.head_dim(), dv = heads_.value_dim();
    shapes_ = {Shape{"query", H * dk, hidden_, options.query_bias}, Shape{"key", G * dk, hidden_, options.key_bias},
               Shape{"value", G * dv, hidden_, options.value_bias},
               Shape{"output", hidden_, H * dv, options.output_bias}};
  }

  /// KV heads that a pass projects: 0 where keys and values are another layer's.
  Index new_kv_heads() const { return new_kv_heads_; }
  /// Numbers in the weights and biases.
  Index parameters() const {
    Index total = 0;
    for (const Shape& s : shapes_) total += s.outputs * s.inputs + (s.bias ? s.outputs : 0);
    return total;
  }

  void set_weights(Linear query, Linear key, Linear value, Linear output) {
    const Linear* given[] = {&query, &key, &value, &output};
    for (std::size_t i = 0; i < shapes_.size(); ++i)
      if (shapes_[i].outputs > 0) check_weight(*given[i], shapes_[i]);
    query_ = std::move(query);
    key_ = std::move(key);
    value_ = std::move(value);
    output_ = std::move(output);
    has_weights_ = true;
  }

  void check_input(const char* name, const MatrixRef& x) const {
    require(has_weights_, "weights (unset) of a MultiHeadAttention must be given by set_weights before a forward pass");
    require(x.cols() == hidden_, name, " (", x.rows(), " x ", x.cols(), ") must have hidden_size (", hidden_,
            ") columns");
  }
  void check(const MatrixRef& x, const Eigen::Ref<Matrix>& y) const {
    check_input("x", x);
    require(y.rows() == x.rows() && y.cols() == hidden_, "y (", y.rows(), " x ", y.cols(), ") must be ", x.rows(),
            " x ", hidden_);
  }

  /// x's queries, and its keys and values where the layer makes them.
  Activations project(const MatrixRef& x, Index sequences, Workspace& workspace, ExecutorRef run) const {
    const Activations a = project_queries(x, sequences, workspace, run);
    if (new_kv_heads_ > 0) project_kv(x, a, run);
    return a;
  }
  Activations project_queries(const MatrixRef& x, Index sequences, Workspace& workspace, ExecutorRef run) const {
    const Activations a = reserve(x.rows(), sequences, workspace);
    query_(x, a.map(a.qk, a.query_width(), a.qk_width()), run);
    return a;
  }
  Activations project_memory(const MatrixRef& memory, Index sequences, Workspace& workspace, ExecutorRef run) const {
    const Activations a = reserve(memory.rows(), sequences, workspace);
    project_kv(memory, a, run);
    return a;
  }

  /// y of what was attended to.
  void project_output(const Activations& a, Eigen::Ref<Matrix> y, ExecutorRef run) const {
    output_(a.map(a.attended, a.attended_width(), a.attended_width()), y, run);
  }

 private:
  struct Shape {
    const char* name;
    Index outputs, inputs;
    bool bias;
  };

  static void check_weight(const Linear& weight, const Shape& shape) {
    require(weight.outputs() == shape.outputs && weight.inputs() == shape.inputs, shape.name, " weight (",
            weight.outputs(), " x ", weight.inputs(), ") must be ", shape.outputs, " x ", shape.inputs);
    require((weight.bias() != nullptr) == shape.bias, shape.name, " bias (", weight.bias() ? "given" : "none",
            ") must be ", shape.bias ? "given" : "none", ", as ", shape.name, "_bias of the options says");
  }

  Activations reserve(Index rows, Index sequences, Workspace& workspace) const {
    Activations a{heads_, new_kv_heads_, sequences, rows / sequences, nullptr, nullptr, nullptr};
    a.qk = workspace.reserve(rows * (a.qk_width() + a.value_width() + a.attended_width()));
    a.v = a.qk + rows * a.qk_width();
    a.attended = a.v + rows * a.value_width();
    return a;
  }
  void project_kv(const MatrixRef& x, const Activations& a, ExecutorRef run) const {
    key_(x, a.map(a.qk + a.query_width(), a.key_width(), a.qk_width()), run);
    value_(x, a.map(a.v, a.value_width(), a.value_width()), run);
  }

  Heads<> heads_;
  Index hidden_, new_kv_heads_;
  std::array<Shape, 4> shapes_;  // those that a borrower lacks have no outputs
  Linear query_, key_, value_, output_;
  bool has_weights_ = false;
};

}  // namespace headwise::nn::detail
