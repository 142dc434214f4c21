// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <type_traits>
#include <utility>

#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"
#include "headwise/parallel/executor.hpp"
#include "headwise/parallel/serial.hpp"

namespace headwise::nn {

/// Activations [token][feature] and weights [output feature][input feature]: one row is contiguous.
using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Vector = Eigen::VectorXf;
/// What functions take: a Matrix, a block of its rows or columns, or an Eigen::Map, without a copy. Eigen copies other
/// expressions (a column-major matrix, say) into a temporary.
using MatrixRef = Eigen::Ref<const Matrix>;

namespace detail {

// g++ keeps the sums in registers only when told to unroll
#define HEADWISE_UNROLL_TILE _Pragma("GCC unroll 8")

/// Products of T token rows with O weight rows. Lane l of an output's sum takes the inputs l, l + lanes, …; then the
/// lanes are added: an order that T and O have no part in. Tokens and outputs only share loads.
template <int T, int O>
inline void linear_tile(const float* x, Index x_stride, const float* weight, const float* bias, Index inputs, float* y,
                        Index y_stride) {
  using Packet = Eigen::internal::packet_traits<float>::type;
  constexpr Index lanes = Eigen::internal::packet_traits<float>::size;
  Packet sum[T][O];
  HEADWISE_UNROLL_TILE for (int t = 0; t < T; ++t) HEADWISE_UNROLL_TILE for (int o = 0; o < O; ++o) sum[t][o] =
      Eigen::internal::pset1<Packet>(0.0f);
  const auto add = [&](const float* a, Index a_stride, const float* w, Index w_stride) {
    Packet row[T];
    HEADWISE_UNROLL_TILE for (int t = 0; t < T; ++t) row[t] = Eigen::internal::ploadu<Packet>(a + t * a_stride);
    HEADWISE_UNROLL_TILE for (int o = 0; o < O; ++o) {
      const Packet column = Eigen::internal::ploadu<Packet>(w + o * w_stride);
      HEADWISE_UNROLL_TILE for (int t = 0; t < T; ++t) sum[t][o] = Eigen::internal::pmadd(row[t], column, sum[t][o]);
    }
  };
  Index i = 0;
  for (; i + lanes <= inputs; i += lanes) add(x + i, x_stride, weight + i, inputs);
  if (i < inputs) {  // the rest as one more step, padded with zeros
    std::array<float, static_cast<std::size_t>(T * lanes)> a{};
    std::array<float, static_cast<std::size_t>(O * lanes)> w{};
    for (int t = 0; t < T; ++t) std::copy_n(x + t * x_stride + i, inputs - i, a.data() + t * lanes);
    for (int o = 0; o < O; ++o) std::copy_n(weight + o * inputs + i, inputs - i, w.data() + o * lanes);
    add(a.data(), lanes, w.data(), lanes);
  }
  HEADWISE_UNROLL_TILE for (int t = 0; t < T; ++t) HEADWISE_UNROLL_TILE for (int o = 0; o < O; ++o)
      y[t * y_stride + o] = Eigen::internal::predux(sum[t][o]) + (bias ? bias[o] : 0.0f);
}

#undef HEADWISE_UNROLL_TILE

}  // namespace detail

/// y = x·Wᵀ + b, the projection of a model's files: W [output][input], b [output] or none.
///
/// Each number of y is summed in one order that depends on the input size alone. So a row comes out bit for bit the same
/// alone or among others, with any executor: decode repeats what prefill computed. (Eigen's own product changes its order
/// with the number of rows.) Vectors are those of the compiler's flags, as everywhere in Eigen.
class Linear {
 public:
  /// No weight yet: 0 × 0.
  Linear() = default;
  /// Keeps the weight and the bias (pass them by std::move to avoid the copy). Throws std::invalid_argument when the
  /// bias is neither empty nor of one number per row of the weight.
  Linear(Matrix weight, Vector bias = {})  // NOLINT: converts on purpose
      : weight_(std::move(weight)), bias_(std::move(bias)), outputs_(weight_.rows()), inputs_(weight_.cols()) {
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
  // A work item is 32 outputs of 64 tokens: its weights stay in the L2 cache while tokens pass by.
  static constexpr Index kOutputs = 32, kTokens = 64;
  // 4 × 2 sums, 4 rows and a column fit 16 registers; one token takes 4 outputs, to have as many sums under way as an
  // addition takes cycles.
  static constexpr int kTileTokens = 4, kTileOutputs = 2, kRowOutputs = 4;

  void run(const float* x, Index x_stride, Index tokens, float* y, Index y_stride, ExecutorRef executor) const {
    const Index output_blocks = ceil_div(outputs_, kOutputs), token_blocks = ceil_div(tokens, kTokens);
    executor.parallel_for(output_blocks * token_blocks, [&](Index item) {
      const Index first_token = item / output_blocks * kTokens, first_output = item % output_blocks * kOutputs;
      const Index end_token = std::min(tokens, first_token + kTokens),
                  end_output = std::min(outputs_, first_output + kOutputs);
      Index t = first_token;
      for (; t + kTileTokens <= end_token; t += kTileTokens)
        rows<kTileTokens, kTileOutputs>(x + t * x_stride, x_stride, first_output, end_output, y + t * y_stride,
                                        y_stride);
      for (; t < end_token; ++t)
        rows<1, kRowOutputs>(x + t * x_stride, x_stride, first_output, end_output, y + t * y_stride, y_stride);
    });
  }

  template <int T, int O>
  void rows(const float* x, Index x_stride, Index output, Index end, float* y, Index y_stride) const {
    const auto tile = [&]<int N>(std::integral_constant<int, N>) {
      detail::linear_tile<T, N>(x, x_stride, weight() + output * inputs_, bias() ? bias() + output : nullptr, inputs_,
                                y + output, y_stride);
      output += N;
    };
    while (output + O <= end) tile(std::integral_constant<int, O>{});
    while (output < end) tile(std::integral_constant<int, 1>{});
  }

  Matrix weight_;
  Vector bias_;
  Index outputs_ = 0, inputs_ = 0;
  const float* weight_view_ = nullptr;
  const float* bias_view_ = nullptr;
};

}  // namespace headwise::nn
