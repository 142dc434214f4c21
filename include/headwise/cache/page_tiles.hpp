// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "headwise/cache/page_pool.hpp"
#include "headwise/cache/tile_codec.hpp"
#include "headwise/cache/tile_memory.hpp"
#include "headwise/core/checked.hpp"
#include "headwise/core/error.hpp"
#include "headwise/core/tile_layout.hpp"

namespace headwise::detail {

/// The pages of one layer: [page][kv_head][tile of the page]{K tile | V tile}.
class PageTiles {
 public:
  /// Throws std::invalid_argument where its bytes do not fit in 63 bits, std::bad_alloc where they are not to be had.
  PageTiles(const TileFormat& format, Index num_pages, Index page_tokens, std::vector<float> channel_scales,
            bool hadamard)
      : format_(format),
        tile_bytes_(format.bytes()),
        tiles_per_page_(page_tokens / kTileTokens),
        channel_scales_(std::move(channel_scales)),
        hadamard_(hadamard) {
    Index bytes = tile_bytes_;
    const bool fits = !__builtin_mul_overflow(bytes, tiles_per_page_, &bytes) &&
                      !__builtin_mul_overflow(bytes, format.num_kv_heads, &bytes) &&
                      !__builtin_mul_overflow(bytes, num_pages, &bytes);
    require(fits, "num_pages (", num_pages, ") of ", page_tokens, " tokens and ", format.num_kv_heads, " KV heads of ",
            format.head_dim, " + ", format.value_dim, " dims must take less than 2^63 bytes");
    memory_ = TileMemory(bytes);
  }

  const TileFormat& format() const { return format_; }
  KeyTransform key_transform() const { return {channel_scales_.empty() ? nullptr : channel_scales_.data(), hadamard_}; }
  Index page_bytes() const { return format_.num_kv_heads * tiles_per_page_ * tile_bytes_; }
  Index tiles_per_page() const { return tiles_per_page_; }

  /// Tile i, 0 … tiles_per_page − 1, of a page.
  std::byte* tile(PageId page, Index kv_head, Index i) { return memory_.data() + offset(page, kv_head, i); }
  const std::byte* tile(PageId page, Index kv_head, Index i) const { return memory_.data() + offset(page, kv_head, i); }

  /// The first `tokens` of a page, and nothing else, to another.
  void copy(PageId from, PageId to, Index tokens) {
    const Index tiles = ceil_div(tokens, kTileTokens);
    for (Index g = 0; g < format_.num_kv_heads && tiles > 0; ++g) {
      std::memcpy(tile(to, g, 0), tile(from, g, 0), static_cast<std::size_t>(tiles * tile_bytes_));
      if (tokens % kTileTokens > 0) clear_slots(format_, tile(to, g, tiles - 1), tokens % kTileTokens, kTileTokens);
    }
  }
  /// Whether two pages that are full hold the same bits.
  bool equal(PageId a, PageId b) const {
    return std::memcmp(tile(a, 0, 0), tile(b, 0, 0), static_cast<std::size_t>(page_bytes())) == 0;
  }
  /// A whole page to another.
  void copy(PageId from, PageId to) {
    std::memcpy(tile(to, 0, 0), tile(from, 0, 0), static_cast<std::size_t>(page_bytes()));
  }
  void swap(PageId a, PageId b) { std::swap_ranges(tile(a, 0, 0), tile(a, 0, 0) + page_bytes(), tile(b, 0, 0)); }

  /// Slots [from, to) of tile i become unwritten ones.
  void clear(PageId page, Index i, Index from, Index to) {
    for (Index g = 0; g < format_.num_kv_heads; ++g) clear_slots(format_, tile(page, g, i), from, to);
  }
  /// Whether slots [from, to) of tile i hold finite numbers.
  bool is_finite(PageId page, Index i, Index from, Index to) const {
    float row[kMaxHeadDim];
    const auto finite = [&](Index dim) {
      return std::all_of(row, row + dim, [](float x) { return std::isfinite(x); });
    };
    for (Index g = 0; g < format_.num_kv_heads; ++g)
      for (Index slot = from; slot < to; ++slot) {
        read_stored_key(format_, tile(page, g, i), slot, row);
        if (!finite(format_.head_dim)) return false;
        read_stored_value(format_, tile(page, g, i), slot, row);
        if (!finite(format_.value_dim)) return false;
      }
    return true;
  }

 private:
  Index offset(PageId page, Index kv_head, Index i) const {
    checked_index(page, memory_.bytes() / page_bytes(), "page id");
    checked_index(kv_head, format_.num_kv_heads, "KV head of a page");
    checked_index(i, tiles_per_page_, "tile of a page");
    return ((page * format_.num_kv_heads + kv_head) * tiles_per_page_ + i) * tile_bytes_;
  }

  TileFormat format_;
  Index tile_bytes_, tiles_per_page_;
  std::vector<float> channel_scales_;  // [kv_head][head_dim]; empty: none
  bool hadamard_;
  TileMemory memory_;
};

}  // namespace headwise::detail
