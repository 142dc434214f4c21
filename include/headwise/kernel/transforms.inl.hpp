// SPDX-License-Identifier: MIT
// Score transforms on a tile of scores in L1, between the scores and their softmax. Scores are in units of log2.

/// tanh(x) = 1 − 2/(1 + e^2x), absolute error below 2^-22; ±1 at the ends, NaN stays NaN.
HEADWISE_INLINE F tanh(F x) {
  constexpr float kTwoLog2e = 2.885390081777927f;
  const F e = exp2(max(splat(-126.0f), min(splat(126.0f), x * splat(kTwoLog2e))));
  return splat(1.0f) - splat(2.0f) / (splat(1.0f) + e);
}

inline void softcap(float* scores, Index count, float inverse, float limit) {
  for (Index i = 0; i < count; i += kLanes) store(scores + i, splat(limit) * tanh(load(scores + i) * splat(inverse)));
}

inline void alibi(float* scores, float slope, float first) {
  float lane[kLanes];
  for (int i = 0; i < kLanes; ++i) lane[i] = static_cast<float>(i);
  const F negative = splat(-slope);
  F x = load(lane) + splat(first);
  for (Index t = 0; t < kTileTokens; t += kLanes, x = x + splat(static_cast<float>(kLanes)))
    store(scores + t, fma(negative, max(x, -x), load(scores + t)));
}
