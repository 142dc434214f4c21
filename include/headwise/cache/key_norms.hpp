// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "headwise/cache/tile_writer.hpp"
#include "headwise/core/index.hpp"
#include "headwise/core/storage.hpp"
#include "headwise/core/tile_layout.hpp"

namespace headwise::detail {

/// |x| of a stored number. Without branches, unlike from_f16_bits, so that compilers make vectors of it.
template <Storage S>
inline float magnitude(Bits<S> bits) {
  if constexpr (S == Storage::f16) {
    const std::int32_t rest = bits & 0x7fff;
    const std::int32_t normal = (rest << 13) + 0x38000000;
    const auto subnormal = std::bit_cast<std::int32_t>(static_cast<float>(rest) * 0x1p-24f);
    // all ones or zero: the exponent is the smallest, the largest (infinity, NaN)
    const std::int32_t is_subnormal = -(rest < 0x400), is_special = -(rest >= 0x7c00);
    return std::bit_cast<float>((subnormal & is_subnormal) | ((normal + (0x38000000 & is_special)) & ~is_subnormal));
  } else {
    return std::bit_cast<float>(convert_bits<S, Storage::f32>(bits));  // its sign vanishes in the square
  }
}

/// |k|² of a stored key: `padded` elements, a multiple of 8, zeros behind head_dim. Dimension d adds to partial sum
/// d mod 8, in double. The square of a float is exact there, so it does not matter whether a compiler fuses the addition,
/// and the bits are the same for every compiler and width of vectors.
template <Storage S>
inline double row_square(const Bits<S>* row, Index padded) {
  constexpr Index kSums = 8;
  float x[kMaxHeadDim];
  for (Index d = 0; d < padded; ++d) x[d] = magnitude<S>(row[d]);
  double sums[kSums] = {};
  for (Index d = 0; d < padded; d += kSums)
    for (Index i = 0; i < kSums; ++i) sums[i] += static_cast<double>(x[d + i]) * static_cast<double>(x[d + i]);
  return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

/// The sum of |k_t|² over the stored tokens of each KV head, added in token order, and what it was before each tile, so
/// that truncating adds at most 63 tokens anew and gives the bits of never having appended. One place per slot, as the
/// tiles of a LayerTiles have: [slot][kv_head]{sum, before tile 0, before tile 1, …}.
class KeyNorms {
 public:
  /// Keeps nothing.
  KeyNorms() = default;
  KeyNorms(Index slots, Index num_kv_heads, Index tiles_per_head)
      : num_kv_heads_(num_kv_heads),
        stride_(1 + tiles_per_head),
        // uninitialised, as the tiles are: what is never reached takes no memory
        sums_(std::make_unique_for_overwrite<double[]>(static_cast<std::size_t>(slots * num_kv_heads * stride_))) {
    for (Index i = 0; i < slots * num_kv_heads; ++i) sums_[static_cast<std::size_t>(i * stride_)] = 0.0;
  }

  bool kept() const { return sums_ != nullptr; }
  double sum(Index slot, Index kv_head) const { return *at(slot, kv_head); }

  /// `count` keys [count][padded] that are stored as tokens first, first + 1, … of a tile.
  template <Storage S>
  void append(Index slot, Index kv_head, Index first, Index count, const Bits<S>* rows, Index padded) {
    double* const sums = at(slot, kv_head);
    if (first % kTileTokens == 0) sums[1 + first / kTileTokens] = sums[0];
    for (Index t = 0; t < count; ++t) sums[0] += row_square<S>(rows + t * padded, padded);
  }

  /// Keeps the first `tokens`, fewer than are stored. `keys` is the K tile that token `tokens` lies in.
  template <Storage S>
  void truncate(Index slot, Index kv_head, Index tokens, const void* keys, Index head_dim) {
    double* const sums = at(slot, kv_head);
    sums[0] = sums[1 + tokens / kTileTokens];
    Bits<S> row[kMaxHeadDim] = {};
    for (Index t = 0; t < tokens % kTileTokens; ++t) {
      for (Index d = 0; d < head_dim; ++d) row[d] = static_cast<const Bits<S>*>(keys)[key_index(S, head_dim, t, d)];
      sums[0] += row_square<S>(row, padded_head_dim(head_dim));
    }
  }

  /// Slot `to` becomes slot `from` of another, or of this; `tiles` of it are begun.
  void copy(Index to, const KeyNorms& other, Index from, Index tiles) {
    for (Index g = 0; g < num_kv_heads_; ++g) std::copy_n(other.at(from, g), 1 + tiles, at(to, g));
  }

 private:
  double* at(Index slot, Index kv_head) const { return sums_.get() + (slot * num_kv_heads_ + kv_head) * stride_; }

  Index num_kv_heads_ = 0, stride_ = 0;
  std::unique_ptr<double[]> sums_;
};

}  // namespace headwise::detail
