// SPDX-License-Identifier: MIT
#pragma once

#include <cstring>
#include <span>
#include <string>

#include "headwise/headwise.hpp"

namespace headwise::fuzz {

/// What is mended in an input before it is read as a saved sequence: no mutation finds a checksum, and what is behind it
/// would stay unseen.
enum Mend : int { kHeaderSum = 1, kTileBytes = 2, kTiles = 4, kTileSum = 8 };

/// An input as the bytes of a file (cache/save/file_format.hpp).
class MendedFile {
 public:
  MendedFile(std::span<const std::uint8_t> bytes, int mend) : bytes_(bytes.begin(), bytes.end()) {
    const std::int64_t storages = bytes_.size() >= 40 ? get<std::int64_t>(32) : 0;
    if (storages < 1 || storages > kMostStorages) return;
    header_ = 40 + static_cast<std::size_t>(storages) * 56 + 8;
    if (mend & (kTileBytes | kTiles | kTileSum)) bytes_.resize(std::max(bytes_.size(), header_));
    if (bytes_.size() < header_) return;
    const std::int64_t tiles = tile_bytes(storages);
    if ((mend & kTileBytes) && tiles >= 0) put(24, tiles);
    if (mend & kHeaderSum) put(header_ - 8, Xxh64::of(std::as_bytes(std::span(bytes_.data(), header_ - 8))));
    if (tiles < 0 || tiles > kMostTileBytes) return;
    const std::size_t end = header_ + static_cast<std::size_t>(tiles);
    if (mend & kTiles) lengthen(end + 8);
    if ((mend & kTileSum) && bytes_.size() >= end + 8)
      put(end,
          Xxh64::of(std::as_bytes(std::span(bytes_.data() + header_, end - header_)), get<std::uint64_t>(header_ - 8)));
  }
  const std::string& bytes() const { return bytes_; }

 private:
  static constexpr std::int64_t kMostStorages = 4, kMostTileBytes = 1 << 16;

  template <class Number>
  Number get(std::size_t at) const {
    Number number;
    std::memcpy(&number, bytes_.data() + at, sizeof number);
    return number;
  }
  template <class Number>
  void put(std::size_t at, Number number) {
    std::memcpy(bytes_.data() + at, &number, sizeof number);
  }

  /// Of the tokens that the header announces; −1 where it announces what cannot be.
  std::int64_t tile_bytes(std::int64_t storages) const {
    Index total = 0;
    for (std::size_t at = 40; at < 40 + static_cast<std::size_t>(storages) * 56; at += 56) {
      std::uint32_t fields[6];
      std::memcpy(fields, bytes_.data() + at, sizeof fields);
      const TokenRange kept{get<std::int64_t>(at + 32), get<std::int64_t>(at + 40), get<std::int64_t>(at + 48)};
      const bool possible = fields[0] < kStorages && fields[1] < kStorages && fields[2] <= 16 && fields[3] >= 1 &&
                            fields[3] <= kMaxHeadDim && fields[4] >= 1 && fields[4] <= kMaxHeadDim && 0 <= kept.sinks &&
                            kept.sinks <= kept.begin && kept.begin <= kept.end && kept.end <= detail::kMaxSavedTokens;
      if (!possible) return -1;
      const TileFormat format{static_cast<Storage>(fields[0]),
                              static_cast<Storage>(fields[1]),
                              Index{fields[2]},
                              Index{fields[3]},
                              Index{fields[4]},
                              (fields[5] & 4) != 0};
      const Index tiles = detail::SavedTiles(kept).count();
      if (tiles > kMostTileBytes) return -1;
      total += format.bytes() * format.num_kv_heads * tiles;
    }
    return total;
  }

  /// Tiles that go on as they begin.
  void lengthen(std::size_t size) {
    const std::size_t own = bytes_.size() - header_;
    while (bytes_.size() < size) {
      const std::size_t i = bytes_.size() - header_;
      bytes_.push_back(own == 0 ? '\0' : bytes_[header_ + i % own]);
    }
    bytes_.resize(size);
  }

  std::string bytes_;
  std::size_t header_ = 0;
};

}  // namespace headwise::fuzz
