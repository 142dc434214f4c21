// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

#include "llama/text/utf8.hpp"

namespace llama {

/// Byte-level vocabularies write each byte as a visible character: the printable ones of Latin-1 stand for themselves,
/// the other 68 (controls, spaces, soft hyphen), in order, are U+0100, U+0101, …; so a space is written "Ġ" (U+0120).
constexpr std::array<char32_t, 256> byte_characters() {
  std::array<char32_t, 256> characters{};
  char32_t next = 0x100;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool visible = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
    characters[byte] = visible ? byte : next++;
  }
  return characters;
}
inline constexpr std::array<char32_t, 256> kByteCharacters = byte_characters();
inline constexpr char32_t kByteCharactersEnd = 0x100 + 68;

/// The bytes written as `text`; nothing if a character of it stands for no byte.
inline std::optional<std::string> written_bytes(std::string_view text) {
  constexpr auto byte_of = [] {
    std::array<int, kByteCharactersEnd> bytes{};
    bytes.fill(-1);
    for (int byte = 0; byte < 256; ++byte) bytes[kByteCharacters[static_cast<std::size_t>(byte)]] = byte;
    return bytes;
  }();
  std::string bytes;
  while (!text.empty()) {
    const CodePoint next = first_code_point(text);
    if (next.value >= kByteCharactersEnd || byte_of[next.value] < 0) return std::nullopt;
    bytes += static_cast<char>(byte_of[next.value]);
    text.remove_prefix(next.bytes);
  }
  return bytes;
}

}  // namespace llama
