// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>

#include "headwise/attention/tile_mask.hpp"
#include "headwise/attention/work_item.hpp"
#include "headwise/core/tile_layout.hpp"
#include "headwise/kernel/table.hpp"

namespace headwise::detail {

/// What a walk made of one KV head's tiles, kept until the sums of its rows are known: the weights of each tile it visited,
/// as its sums took them, and what they are relative to. Refers to memory that holds it.
class WeightRecord {
 public:
  struct Tile {
    Index index;
    bool whole;           // every row sees every token
    float* max;           // [rows, and kMaxLanes more], weights are 2^(score − max)
    std::uint64_t* bits;  // [rows], the visible tokens, where not whole
    char* weights;        // [rows][64] of the operand
  };

  /// The most tiles that an item visits.
  static Index most_tiles(const WorkItem& item) {
    constexpr Index kTiles = kSegmentTokens / kTileTokens;
    const Segments& segments = item.segments;
    if (segments.begin >= segments.end) return 0;
    const Index end = std::min(ceil_div(item.end, kTileTokens), segments.end * kTiles);
    return std::clamp<Index>(end - segments.begin * kTiles, 0, segments.count() * kTiles);
  }
  static Index bytes(Index tiles, Index rows, Operand operand) {
    return kTileAlignment + tiles * WeightRecord(nullptr, rows, operand).tile_bytes_;
  }

  WeightRecord() = default;  // of nothing
  WeightRecord(void* memory, Index rows, Operand operand)
      : memory_(static_cast<char*>(memory)),
        rows_(rows),
        bits_at_(round_up(kHeaderBytes + 4 * (rows + kMaxLanes), kTileAlignment)),
        weights_at_(bits_at_ + round_up(8 * rows, kTileAlignment)),
        tile_bytes_(weights_at_ + rows * row_bytes(operand, kTileTokens)) {}

  explicit operator bool() const { return memory_ != nullptr; }
  void clear() { count() = 0; }

  /// Where the weights of the next tile go.
  void* next_weights() const { return at(count()) + weights_at_; }
  /// They are there.
  void keep(Index index, const float* max, const TileMask& mask) {
    header(count()) = {index, mask.whole() ? Index{1} : Index{0}};
    const Tile kept = tile(count());
    std::copy_n(max, rows_, kept.max);
    for (Index r = 0; !mask.whole() && r < rows_; ++r) kept.bits[r] = mask.bits(r);
    ++count();
  }

  Index num_tiles() const { return count(); }
  /// The last ones are to be kept again.
  void go_back_to(Index num_tiles) { count() = num_tiles; }
  Index index(Index i) const { return header(i).index; }
  Tile tile(Index i) const {
    char* const begin = at(i);
    return {header(i).index, header(i).whole != 0, reinterpret_cast<float*>(begin + kHeaderBytes),
            reinterpret_cast<std::uint64_t*>(begin + bits_at_), begin + weights_at_};
  }
  /// From one tile's to the next one's.
  Index tile_bytes() const { return tile_bytes_; }

 private:
  struct Header {
    Index index, whole;
  };
  static constexpr Index kHeaderBytes = static_cast<Index>(sizeof(Header));  // in one line with the maxima of few rows

  Index& count() const { return *reinterpret_cast<Index*>(memory_); }
  char* at(Index i) const { return memory_ + kTileAlignment + i * tile_bytes_; }
  Header& header(Index i) const { return *reinterpret_cast<Header*>(at(i)); }

  char* memory_ = nullptr;
  Index rows_ = 0, bits_at_ = 0, weights_at_ = 0, tile_bytes_ = 0;
};

}  // namespace headwise::detail
