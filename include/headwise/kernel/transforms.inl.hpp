// SPDX-License-Identifier: MIT
// Score transforms on a block of scores in L1, between the scores and their softmax. What becomes of a score is a function
// of it, its row and its token: no matter in which blocks.

/// c·tanh(x) with x = s/c, of s, absolute error below c·2^-22; ±c at the ends, NaN stays NaN. Small x, as nearly all are
/// where a model has learned with a cap, by x + x³·P(x²), a third of the time; others by 1 − 2/(1 + e^2x).
HEADWISE_INLINE F softcap(F s, F inverse_cap, F unit, F cap) {
  constexpr float kSmall = 0.625f;
  const F x = s * inverse_cap, squared = x * x, scaled = s * unit;
  F p = splat(0.0148886675f);
  p = fma(p, squared, splat(-0.0517011993f));
  p = fma(p, squared, splat(0.133019954f));
  p = fma(p, squared, splat(-0.33331874f));
  p = fma(scaled * squared, p, scaled);
  const M large = not_le(squared, splat(kSmall * kSmall));
  if (!any(large)) [[likely]]
    return p;
  const F e = exp2(min(splat(126.0f), x * splat(2.885390081777927f)));
  return select(large, fma(splat(-2.0f) * cap, reciprocal(splat(1.0f) + e), cap), p);
}

inline void softcap_scores(const ScoreTransform& how, float* scores, Index rows, Index tokens) {
  const F inverse = splat(how.inverse_cap), unit = splat(how.cap * how.inverse_cap), cap = splat(how.cap);
  for (Index r = 0; r < rows; ++r, scores += kTileTokens)
    for (Index t = 0; t < tokens; t += kLanes) store(scores + t, softcap(load(scores + t), inverse, unit, cap));
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
