// SPDX-License-Identifier: MIT
// Scores: rows · K tile. K blocks outermost (each is one stream from memory and stays in L1), rows inside, so a tile is
// read once however many rows the group has.

/// Tokens that all rows meet before the next tokens do, and which part of what lies ahead a register tile asks for.
struct ScoreSpan {
  Index first, tokens;
  Index part, parts;
};

/// Rows of the next register tile of so many, of `of` in all: the big one, unless that would leave few rows for the next.
/// Up to kStreamRows make small ones alone (the big one asks for one line ahead a step and may read more).
constexpr Index score_rows_at_once(Index rows, Index of) {
  if (of > kStreamRows) {
    const Index rest = rows - kScoreBigRows;
    if (rest >= 0 && rest != 1 && rest != 2 && rest != 2 * kScoreMiddleRows - kScoreBigRows) return kScoreBigRows;
    if (rows >= kScoreMiddleRows) return kScoreMiddleRows;
  }
  if (rows == 5 || rows == 6) return 3;
  return rows < kSmallRows ? rows : kSmallRows;
}

/// How such a tile meets its rows: more than kSmallRows as `group_rows` has put them.
template <int MR>
HEADWISE_INLINE auto score_rows_of(Index row_bytes) {
  if constexpr (kBroadcastsInPlace && MR > kSmallRows)
    return RowsTogether<MR>{};
  else
    return RowsApart{row_bytes};
}

/// Steps at a time: 4, or as many as make the 8 dimensions that head_dim is a multiple of.
template <class Step>
inline constexpr int kScoreUnroll = Step::kKappa <= 2 ? 4 : 8 / Step::kKappa;

/// `dims` dimensions of MR rows by NV vectors of tokens, `b_stride` bytes apart; a and b move on.
template <class Step, int P, int MR, int NV, class Rows, class... Scales>
HEADWISE_INLINE void score_steps(F (&acc)[P][MR][NV], const char*& a, const Rows& rows, const char*& b, Index b_stride,
                                 Index dims, Ahead<kScoreUnroll<Step>>& ahead, const Scales&... scales) {
  constexpr int kUnroll = kScoreUnroll<Step>;
  constexpr Index kRowBytes = Rows::step_bytes(Step::kRowElements);
  constexpr Index kStepBytes = kBlockTokens * Step::kLaneBytes;
  for (Index step = 0; step < dims / Step::kKappa; step += kUnroll) {
    HEADWISE_UNROLL for (int u = 0; u < kUnroll; ++u) {
      ahead.request(u);
      Step::run(acc, u, a + u * kRowBytes, rows, b + u * kStepBytes, b_stride, scales...);
    }
    a += kUnroll * kRowBytes;
    b += kUnroll * kStepBytes;
  }
}

/// One register tile: MR rows by NV vectors of tokens from `token` on. Dimension d goes to partial d mod kScorePartials,
/// and the partials are added at the end: the summation order of every score on this ISA.
template <class Step, int MR, int NV>
HEADWISE_INLINE void score_tile(const char* a, Index row_bytes, const ScoreArgs& args, Index token,
                                Ahead<kScoreUnroll<Step>>& ahead, F (&out)[MR][NV]) {
  constexpr int P = kScorePartials;
  const auto rows = score_rows_of<MR>(row_bytes);
  const Index block_bytes = args.head_dim / Step::kKappa * kBlockTokens * Step::kLaneBytes;
  const Index b_stride = kLanes == kBlockTokens ? block_bytes : kLanes * Step::kLaneBytes;
  const char* b = static_cast<const char*>(args.keys) + token / kBlockTokens * block_bytes +
                  token % kBlockTokens * Step::kLaneBytes;
  F acc[P][MR][NV];
  HEADWISE_UNROLL for (int p = 0; p < P; ++p) HEADWISE_UNROLL for (int i = 0; i < MR; ++i)
      HEADWISE_UNROLL for (int j = 0; j < NV; ++j) acc[p][i][j] = zero();
  if constexpr (Step::kScaled) {
    const Index group = Step::kStorage == Storage::int4 ? kScaleDims : args.head_dim;
    for (Index d = 0; d < args.head_dim; d += group)
      score_steps<Step>(acc, a, rows, b, b_stride, std::min(group, args.head_dim - d), ahead,
                        KeyScales<typename Step::Format, NV>(args.keys, args.head_dim, token, d));
  } else {
    score_steps<Step>(acc, a, rows, b, b_stride, args.head_dim, ahead);
  }
  HEADWISE_UNROLL for (int i = 0; i < MR; ++i) HEADWISE_UNROLL for (int j = 0; j < NV; ++j) {
    if constexpr (P == 1)
      out[i][j] = acc[0][i][j];
    else
      out[i][j] = acc[0][i][j] + acc[1][i][j];
  }
}

inline constexpr auto kTokenNumbers = [] {
  std::array<float, static_cast<std::size_t>(kTileTokens)> all{};
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<float>(i);
  return all;
}();

/// Softcap in memory, by code compiled once; then what depends on positions.
template <int MR, int NV>
HEADWISE_INLINE void transform(F (&s)[MR][NV], const ScoreTransform& how, float* at, Index row, Index token) {
  if (how.cap > 0) {
    HEADWISE_UNROLL for (int i = 0; i < MR; ++i) HEADWISE_UNROLL for (int j = 0; j < NV; ++j)
        store(at + i * kTileTokens + j * kLanes, s[i][j]);
    how.softcap(how, at, MR, NV * kLanes);
    HEADWISE_UNROLL for (int i = 0; i < MR; ++i) HEADWISE_UNROLL for (int j = 0; j < NV; ++j) s[i][j] =
        load(at + i * kTileTokens + j * kLanes);
  }
  if (how.alibi) {
    HEADWISE_UNROLL for (int i = 0; i < MR; ++i) {
      // the tile's distance is rounded first where it is beyond 2^24: a token's is the same in any register tile
      const F first = splat(static_cast<float>(how.first - how.rows[row + i].position));
      const F negative = splat(-how.rows[row + i].slope);
      HEADWISE_UNROLL for (int j = 0; j < NV; ++j) {
        const F x = first + load(kTokenNumbers.data() + token + j * kLanes);
        s[i][j] = fma(negative, max(x, -x), s[i][j]);
      }
    }
  }
  if (how.bias) {
    const F factor = splat(how.bias_factor);
    HEADWISE_UNROLL for (int i = 0; i < MR; ++i) {
      const Index distance = how.first - how.rows[row + i].position;
      const float* const bias = how.rows[row + i].bias + std::clamp(distance, how.bias_begin, how.bias_end) + token;
      HEADWISE_UNROLL for (int j = 0; j < NV; ++j) s[i][j] = fma(load(bias + j * kLanes), factor, s[i][j]);
    }
  }
}

/// Whether masks have to do with scores.
inline bool meets_masks(const ScoreArgs& args) { return args.visible || (args.transform && args.transform->added); }

/// deliver of scores in memory that meet masks. Apart, so that where there are none nothing waits for registers.
template <int MR, int NV>
__attribute__((noinline)) bool deliver_masked(const ScoreArgs& args, const SoftmaxState* softmax, Index row,
                                              Index token) {
  float* const at = args.scores + row * kTileTokens + token;
  if (args.transform && args.transform->added) {
    const float* const* const added = args.transform->added + row;
    HEADWISE_UNROLL for (int i = 0; i < MR; ++i) HEADWISE_UNROLL for (int j = 0; j < NV; ++j) {
      float* const s = at + i * kTileTokens + j * kLanes;
      store(s, load(s) + load(added[i] + token + j * kLanes));
    }
  }
  constexpr std::uint64_t kAll = ~std::uint64_t{0};
  const auto seen = [&](int i, int j) __attribute__((always_inline)) {
    return lanes_of(args.visible ? args.visible[row + i] : kAll, token + j * kLanes);
  };
  if (!softmax) {
    const F hidden = splat(-std::numeric_limits<float>::infinity());
    HEADWISE_UNROLL for (int i = 0; i < MR; ++i) HEADWISE_UNROLL for (int j = 0; j < NV; ++j) {
      float* const s = at + i * kTileTokens + j * kLanes;
      store(s, select(seen(i, j), load(s), hidden));
    }
    return false;
  }
  const SoftmaxState state = *softmax;
  M over = none();
  HEADWISE_UNROLL for (int i = 0; i < MR; ++i) HEADWISE_UNROLL for (int j = 0; j < NV; ++j) over =
      over | weigh(load(at + i * kTileTokens + j * kLanes), splat(state.max[row + i]), state, row + i,
                   token + j * kLanes, seen(i, j));
  return any(over);
}

/// What of the rows lies behind their ends, before register tiles that meet some of it.
inline void deliver_unseen(const ScoreArgs& args, const SoftmaxState* softmax) {
  for (Index r = 0; r < args.rows; ++r)
    for (Index t = (args.ends ? args.ends[r] : args.tokens) / kLanes * kLanes; t < kTileTokens; t += kLanes) {
      if (softmax)
        store_weight(*softmax, r * kTileTokens + t, zero());
      else
        store(args.scores + r * kTileTokens + t, splat(-std::numeric_limits<float>::infinity()));
    }
}

/// Finished scores of MR rows are transformed, and written or weighed: those of transforms and masks both, in case of a
/// `rescale`.
template <int MR, int NV>
HEADWISE_INLINE M deliver(F (&s)[MR][NV], const ScoreArgs& args, const SoftmaxState* softmax, Index row, Index token) {
  float* const at = args.scores + row * kTileTokens + token;
  if (args.transform) transform<MR, NV>(s, *args.transform, at, row, token);
  const bool masked = meets_masks(args);
  if (args.transform || masked || !softmax) {
    HEADWISE_UNROLL for (int i = 0; i < MR; ++i) HEADWISE_UNROLL for (int j = 0; j < NV; ++j)
        store(at + i * kTileTokens + j * kLanes, s[i][j]);
  }
  if (masked) {
    const bool over = deliver_masked<MR, NV>(args, softmax, row, token);
    return not_le(splat(over ? 1.0f : 0.0f), zero());
  }
  M over = none();
  if (softmax) {
    HEADWISE_UNROLL for (int i = 0; i < MR; ++i) HEADWISE_UNROLL for (int j = 0; j < NV; ++j) over =
        over | weigh(s[i][j], splat(softmax->max[row + i]), *softmax, row + i, token + j * kLanes);
  }
  return over;
}

/// MR rows from `row` on against a span of tokens, NV vectors at a time. Finished scores are written, or weighed while the
/// next block loads.
template <class Step, int MR, int NV>
HEADWISE_INLINE M score_rows(const ScoreArgs& args, const SoftmaxState* softmax, Index row, const ScoreSpan& span) {
  const Index steps = args.head_dim / Step::kKappa;
  const Index row_bytes = steps * 4 * Step::kRowElements;
  Ahead<kScoreUnroll<Step>> ahead(args.ahead, span.part, span.parts, span.tokens / (NV * kLanes) * steps);
  M over = none();
  for (Index token = span.first; token < span.first + span.tokens; token += NV * kLanes) {
    F s[MR][NV];
    score_tile<Step, MR, NV>(static_cast<const char*>(args.queries) + row * row_bytes, row_bytes, args, token, ahead,
                             s);
    over = over | deliver<MR, NV>(s, args, softmax, row, token);
  }
  return over;
}

template <class Step>
bool scores(const ScoreArgs& args, const SoftmaxState* softmax) {
  constexpr int NV = kScoreVectors;
  if (softmax) clear_tile_sums(*softmax, args.rows);
  if (args.visible) deliver_unseen(args, softmax);
  Index groups = 0;
  for (Index row = 0; row < args.rows; row += score_rows_at_once(args.rows - row, args.rows)) ++groups;
  constexpr Index tokens = NV * kLanes;
  ScoreSpan span{0, tokens, 0, kTileTokens / tokens * groups};
  M over = none();
  for (; span.first < args.tokens; span.first += tokens)
    for (Index row = 0, rows; row < args.rows; row += rows, ++span.part) {
      rows = score_rows_at_once(args.rows - row, args.rows);
      if (args.ends && span.first >= args.ends[row + rows - 1]) continue;
      switch (rows) {
        case kScoreBigRows:
          if constexpr (Step::kManyRows) over = over | score_rows<Step, kScoreBigRows, NV>(args, softmax, row, span);
          break;
        case kScoreMiddleRows == kSmallRows ? -1:
        kScoreMiddleRows:
          if constexpr (Step::kManyRows) over = over | score_rows<Step, kScoreMiddleRows, NV>(args, softmax, row, span);
          break;
        case 4:
          over = over | score_rows<Step, 4, NV>(args, softmax, row, span);
          break;
        case 3:
          over = over | score_rows<Step, 3, NV>(args, softmax, row, span);
          break;
        case 2:
          over = over | score_rows<Step, 2, NV>(args, softmax, row, span);
          break;
        default:
          over = over | score_rows<Step, 1, NV>(args, softmax, row, span);
      }
    }
  if (any(over)) return true;
  if (softmax) add_tile_sums(*softmax, args.rows);
  return false;
}
