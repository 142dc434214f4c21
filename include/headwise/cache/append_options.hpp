// SPDX-License-Identifier: MIT
#pragma once

#include <span>

#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"
#include "headwise/position/qk_norm.hpp"
#include "headwise/position/rope.hpp"

namespace headwise {

/// What is done to keys as they are appended, so that k may be what a projection gave: norm, then RoPE, then the cache's own
/// KeyTransform; to the bits of QkNorm::apply, Rope::apply and an append of the result. Options::query_norm and query_rope
/// are the same for queries. Refers to what it is given, during the call.
struct AppendOptions {
  /// Null: none.
  const QkNorm* key_norm = nullptr;
  /// Null: keys are as they should be.
  const Rope* rope = nullptr;
  /// Where the tokens of k stand, each number 0 … 2^53: [sequence][token], or [sequence][token][3] of a rope with sections:
  /// drafts in a tree, images, padding on the left. Of a ragged append, as its rows. Empty: a token's position is its
  /// number in the sequence.
  std::span<const Index> positions{};
};

namespace detail {

/// Throws std::invalid_argument unless the options fit keys of `tokens` tokens in all sequences.
inline void check_append_options(const AppendOptions& options, Index tokens, Index head_dim) {
  const auto& [norm, rope, positions] = options;
  require(!norm || norm->head_dim() == head_dim, "head_dim (", norm ? norm->head_dim() : 0,
          ") of the QkNorm must be that of the keys (", head_dim, ")");
  require(!rope || rope->head_dim() == head_dim, "head_dim (", rope ? rope->head_dim() : 0,
          ") of the Rope must be that of the keys (", head_dim, ")");
  if (positions.empty()) return;
  require(rope != nullptr, "positions (", positions.size(), ") must be empty without a rope");
  check_positions("positions", positions, tokens, rope->num_axes());
}

/// Those of `count` tokens from `first` on.
inline AppendOptions for_tokens(AppendOptions options, Index first, Index count) {
  if (options.positions.empty()) return options;
  const Index axes = options.rope->num_axes();
  options.positions =
      options.positions.subspan(static_cast<std::size_t>(first * axes), static_cast<std::size_t>(count * axes));
  return options;
}

}  // namespace detail

}  // namespace headwise
