// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace llama {

/// One step through a byte string: a Unicode scalar value of 1–4 bytes, or one byte that begins none.
struct CodePoint {
  static constexpr char32_t kInvalid = 0xffffffff;
  char32_t value;
  std::size_t bytes;
};

/// How many bytes `lead` announces: 1–4, or 0 for a byte that never begins a character.
constexpr std::size_t utf8_length(unsigned char lead) {
  return lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
}

/// Whether `next` may be the second byte after `lead`: 80–BF, narrower where a wider range would let in an overlong
/// form, a surrogate or a value above U+10FFFF.
constexpr bool utf8_second(unsigned char lead, unsigned char next) {
  const unsigned char low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
  const unsigned char high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
  return next >= low && next <= high;
}

/// The longest beginning of `text` that begins a well-formed character: `length` bytes are right, and the character is
/// whole if that is what its first byte announces.
struct Utf8Prefix {
  std::size_t length;
  bool whole;
};
constexpr Utf8Prefix utf8_prefix(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const std::size_t announced = text.empty() ? 0 : utf8_length(byte(0));
  if (announced < 2) return {announced, announced == 1};
  std::size_t length = 1;
  while (length < announced && length < text.size() &&
         (length == 1 ? utf8_second(byte(0), byte(1)) : (byte(length) & 0xc0) == 0x80))
    ++length;
  return {length, length == announced};
}

/// The first character of a text that is not empty.
constexpr CodePoint first_code_point(std::string_view text) {
  const Utf8Prefix prefix = utf8_prefix(text);
  if (!prefix.whole) return {CodePoint::kInvalid, 1};
  const auto lead = static_cast<unsigned char>(text[0]);
  if (prefix.length == 1) return {lead, 1};
  char32_t value = lead & (0x7fu >> prefix.length);
  for (std::size_t i = 1; i < prefix.length; ++i) value = (value << 6) | (static_cast<unsigned char>(text[i]) & 0x3fu);
  return {value, prefix.length};
}

/// The UTF-8 form of a scalar value.
inline std::string to_utf8(char32_t value) {
  const auto tail = [&](int shift) { return static_cast<char>(0x80u | ((value >> shift) & 0x3fu)); };
  if (value < 0x80) return {static_cast<char>(value)};
  if (value < 0x800) return {static_cast<char>(0xc0u | (value >> 6)), tail(0)};
  if (value < 0x10000) return {static_cast<char>(0xe0u | (value >> 12)), tail(6), tail(0)};
  return {static_cast<char>(0xf0u | (value >> 18)), tail(12), tail(6), tail(0)};
}

/// Turns a stream of byte strings, which tokens may cut anywhere, into well-formed UTF-8: a character comes out when
/// its last byte is there, and bytes that belong to none come out as U+FFFD.
class Utf8Stream {
 public:
  /// What can be shown now.
  std::string push(std::string_view bytes) {
    held_ += bytes;
    std::string out;
    std::string_view rest = held_;
    while (!rest.empty()) {
      const Utf8Prefix prefix = utf8_prefix(rest);
      if (!prefix.whole && prefix.length == rest.size()) break;  // may become whole
      if (prefix.whole) {
        out += rest.substr(0, prefix.length);
        rest.remove_prefix(prefix.length);
      } else {
        out += kReplacement;
        rest.remove_prefix(prefix.length == 0 ? 1 : prefix.length);
      }
    }
    held_.erase(0, held_.size() - rest.size());
    return out;
  }

  /// What is left at the end: nothing, or U+FFFD for a character cut short.
  std::string finish() {
    const bool cut = !held_.empty();
    held_.clear();
    return cut ? std::string(kReplacement) : std::string();
  }

 private:
  static constexpr std::string_view kReplacement = "\xef\xbf\xbd";
  std::string held_;  // the beginning of one character
};

}  // namespace llama
