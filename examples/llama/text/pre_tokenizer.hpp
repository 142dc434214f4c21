// SPDX-License-Identifier: MIT
#pragma once

#include <string_view>
#include <vector>

namespace llama {

/// How a text is cut into the pieces within which byte pairs are merged.
enum class PreTokenizer {
  gpt2,    // contractions, words, numbers, punctuation, white space; a word takes one space before it
  smollm,  // first every digit (\p{N}) alone, then gpt2 between the digits
};

/// The pieces of `text`, in order; put together they are `text`. Any bytes are taken: one that is no UTF-8 counts as a
/// character that is neither letter, number nor space.
std::vector<std::string_view> split(std::string_view text, PreTokenizer kind);

}  // namespace llama
