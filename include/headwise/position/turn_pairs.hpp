// SPDX-License-Identifier: MIT
#pragma once

#include <cstring>

#include "headwise/core/index.hpp"
#include "headwise/core/linkage.hpp"

namespace headwise::detail {

/// Turns pairs of numbers in place, (x, y) → (x·cos − y·sin, y·cos + x·sin): pair i is x[i·step] and x[i·step + partner].
/// Compiled once (core/linkage.hpp), so that a head has the same bits wherever it is turned: compilers contract these
/// products as they like.
void turn_pairs(const float* cosines, const float* sines, Index pairs, float* x, Index step, Index partner);

}  // namespace headwise::detail

#if !defined(HEADWISE_DECLARE_ONLY)

namespace headwise::detail {

HEADWISE_API void turn_pairs(const float* cosines, const float* sines, Index pairs, float* x, Index step,
                             Index partner) {
  constexpr Index kChunk = 8;  // of constant size, for compilers to make vectors of it
  Index i = 0;
  if (step == 1) {  // half_split
    for (; i + kChunk <= pairs; i += kChunk) {
      float a[kChunk], b[kChunk], c[kChunk], s[kChunk], turned_a[kChunk], turned_b[kChunk];
      std::memcpy(a, x + i, sizeof a);
      std::memcpy(b, x + i + partner, sizeof b);
      std::memcpy(c, cosines + i, sizeof c);
      std::memcpy(s, sines + i, sizeof s);
      for (Index j = 0; j < kChunk; ++j) {
        turned_a[j] = a[j] * c[j] - b[j] * s[j];
        turned_b[j] = b[j] * c[j] + a[j] * s[j];
      }
      std::memcpy(x + i, turned_a, sizeof a);
      std::memcpy(x + i + partner, turned_b, sizeof b);
    }
  }
  for (; i < pairs; ++i) {
    const float a = x[i * step], b = x[i * step + partner];
    x[i * step] = a * cosines[i] - b * sines[i];
    x[i * step + partner] = b * cosines[i] + a * sines[i];
  }
}

}  // namespace headwise::detail

#endif  // !HEADWISE_DECLARE_ONLY
