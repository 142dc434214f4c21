// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <optional>
#include <string>

#include "headwise/core/index.hpp"

namespace serve {

using headwise::Index;

/// Decides when many prompts are worth a word, and which: nothing in the first second, then a bar every `interval` seconds.
class Progress {
 public:
  Progress(Index prompts, double interval) : prompts_(prompts), interval_(interval) {}

  /// What to show now, `seconds` after the beginning, when `finished` prompts are and so many tokens have been generated;
  /// mostly nothing.
  std::optional<std::string> at(double seconds, Index finished, Index generated, Index running, Index pages_used,
                                Index pages) {
    if (seconds < next_) return std::nullopt;
    next_ = seconds + interval_;
    constexpr Index width = 24;
    const auto done = static_cast<std::size_t>(width * finished / std::max(prompts_, Index{1}));
    const auto number = [](Index n) { return std::to_string(n); };
    return "[" + std::string(done, '#') + std::string(width - done, '.') + "] " + number(finished) + " of " +
           number(prompts_) + " prompts, " + number(running) + " running, " + number(generated) + " tokens (" +
           number(static_cast<Index>(static_cast<double>(generated) / seconds)) + " per s), " + number(pages_used) +
           " of " + number(pages) + " pages";
  }

 private:
  Index prompts_;
  double interval_, next_ = 1.0;
};

}  // namespace serve
