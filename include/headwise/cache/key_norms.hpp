// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>

#include "headwise/cache/key_transform.hpp"
#include "headwise/cache/tile_codec.hpp"
#include "headwise/core/checked.hpp"
#include "headwise/core/index.hpp"
#include "headwise/core/tile_layout.hpp"

namespace headwise::detail {

/// |k|² of a stored key, [dim]. Dimension d adds to partial sum d mod 8, in double. The square of a float is exact there, so
/// it does not matter whether a compiler fuses the addition, and the bits are the same for every compiler and width of
/// vectors.
inline double row_square(const float* row, Index dim) {
  constexpr Index kSums = 8;
  double sums[kSums] = {};
  Index d = 0;
  for (; d + kSums <= dim; d += kSums)
    for (Index i = 0; i < kSums; ++i) sums[i] += static_cast<double>(row[d + i]) * static_cast<double>(row[d + i]);
  for (Index i = 0; d + i < dim; ++i) sums[i] += static_cast<double>(row[d + i]) * static_cast<double>(row[d + i]);
  return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

/// Reads keys of a storage as they were appended, up to rounding: without their transform.
struct KeyReader {
  const TileFormat& format;
  KeyTransform transform;

  void read(Index kv_head, const std::byte* tile, Index slot, float* out) const {
    read_stored_key(format, tile, slot, out);
    transform.from_key(kv_head, format.head_dim, out);
  }
};

/// The sum of |k_t|² over the stored tokens of each KV head, added in token order, and what it was before each tile, so
/// that truncating adds at most 63 tokens anew and gives the bits of never having appended. One place per slot, as the
/// tiles of a LayerTiles have: [slot][kv_head]{sum, before tile 0, before tile 1, …}.
class KeyNorms {
 public:
  /// Keeps nothing.
  KeyNorms() = default;
  KeyNorms(Index slots, Index num_kv_heads, Index tiles_per_head)
      : slots_(slots),
        num_kv_heads_(num_kv_heads),
        stride_(1 + tiles_per_head),
        // uninitialised, as the tiles are: what is never reached takes no memory
        sums_(std::make_unique_for_overwrite<double[]>(static_cast<std::size_t>(slots * num_kv_heads * stride_))) {
    for (Index i = 0; i < slots * num_kv_heads; ++i) sums_[static_cast<std::size_t>(i * stride_)] = 0.0;
  }

  bool kept() const { return sums_ != nullptr; }
  double sum(Index slot, Index kv_head) const { return *at(slot, kv_head); }

  /// Adds the keys that were stored in `count` slots from `slot` on of tile `index`.
  void append(const KeyReader& keys, Index place, Index kv_head, Index index, const std::byte* tile, Index slot,
              Index count) {
    double* const sums = at(place, kv_head);
    checked_index(1 + index, stride_, "tile of the key norms");
    if (slot == 0) sums[1 + index] = sums[0];
    add(sums[0], keys, kv_head, tile, slot, count);
  }

  /// Keeps the first `tokens`, fewer than are stored. `tile` is the one that token `tokens` lies in.
  void truncate(const KeyReader& keys, Index place, Index kv_head, Index tokens, const std::byte* tile) {
    double* const sums = at(place, kv_head);
    checked_index(1 + tokens / kTileTokens, stride_, "tile of the key norms");
    sums[0] = sums[1 + tokens / kTileTokens];
    add(sums[0], keys, kv_head, tile, 0, tokens % kTileTokens);
  }

  /// Forgets the sums of a slot.
  void clear(Index place) {
    for (Index g = 0; g < num_kv_heads_; ++g) *at(place, g) = 0.0;
  }

  /// Slot `to` becomes slot `from` of another, or of this; `tiles` of it are begun.
  void copy(Index to, const KeyNorms& other, Index from, Index tiles) {
    for (Index g = 0; g < num_kv_heads_; ++g) std::copy_n(other.at(from, g), 1 + tiles, at(to, g));
  }

 private:
  static void add(double& sum, const KeyReader& keys, Index kv_head, const std::byte* tile, Index slot, Index count) {
    float row[kMaxHeadDim];
    for (Index t = slot; t < slot + count; ++t) {
      keys.read(kv_head, tile, t, row);
      sum += row_square(row, keys.format.head_dim);
    }
  }
  double* at(Index slot, Index kv_head) const {
    checked_index(slot, slots_, "slot of the key norms");
    checked_index(kv_head, num_kv_heads_, "KV head of the key norms");
    return sums_.get() + (slot * num_kv_heads_ + kv_head) * stride_;
  }

  Index slots_ = 0, num_kv_heads_ = 0, stride_ = 0;
  std::unique_ptr<double[]> sums_;
};

}  // namespace headwise::detail
