// SPDX-License-Identifier: MIT
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "headwise/core/index.hpp"
#include "headwise/core/tile_layout.hpp"

// The tokens of a tile that a row sees: one bit each, the first token the least significant one.

namespace headwise::detail {

static_assert(kTileTokens == 64, "a tile's tokens are the bits of one word");

inline constexpr std::uint64_t kWholeTile = ~std::uint64_t{0};

/// The first `tokens` tokens, 0 … 64.
constexpr std::uint64_t first_tokens(Index tokens) {
  return tokens >= kTileTokens ? kWholeTile : (std::uint64_t{1} << tokens) - 1;
}

/// Bit i of the result: whether byte i of 64 is not 0.
inline std::uint64_t word_of_bytes(const void* bytes) {
  static_assert(std::endian::native == std::endian::little, "byte i is bits 8i … 8i + 7 of a word");
  const auto* const at = static_cast<const char*>(bytes);
  std::uint64_t word = 0;
#if defined(__x86_64__)
  typedef char Sixteen __attribute__((vector_size(16)));
  for (int i = 0; i < 4; ++i) {
    Sixteen x;
    std::memcpy(&x, at + 16 * i, sizeof x);
    const Sixteen none = (Sixteen)(x == 0);
    word |= static_cast<std::uint64_t>(static_cast<unsigned>(__builtin_ia32_pmovmskb128(none))) << (16 * i);
  }
  return ~word;
#else
  constexpr std::uint64_t kLow = 0x7f7f7f7f7f7f7f7f, kTop = ~kLow, kGather = 0x0102040810204080;
  for (int i = 0; i < 8; ++i) {
    std::uint64_t x;
    std::memcpy(&x, at + 8 * i, sizeof x);
    const std::uint64_t seen = (((x & kLow) + kLow) | x) & kTop;  // the top bit of every byte that is not 0
    word |= ((seen >> 7) * kGather) >> 56 << (8 * i);
  }
  return word;
#endif
}

/// 64 bits from bit `offset` on of `count` words, whose bits before 0 are 1 and behind the end 0.
inline std::uint64_t word_at(const std::uint64_t* words, Index count, Index offset) {
  const auto at = [&](Index i) { return i < count ? words[i] : 0; };
  if (offset <= -kTileTokens) return kWholeTile;
  if (offset < 0) return at(0) << -offset | first_tokens(-offset);
  const Index i = offset / kTileTokens, shift = offset % kTileTokens;
  return shift == 0 ? at(i) : at(i) >> shift | at(i + 1) << (kTileTokens - shift);
}

}  // namespace headwise::detail
