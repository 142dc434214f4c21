// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <memory>

#include "headwise/cache/kv_cache.hpp"
#include "headwise/core/linkage.hpp"

// The functions of a KvCache that move tokens, in all layers: each checks every layer, then makes room, then moves.

namespace headwise {

template <class Fill>
void KvCache<AnyStorage, AnyStorage>::restore_sequence(Index sequence, std::span<const TokenRange> ranges, Fill fill) {
  check_sequence(sequence);
  detail::check_ranges(ranges, num_storages(), detail::kMaxTokens);
  std::vector<TokenRange> kept;
  std::vector<Index> tokens;
  for (std::size_t s = 0; s < storages_.size(); ++s) {
    check_room(storages_[s], 0, ranges[s].end);
    check_forgotten(storages_[s], ranges[s]);
    kept.push_back(storages_[s].restorable(ranges[s]));
    tokens.push_back(ranges[s].end);
  }
  make_room(tokens);
  for (std::size_t s = 0; s < storages_.size(); ++s)
    storages_[s].restore(sequence, kept[s], [&](Index kv_head, Index i, std::byte* tile) {
      fill(static_cast<Index>(s), kv_head, i, tile);
    });
}

}  // namespace headwise

#if !defined(HEADWISE_DECLARE_ONLY)

namespace headwise {

/// Room for sequences of tokens [storage].
HEADWISE_API void KvCache<AnyStorage, AnyStorage>::make_room(std::span<const Index> tokens) {
  std::vector<std::pair<std::size_t, detail::LayerTiles>> grown;
  for (std::size_t s = 0; s < storages_.size(); ++s)
    if (tokens[s] > storages_[s].max_tokens())
      grown.emplace_back(s, storages_[s].copy(larger(storages_[s], tokens[s])));
  for (auto& [s, tiles] : grown) storages_[s] = std::move(tiles);
}

HEADWISE_API void KvCache<AnyStorage, AnyStorage>::evict(Index sequence, Index first, Index last, LayerRopes ropes) {
  check_sequence(sequence);
  ropes.check(num_layers());
  Index scratch_bytes = 0;
  for (std::size_t s = 0; s < storages_.size(); ++s) {
    const auto& tiles = storages_[s];
    const Index layer = layer_of_storage_[s];
    detail::check_token_range(tiles, layer, sequence, first, last);
    const TokenRange& kept = tiles.kept(sequence);
    require(tiles.can_evict(sequence, first, last), "tokens ", first, " to ", last - 1, " to evict must leave layer ",
            layer, " its first ", kept.sinks, " tokens and its last ", tiles.options().window, ", but of sequence ",
            sequence, " it has forgotten tokens ", kept.sinks, " to ", kept.begin - 1);
    detail::check_rope(ropes.of(layer), tiles, layer, first - last);
    scratch_bytes = std::max(scratch_bytes, tiles.evict_scratch_bytes(sequence));
  }
  const auto scratch = std::make_unique_for_overwrite<std::byte[]>(static_cast<std::size_t>(scratch_bytes));
  for (std::size_t s = 0; s < storages_.size(); ++s)
    storages_[s].evict(sequence, first, last, ropes.of(layer_of_storage_[s]), scratch.get());
}

HEADWISE_API void KvCache<AnyStorage, AnyStorage>::copy_range(Index from, Index first, Index last, Index to,
                                                              LayerRopes ropes) {
  check_sequence(from, "from");
  check_sequence(to, "to");
  require(from != to, "to (", to, ") must be another sequence than from (", from, ")");
  ropes.check(num_layers());
  std::vector<Index> tokens;
  for (std::size_t s = 0; s < storages_.size(); ++s) {
    const auto& tiles = storages_[s];
    const Index layer = layer_of_storage_[s], stored = tiles.num_tokens(to);
    detail::check_token_range(tiles, layer, from, first, last);
    detail::check_held(tiles, from, first, last);
    check_room(tiles, stored, last - first);
    detail::check_rope(ropes.of(layer), tiles, layer, stored - first);
    tokens.push_back(stored + last - first);
  }
  if (first == last) return;
  make_room(tokens);
  for (std::size_t s = 0; s < storages_.size(); ++s)
    storages_[s].append_from(storages_[s], from, first, last, to, ropes.of(layer_of_storage_[s]));
}

HEADWISE_API void KvCache<AnyStorage, AnyStorage>::fork(Index from, Index to) {
  check_sequence(from, "from");
  check_sequence(to, "to");
  if (from == to) return;
  for (auto& tiles : storages_) tiles.fork(from, to);
}

HEADWISE_API void KvCache<AnyStorage, AnyStorage>::reorder(std::span<const Index> parents) {
  require(std::ssize(parents) == num_sequences(), "parents (", parents.size(), ") must hold one per sequence (",
          num_sequences(), ")");
  for (std::size_t b = 0; b < parents.size(); ++b)
    require(parents[b] >= 0 && parents[b] < num_sequences(), "parents[", b, "] (", parents[b],
            ") must be 0 to num_sequences - 1 (", num_sequences() - 1, ")");
  reorder_plan_.make(parents);
  for (auto& tiles : storages_) tiles.reorder(parents, reorder_plan_);
}

}  // namespace headwise

#endif  // !HEADWISE_DECLARE_ONLY
