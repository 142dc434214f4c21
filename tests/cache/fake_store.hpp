// SPDX-License-Identifier: MIT
#pragma once

#include <cstring>
#include <map>
#include <random>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "headwise/cache/tile_memory.hpp"
#include "headwise/cache/token_store.hpp"
#include "headwise/core/error.hpp"

namespace headwise::testing {

/// The least that saving and restoring ask of a cache: tiles in a map. It holds whatever ranges and bytes it is given, so
/// also what no real cache would.
struct FakeStore {
  using Place = std::tuple<Index, Index, Index>;  // storage, KV head, tile
  struct Sequence {
    std::vector<TokenRange> kept;  // [storage]
    std::map<Place, std::string> tiles;
    bool operator==(const Sequence&) const = default;
  };

  std::vector<TileFormat> formats;
  std::vector<KeyTransform> transforms;
  Index max_tokens = 1 << 20;
  std::vector<Sequence> sequences;

  explicit FakeStore(std::vector<TileFormat> storages, std::size_t count = 1)
      : formats(std::move(storages)),
        transforms(formats.size()),
        sequences(count, {std::vector<TokenRange>(formats.size()), {}}) {}

  /// A sequence of these tokens, [storage], and random bytes in all of each tile, slots without a token included.
  void fill(std::size_t sequence, std::vector<TokenRange> kept, unsigned seed) {
    std::mt19937 generator(seed);
    Sequence made{std::move(kept), {}};
    for (Index s = 0; s < num_storages(); ++s)
      for (Index g = 0; g < storage_format(s).num_kv_heads; ++g)
        for_each_tile(made.kept[static_cast<std::size_t>(s)], [&](Index i) {
          std::string& tile = made.tiles[{s, g, i}];
          for (Index byte = 0; byte < storage_format(s).bytes(); ++byte)
            tile.push_back(static_cast<char>(generator() & 0xff));
        });
    sequences[sequence] = std::move(made);
  }
  void fill(std::size_t sequence, TokenRange kept, unsigned seed) {
    fill(sequence, std::vector<TokenRange>(formats.size(), kept), seed);
  }

  Index num_storages() const { return std::ssize(formats); }
  TileFormat storage_format(Index s) const { return formats[static_cast<std::size_t>(s)]; }
  KeyTransform storage_transform(Index s) const { return transforms[static_cast<std::size_t>(s)]; }
  TokenRange kept(Index s, Index sequence) const { return at(sequence).kept[static_cast<std::size_t>(s)]; }
  const std::byte* stored_tile(Index s, Index sequence, Index kv_head, Index i) const {
    return reinterpret_cast<const std::byte*>(at(sequence).tiles.at({s, kv_head, i}).data());
  }

  template <class Fill>
  void restore_sequence(Index sequence, std::span<const TokenRange> ranges, Fill fill) {
    static_cast<void>(at(sequence));
    detail::check_ranges(ranges, num_storages(), max_tokens);
    Sequence made{{ranges.begin(), ranges.end()}, {}};
    for (Index s = 0; s < num_storages(); ++s)
      for (Index g = 0; g < storage_format(s).num_kv_heads; ++g)
        for_each_tile(ranges[static_cast<std::size_t>(s)], [&](Index i) {
          TileMemory tile(storage_format(s).bytes());
          fill(s, g, i, tile.data());
          made.tiles[{s, g, i}].assign(reinterpret_cast<const char*>(tile.data()),
                                       static_cast<std::size_t>(tile.bytes()));
        });
    sequences[static_cast<std::size_t>(sequence)] = std::move(made);
  }

 private:
  const Sequence& at(Index sequence) const {
    require(sequence >= 0 && sequence < std::ssize(sequences), "sequence (", sequence, ") must be 0 to ",
            sequences.size() - 1);
    return sequences[static_cast<std::size_t>(sequence)];
  }
};

static_assert(TokenStore<FakeStore>);

}  // namespace headwise::testing
