// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "headwise/core/error.hpp"
#include "headwise/core/view.hpp"

namespace headwise {

/// Factors of channels for CacheOptions::key_channel_scales, from keys of a calibration text as they are appended, turned
/// by RoPE where the model does so: keys [sequence][token][kv_head][head_dim] → [kv_head][head_dim], the largest magnitude
/// of each channel, divided by the geometric mean of its head's. With them, "int8 per channel" of K is what int8 keys
/// store: a number is code · (scale of the token · scale of the channel). A channel counts at least 1/1024 of its head's
/// largest one, so that one that was silent in the calibration is not blown up. Xiao et al. 2023 (SmoothQuant, arXiv
/// 2211.10438), eq. 4 with alpha 1. Throws std::invalid_argument where a key is not finite.
template <ElementType T>
std::vector<float> key_channel_scales(View<T> keys) {
  const auto dim = static_cast<std::size_t>(keys.dim());
  std::vector<float> scales(static_cast<std::size_t>(keys.heads()) * dim, 0.0f);
  for (Index b = 0; b < keys.sequences(); ++b)
    for (Index t = 0; t < keys.tokens(); ++t)
      for (Index g = 0; g < keys.heads(); ++g)
        for (Index d = 0; d < keys.dim(); ++d) {
          const float x = static_cast<float>(keys(b, t, g, d));
          require(std::isfinite(x), "keys(", b, ", ", t, ", ", g, ", ", d, ") (", x, ") must be finite");
          float& scale = scales[static_cast<std::size_t>(g) * dim + static_cast<std::size_t>(d)];
          scale = std::max(scale, std::fabs(x));
        }
  for (auto head = scales.begin(); head != scales.end(); head += keys.dim()) {
    const float largest = *std::max_element(head, head + keys.dim());
    double sum = 0;
    for (auto c = head; c != head + keys.dim(); ++c) {
      *c = largest > 0 ? std::max(*c, largest / 1024) : 1.0f;
      sum += std::log2(static_cast<double>(*c));
    }
    const double mean = std::exp2(sum / static_cast<double>(keys.dim()));
    for (auto c = head; c != head + keys.dim(); ++c) *c = static_cast<float>(static_cast<double>(*c) / mean);
  }
  return scales;
}

}  // namespace headwise
