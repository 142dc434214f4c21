// SPDX-License-Identifier: MIT
// Scores of int8 and int4 keys: rows as digits · K tile. A score is
//   (Σ_groups float(Σ codes · integers) · scale of the token) · unit of the row
// a function of the row's own query and of the key.

/// Rows of the next register tile of so many, of `of` in all.
constexpr Index digit_rows_at_once(Index rows, Index of) {
  if (of > kStreamRows && rows >= kDigitBigRows) return kDigitBigRows;
  if (rows == 5 || rows == 6) return 3;
  return rows < kSmallRows ? rows : kSmallRows;
}

/// Vectors of tokens side by side, which share what is loaded of the rows (1 row: a third less time than one by one).
inline constexpr int kDigitScoreVectors = 2;

template <class Codes, int MR>
HEADWISE_INLINE M digit_score_rows(const ScoreArgs& args, const SoftmaxState* softmax, Index row,
                                   const ScoreSpan& span) {
  constexpr int NV = kDigitScoreVectors;
  const Index dim = args.head_dim, a_stride = row_bytes(Operand::digits, dim);
  const Index steps = dim / 8 * Codes::kSteps, block_bytes = steps * kBlockTokens * 4;
  const char* const rows = static_cast<const char*>(args.queries) + row * a_stride;
  const char* const scales = static_cast<const char*>(args.keys) + kTileTokens / kBlockTokens * block_bytes;
  const CodeStrides strides{Codes::kSteps * kBlockTokens * 4, kBlockTokens * 4,
                            kLanes == kBlockTokens ? block_bytes : kLanes * 4};
  LinesAhead ahead(args.ahead, span.part, span.parts, steps * NV);
  const Index token = span.first;
  const char* keys =
      static_cast<const char*>(args.keys) + token / kBlockTokens * block_bytes + token % kBlockTokens * 4;
  F s[MR][NV];
  HEADWISE_UNROLL for (int i = 0; i < MR; ++i) HEADWISE_UNROLL for (int j = 0; j < NV; ++j) s[i][j] = zero();
  Index d = 0;
  do {
    const Index group = d / Codes::kScaleGroup;
    const char* start[MR];
    HEADWISE_UNROLL for (int i = 0; i < MR; ++i) start[i] = Codes::start(DigitRow{rows + i * a_stride, dim}, group);
    I dots[MR][NV];
    digit_dots<Codes>(rows + 2 * d, a_stride, keys + d / 8 * strides.unit, strides,
                      std::min(Codes::kScaleGroup, dim - d) / 8, ahead, start, dots);
    HEADWISE_UNROLL for (int j = 0; j < NV; ++j) {
      const F scale = load_scales(scales + 2 * (group * kTileTokens + token + j * kLanes)) * splat(kSumShift);
      HEADWISE_UNROLL for (int i = 0; i < MR; ++i) s[i][j] = fma(to_float(dots[i][j]), scale, s[i][j]);
    }
    d += Codes::kScaleGroup;
  } while (Codes::kScaleGroup < kMaxHeadDim && d < dim);
  HEADWISE_UNROLL for (int i = 0; i < MR; ++i) {
    const F unit = splat(DigitRow{rows + i * a_stride, dim}.unit());
    // pinned, else g++ contracts it with what follows, on one of the two ways
    HEADWISE_UNROLL for (int j = 0; j < NV; ++j) s[i][j] = pin(s[i][j] * unit);
  }
  return deliver<MR, NV>(s, args, softmax, row, token);
}

template <class Codes>
bool digit_scores(const ScoreArgs& args, const SoftmaxState* softmax) {
  if (softmax) clear_tile_sums(*softmax, args.rows);
  if (args.visible) deliver_unseen(args, softmax);
  Index groups = 0;
  for (Index row = 0; row < args.rows; row += digit_rows_at_once(args.rows - row, args.rows)) ++groups;
  constexpr Index tokens = kDigitScoreVectors * kLanes;
  ScoreSpan span{0, tokens, 0, kTileTokens / tokens * groups};
  M over = none();
  for (; span.first < args.tokens; span.first += tokens)
    for (Index row = 0, rows; row < args.rows; row += rows, ++span.part) {
      rows = digit_rows_at_once(args.rows - row, args.rows);
      if (args.ends && span.first >= args.ends[row + rows - 1]) continue;
      switch (rows) {
        case kDigitBigRows:
          over = over | digit_score_rows<Codes, kDigitBigRows>(args, softmax, row, span);
          break;
        case 4:
          over = over | digit_score_rows<Codes, 4>(args, softmax, row, span);
          break;
        case 3:
          over = over | digit_score_rows<Codes, 3>(args, softmax, row, span);
          break;
        case 2:
          over = over | digit_score_rows<Codes, 2>(args, softmax, row, span);
          break;
        default:
          over = over | digit_score_rows<Codes, 1>(args, softmax, row, span);
      }
    }
  if (any(over)) return true;
  if (softmax) add_tile_sums(*softmax, args.rows);
  return false;
}
