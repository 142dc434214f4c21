// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "headwise/cache/save/byte_stream.hpp"
#include "headwise/cache/save/file_format.hpp"
#include "headwise/cache/tile_codec.hpp"
#include "headwise/cache/tile_memory.hpp"
#include "headwise/core/linkage.hpp"

namespace headwise::detail {

/// Writes a header, each tile in the order of the file, and finish().
class SequenceWriter {
 public:
  SequenceWriter(SavedHeader header, ByteSink& sink) : header_(std::move(header)), sink_(sink) {
    const std::vector<std::byte> bytes = encode_header(header_);
    sum_ = Xxh64(header_.checksum);
    sink_.write(bytes);
  }
  /// Tile `index` of a storage; what lies in slots without a token is not written.
  void tile(Index storage, Index index, const std::byte* tile);
  void finish() {
    const std::uint64_t sum = sum_.digest();
    sink_.write(std::as_bytes(std::span(&sum, 1)));
  }

 private:
  SavedHeader header_;
  ByteSink& sink_;
  Xxh64 sum_;
  TileMemory cleared_;  // a tile of which a part is written
};

/// A saved sequence, read and verified.
class SavedSequence {
 public:
  SavedSequence(SavedHeader header, TileMemory file) : header_(std::move(header)), file_(std::move(file)) {
    Index offset = header_.bytes();
    for (std::size_t s = 0; s < header_.storages.size(); ++s) {
      offsets_.push_back(offset);
      offset += header_.tile_bytes(s);
    }
  }
  std::span<const TokenRange> kept() const { return header_.kept; }  // [storage]
  /// Copies a tile that the file has.
  void copy_tile(Index storage, Index kv_head, Index index, std::byte* to) const noexcept {
    const auto s = static_cast<std::size_t>(storage);
    const SavedTiles tiles(header_.kept[s]);
    const Index bytes = header_.storages[s].format.bytes();
    std::memcpy(to, file_.data() + offsets_[s] + (kv_head * tiles.count() + tiles.place(index)) * bytes,
                static_cast<std::size_t>(bytes));
  }

 private:
  SavedHeader header_;
  TileMemory file_;             // of large pages: it is written once and read twice
  std::vector<Index> offsets_;  // [storage] of its tiles in the file
};

/// Reads a whole file for a cache of layout `expected`. Memory is taken as bytes arrive, or, where the size of the file is
/// known, when it is found to be what the header says.
SavedSequence read_saved(ByteSource& source, std::span<const StorageLayout> expected);

}  // namespace headwise::detail

#if !defined(HEADWISE_DECLARE_ONLY)

namespace headwise::detail {

HEADWISE_API void SequenceWriter::tile(Index storage, Index index, const std::byte* tile) {
  const TileFormat& format = header_.storages[static_cast<std::size_t>(storage)].format;
  const TokenRange& kept = header_.kept[static_cast<std::size_t>(storage)];
  const auto bytes = static_cast<std::size_t>(format.bytes());
  // slots: tokens [0, sinks) and [begin, end)
  const auto slot = [&](Index token) { return std::clamp(token - index * kTileTokens, Index{0}, kTileTokens); };
  const Index sinks = slot(kept.sinks), begin = slot(kept.begin), end = slot(kept.end);
  if (sinks < begin || end < kTileTokens) {
    if (cleared_.bytes() < format.bytes()) cleared_ = TileMemory(format.bytes());
    std::memcpy(cleared_.data(), tile, bytes);
    clear_slots(format, cleared_.data(), sinks, begin);
    clear_slots(format, cleared_.data(), end, kTileTokens);
    tile = cleared_.data();
  }
  sum_.update({tile, bytes});
  sink_.write({tile, bytes});
}

/// Reads on until `size` bytes are there, or all that there are.
inline void read_until(Index size, ByteSource& source, TileMemory& bytes, Index& have) {
  constexpr Index kFirst = Index{1} << 20;
  for (bool ended = false; have < size && !ended;) {
    Index next = std::min(size, std::max(kFirst, 2 * have));
    if (next < size && source.available() >= size - have) next = size;
    TileMemory longer(next);
    if (have > 0) std::memcpy(longer.data(), bytes.data(), static_cast<std::size_t>(have));
    bytes = std::move(longer);
    const Index count = source.read({bytes.data() + have, static_cast<std::size_t>(next - have)});
    ended = count < next - have;
    have += count;
  }
}

HEADWISE_API SavedSequence read_saved(ByteSource& source, std::span<const StorageLayout> expected) {
  TileMemory bytes;
  Index have = 0;
  for (Index wanted = 0;;) {
    SavedFile file = parse_saved({bytes.data(), static_cast<std::size_t>(have)}, expected, source.name());
    if (file.bytes == have) return SavedSequence(std::move(file.header), std::move(bytes));
    if (have < wanted) fail_file(source.name(), have, "ends after ", have, " bytes of at least ", wanted);
    if (source.size() && !file.header.storages.empty() && *source.size() != file.bytes)
      fail_file(source.name(), std::min(*source.size(), file.bytes), "bytes of the file (", *source.size(),
                ") must be ", file.bytes, ", as its header says");
    wanted = file.bytes;
    read_until(wanted, source, bytes, have);
  }
}

}  // namespace headwise::detail

#endif  // !HEADWISE_DECLARE_ONLY
