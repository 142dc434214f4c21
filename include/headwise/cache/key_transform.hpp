// SPDX-License-Identifier: MIT
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "headwise/core/index.hpp"

namespace headwise {

/// What a cache does to keys before it stores them, so that they lose less to rounding, and what queries meet in turn:
///   stored k = H·(k / c),  q = H·(q·c),  so that the products q·k are what they were.
/// c are factors of the channels (the larger of K's channels would decide the scale of all: Xiao et al. 2023, SmoothQuant,
/// arXiv 2211.10438); H is the Hadamard rotation, which spreads outliers over all channels (Ashkboos et al. 2024, QuaRot,
/// arXiv 2404.00456), orthonormal and its own inverse, over blocks of the largest power of two that divides head_dim.
struct KeyTransform {
  const float* channel_scales = nullptr;  ///< c [num_kv_heads][head_dim], all above 0; null: 1
  bool hadamard = false;

  bool any() const { return channel_scales != nullptr || hadamard; }

  void to_key(Index kv_head, Index head_dim, float* row) const {
    if (channel_scales)
      for (Index d = 0; d < head_dim; ++d) row[d] /= channel_scales[kv_head * head_dim + d];
    if (hadamard) rotate(row, head_dim);
  }
  void to_query(Index kv_head, Index head_dim, float* row) const {
    if (channel_scales)
      for (Index d = 0; d < head_dim; ++d) row[d] *= channel_scales[kv_head * head_dim + d];
    if (hadamard) rotate(row, head_dim);
  }
  /// What `to_key` was given, up to rounding.
  void from_key(Index kv_head, Index head_dim, float* row) const {
    if (hadamard) rotate(row, head_dim);
    if (channel_scales)
      for (Index d = 0; d < head_dim; ++d) row[d] *= channel_scales[kv_head * head_dim + d];
  }

 private:
  /// Sums and differences of numbers `step` apart, in blocks of twice as many.
  static void butterflies(float* x, Index size, Index step) {
    for (Index i = 0; i < size; i += 2 * step)
      for (Index j = i; j < i + step; ++j) {
        const float a = x[j], b = x[j + step];
        x[j] = a + b;
        x[j + step] = a - b;
      }
  }
  static void rotate(float* row, Index head_dim) {
    constexpr Index kChunk = 8;  // of constant size, for compilers to make vectors of it
    const Index block = Index{1} << std::countr_zero(static_cast<std::uint64_t>(head_dim));
    const float factor = 1.0f / std::sqrt(static_cast<float>(block));
    for (float* x = row; x < row + head_dim; x += block) {
      if (block < kChunk) {
        for (Index step = 1; step < block; step *= 2) butterflies(x, block, step);
        for (Index i = 0; i < block; ++i) x[i] *= factor;
        continue;
      }
      for (Index i = 0; i < block; i += kChunk) {
        butterflies(x + i, kChunk, 1);
        butterflies(x + i, kChunk, 2);
        butterflies(x + i, kChunk, 4);
      }
      for (Index step = kChunk; step < block; step *= 2)
        for (Index i = 0; i < block; i += 2 * step)
          for (Index j = i; j < i + step; j += kChunk) {
            float a[kChunk], b[kChunk], sum[kChunk], difference[kChunk];
            std::memcpy(a, x + j, sizeof a);
            std::memcpy(b, x + j + step, sizeof b);
            for (Index d = 0; d < kChunk; ++d) {
              sum[d] = a[d] + b[d];
              difference[d] = a[d] - b[d];
            }
            std::memcpy(x + j, sum, sizeof sum);
            std::memcpy(x + j + step, difference, sizeof difference);
          }
      for (Index i = 0; i < block; ++i) x[i] *= factor;
    }
  }
};

}  // namespace headwise
