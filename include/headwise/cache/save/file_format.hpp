// SPDX-License-Identifier: MIT
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "headwise/cache/save/cache_file_error.hpp"
#include "headwise/cache/save/layout.hpp"
#include "headwise/core/error.hpp"
#include "headwise/core/heads.hpp"
#include "headwise/core/linkage.hpp"

// A saved sequence as bytes, numbers little-endian:
//   preamble  0 magic, 8 bytes   8 byte-order mark, u32   12 version, u32   16 bytes of the header (preamble, storages,
//             checksum), u64   24 bytes of the tiles, u64   32 number of storages, u64
//   storages  56 bytes each: u32 storage type of keys, of values, num_kv_heads, head_dim, value_dim, flags (1: Hadamard, 2: channel
//             scales, 4: values are the first value_dim dimensions of the keys, tiles hold K alone); u64 hash of the channel scales, sinks, begin, end of the tokens held
//   checksum  u64: XXH64 of all before it
//   tiles     [storage][kv_head][tile that holds a token]{K tile | V tile}, as they lie in memory, slots without a token 0
//   checksum  u64: XXH64 of the tiles, seeded by the first checksum
// So equal contents are equal bytes, and the tiles of one file are not taken for those of another.

namespace headwise::detail {

inline constexpr char kSavedMagic[9] = "\x89HWKV\r\n\x1a";  // changed by what mistakes a file for text
inline constexpr std::uint32_t kSavedByteOrder = 0x01020304, kSavedVersion = 1;
inline constexpr Index kSavedPreamble = 40, kSavedStorage = 56, kSavedChecksum = 8;
inline constexpr Index kMaxSavedStorages = Index{1} << 20, kMaxSavedKvHeads = Index{1} << 20,
                       kMaxSavedTokens = Index{1} << 48;

struct SavedHeader {
  std::vector<StorageLayout> storages;
  std::vector<TokenRange> kept;  // [storage]
  std::uint64_t checksum = 0;

  Index bytes() const { return kSavedPreamble + std::ssize(storages) * kSavedStorage + kSavedChecksum; }
  /// Of the tiles of one storage; −1 where they are 2^63 or more.
  Index tile_bytes(std::size_t s) const {
    Index result = storages[s].format.bytes();
    const bool fits = !__builtin_mul_overflow(result, storages[s].format.num_kv_heads, &result) &&
                      !__builtin_mul_overflow(result, SavedTiles(kept[s]).count(), &result);
    return fits ? result : -1;
  }
  /// Of the tiles of all; −1 where the file would have 2^63 or more.
  Index tile_bytes() const {
    Index result = 0, file;
    for (std::size_t s = 0; s < storages.size(); ++s)
      if (tile_bytes(s) < 0 || __builtin_add_overflow(result, tile_bytes(s), &result)) return -1;
    return __builtin_add_overflow(result, bytes() + kSavedChecksum, &file) ? -1 : result;
  }
};

/// The bytes of a header, which is given its checksum.
std::vector<std::byte> encode_header(SavedHeader& header);

/// What the first bytes of a file tell.
struct SavedFile {
  Index bytes;         // that the file has at least; all of them once the header is known
  SavedHeader header;  // known where it has storages
};

/// Reads the first bytes of a file, or all of them, that shall be restored into a cache of layout `expected` [storage].
/// Throws as soon as they tell: CacheFileError on damage, with `name` for the file, std::invalid_argument where the file is
/// whole so far and not of this layout. Where result.bytes is bytes.size(), that was all of the file, and it is whole.
SavedFile parse_saved(std::span<const std::byte> bytes, std::span<const StorageLayout> expected, std::string_view name);

}  // namespace headwise::detail

#if !defined(HEADWISE_DECLARE_ONLY)

namespace headwise::detail {

static_assert(std::endian::native == std::endian::little, "a saved cache is written as it lies in memory");

template <class Number>
inline void put_number(std::vector<std::byte>& bytes, Number number) {
  const auto* const at = reinterpret_cast<const std::byte*>(&number);
  bytes.insert(bytes.end(), at, at + sizeof number);
}
template <class Number>
inline Number get_number(std::span<const std::byte> bytes, Index offset) {
  Number number;
  std::memcpy(&number, bytes.data() + offset, sizeof number);
  return number;
}

HEADWISE_API std::vector<std::byte> encode_header(SavedHeader& header) {
  std::vector<std::byte> bytes;
  bytes.reserve(static_cast<std::size_t>(header.bytes()));
  for (std::size_t i = 0; i < 8; ++i) bytes.push_back(static_cast<std::byte>(kSavedMagic[i]));
  put_number(bytes, kSavedByteOrder);
  put_number(bytes, kSavedVersion);
  put_number(bytes, std::int64_t{header.bytes()});
  put_number(bytes, std::int64_t{header.tile_bytes()});
  put_number(bytes, std::int64_t{std::ssize(header.storages)});
  for (std::size_t s = 0; s < header.storages.size(); ++s) {
    const auto& [format, transform, layer] = header.storages[s];
    const TokenRange& kept = header.kept[s];
    for (const Index field :
         {Index(format.key_storage), Index(format.value_storage), format.num_kv_heads, format.head_dim,
          format.value_dim,
          Index{transform.hadamard} + 2 * Index{transform.has_channel_scales} + 4 * Index{format.values_in_keys}})
      put_number(bytes, static_cast<std::uint32_t>(field));
    put_number(bytes, transform.channel_scales_hash);
    for (const Index field : {kept.sinks, kept.begin, kept.end}) put_number(bytes, std::int64_t{field});
  }
  header.checksum = Xxh64::of(bytes);
  put_number(bytes, header.checksum);
  return bytes;
}

/// Number of storages, from the preamble.
inline Index parse_preamble(std::span<const std::byte> bytes, std::string_view name) {
  const auto order = get_number<std::uint32_t>(bytes, 8);
  if (order == __builtin_bswap32(kSavedByteOrder))
    fail_file(name, 8, "byte order: it was written by a machine of the other byte order (big-endian)");
  if (order != kSavedByteOrder) fail_file(name, 8, "byte-order mark (", order, ") must be ", kSavedByteOrder);
  const auto version = get_number<std::uint32_t>(bytes, 12);
  if (version != kSavedVersion)
    fail_file(name, 12, "version (", version, ") of the file must be ", kSavedVersion, ", which this library reads");
  const auto header_bytes = get_number<std::int64_t>(bytes, 16), storages = get_number<std::int64_t>(bytes, 32);
  if (storages < 1 || storages > kMaxSavedStorages)
    fail_file(name, 32, "number of storages (", storages, ") must be 1 to ", kMaxSavedStorages);
  const Index expected = kSavedPreamble + storages * kSavedStorage + kSavedChecksum;
  if (header_bytes != expected)
    fail_file(name, 16, "bytes of the header (", header_bytes, ") must be ", expected, " for ", storages, " storages");
  return storages;
}

/// Storage s from its record, whose fields must be possible ones.
inline void parse_storage(std::span<const std::byte> bytes, Index s, std::string_view name, SavedHeader& header) {
  const Index at = kSavedPreamble + s * kSavedStorage;
  const auto field = [&](Index i, std::string_view what, Index least, Index most) {
    const Index value = get_number<std::uint32_t>(bytes, at + 4 * i);
    if (value < least || value > most)
      fail_file(name, at + 4 * i, what, " (", value, ") of storage ", s, " must be ", least, " to ", most);
    return value;
  };
  TileFormat format{};
  format.key_storage = static_cast<Storage>(field(0, "storage type of keys", 0, kStorages - 1));
  format.value_storage = static_cast<Storage>(field(1, "storage type of values", 0, kStorages - 1));
  format.num_kv_heads = field(2, "num_kv_heads", 1, kMaxSavedKvHeads);
  format.head_dim = field(3, "head_dim", 1, kMaxHeadDim);
  format.value_dim = field(4, "value_dim", 1, kMaxHeadDim);
  const Index flags = field(5, "transform of keys", 0, 7);
  format.values_in_keys = (flags & 4) != 0;
  if (format.values_in_keys && (format.value_storage != format.key_storage || format.value_dim > format.head_dim))
    fail_file(name, at + 16, "values (", name_of(format.value_storage), ", value_dim ", format.value_dim,
              ") of storage ", s, " must be the first dimensions of the keys (", name_of(format.key_storage),
              ", head_dim ", format.head_dim, "), as its flags say");
  header.storages.push_back({format, {(flags & 1) != 0, (flags & 2) != 0, get_number<std::uint64_t>(bytes, at + 24)}});
  const TokenRange kept{get_number<std::int64_t>(bytes, at + 32), get_number<std::int64_t>(bytes, at + 40),
                        get_number<std::int64_t>(bytes, at + 48)};
  if (!(0 <= kept.sinks && kept.sinks <= kept.begin && kept.begin <= kept.end && kept.end <= kMaxSavedTokens))
    fail_file(name, at + 32, "tokens of storage ", s, " (sinks ", kept.sinks, ", begin ", kept.begin, ", end ",
              kept.end, ") must have 0 <= sinks <= begin <= end <= ", kMaxSavedTokens);
  header.kept.push_back(kept);
}

inline void check_same_layout(std::span<const StorageLayout> file, std::span<const StorageLayout> cache,
                              std::string_view name) {
  require(file.size() == cache.size(), name, ": layers that store keys and values (", file.size(), ") must be ",
          cache.size(), ", those of the cache");
  for (std::size_t s = 0; s < cache.size(); ++s) {
    const auto same = [&](std::string_view what, const auto& have, const auto& want) {
      const Index layer = cache[s].layer;
      require(have == want, name, ": ", what, " (", have, ") of ", layer < 0 ? "storage " : "layer ",
              layer < 0 ? static_cast<Index>(s) : layer, " must be ", want, ", that of the cache");
    };
    const TileFormat &have = file[s].format, &want = cache[s].format;
    same("storage type of keys", name_of(have.key_storage), name_of(want.key_storage));
    same("storage type of values", name_of(have.value_storage), name_of(want.value_storage));
    same("num_kv_heads", have.num_kv_heads, want.num_kv_heads);
    same("having values in keys", have.values_in_keys, want.values_in_keys);
    same("head_dim", have.head_dim, want.head_dim);
    same("value_dim", have.value_dim, want.value_dim);
    const SavedTransform &done = file[s].transform, &expected = cache[s].transform;
    same("Hadamard rotation of keys", done.hadamard, expected.hadamard);
    same("having channel scales of keys", done.has_channel_scales, expected.has_channel_scales);
    same("hash of the channel scales of keys", done.channel_scales_hash, expected.channel_scales_hash);
  }
}

HEADWISE_API SavedFile parse_saved(std::span<const std::byte> bytes, std::span<const StorageLayout> expected,
                                   std::string_view name) {
  const Index size = std::ssize(bytes);
  if (size > 0 && std::memcmp(bytes.data(), kSavedMagic, static_cast<std::size_t>(std::min(size, Index{8}))) != 0)
    fail_file(name, 0, "magic: this is not a saved cache");
  if (size < kSavedPreamble) return {kSavedPreamble, {}};

  const Index storages = parse_preamble(bytes, name);
  const Index header_bytes = kSavedPreamble + storages * kSavedStorage + kSavedChecksum;
  if (size < header_bytes) return {header_bytes, {}};

  const Index before_checksum = header_bytes - kSavedChecksum;
  SavedHeader header;
  header.checksum = get_number<std::uint64_t>(bytes, before_checksum);
  if (Xxh64::of(bytes.first(static_cast<std::size_t>(before_checksum))) != header.checksum)
    fail_file(name, before_checksum, "damaged: the header does not have its checksum");
  for (Index s = 0; s < storages; ++s) parse_storage(bytes, s, name, header);
  const auto tile_bytes = get_number<std::int64_t>(bytes, 24);
  if (tile_bytes < 0 || tile_bytes != header.tile_bytes())
    fail_file(name, 24, "bytes of the tiles (", tile_bytes, ") must be those of the tokens held");
  check_same_layout(header.storages, expected, name);

  const Index file_bytes = header_bytes + tile_bytes + kSavedChecksum;
  if (size > file_bytes) fail_file(name, file_bytes, size - file_bytes, " bytes follow the end");
  if (size == file_bytes) {
    const auto tiles = bytes.subspan(static_cast<std::size_t>(header_bytes), static_cast<std::size_t>(tile_bytes));
    if (Xxh64::of(tiles, header.checksum) != get_number<std::uint64_t>(bytes, header_bytes + tile_bytes))
      fail_file(name, header_bytes, "damaged: the tiles do not have their checksum");
  }
  return {file_bytes, std::move(header)};
}

}  // namespace headwise::detail

#endif  // !HEADWISE_DECLARE_ONLY
