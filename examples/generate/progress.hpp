// SPDX-License-Identifier: MIT
#pragma once

#include <optional>
#include <string>

#include "headwise/core/index.hpp"

namespace generate {

/// Decides when a long prompt is worth a word, and which: nothing in the first second, then one line every `interval`
/// seconds.
class Progress {
 public:
  /// The prompt is `tokens` long and every token takes `steps_per_token` steps.
  Progress(headwise::Index tokens, headwise::Index steps_per_token, double interval)
      : tokens_(tokens), steps_per_token_(steps_per_token), interval_(interval) {}

  /// What to show now, `seconds` after the beginning, when `tokens` more have made a step; mostly nothing.
  std::optional<std::string> step(headwise::Index tokens, double seconds) {
    done_ += tokens;
    if (seconds < next_) return std::nullopt;
    next_ = seconds + interval_;
    const headwise::Index read = done_ / steps_per_token_, percent = 100 * done_ / (tokens_ * steps_per_token_);
    return "reading the prompt: " + std::to_string(percent) + " % (" + std::to_string(read) + " of " +
           std::to_string(tokens_) + " tokens)";
  }

 private:
  headwise::Index tokens_, steps_per_token_, done_ = 0;
  double interval_, next_ = 1.0;
};

}  // namespace generate
