// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>

#include "headwise/attention/added_units.hpp"
#include "headwise/attention/element_masks.hpp"
#include "headwise/attention/row_range.hpp"
#include "headwise/attention/work_item.hpp"
#include "headwise/attention/workspace.hpp"
#include "headwise/core/tile_layout.hpp"

namespace headwise::detail {

/// Tokens [begin, end) of a tile, 0 … 64, one bit each.
constexpr std::uint64_t tile_bits(Index begin, Index end) {
  return end > begin ? first_tokens(end) & ~first_tokens(begin) : 0;
}

/// Which tokens of a tile each row of a work item sees: one word per row. Tiles are looked at in order; what is found
/// out about a next one is kept for when its turn comes.
class TileMask {
 public:
  TileMask(const CallShape& call, const TileKernels& kernels, const RowRange& range, const WorkItem& item,
           Index kv_head, const Workspace& memory)
      : range_(range),
        elements_(call, kernels, range, kv_head, item.rows, memory.mask_rows),
        rows_(item.rows),
        end_(std::min(ceil_div(range.end(), kTileTokens), item.segments.end * (kSegmentTokens / kTileTokens))),
        now_{memory.bits, memory.ends, memory.added, memory.added_of},
        next_{memory.bits + rows_, memory.ends + rows_, memory.added ? memory.added + rows_ * kTileTokens : nullptr,
              memory.added ? memory.added_of + rows_ : nullptr} {}

  /// Behind the last tile of the item that some row may see.
  Index end_tile() const { return end_; }
  /// The first tile from `tile` on, or end_tile(), that is not known to be hidden from all rows.
  Index next_tile(Index tile) const {
    if (tile <= looked_) return looked_;
    for (Index next = tile;; tile = next) {
      next = elements_.listed_tile(std::min(range_.visible_tile(next), end_), end_);
      if (next == tile) return tile;
    }
  }

  /// Works out a tile; returns whether some row sees some token of it.
  bool look(Index tile) {
    if (tile > looked_) return work_out(tile, now_);
    if (tile < looked_) return false;
    std::swap(now_, next_);
    looked_ = -1;
    return true;
  }
  /// Works out the first tile behind `tile` of which some row sees some token, and returns it, or end_tile().
  Index look_ahead(Index tile) {
    looked_ = -1;
    do tile = next_tile(tile + 1);
    while (tile < end_ && !work_out(tile, next_));
    return looked_ = tile;
  }
  /// Tiles may be looked at again from an earlier one on.
  void restart() { looked_ = -1; }

  // of the tile that was looked at last:
  /// Whether every row sees every token.
  bool whole() const { return now_.whole; }
  std::uint64_t bits(Index row) const { return now_.whole ? kWholeTile : now_.bits[row]; }
  /// The same of all rows; null: they see every token.
  const std::uint64_t* words() const { return now_.whole ? nullptr : now_.bits; }
  /// Where the tokens end that a row and those before it see; null: at 64.
  const Index* ends() const { return now_.whole ? nullptr : now_.ends; }
  /// Where the tokens end that some row sees.
  Index end() const { return now_.whole ? kTileTokens : now_.ends[rows_ - 1]; }
  /// Whether every row sees the first `tokens` tokens.
  bool all_see(Index tokens) const {
    if (now_.whole) return true;
    const std::uint64_t wanted = first_tokens(tokens);
    return std::all_of(now_.bits, now_.bits + rows_, [&](std::uint64_t bits) { return (bits & wanted) == wanted; });
  }
  /// Whether a mask adds numbers to the scores.
  bool adds() const { return now_.adds; }
  /// What it adds, [rows] of [64].
  const float* const* added() const { return now_.adds ? now_.added_of : nullptr; }

  /// The same numbers in natural units, to scores in these.
  void add_natural(float* scores) const {
    for (Index r = 0; r < rows_; ++r)
      for (Index t = 0; t < kTileTokens; ++t)
        scores[r * kTileTokens + t] += AddedUnits::to_natural(now_.added_of[r][t]);
  }

  /// Tokens whose score is −inf are hidden from here on.
  void drop(const float* scores) {
    constexpr float kHidden = -std::numeric_limits<float>::infinity();
    if (now_.whole) {
      std::fill_n(now_.bits, rows_, kWholeTile);
      std::fill_n(now_.ends, rows_, kTileTokens);
      now_.whole = false;
    }
    for (Index r = 0; r < rows_; ++r, scores += kTileTokens)
      for (Index t = 0; t < kTileTokens; ++t) now_.bits[r] &= ~(std::uint64_t{scores[t] == kHidden} << t);
  }

  /// Hidden scores become −inf, whatever they were.
  void hide(float* scores) const {
    if (now_.whole) return;
    constexpr float kHidden = -std::numeric_limits<float>::infinity();
    for (Index r = 0; r < rows_; ++r, scores += kTileTokens) {
      constexpr int kFewRuns = 4;
      const std::uint64_t all = ~now_.bits[r];
      if (std::popcount(all & ~(all << 1)) > kFewRuns) {
        hide_bits(all, scores);
        continue;
      }
      for (std::uint64_t hidden = all; hidden != 0;) {  // run by run
        const int begin = std::countr_zero(hidden), length = std::countr_one(hidden >> begin);
        std::fill_n(scores + begin, length, kHidden);
        if (begin + length >= kTileTokens) break;
        hidden &= ~std::uint64_t{0} << (begin + length);
      }
    }
  }

 private:
  struct Words {
    std::uint64_t* bits;
    Index* ends;
    float* added;            // [rows][64], in the first of the rows that have the same
    const float** added_of;  // [rows], where it is
    bool whole = true, adds = false;
  };

  /// Scores of a row of many runs, four at a time, without a branch.
  static void hide_bits(std::uint64_t hidden, float* scores) {
    using Four = std::array<std::uint32_t, 4>;
    static constexpr auto kOnes = [] {  // of each four bits
      std::array<Four, 16> ones{};
      for (std::uint32_t bits = 0; bits < 16; ++bits)
        for (std::uint32_t i = 0; i < 4; ++i) ones[bits][i] = bits >> i & 1 ? ~std::uint32_t{0} : 0;
      return ones;
    }();
    constexpr auto kHidden = std::bit_cast<std::uint32_t>(-std::numeric_limits<float>::infinity());
    for (Index j = 0; j < kTileTokens; j += 4, hidden >>= 4) {
      const Four& ones = kOnes[hidden & 15];
      Four four;
      std::memcpy(four.data(), scores + j, sizeof four);
      for (std::size_t i = 0; i < 4; ++i) four[i] = (four[i] & ~ones[i]) | (kHidden & ones[i]);
      std::memcpy(scores + j, four.data(), sizeof four);
    }
  }

  bool work_out(Index tile, Words& words) {
    first_ = tile * kTileTokens;
    words.whole = range_.all_see(first_, first_ + kTileTokens);
    words.adds = false;
    if (!elements_.any()) {
      if (words.whole) return true;
      for (Index r = 0; r < rows_; ++r) words.bits[r] = interval_bits(r);
    } else {
      if (words.whole)
        std::fill_n(words.bits, rows_, kWholeTile);
      else
        for (Index r = 0; r < rows_; ++r) words.bits[r] = interval_bits(r);
      words.adds = elements_.narrow(tile, words.bits, words.added, words.added_of);
      std::uint64_t common = kWholeTile;
      for (Index r = 0; r < rows_; ++r) common &= words.bits[r];
      words.whole = common == kWholeTile;
      if (words.whole) return true;
    }
    Index end = 0;  // never falls, as the kernels want it
    for (Index r = 0; r < rows_; ++r) {
      end = std::max(end, static_cast<Index>(std::bit_width(words.bits[r])));
      words.ends[r] = end;
      if (end == kTileTokens) {
        std::fill(words.ends + r, words.ends + rows_, end);
        break;
      }
    }
    return end > 0;
  }

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
  ElementMasks elements_;
  Index rows_, end_;
  Words now_, next_;
  Index looked_ = -1;  // the tile of next_, and all before it from the one of now_ on are hidden; −1: not looked yet
  Index first_ = 0;    // token of the tile that is worked out
};

}  // namespace headwise::detail
