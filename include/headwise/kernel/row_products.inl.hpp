// SPDX-License-Identifier: MIT
// Products of token rows with weight rows, both contiguous: the projections around attention. Lane l of an output's sum
// takes the inputs l, l + kLanes, …; then the lanes are added. Tokens and outputs of a register tile only share loads,
// so a number's bits do not depend on what is computed with it.

template <int T, int O>
HEADWISE_INLINE void product_step(F (&sum)[T][O], const float* x, Index x_stride, const float* w, Index w_stride) {
  F row[T];
  HEADWISE_UNROLL for (int t = 0; t < T; ++t) row[t] = load(x + t * x_stride);
  HEADWISE_UNROLL for (int o = 0; o < O; ++o) {
    const F column = pin(load(w + o * w_stride));
    HEADWISE_UNROLL for (int t = 0; t < T; ++t) sum[t][o] = fma(row[t], column, sum[t][o]);
  }
}

/// T tokens from `token` on by O outputs from `output` on.
template <int T, int O>
HEADWISE_INLINE void product_tile(const ProductArgs& args, Index token, Index output) {
  const float* x = args.x + token * args.x_stride;
  const float* weight = args.weight + output * args.inputs;
  F sum[T][O];
  HEADWISE_UNROLL for (int t = 0; t < T; ++t) HEADWISE_UNROLL for (int o = 0; o < O; ++o) sum[t][o] = zero();
  Index i = 0;
  for (; i + kLanes <= args.inputs; i += kLanes) product_step(sum, x + i, args.x_stride, weight + i, args.inputs);
  if (i < args.inputs) {  // the rest as one more step, padded with zeros
    float a[T][kLanes] = {}, w[O][kLanes] = {};
    for (Index j = i; j < args.inputs; ++j) {
      for (int t = 0; t < T; ++t) a[t][j - i] = x[t * args.x_stride + j];
      for (int o = 0; o < O; ++o) w[o][j - i] = weight[o * args.inputs + j];
    }
    product_step(sum, a[0], kLanes, w[0], kLanes);
  }
  HEADWISE_UNROLL for (int t = 0; t < T; ++t) HEADWISE_UNROLL for (int o = 0; o < O; ++o)
      args.y[(token + t) * args.y_stride + output + o] =
      reduce_add(sum[t][o]) + (args.bias ? args.bias[output + o] : 0.0f);
}

template <int T, int O>
HEADWISE_INLINE void product_rows(const ProductArgs& args, Index token) {
  Index output = 0;
  for (; output + O <= args.outputs; output += O) product_tile<T, O>(args, token, output);
  for (; output < args.outputs; ++output) product_tile<T, 1>(args, token, output);
}

inline void row_products(const ProductArgs& args) {
  // 4 × 2 sums, 4 rows and a column fit 16 registers, 4 × 4 fit 32; a token alone takes 4 outputs, to have as many sums
  // under way as an addition takes cycles
  constexpr int kTokens = 4, kOutputs = kLanes == 16 ? 4 : 2, kRowOutputs = 4;
  Index token = 0;
  for (; token + kTokens <= args.tokens; token += kTokens) product_rows<kTokens, kOutputs>(args, token);
  for (; token < args.tokens; ++token) product_rows<1, kRowOutputs>(args, token);
}
