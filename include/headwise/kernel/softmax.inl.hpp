// SPDX-License-Identifier: MIT
// Online softmax over 64-token tiles: the one place where scores become weights. SoftmaxState (kernel/table.hpp) states
// the rule; `weigh` is its arithmetic for one vector and every path goes through it.

/// 2^x for x <= 127: degree-6 polynomial of the fraction, 1.1 ulp. 0 for x below about −126, NaN for NaN.
HEADWISE_INLINE F exp2(F x) {
  const F r = fraction(x);
  F p = splat(2.0106055e-4f);
  p = fma(p, r, splat(1.28724449e-3f));
  p = fma(p, r, splat(9.63648502e-3f));
  p = fma(p, r, splat(5.55014163e-2f));
  p = fma(p, r, splat(2.40226611e-1f));
  p = fma(p, r, splat(6.93147182e-1f));
  p = fma(p, r, splat(1.0f));
  return scale_exp2(p, x);
}

HEADWISE_INLINE void store_weight(const SoftmaxState& state, Index at, F p) {
#if defined(HEADWISE_BF16_DOT)
  if (state.operand == Operand::bf16_pair) return narrow_bf16(static_cast<std::uint16_t*>(state.weights) + at, p);
#endif
  store(static_cast<float*>(state.weights) + at, p);
}

HEADWISE_INLINE void add_weight(const SoftmaxState& state, Index row, Index token, F p) {
  float* sum = state.tile_sum + row * kMaxLanes;
  store(sum, load(sum) + p);
  store_weight(state, row * kTileTokens + token, p);
}

HEADWISE_INLINE float lift_of(const SoftmaxState& state, Index row) { return state.lift ? state.lift[row] : 0.0f; }

/// One vector of scores of a row: its weights are stored and added to `tile_sum`; returns the lanes that exceed the
/// lazy range or are NaN.
HEADWISE_INLINE M weigh(F score, F max, const SoftmaxState& state, Index row, Index token, float range = kLazyRange) {
  const F x = score - max;
  add_weight(state, row, token, exp2(x));
  return not_le(x, splat(range));
}
/// The same where lanes that are not `seen` have weight 0, whatever their scores and the row's max are.
HEADWISE_INLINE M weigh(F score, F max, const SoftmaxState& state, Index row, Index token, M seen) {
  const F x = score - max;
  add_weight(state, row, token, select(seen, exp2(x), zero()));
  return seen & not_le(x, splat(kLazyRange));
}

HEADWISE_INLINE void clear_tile_sums(const SoftmaxState& state, Index rows) {
  for (Index r = 0; r < rows; ++r) store(state.tile_sum + r * kMaxLanes, zero());
}

/// The end of a tile no row of which needs a rescale.
HEADWISE_INLINE void add_tile_sums(const SoftmaxState& state, Index rows) {
  for (Index r = 0; r < rows; ++r) {
    float* sum = state.sum + r * kMaxLanes;
    store(sum, load(sum) + load(state.tile_sum + r * kMaxLanes));
  }
}

inline bool softmax(const float* scores, Index rows, const SoftmaxState& state) {
  clear_tile_sums(state, rows);
  M over = none();
  for (Index r = 0; r < rows; ++r) {
    const F max = splat(state.max[r]);
    const float range = kLazyRange - lift_of(state, r);
    HEADWISE_UNROLL for (Index t = 0; t < kTileTokens; t += kLanes) over =
        over | weigh(load(scores + r * kTileTokens + t), max, state, r, t, range);
  }
  if (any(over)) return true;
  add_tile_sums(state, rows);
  return false;
}

inline void rescale(const float* scores, Index rows, const SoftmaxState& state, float* output, Index value_dim) {
  for (Index r = 0; r < rows; ++r, scores += kTileTokens, output += value_dim) {
    float *sum = state.sum + r * kMaxLanes, *tile_sum = state.tile_sum + r * kMaxLanes;
    F top = load(scores);
    M nan = not_le(top, splat(std::numeric_limits<float>::infinity()));
    for (Index t = kLanes; t < kTileTokens; t += kLanes) {
      const F s = load(scores + t);
      nan = nan | not_le(s, splat(std::numeric_limits<float>::infinity()));
      top = max(top, s);
    }
    const float old_max = state.max[r], lift = lift_of(state, r);
    const float tile_max = any(nan) ? std::numeric_limits<float>::quiet_NaN() : reduce_max(top);
    constexpr float kNone = -std::numeric_limits<float>::infinity();
    if (old_max != kNone && tile_max - old_max <= kLazyRange - lift) {  // this row is as `softmax` left it
      store(sum, load(sum) + load(tile_sum));
      continue;
    }
    if (tile_max ==
        kNone) {  // still no key seen; or a NaN was, and a tile without a visible key must not take its place
      for (Index t = 0; t < kTileTokens; t += kLanes) store_weight(state, r * kTileTokens + t, zero());
      continue;
    }
    // NaN takes this way too: the row's max, weights and output become NaN, as the definition has it
    const float new_max = tile_max + lift + (old_max == kNone ? 0.0f : state.headroom);
    const F shrink = exp2(splat(old_max == kNone ? 0.0f : old_max - new_max));
    state.max[r] = new_max;
    store(tile_sum, zero());
    for (Index t = 0; t < kTileTokens; t += kLanes) weigh(load(scores + t), splat(new_max), state, r, t);
    if (old_max == kNone) {
      store(sum, load(tile_sum));
      continue;
    }
    store(sum, fma(load(sum), shrink, load(tile_sum)));
    for (Index d = 0; d < value_dim; d += kLanes) store(output + d, load(output + d) * shrink);
  }
}
