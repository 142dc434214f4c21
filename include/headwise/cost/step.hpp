// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <optional>

#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"
#include "headwise/cost/checked.hpp"

namespace headwise::cost {

/// One forward pass: each of `batch` sequences appends `new_tokens` to the `past` tokens that it holds.
struct Step {
  Index batch = 1;
  Index new_tokens = 1;
  Index past = 0;
  /// Tokens of each encoded source, for layers with cross-attention.
  Index source_tokens = 0;

  /// One new token for each sequence, which sees `context` ≥ 1 keys, its own included.
  static Step decode(Index context, Index batch = 1) {
    require(context >= 1, "context (", context, ") must be at least 1");
    return {.batch = batch, .new_tokens = 1, .past = context - 1};
  }
  /// Prompts of `tokens` ≥ 1 tokens from the start.
  static Step prefill(Index tokens, Index batch = 1) { return {.batch = batch, .new_tokens = tokens, .past = 0}; }
};

namespace detail {

inline void check_step(const Step& step) {
  require(step.batch >= 1, "batch (", step.batch, ") must be at least 1");
  require(step.new_tokens >= 1, "new_tokens (", step.new_tokens, ") must be at least 1");
  require(step.past >= 0, "past (", step.past, ") must be at least 0");
  require(step.source_tokens >= 0, "source_tokens (", step.source_tokens, ") must be at least 0");
  sum("past + new_tokens", {step.past, step.new_tokens});
}

inline void check_window(std::optional<Index> window) {
  if (window) require(*window >= 0, "window (", *window, ") must be at least 0");
}

/// n·(n + 1)/2
inline Index triangle(Index n) {
  return n % 2 == 0 ? product("pairs", {n / 2, n + 1}) : product("pairs", {n, n / 2 + 1});
}

}  // namespace detail

/// Query-key pairs of one head and sequence under a causal mask: new_tokens·past + new_tokens·(new_tokens + 1)/2. With a
/// window, the sum over the new tokens of min(window, tokens up to and with their own).
inline Index causal_pairs(Index new_tokens, Index past, std::optional<Index> window = std::nullopt) {
  detail::check_step({.batch = 1, .new_tokens = new_tokens, .past = past});
  detail::check_window(window);
  // the first tokens see all there is, the rest a full window
  const Index growing = window ? std::clamp<Index>(*window - past, 0, new_tokens) : new_tokens;
  return detail::sum("pairs", {detail::product("pairs", {growing, past}), detail::triangle(growing),
                               detail::product("pairs", {new_tokens - growing, window.value_or(0)})});
}

/// Keys that some new token sees: all, or with a window the last new_tokens + window − 1.
inline Index visible_keys(Index new_tokens, Index past, std::optional<Index> window = std::nullopt) {
  detail::check_step({.batch = 1, .new_tokens = new_tokens, .past = past});
  detail::check_window(window);
  const Index all = past + new_tokens;
  if (!window) return all;
  if (*window == 0) return 0;
  return *window - 1 < past ? new_tokens + (*window - 1) : all;
}

}  // namespace headwise::cost
