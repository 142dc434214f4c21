// SPDX-License-Identifier: MIT
#include "llama/text/pre_tokenizer.hpp"

#include <array>
#include <cstddef>

#include "llama/text/unicode.hpp"
#include "llama/text/utf8.hpp"

namespace llama {

namespace {

/// A text as characters: class and place of each.
struct Characters {
  struct Character {
    std::size_t begin;  // byte offset
    CharClass kind;
  };

  explicit Characters(std::string_view source) : text(source) {
    all.reserve(text.size() + 1);
    for (std::size_t at = 0; at < text.size();) {
      const CodePoint next = first_code_point(text.substr(at));
      all.push_back({at, class_of(next.value)});
      at += next.bytes;
    }
    count = all.size();
    all.push_back({text.size(), CharClass::other});  // the end, so that every character has a next one
  }

  char32_t ascii(std::size_t i) const { return static_cast<unsigned char>(text[all[i].begin]); }
  CharClass kind(std::size_t i) const { return all[i].kind; }
  std::string_view bytes(std::size_t first, std::size_t last) const {
    return text.substr(all[first].begin, all[last].begin - all[first].begin);
  }
  /// The first character from `i` on, before `end`, that is not of class `kind`.
  std::size_t run_end(std::size_t i, std::size_t end, CharClass kind) const {
    while (i < end && all[i].kind == kind) ++i;
    return i;
  }

  std::string_view text;
  std::vector<Character> all;
  std::size_t count;
};

/// End of the piece that begins at character `i` of [i, end): the pattern of GPT-2,
///   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
/// read alternative by alternative; the first that matches wins.
std::size_t gpt2_piece_end(const Characters& characters, std::size_t i, std::size_t end) {
  constexpr std::array<std::string_view, 7> contractions = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
  const std::string_view rest = characters.bytes(i, end);
  for (std::string_view contraction : contractions)
    if (rest.starts_with(contraction)) return i + contraction.size();

  // one space, if any, goes with the run after it
  const std::size_t word = characters.ascii(i) == ' ' && i + 1 < end ? i + 1 : i;
  if (characters.kind(word) != CharClass::space) return characters.run_end(word, end, characters.kind(word));

  // white space: all of it at the end of the text, else all but the last, which the next piece may take
  const std::size_t spaces = characters.run_end(i, end, CharClass::space);
  return spaces == end || spaces == i + 1 ? spaces : spaces - 1;
}

void split_gpt2(const Characters& characters, std::size_t begin, std::size_t end,
                std::vector<std::string_view>& pieces) {
  while (begin < end) {
    const std::size_t next = gpt2_piece_end(characters, begin, end);
    pieces.push_back(characters.bytes(begin, next));
    begin = next;
  }
}

}  // namespace

std::vector<std::string_view> split(std::string_view text, PreTokenizer kind) {
  const Characters characters(text);
  std::vector<std::string_view> pieces;
  if (kind == PreTokenizer::gpt2) {
    split_gpt2(characters, 0, characters.count, pieces);
    return pieces;
  }
  // The digits come out first, so the text before a digit ends there: white space in front of one is a piece of its
  // own, not split for the digit to take.
  std::size_t begin = 0;
  for (std::size_t i = 0; i < characters.count; ++i) {
    if (characters.kind(i) != CharClass::number) continue;
    split_gpt2(characters, begin, i, pieces);
    pieces.push_back(characters.bytes(i, i + 1));
    begin = i + 1;
  }
  split_gpt2(characters, begin, characters.count, pieces);
  return pieces;
}

}  // namespace llama
