// SPDX-License-Identifier: MIT
#pragma once

#include <string>

#include "tests/conformance/call.hpp"

namespace headwise::conformance {

inline std::string missing_feature(const Case& given) {
  if (given.find("mask") || given.find("attention_bias")) return "masks";
  if (given.find("sink_logits") || given.has("strength") || given.find("head_sink") || given.has("smooth_softmax")) return "scores";
  if (given.has("chunk_size") || given.find("prefix_lengths") || given.find("key_starts")) return "intervals";
  return {};
}
inline void set_mask(Options&, const Tensor&) {}

}  // namespace headwise::conformance
