// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "headwise/core/error.hpp"
#include "llama/text/byte_pairs.hpp"

namespace generate {

using headwise::Index;
using llama::TokenId;

/// Prompt lookup decoding (Saxena 2023): a text that repeats itself tells what may come next. Finds the latest earlier
/// place where the last tokens of the text, as many as possible up to `longest_ngram` (at least 1), stood before, and
/// drafts the tokens that followed there: `most` (at least 0) of them, or none where no place is found. A draft that
/// comes to the end of the text goes on with its own beginning, so that a text with a period is drafted at any length.
inline std::vector<TokenId> look_up_draft(std::span<const TokenId> text, Index longest_ngram, Index most) {
  headwise::require(longest_ngram >= 1, "longest_ngram (", longest_ngram, ") must be at least 1");
  headwise::require(most >= 0, "most (", most, ") must be at least 0");
  const Index size = std::ssize(text);
  const auto at = [&](Index i) { return text[static_cast<std::size_t>(i)]; };
  Index follower = 0, longest = 0;  // where what follows the match begins, and how long the match is
  for (Index end = size - 1; end >= 1 && longest < longest_ngram; --end) {
    Index length = 0;
    while (length < std::min(longest_ngram, end) && at(end - 1 - length) == at(size - 1 - length)) ++length;
    if (length > longest) longest = length, follower = end;
  }
  std::vector<TokenId> draft;
  if (longest == 0) return draft;
  for (Index i = 0; i < most; ++i)
    draft.push_back(follower + i < size ? at(follower + i) : draft[static_cast<std::size_t>(follower + i - size)]);
  return draft;
}

}  // namespace generate
