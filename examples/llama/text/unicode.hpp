// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

namespace llama {

/// What a pre-tokenizer's patterns ask about a character: \p{L}, \p{N}, \s, or none of them.
enum class CharClass : std::uint8_t { other, letter, number, space };

/// Class of a code point; `other` for anything that is not a Unicode scalar value.
CharClass class_of(char32_t code_point);

}  // namespace llama
