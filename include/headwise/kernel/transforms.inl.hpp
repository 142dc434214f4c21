// SPDX-License-Identifier: MIT
// Score transforms on a block of scores in L1, between the scores and their softmax. What becomes of a score is a function
// of it, its row and its token: no matter in which blocks.

/// c·tanh(s/c) = c − 2c/(1 + e^(2s/c)), absolute error below c·2^-22; ±c at the ends, NaN stays NaN.
HEADWISE_INLINE F softcap(F s, F two_log2e_by_cap, F cap, F minus_two_caps) {
  const F e = exp2(min(splat(126.0f), s * two_log2e_by_cap));
  return fma(minus_two_caps, reciprocal(splat(1.0f) + e), cap);
}

inline void transform(const ScoreTransform& how, float* scores, Index row, Index rows, Index token, Index tokens) {
  constexpr float kTwoLog2e = 2.885390081777927f;
  static constexpr float kLane[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  static_assert(kLanes <= std::size(kLane));
  scores += row * kTileTokens + token;
  if (how.cap > 0) {
    const F factor = splat(kTwoLog2e * how.inverse_cap), cap = splat(how.cap), two_caps = splat(-2.0f * how.cap);
    for (Index r = 0; r < rows; ++r)
      for (Index t = 0; t < tokens; t += kLanes) {
        float* const at = scores + r * kTileTokens + t;
        store(at, softcap(load(at), factor, cap, two_caps));
      }
  }
  if (!how.alibi && !how.bias) return;
  for (Index r = 0; r < rows; ++r, scores += kTileTokens) {
    const ScoreRowInfo& info = how.rows[row + r];
    const Index distance = how.first - info.position;
    if (how.alibi) {
      const F negative = splat(-info.slope);
      for (Index t = 0; t < tokens; t += kLanes) {
        const F x = load(kLane) + splat(static_cast<float>(distance + token + t));
        store(scores + t, fma(negative, max(x, -x), load(scores + t)));
      }
    }
    if (how.bias) {
      const float* const bias = info.bias + std::clamp(distance, how.bias_begin, how.bias_end) + token;
      const F factor = splat(how.bias_factor);
      for (Index t = 0; t < tokens; t += kLanes) store(scores + t, fma(load(bias + t), factor, load(scores + t)));
    }
  }
}

inline bool scale_scores(float* scores, Index count, float factor) {
  M hidden = none();
  const F lowest = splat(std::numeric_limits<float>::lowest());
  for (Index i = 0; i < count; i += kLanes) {
    const F s = load(scores + i) * splat(factor);
    store(scores + i, s);
    hidden = hidden | not_le(lowest, s);
  }
  return any(hidden);
}
