// SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "headwise/regroup/search/activations.hpp"
#include "llama/model/model.hpp"

namespace llama {

/// Runs the model over `tokens`, `context` of them at a time (each run from an empty cache), and sums up how alike the KV
/// heads of every layer are on them. attention: the layers' weights, [layer]. `after_layer`, if set, is called after each
/// layer of each run. Throws std::invalid_argument on no tokens, a context below 1 and activations that are not finite.
inline std::vector<headwise::regroup::ActivationStatistics> calibrate(
    const Model& model, std::span<const headwise::regroup::AttentionWeights> attention, std::span<const TokenId> tokens,
    Index context, ExecutorRef executor, const std::function<void()>& after_layer = {}) {
  headwise::require(!tokens.empty(), "calibration tokens (0) must be at least 1");
  headwise::require(context >= 1, "context (", context, ") must be at least 1");
  headwise::require(std::ssize(attention) == model.shape().num_layers, "attention (", attention.size(),
                    " layers) must be that of the model's ", model.shape().num_layers, " layers");
  std::vector<headwise::regroup::ActivationStatistics> statistics;
  for (const auto& weights : attention) statistics.emplace_back(weights);
  Model::Scratch scratch;
  const ReadHooks hooks{.attention_input =
                            [&](Index layer, const Matrix& input) {
                              const auto i = static_cast<std::size_t>(layer);
                              statistics[i].add_inputs(input, attention[i], executor);
                            },
                        .after_layer = after_layer};
  for (Index at = 0; at < std::ssize(tokens); at += context) {
    const Index count = std::min(context, std::ssize(tokens) - at);
    auto cache = model.make_cache<float>(count);
    model.read(tokens.subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(count)), cache, scratch, executor,
               hooks);
  }
  return statistics;
}

}  // namespace llama
