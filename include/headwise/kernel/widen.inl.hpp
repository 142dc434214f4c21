// SPDX-License-Identifier: MIT
// Tiles of narrow storage to f32 tiles, and whether a V tile holds what a weight of 0 does not hide.

/// One vector of lanes of one step, to kKappa rows of `width` floats.
template <class Step, class Scales>
HEADWISE_INLINE void widen_lanes(const char* in, Index width, float* out, const Scales& scales) {
  F v[Step::kKappa];
  Step::load_elements(in, v);
  HEADWISE_UNROLL for (int e = 0; e < Step::kKappa; ++e) store(out + e * width, scales.widen(v[e], e));
}

template <class Step>
void widen_keys(const void* tile, Index head_dim, float* out) {
  const auto* keys = static_cast<const char*>(tile);
  const char* in = keys;
  for (Index block = 0; block < kTileTokens; block += kBlockTokens)
    for (Index d = 0; d < padded_head_dim(head_dim); d += Step::kKappa, out += Step::kKappa * kBlockTokens)
      for (Index lane = 0; lane < kBlockTokens; lane += kLanes, in += kLanes * Step::kLaneBytes) {
        if constexpr (Step::kScaled)
          widen_lanes<Step>(in, kBlockTokens, out + lane,
                            KeyScales<typename Step::Format, 1>(keys, head_dim, block + lane, d));
        else
          widen_lanes<Step>(in, kBlockTokens, out + lane, NoScales{});
      }
}

/// Token by token over `width` dims, from `in` to `out`, which move on. scales(t): those of the step from token t on.
template <class Step, class Scales>
HEADWISE_INLINE void widen_panel(const char*& in, Index width, float*& out, const Scales& scales) {
  for (Index t = 0; t < kTileTokens; t += Step::kKappa, out += Step::kKappa * width)
    for (Index lane = 0; lane < width; lane += kLanes, in += kLanes * Step::kLaneBytes)
      widen_lanes<Step>(in, width, out + lane, scales.of_step(t));
}

template <class Step>
void widen_values(const void* tile, Index value_dim, float* out) {
  const auto* in = static_cast<const char*>(tile);
  for (Index d = 0; d < padded_value_dim(value_dim); d += kPanelDims) {
    if constexpr (Step::kScaled)
      widen_panel<Step>(in, panel_dims(value_dim, d), out, ValueScales<typename Step::Format>(tile, value_dim, d));
    else
      widen_panel<Step>(in, panel_dims(value_dim, d), out, NoScales{});
  }
}

/// Whether numbers that were probed are finite: 0·x is ±0 for finite x and NaN otherwise, and their bits together are as
/// well. Bits are gathered because a chain of additions would wait for each.
class FiniteProbe {
 public:
  HEADWISE_INLINE void add(F x) { bits_ |= (I)(x * zero()); }
  HEADWISE_INLINE bool all_finite() const { return !any(not_le((F)bits_, zero())); }

 private:
  I bits_{};
};

inline bool all_within(const float* x, Index count, float bound) {
  const F most = splat(bound);
  M beyond = none();
  for (Index i = 0; i < count; i += kLanes) {
    const F v = load(x + i);
    beyond = beyond | not_le(v, most) | not_le(zero() - v, most);
  }
  return !any(beyond);
}

template <class Step>
bool all_finite(const void* values, Index value_dim) {
  const auto* in = static_cast<const char*>(values);
  const Index count = kTileTokens * padded_value_dim(value_dim) / Step::kKappa;
  FiniteProbe probe;
  if constexpr (Step::kScaled) {
    // numbers are finite where their scale is
    const char* scales = in + value_code_bytes(Step::kStorage, value_dim);
    for (Index i = 0; i < kTileTokens * scales_per_token(Step::kStorage, value_dim); i += kLanes)
      probe.add(load_bf16(scales + 2 * i));
  } else {
    for (Index i = 0; i < count; i += kLanes) {
      F v[Step::kKappa];
      Step::load_elements(in + i * Step::kLaneBytes, v);
      HEADWISE_UNROLL for (int e = 0; e < Step::kKappa; ++e) probe.add(v[e]);
    }
  }
  return probe.all_finite();
}
