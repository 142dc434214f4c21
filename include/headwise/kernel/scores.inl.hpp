// SPDX-License-Identifier: MIT
// Scores: rows · K tile. K blocks outermost (each is one stream from memory and stays in L1), rows inside, so a tile is
// read once however many rows the group has.

/// One register tile: MR rows by NV vectors of tokens, `b_stride` bytes apart. Dimension d goes to partial
/// d mod kScorePartials, and the partials are added at the end: the summation order of every score on this ISA.
template <class Step, int MR, int NV>
HEADWISE_INLINE void score_tile(const char* a, Index a_stride, const char* b, Index b_stride, Index head_dim,
                                F (&out)[MR][NV]) {
  constexpr int P = kScorePartials, kUnroll = 4;
  constexpr Index kStepBytes = kBlockTokens * Step::kLaneBytes;
  F acc[P][MR][NV];
  HEADWISE_UNROLL for (int p = 0; p < P; ++p) HEADWISE_UNROLL for (int i = 0; i < MR; ++i)
      HEADWISE_UNROLL for (int j = 0; j < NV; ++j) acc[p][i][j] = zero();
  for (Index step = 0; step < head_dim / Step::kKappa; step += kUnroll) {
    HEADWISE_UNROLL for (int u = 0; u < kUnroll; ++u)
        Step::run(acc, u, a + u * Step::kRowBytes, a_stride, b + u * kStepBytes, b_stride);
    a += kUnroll * Step::kRowBytes;
    b += kUnroll * kStepBytes;
  }
  HEADWISE_UNROLL for (int i = 0; i < MR; ++i) HEADWISE_UNROLL for (int j = 0; j < NV; ++j) {
    if constexpr (P == 1)
      out[i][j] = acc[0][i][j];
    else
      out[i][j] = acc[0][i][j] + acc[1][i][j];
  }
}

/// What happens to finished scores: kept, or kept and weighed while the next block loads.
struct KeepScores {
  static HEADWISE_INLINE M run(F, const SoftmaxState&, Index, Index) { return none(); }
};
template <Operand O>
struct WeighScores {
  static HEADWISE_INLINE M run(F score, const SoftmaxState& state, Index row, Index token) {
    return weigh<O>(score, splat(state.max[row]), state.tile_sum + row * kMaxLanes, state.weights,
                    row * kTileTokens + token);
  }
};

/// MR rows from `row` on, NV vectors of tokens from `token` on.
template <class Step, class Then, int MR, int NV>
HEADWISE_INLINE M score_rows(const ScoreArgs& args, const SoftmaxState& state, Index row, Index token) {
  const Index a_stride = args.head_dim * Step::kRowBytes / Step::kKappa;
  const Index block_bytes = args.head_dim / Step::kKappa * kBlockTokens * Step::kLaneBytes;
  const char* b = static_cast<const char*>(args.keys) + token / kBlockTokens * block_bytes +
                  token % kBlockTokens * Step::kLaneBytes;
  const Index b_stride = kLanes == kBlockTokens ? block_bytes : kLanes * Step::kLaneBytes;
  F s[MR][NV];
  score_tile<Step, MR, NV>(static_cast<const char*>(args.queries) + row * a_stride, a_stride, b, b_stride, args.head_dim,
                           s);
  M over = none();
  HEADWISE_UNROLL for (int i = 0; i < MR; ++i) HEADWISE_UNROLL for (int j = 0; j < NV; ++j) {
    const Index at = token + j * kLanes;
    store(args.scores + (row + i) * kTileTokens + at, s[i][j]);
    over = over | Then::run(s[i][j], state, row + i, at);
  }
  return over;
}

template <class Step, class Then>
HEADWISE_INLINE bool score_pass(const ScoreArgs& args, const SoftmaxState& state) {
  constexpr Index kBigTokens = kScoreBigVectors * kLanes, kSmallTokens = kScoreVectors * kLanes;
  constexpr Index kSpan = kBigTokens > kSmallTokens ? kBigTokens : kSmallTokens;
  M over = none();
  // storage that is widened in registers leaves the big tile to f32: many rows meet a tile widened once
  constexpr bool kBig = Step::kOperand == Operand::bf16_pair || Step::kStorage == Storage::f32;
  for (Index span = 0; span < args.tokens; span += kSpan) {
    Index row = 0;
    if constexpr (kBig)
      for (; args.rows - row >= kScoreBigRows; row += kScoreBigRows)
        for (Index t = span; t < span + kSpan; t += kBigTokens)
          over = over | score_rows<Step, Then, kScoreBigRows, kScoreBigVectors>(args, state, row, t);
    for (Index rest; (rest = args.rows - row) > 0; row += rest < kSmallRows ? rest : kSmallRows) {
      for (Index t = span; t < span + kSpan; t += kSmallTokens) {
        if (rest >= 4)
          over = over | score_rows<Step, Then, 4, kScoreVectors>(args, state, row, t);
        else if (rest == 3)
          over = over | score_rows<Step, Then, 3, kScoreVectors>(args, state, row, t);
        else if (rest == 2)
          over = over | score_rows<Step, Then, 2, kScoreVectors>(args, state, row, t);
        else
          over = over | score_rows<Step, Then, 1, kScoreVectors>(args, state, row, t);
      }
    }
  }
  return any(over);
}

template <class Step>
void scores(const ScoreArgs& args) {
  score_pass<Step, KeepScores>(args, {});
}

template <class Step, Operand O>
bool scores_and_softmax(const ScoreArgs& args, const SoftmaxState& state) {
  clear_tile_sums(state, args.rows);
  if (score_pass<Step, WeighScores<O>>(args, state)) return true;
  add_tile_sums(state, args.rows);
  return false;
}
