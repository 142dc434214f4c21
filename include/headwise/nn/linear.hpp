// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <utility>

#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"
#include "headwise/kernel/dispatch.hpp"
#include "headwise/nn/aligned_floats.hpp"
#include "headwise/parallel/executor.hpp"
#include "headwise/parallel/serial.hpp"

namespace headwise::nn {

/// Activations [token][feature] and weights [output feature][input feature]: one row is contiguous.
using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Vector = Eigen::VectorXf;
/// What functions take: a Matrix, a block of its rows or columns, or an Eigen::Map, without a copy. Eigen copies other
/// expressions (a column-major matrix, say) into a temporary.
using MatrixRef = Eigen::Ref<const Matrix>;

/// y = x·Wᵀ + b, the projection of a model's files: W [output][input], b [output] or none.
///
/// Each number of y is summed in one order that depends on the input size alone. So a row comes out bit for bit the same
/// alone or among others, with any executor: decode repeats what prefill computed. (Eigen's own product changes its order
/// with the number of rows.)
class Linear {
 public:
  /// No weight yet: 0 × 0.
  Linear() = default;
  /// Keeps a copy of the weight, and the bias. Throws std::invalid_argument when the bias is neither empty nor of one
  /// number per row of the weight.
  Linear(const Matrix& weight, Vector bias = {})  // NOLINT: converts on purpose
      : weight_(weight.data(), weight.data() + weight.size()),
        bias_(std::move(bias)),
        outputs_(weight.rows()),
        inputs_(weight.cols()) {
    require(bias_.size() == 0 || bias_.size() == outputs_, "bias (", bias_.size(),
            " numbers) must hold one per row of the weight (", outputs_, ") or none");
  }
  /// The same from any other matrix of float: column-major, a block, an Eigen::Map, an expression.
  template <class Derived>
  Linear(const Eigen::MatrixBase<Derived>& weight, Vector bias = {})  // NOLINT: converts on purpose
      : Linear(Matrix(weight), std::move(bias)) {}
  /// Refers to the caller's memory, packed, which must outlive this: weight [outputs][inputs], bias [outputs] or null.
  /// Throws std::invalid_argument on a null weight and on a negative size.
  static Linear view(const float* weight, Index outputs, Index inputs, const float* bias = nullptr) {
    require(outputs >= 0, "outputs (", outputs, ") of a Linear must be at least 0");
    require(inputs >= 0, "inputs (", inputs, ") of a Linear must be at least 0");
    require(weight != nullptr, "weight (null) of a Linear must point to ", outputs, " x ", inputs, " floats");
    Linear result;
    result.outputs_ = outputs;
    result.inputs_ = inputs;
    result.weight_view_ = weight;
    result.bias_view_ = bias;
    return result;
  }

  Index inputs() const { return inputs_; }
  Index outputs() const { return outputs_; }
  /// [output][input]
  const float* weight() const { return weight_view_ ? weight_view_ : weight_.data(); }
  /// [output], or null
  const float* bias() const { return bias_view_ ? bias_view_ : bias_.size() > 0 ? bias_.data() : nullptr; }

  /// y = x·Wᵀ + b. x [token][input], y [token][output]; they must not overlap. Throws std::invalid_argument when a shape
  /// does not fit, with y unchanged. Allocates nothing.
  template <Executor E = Serial>
  void operator()(const MatrixRef& x, Eigen::Ref<Matrix> y, E&& executor = Serial{}) const {
    require(x.cols() == inputs_, "x (", x.rows(), " x ", x.cols(), ") must have one column per input (", inputs_, ")");
    require(y.rows() == x.rows() && y.cols() == outputs_, "y (", y.rows(), " x ", y.cols(), ") must be ", x.rows(),
            " x ", outputs_);
    run(x.data(), x.outerStride(), x.rows(), y.data(), y.outerStride(), ExecutorRef(executor));
  }

 private:
  // A work item is 32 outputs of up to 512 tokens: its weights stay in the L2 cache while tokens pass by, and come from
  // memory once for all of them. Few outputs are left to the threads in items of fewer tokens.
  static constexpr Index kOutputs = 32, kFewTokens = 64, kManyTokens = 512;

  void run(const float* x, Index x_stride, Index tokens, float* y, Index y_stride, ExecutorRef executor) const {
    const TileKernels& kernels = headwise::detail::tile_kernels();
    constexpr Index kItemsPerThread = 8;
    const Index output_blocks = ceil_div(outputs_, kOutputs);
    const Index step = output_blocks >= kItemsPerThread * executor.concurrency() ? kManyTokens : kFewTokens;
    const Index token_blocks = ceil_div(tokens, step);
    executor.parallel_for(output_blocks * token_blocks, [&](Index item) {
      const Index t = item / output_blocks * step, o = item % output_blocks * kOutputs;
      kernels.row_products({.x = x + t * x_stride,
                            .x_stride = x_stride,
                            .tokens = std::min(step, tokens - t),
                            .weight = weight() + o * inputs_,
                            .inputs = inputs_,
                            .outputs = std::min(kOutputs, outputs_ - o),
                            .bias = bias() ? bias() + o : nullptr,
                            .y = y + t * y_stride + o,
                            .y_stride = y_stride});
    });
  }

  detail::AlignedFloats weight_;
  Vector bias_;
  Index outputs_ = 0, inputs_ = 0;
  const float* weight_view_ = nullptr;
  const float* bias_view_ = nullptr;
};

}  // namespace headwise::nn
