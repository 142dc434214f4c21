// SPDX-License-Identifier: MIT
// Weighted sums of int8 and int4 values. A row's weights of a tile, times the scales of the tokens (of int4: per panel),
// become digits; then
//   output += float(Σ codes · integers) · unit of the row.

/// A panel of NV vectors: its sums added to the rows' outputs.
template <class Codes, int MR, int NV>
HEADWISE_INLINE void digit_sum_panel(const SumArgs& args, const WeightDigits<MR>& weights, Index row, Index dim,
                                     Index units, Index part, Index parts) {
  const Index step_bytes = NV * kLanes * 4;
  const CodeStrides strides{Codes::kSteps * step_bytes, step_bytes, kLanes * 4};
  const char* const panel = static_cast<const char*>(args.values) + dim * kTileTokens * bits_of(Codes::kStorage) / 8;
  LinesAhead ahead(args.ahead, part, parts, kTileTokens / 8 * Codes::kSteps * NV);
  const char* start[MR];
  HEADWISE_UNROLL for (int i = 0; i < MR; ++i) start[i] = reinterpret_cast<const char*>(&weights.start[i]);
  // two vectors at a time, as many as a panel has where a vector has 16 lanes
  HEADWISE_UNROLL for (int j = 0; j < NV; j += 2) {
    constexpr int kWidth = NV < 2 ? 1 : 2;
    I dots[MR][kWidth];
    digit_dots<Codes>(weights.digits, WeightDigits<MR>::kRowBytes, panel + j * strides.vector, strides, units, ahead,
                      start, dots);
    HEADWISE_UNROLL for (int i = 0; i < MR; ++i) HEADWISE_UNROLL for (int k = 0; k < kWidth; ++k) {
      float* output = args.output + (row + i) * args.stride() + dim + (j + k) * kLanes;
      store(output, fma(to_float(dots[i][k]), splat(weights.unit[i]), load(output)));
    }
  }
}

template <class Codes, int MR>
HEADWISE_INLINE void digit_sum_rows(const SumArgs& args, Index row, Index group, Index groups) {
  const float* const p = static_cast<const float*>(args.weights) + row * kTileTokens;
  const char* const scales = static_cast<const char*>(args.values) + value_code_bytes(Codes::kStorage, args.value_dim);
  const Index units = ceil_div(args.ends ? args.ends[row + MR - 1] : args.tokens, 8);
  const Index panels = ceil_div(args.value_dim, kPanelDims), parts = panels * groups;
  // of int4, the next panel's weights are made before this one's products: the long way from a row's largest weight to
  // its digits passes meanwhile
  constexpr bool kEveryPanel = Codes::kScaleGroup == kPanelDims;
  WeightDigits<MR> weights[2];
  weights[0].make(p, scales, Codes::kZero);
  for (Index dim = 0; dim < args.value_dim; dim += kPanelDims) {
    const Index panel = dim / kPanelDims, part = group * panels + panel;
    if (kEveryPanel && dim + kPanelDims < args.value_dim)
      weights[(panel + 1) % 2].make(p, scales + 2 * kTileTokens * (panel + 1), Codes::kZero);
    const WeightDigits<MR>& digits = weights[kEveryPanel ? panel % 2 : 0];
    if (args.value_dim - dim >= kPanelDims)
      digit_sum_panel<Codes, MR, kPanelDims / kLanes>(args, digits, row, dim, units, part, parts);
    else
      digit_sum_panel<Codes, MR, kPanelDims / 2 / kLanes>(args, digits, row, dim, units, part, parts);
  }
}

template <class Codes>
void digit_sum(const SumArgs& args) {
  Index groups = 0;
  for (Index row = 0; row < args.rows; row += digit_rows_at_once(args.rows - row, args.rows)) ++groups;
  for (Index row = 0, rows, group = 0; row < args.rows; row += rows, ++group) {
    rows = digit_rows_at_once(args.rows - row, args.rows);
    switch (rows) {
      case kDigitBigRows:
        digit_sum_rows<Codes, kDigitBigRows>(args, row, group, groups);
        break;
      case 4:
        digit_sum_rows<Codes, 4>(args, row, group, groups);
        break;
      case 3:
        digit_sum_rows<Codes, 3>(args, row, group, groups);
        break;
      case 2:
        digit_sum_rows<Codes, 2>(args, row, group, groups);
        break;
      default:
        digit_sum_rows<Codes, 1>(args, row, group, groups);
    }
  }
}
