// SPDX-License-Identifier: MIT
// Rows at the edge: queries in (converted, scaled, padded), outputs out (scaled, rounded).

/// kLanes bf16 from floats, rounded to nearest even, NaN kept (core/storage.hpp's to_bf16_bits on lanes).
HEADWISE_INLINE void store_bf16(void* p, F v) {
  typedef std::uint16_t Narrow __attribute__((vector_size(2 * kLanes)));
  const U bits = (U)v;
  const U rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16, quiet = (bits >> 16) | 0x40u;
  const U is_nan = (U)((bits & 0x7fffffffu) > 0x7f800000u);
  const Narrow out = __builtin_convertvector((is_nan & quiet) | (~is_nan & rounded), Narrow);
  std::memcpy(p, &out, sizeof out);
}

HEADWISE_INLINE F load_as_f32(const void* p, Storage storage, Index at) {
  const char* bytes = static_cast<const char*>(p) + at * size_of(storage);
  if (storage == Storage::f16) return load_f16(bytes);
  if (storage == Storage::bf16) return load_bf16(bytes);
  F v;
  std::memcpy(&v, bytes, sizeof v);
  return v;
}

inline void prepare_row(const void* q, Storage storage, Index dim, Index padded, float factor, Operand operand,
                        void* row) {
  const bool pairs = operand == Operand::bf16_pair;
  Index d = 0;
  for (; d + kLanes <= dim; d += kLanes) {
    const F x = load_as_f32(q, storage, d) * splat(factor);
    if (pairs)
      store_bf16(static_cast<std::uint16_t*>(row) + d, x);
    else
      store(static_cast<float*>(row) + d, x);
  }
  for (; d < padded; ++d)
    store_element(row, pairs ? Storage::bf16 : Storage::f32, d, d < dim ? load_element(q, storage, d) * factor : 0.0f);
}

inline AddedKinds prepare_added(const void* numbers, Storage storage, Index tokens, const AddedScale& scale,
                                float* added) {
  AddedKinds kinds{0, false, false};
  M some = none(), beyond = none();
  for (Index t = 0; t < kTileTokens; t += kLanes) {
    F x;
    if (t + kLanes <= tokens) {
      x = load_as_f32(numbers, storage, t);
    } else {
      for (Index j = t; j < t + kLanes; ++j) added[j] = j < tokens ? load_element(numbers, storage, j) : 0.0f;
      x = load(added + t);
    }
    const M seen = not_le(x, splat(-std::numeric_limits<float>::infinity()));
    const F size = max(x, -x);
    some = some | (seen & not_le(size, zero()));
    beyond = beyond | (seen & not_le(size, splat(scale.most)));
    kinds.seen |= bits_of(seen) << t;
    store(added + t, x * splat(scale.factor));
  }
  kinds.some = any(some);
  kinds.beyond = any(beyond);
  return kinds;
}

inline void finish_row(const float* sums, Index dim, float factor, void* out, Storage storage) {
  Index d = 0;
  for (; d + kLanes <= dim; d += kLanes) {
    const F x = load(sums + d) * splat(factor);
    char* at = static_cast<char*>(out) + d * size_of(storage);
    if (storage == Storage::f32)
      std::memcpy(at, &x, sizeof x);
    else if (storage == Storage::f16)
      store_f16(at, x);
    else
      store_bf16(at, x);
  }
  for (; d < dim; ++d) store_element(out, storage, d, sums[d] * factor);
}

inline void blend(float* to, float a, const float* from, float b, Index count) {
  for (Index d = 0; d < count; d += kLanes) store(to + d, fma(load(from + d), splat(b), load(to + d) * splat(a)));
}
