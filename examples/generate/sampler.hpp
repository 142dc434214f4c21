// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "headwise/core/error.hpp"

namespace generate {

/// The token of the largest logit, of equals the first. Throws std::runtime_error if a logit is NaN.
inline std::size_t largest_logit(std::span<const float> logits) {
  headwise::require(!logits.empty(), "logits (0) must be at least 1");
  std::size_t best = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i]))
      throw std::runtime_error("logit " + std::to_string(i) + " is not a number: the model's weights are damaged");
    if (logits[i] > logits[best]) best = i;
  }
  return best;
}

struct SamplerOptions {
  double temperature = 0.8;  // finite, at least 0; 0: always the most probable token
  double top_p = 0.95;       // above 0, at most 1
  std::uint64_t seed = 0;
};

/// Draws tokens: softmax of logits / temperature, cut to the smallest set of most probable tokens that together have
/// probability top_p. The same seed and logits give the same tokens.
class Sampler {
 public:
  /// Throws std::invalid_argument for options out of range.
  explicit Sampler(const SamplerOptions& options) : options_(options), random_(options.seed) {
    headwise::require(std::isfinite(options.temperature) && options.temperature >= 0, "temperature (",
                      options.temperature, ") must be finite and at least 0");
    headwise::require(options.top_p > 0 && options.top_p <= 1, "top_p (", options.top_p,
                      ") must be above 0 and at most 1");
  }

  /// Throws std::runtime_error if a logit is NaN.
  std::size_t operator()(std::span<const float> logits) {
    const std::size_t best = largest_logit(logits);
    if (options_.temperature == 0 || std::isinf(logits[best])) return best;

    weights_.resize(logits.size());
    for (std::size_t i = 0; i < logits.size(); ++i)
      weights_[i] = std::exp((static_cast<double>(logits[i]) - logits[best]) / options_.temperature);
    order_.resize(logits.size());
    std::iota(order_.begin(), order_.end(), std::size_t{0});
    const auto more_probable = [&](std::size_t a, std::size_t b) {
      return weights_[a] != weights_[b] ? weights_[a] > weights_[b] : a < b;
    };
    std::ranges::sort(order_, more_probable);

    // summed from the largest down, so that the sum does not depend on where a token stands in the vocabulary
    const auto weight_of = [&](double sum, std::size_t token) { return sum + weights_[token]; };
    const double total = std::accumulate(order_.begin(), order_.end(), 0.0, weight_of);
    double kept = 0;
    std::size_t count = 0;
    while (count < order_.size() && (count == 0 || kept < options_.top_p * total)) kept += weights_[order_[count++]];

    double left = uniform() * kept;
    for (std::size_t i = 0; i + 1 < count; ++i) {
      left -= weights_[order_[i]];
      if (left < 0) return order_[i];
    }
    return order_[count - 1];
  }

 private:
  /// [0, 1), the same on every platform (std::uniform_real_distribution is not).
  double uniform() { return static_cast<double>(random_() >> 11) * 0x1p-53; }

  SamplerOptions options_;
  std::mt19937_64 random_;
  std::vector<double> weights_;
  std::vector<std::size_t> order_;
};

}  // namespace generate
