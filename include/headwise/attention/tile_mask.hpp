// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>

#include "headwise/attention/row_range.hpp"
#include "headwise/attention/workspace.hpp"
#include "headwise/core/tile_layout.hpp"

namespace headwise::detail {

/// Tokens [begin, end) of a tile, 0 … 64, one bit each.
constexpr std::uint64_t tile_bits(Index begin, Index end) {
  const auto below = [](Index n) { return n >= kTileTokens ? ~std::uint64_t{0} : (std::uint64_t{1} << n) - 1; };
  return end > begin ? below(end) & ~below(begin) : 0;
}
static_assert(kTileTokens == 64, "a tile's tokens are the bits of one word");

/// Which tokens of a tile each row of a work item sees: one word per row.
class TileMask {
 public:
  TileMask(const RowRange& range, Index rows, const Workspace& memory)
      : range_(range), rows_(rows), bits_(memory.bits), ends_(memory.ends) {}

  /// Works out a tile; returns whether some row sees some token of it.
  bool look(Index tile) {
    first_ = tile * kTileTokens;
    whole_ = range_.all_see(first_, first_ + kTileTokens);
    if (whole_) return true;
    Index end = 0;  // never falls, as the kernels want it
    for (Index r = 0; r < rows_; ++r) {
      bits_[r] = interval_bits(r);
      end = std::max(end, static_cast<Index>(std::bit_width(bits_[r])));
      ends_[r] = end;
    }
    return end > 0;
  }

  /// Whether every row sees every token.
  bool whole() const { return whole_; }
  std::uint64_t bits(Index row) const { return whole_ ? ~std::uint64_t{0} : bits_[row]; }
  /// Where the tokens end that a row and those before it see; null: at 64.
  const Index* ends() const { return whole_ ? nullptr : ends_; }
  /// Where the tokens end that some row sees.
  Index end() const { return whole_ ? kTileTokens : ends_[rows_ - 1]; }
  /// Whether every row sees the first `tokens` tokens.
  bool all_see(Index tokens) const {
    if (whole_) return true;
    const std::uint64_t wanted = tile_bits(0, tokens);
    return std::all_of(bits_, bits_ + rows_, [&](std::uint64_t bits) { return (bits & wanted) == wanted; });
  }

  /// Tokens whose score is −inf are hidden from here on.
  void drop(const float* scores) {
    constexpr float kHidden = -std::numeric_limits<float>::infinity();
    if (whole_) {
      std::fill_n(bits_, rows_, ~std::uint64_t{0});
      std::fill_n(ends_, rows_, kTileTokens);
      whole_ = false;
    }
    for (Index r = 0; r < rows_; ++r, scores += kTileTokens)
      for (Index t = 0; t < kTileTokens; ++t) bits_[r] &= ~(std::uint64_t{scores[t] == kHidden} << t);
  }

  /// Hidden scores become −inf, whatever they were.
  void hide(float* scores) const {
    if (whole_) return;
    constexpr float kHidden = -std::numeric_limits<float>::infinity();
    for (Index r = 0; r < rows_; ++r, scores += kTileTokens)
      for (std::uint64_t hidden = ~bits_[r]; hidden != 0;) {  // run by run
        const int begin = std::countr_zero(hidden), length = std::countr_one(hidden >> begin);
        std::fill_n(scores + begin, length, kHidden);
        if (begin + length >= kTileTokens) break;
        hidden &= ~std::uint64_t{0} << (begin + length);
      }
  }

 private:
  /// What the interval of a row, and the sink tokens before it, hold of the tile.
  std::uint64_t interval_bits(Index row) const {
    const auto clamped = [&](Index begin, Index end) {
      return tile_bits(std::clamp<Index>(begin - first_, 0, kTileTokens),
                       std::clamp<Index>(end - first_, 0, kTileTokens));
    };
    const Interval keys = range_.visible(row), sinks = range_.sinks(keys);
    return clamped(keys.begin, keys.end) | clamped(sinks.begin, sinks.end);
  }

  const RowRange& range_;
  Index rows_;
  std::uint64_t* bits_;
  Index* ends_;
  Index first_ = 0;
  bool whole_ = true;
};

}  // namespace headwise::detail
