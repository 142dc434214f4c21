// SPDX-License-Identifier: MIT
// Weighted sums: weights · V tile, added to the rows' outputs. V panels outermost, rows inside. Per output element one
// chain of FMAs over the tokens in order: the summation order of every path on this ISA.

/// Lines that a step of so many vectors reads, and asks for.
template <class Step>
constexpr int sum_requests(int vectors) {
  return vectors * kLanes * Step::kLaneBytes > 64 ? 2 : 1;
}

/// Tokens that are met together at least; and steps at a time, of 4 requests where steps are small.
template <class Step>
inline constexpr Index kSumTokens = Step::kKappa == 1 ? 4 : 8;
template <class Step>
constexpr int sum_unroll(int rows, int vectors) {
  if (rows > kSmallRows) return static_cast<int>(kSumTokens<Step>) / Step::kKappa;
  return (Step::kKappa <= 2 ? 4 : 8 / Step::kKappa) / std::min(sum_requests<Step>(vectors), Step::kKappa == 8 ? 1 : 2);
}
template <class Step, int MR, int NV>
using SumAhead =
    std::conditional_t<(MR > kSmallRows), TileAhead, Ahead<sum_unroll<Step>(MR, NV) * sum_requests<Step>(NV)>>;

/// MR rows by NV vectors of a panel of `width` dims, over `tokens` tokens, a multiple of kSumTokens.
template <class Step, int MR, int NV, class Scales>
HEADWISE_INLINE void sum_tile(const char* a, const RowsApart& rows, const char* b, Index width, Index tokens,
                              float* output, Index output_stride, const Scales& scales, SumAhead<Step, MR, NV>& ahead) {
  constexpr int kRequests = sum_requests<Step>(NV);
  constexpr int kUnroll = sum_unroll<Step>(MR, NV);
  constexpr Index kVectorBytes = kLanes * Step::kLaneBytes, kRowBytes = 4 * Step::kRowElements;
  const Index step_bytes = width * Step::kLaneBytes;
  F acc[1][MR][NV];
  HEADWISE_UNROLL for (int i = 0; i < MR; ++i) HEADWISE_UNROLL for (int j = 0; j < NV; ++j) acc[0][i][j] =
      load(output + i * output_stride + j * kLanes);
  for (Index token = 0; token < tokens; token += kUnroll * Step::kKappa) {
    HEADWISE_UNROLL for (int u = 0; u < kUnroll; ++u) {
      if constexpr (MR <= kSmallRows) ahead.request(u * kRequests);
      if constexpr (MR <= kSmallRows && kRequests == 2) ahead.request(u * kRequests + 1);
      if constexpr (Step::kScaled)
        Step::run(acc, 0, a + u * kRowBytes, rows, b + u * step_bytes, kVectorBytes,
                  scales.of_step(token + u * Step::kKappa));
      else
        Step::run(acc, 0, a + u * kRowBytes, rows, b + u * step_bytes, kVectorBytes);
    }
    if constexpr (MR > kSmallRows) ahead.request();
    a += kUnroll * kRowBytes;
    b += kUnroll * step_bytes;
  }
  HEADWISE_UNROLL for (int i = 0; i < MR; ++i) HEADWISE_UNROLL for (int j = 0; j < NV; ++j)
      store(output + i * output_stride + j * kLanes, acc[0][i][j]);
}

/// Vectors side by side for MR rows of a panel: as many as the accumulators allow.
constexpr int sum_vectors(int rows, Index width) {
  int vectors = static_cast<int>(width) / kLanes;
  while (vectors > 1 && vectors * rows > kSumAccumulators) vectors /= 2;
  return vectors;
}

template <class Step, int MR, Index Width, class Scales>
HEADWISE_INLINE void sum_rows(const SumArgs& args, Index row, Index dim, Index group, Index groups,
                              const Scales& scales) {
  constexpr int NV = MR > kSmallRows ? 2 : sum_vectors(MR, Width);
  constexpr RowsApart rows{kTileTokens / Step::kKappa * 4 * Step::kRowElements};
  constexpr Index kRequests =
      MR > kSmallRows ? kTileTokens / kSumTokens<Step> : kTileTokens / Step::kKappa * sum_requests<Step>(NV);
  const Index tokens = round_up(args.ends ? args.ends[row + MR - 1] : args.tokens, kSumTokens<Step>);
  const char* a = static_cast<const char*>(args.weights) + row * rows.stride;
  const char* panel = static_cast<const char*>(args.values) + dim * kTileTokens * Step::kLaneBytes / Step::kKappa;
  const Index panels = ceil_div(args.value_dim, kPanelDims);
  SumAhead<Step, MR, NV> ahead(args.ahead, dim / kPanelDims * groups + group, panels * groups,
                               Width / (NV * kLanes) * kRequests);
  for (Index d = 0; d < Width; d += NV * kLanes)
    sum_tile<Step, MR, NV>(a, rows, panel + d * Step::kLaneBytes, Width, tokens,
                           args.output + row * args.stride() + dim + d, args.stride(), scales, ahead);
}

/// Rows of the next register tile of so many. Half a panel is rare (value_dim 16, 48, 80, 112): not worth much code.
template <class Step, Index Width>
constexpr Index sum_rows_at_once(Index rows) {
  if (Width < kPanelDims) return rows < kSmallRows ? 1 : kSmallRows;
  if (Step::kManyRows && rows >= kSumBigRows) return kSumBigRows;
  return rows == 5 || rows == 6 ? 3 : rows < kSmallRows ? rows : kSmallRows;
}

template <class Step, Index Width, class Scales>
HEADWISE_INLINE void sum_panel(const SumArgs& args, Index dim, const Scales& scales) {
  Index groups = 0;
  for (Index row = 0; row < args.rows; row += sum_rows_at_once<Step, Width>(args.rows - row)) ++groups;
  for (Index row = 0, rows, group = 0; row < args.rows; row += rows, ++group) {
    rows = sum_rows_at_once<Step, Width>(args.rows - row);
    if (rows == 4) {
      sum_rows<Step, 4, Width>(args, row, dim, group, groups, scales);
    } else if (rows == 1) {
      sum_rows<Step, 1, Width>(args, row, dim, group, groups, scales);
    } else if constexpr (Width == kPanelDims) {
      if (rows == 2)
        sum_rows<Step, 2, Width>(args, row, dim, group, groups, scales);
      else if (rows == 3)
        sum_rows<Step, 3, Width>(args, row, dim, group, groups, scales);
      else if constexpr (Step::kManyRows)
        sum_rows<Step, kSumBigRows, Width>(args, row, dim, group, groups, scales);
    }
  }
}

template <class Step, Index Width>
HEADWISE_INLINE void sum_scaled_panel(const SumArgs& args, Index dim) {
  if constexpr (Step::kScaled)
    sum_panel<Step, Width>(args, dim, ValueScales<typename Step::Format>(args.values, args.value_dim, dim));
  else
    sum_panel<Step, Width>(args, dim, NoScales{});
}

template <class Step>
void weighted_sum(const SumArgs& args) {
  Index dim = 0;
  for (; args.value_dim - dim >= kPanelDims; dim += kPanelDims) sum_scaled_panel<Step, kPanelDims>(args, dim);
  if (dim < args.value_dim) sum_scaled_panel<Step, kPanelDims / 2>(args, dim);
}
