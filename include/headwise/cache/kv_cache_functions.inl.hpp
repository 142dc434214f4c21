// SPDX-License-Identifier: MIT
#pragma once

#include "headwise/cache/kv_cache.hpp"
#include "headwise/core/linkage.hpp"
#include "headwise/core/offsets.hpp"

// What a KvCache does besides moving tokens (kv_cache_moves.inl.hpp): how it is made, append, truncate, read.

#if !defined(HEADWISE_DECLARE_ONLY)

namespace headwise {

// --- how it is made ---

HEADWISE_API KvCache<AnyStorage, AnyStorage>::KvCache(CacheOptions options, const KvSharing& sharing)
    : options_(with_types<AnyStorage, AnyStorage>(std::move(options))), sharing_(sharing) {
  for (Index l = 0; l < sharing.num_layers(); ++l) {
    if (sharing.is_producer(l)) layer_of_storage_.push_back(l);
    storage_of_layer_.push_back(sharing.is_producer(l) ? layer_of_storage_.size() - 1
                                                       : storage_of_layer_[index(sharing.source(l))]);
  }
}

HEADWISE_API KvCache<AnyStorage, AnyStorage>::KvCache(std::span<const LayerShape> layers, const KvSharing& sharing,
                                                      Index max_tokens, CacheOptions options)
    : KvCache(std::move(options), sharing) {
  require(max_tokens >= 1 && max_tokens <= detail::kMaxTokens, "max_tokens (", max_tokens, ") must be 1 to ",
          detail::kMaxTokens);
  const std::vector<LayerShape> shapes = detail::checked_shapes(layers, sharing);
  detail::check_options(options_, shapes, sharing);
  storages_.reserve(layer_of_storage_.size());
  for (const Index l : layer_of_storage_) {
    const LayerShape& shape = shapes[index(l)];
    storages_.emplace_back(detail::LayerTilesOptions{
        .format = detail::format_of(shape, *options_.key_storage, *options_.value_storage),
        .num_sequences = options_.num_sequences,
        .max_tokens = shape.window > 0 ? detail::kMaxTokens : max_tokens,
        .window = shape.window,
        .num_sink_tokens = shape.num_sink_tokens,
        .max_append = options_.max_append,
        .key_norms = options_.key_norms,
        .hadamard_keys = options_.hadamard_keys,
        .key_channel_scales =
            options_.key_channel_scales.empty() ? std::vector<float>() : options_.key_channel_scales[index(l)]});
  }
  options_.key_channel_scales.clear();  // each storage has its own
  reorder_plan_ = detail::ReorderPlan(options_.num_sequences);
}

HEADWISE_API KvCache<AnyStorage, AnyStorage>::KvCache(std::span<const LayerShape> layers, Index max_tokens,
                                                      CacheOptions options)
    : KvCache(
          layers,
          [&] {
            require(!layers.empty(), "layers (0) of a KvCache must be at least 1");
            return KvSharing::none(std::ssize(layers));
          }(),
          max_tokens, std::move(options)) {}

HEADWISE_API KvCache<> KvCache<AnyStorage, AnyStorage>::copy() const {
  KvCache result(options_, sharing_);
  result.storages_.reserve(storages_.size());
  for (const auto& tiles : storages_) result.storages_.push_back(tiles.copy(tiles.max_tokens()));
  result.reorder_plan_ = detail::ReorderPlan(num_sequences());
  return result;
}

// --- what it is ---

HEADWISE_API LayerShape KvCache<AnyStorage, AnyStorage>::layer_shape(Index layer) const {
  const detail::LayerTilesOptions& of = at(layer).options();
  return {of.format.num_kv_heads, of.format.head_dim,      of.format.value_dim, of.window,
          of.num_sink_tokens,     of.format.values_in_keys};
}
HEADWISE_API Index KvCache<AnyStorage, AnyStorage>::bytes() const {
  Index total = 0;
  for (const auto& tiles : storages_) total += tiles.bytes();
  return total;
}
HEADWISE_API Index KvCache<AnyStorage, AnyStorage>::bytes_per_token() const {
  Index total = 0;
  for (const auto& tiles : storages_) total += tiles.format().num_kv_heads * tiles.tile_bytes() / kTileTokens;
  return total;
}
HEADWISE_API Index KvCache<AnyStorage, AnyStorage>::num_tiles() const {
  Index total = 0;
  for (const auto& tiles : storages_)
    for (Index b = 0; b < num_sequences(); ++b) total += tiles.format().num_kv_heads * tiles.tiles_used(b);
  return total;
}
HEADWISE_API Index KvCache<AnyStorage, AnyStorage>::bytes_used() const {
  Index total = 0;
  for (const auto& tiles : storages_)
    for (Index b = 0; b < num_sequences(); ++b)
      total += tiles.format().num_kv_heads * tiles.tiles_used(b) * tiles.tile_bytes();
  return total;
}

// --- append ---

HEADWISE_API void KvCache<AnyStorage, AnyStorage>::check_append(Index layer, Index sequences, const ConstArray& k,
                                                                const std::optional<ConstArray>& v,
                                                                const AppendOptions& options) const {
  check_is_producer(layer);
  detail::check_appended(layer, at(layer).format(), sequences, k, v, options);
}

/// That `tokens` more of a sequence of `stored` ones can be had room for.
HEADWISE_API void KvCache<AnyStorage, AnyStorage>::check_room(const detail::LayerTiles& tiles, Index stored,
                                                              Index tokens) const {
  if (tokens <= tiles.max_tokens() - stored) return;
  require(options_.growing && !tiles.is_ring(), "tokens (", tokens, ") to append must fit beside the ", stored,
          " stored: max_tokens is ", tiles.max_tokens());
  require(tokens <= detail::kMaxTokens - stored, "tokens (", tokens, ") to append must be at most ",
          detail::kMaxTokens - stored);
}
/// Whether a cache would grow for tokens that are not there, of which a saved sequence may claim any number.
HEADWISE_API void KvCache<AnyStorage, AnyStorage>::check_forgotten(const detail::LayerTiles& tiles,
                                                                   const TokenRange& range) {
  constexpr Index kMost = Index{1} << 16;
  require(range.end <= tiles.max_tokens() || range.begin - range.sinks <= kMost, "tokens ", range.sinks, " to ",
          range.begin - 1, ", which the sequence has forgotten, must be at most ", kMost,
          " for a cache to grow for them: its max_tokens is ", tiles.max_tokens());
}
/// What max_tokens becomes, for a sequence of `tokens`.
HEADWISE_API Index KvCache<AnyStorage, AnyStorage>::larger(const detail::LayerTiles& tiles, Index tokens) const {
  return std::min(detail::kMaxTokens, std::max(tokens, 2 * tiles.max_tokens()));
}

HEADWISE_API void KvCache<AnyStorage, AnyStorage>::append_to(Index layer, Index first_sequence, Index sequences, Rows k,
                                                             MaybeRows v, const AppendOptions& options) {
  check_append(layer, sequences, k, v, options);
  if (k.tokens == 0) return;  // there may be no memory to point into
  auto& tiles = storages_[storage_of(layer)];
  Index stored = 0;
  for (Index b = 0; b < sequences; ++b) stored = std::max(stored, tiles.num_tokens(first_sequence + b));
  detail::check_append_to_ring(tiles, layer, k.tokens);
  check_room(tiles, stored, k.tokens);
  if (stored + k.tokens > tiles.max_tokens()) tiles = tiles.copy(larger(tiles, stored + k.tokens));
  for (Index b = 0; b < sequences; ++b)
    tiles.append(first_sequence + b, k, v, b, detail::for_tokens(options, b * k.tokens, k.tokens));
}

HEADWISE_API void KvCache<AnyStorage, AnyStorage>::append_in(Index layer, Rows k, MaybeRows v,
                                                             const AppendOptions& options) {
  append_to(layer, 0, num_sequences(), k, v, options);
}
HEADWISE_API void KvCache<AnyStorage, AnyStorage>::append_in(Rows k, MaybeRows v, const AppendOptions& options) {
  check_only_layer();
  append_in(0, k, v, options);
}
HEADWISE_API void KvCache<AnyStorage, AnyStorage>::append_in(Index layer, Index sequence, Rows k, MaybeRows v,
                                                             const AppendOptions& options) {
  check_sequence(sequence);
  append_to(layer, sequence, 1, k, v, options);
}
HEADWISE_API void KvCache<AnyStorage, AnyStorage>::append_in(Index layer, std::span<const Index> offsets, Rows k,
                                                             MaybeRows v, const AppendOptions& options) {
  check_append(layer, 1, k, v, options);
  detail::check_offsets(offsets, "offsets", num_sequences(), "num_sequences", k.tokens, "tokens of k");
  auto& tiles = storages_[storage_of(layer)];
  const auto count = [&](Index b) { return offsets[index(b + 1)] - offsets[index(b)]; };
  Index most = 0;
  for (Index b = 0; b < num_sequences(); ++b) {
    detail::check_append_to_ring(tiles, layer, count(b));
    check_room(tiles, tiles.num_tokens(b), count(b));
    most = std::max(most, tiles.num_tokens(b) + count(b));
  }
  if (most > tiles.max_tokens()) tiles = tiles.copy(larger(tiles, most));
  for (Index b = 0; b < num_sequences(); ++b) {
    if (count(b) == 0) continue;
    const auto rows_of = [&](ConstArray rows) {
      rows.data = rows.row(0, offsets[index(b)], 0);
      rows.tokens = count(b);
      return rows;
    };
    tiles.append(b, rows_of(k), v ? std::optional(rows_of(*v)) : std::nullopt, 0,
                 detail::for_tokens(options, offsets[index(b)], count(b)));
  }
}

// --- truncate ---

HEADWISE_API void KvCache<AnyStorage, AnyStorage>::truncate(Index layer, Index sequence, Index tokens) {
  check_is_producer(layer);
  detail::check_kept(tokens, num_tokens(layer, sequence));
  detail::check_truncate(at(layer), layer, sequence, tokens);
  storages_[storage_of(layer)].truncate(sequence, tokens);
}

HEADWISE_API void KvCache<AnyStorage, AnyStorage>::truncate_range(Index first_sequence, Index sequences, Index tokens) {
  Index most = 0;
  for (const auto& tiles : storages_)
    for (Index b = 0; b < sequences; ++b) most = std::max(most, tiles.num_tokens(first_sequence + b));
  detail::check_kept(tokens, most);
  for (std::size_t s = 0; s < storages_.size(); ++s)
    for (Index b = first_sequence; b < first_sequence + sequences; ++b)
      detail::check_truncate(storages_[s], layer_of_storage_[s], b, tokens);
  for (auto& tiles : storages_)
    for (Index b = first_sequence; b < first_sequence + sequences; ++b) tiles.truncate(b, tokens);
}

// --- reading back ---

HEADWISE_API void KvCache<AnyStorage, AnyStorage>::read_keys(Index layer, Index sequence, Index first, Index count,
                                                             Index kv_head, std::span<float> out) const {
  const auto& tiles = check_read(layer, sequence, first, count, kv_head);
  const Index dim = tiles.format().head_dim;
  detail::check_out("head_dim", out.size(), count, dim);
  for (Index t = 0; t < count; ++t) tiles.read_key(sequence, first + t, kv_head, out.data() + t * dim);
}
HEADWISE_API void KvCache<AnyStorage, AnyStorage>::read_values(Index layer, Index sequence, Index first, Index count,
                                                               Index kv_head, std::span<float> out) const {
  const auto& tiles = check_read(layer, sequence, first, count, kv_head);
  const Index dim = tiles.format().value_dim;
  detail::check_out("value_dim", out.size(), count, dim);
  for (Index t = 0; t < count; ++t) tiles.read_value(sequence, first + t, kv_head, out.data() + t * dim);
}

HEADWISE_API double KvCache<AnyStorage, AnyStorage>::key_norm_squares(Index layer, Index sequence,
                                                                      Index kv_head) const {
  require(options_.key_norms, "key_norms (false) of CacheOptions must be true for key_norm_squares");
  const auto& tiles = at(layer);
  check_sequence(sequence);
  detail::check_kv_head(tiles, kv_head);
  return tiles.key_norm_squares(sequence, kv_head);
}

HEADWISE_API const std::byte* KvCache<AnyStorage, AnyStorage>::stored_tile(Index storage, Index sequence, Index kv_head,
                                                                           Index i) const {
  const auto& tiles = storage_at(storage);
  check_sequence(sequence);
  detail::check_kv_head(tiles, kv_head);
  bool there = false;
  for_each_tile(tiles.kept(sequence), [&](Index held) { there |= held == i; });
  require(there, "index (", i, ") must be that of a tile that holds tokens of sequence ", sequence);
  return tiles.tile(sequence, kv_head, i);
}

// --- checks ---

HEADWISE_API std::size_t KvCache<AnyStorage, AnyStorage>::storage_of(Index layer) const {
  require(layer >= 0 && layer < num_layers(), "layer (", layer, ") must be 0 to num_layers - 1 (", num_layers() - 1,
          ")");
  return storage_of_layer_[index(layer)];
}
HEADWISE_API const detail::LayerTiles& KvCache<AnyStorage, AnyStorage>::storage_at(Index storage) const {
  require(storage >= 0 && storage < num_storages(), "storage (", storage, ") must be 0 to num_storages - 1 (",
          num_storages() - 1, ")");
  return storages_[index(storage)];
}
HEADWISE_API void KvCache<AnyStorage, AnyStorage>::check_is_producer(Index layer) const {
  require(sharing_.is_producer(layer), "layer (", layer, ") reads the keys and values of layer ",
          sharing_.source(layer), ": only a layer that makes its own can be appended to or truncated");
}
HEADWISE_API void KvCache<AnyStorage, AnyStorage>::check_sequence(Index sequence, const char* name) const {
  require(sequence >= 0 && sequence < num_sequences(), name, " (", sequence, ") must be 0 to num_sequences - 1 (",
          num_sequences() - 1, ")");
}
HEADWISE_API void KvCache<AnyStorage, AnyStorage>::check_only_layer() const {
  require(num_layers() == 1, "a KvCache of ", num_layers(),
          " layers needs the layer to be named: expected num_layers 1");
}
HEADWISE_API const detail::LayerTiles& KvCache<AnyStorage, AnyStorage>::check_read(Index layer, Index sequence,
                                                                                   Index first, Index count,
                                                                                   Index kv_head) const {
  const auto& tiles = at(layer);
  check_sequence(sequence);
  const Index stored = tiles.num_tokens(sequence);
  require(first >= 0 && first < stored + (count == 0), "token (", first, ") must be 0 to num_tokens - 1 (", stored - 1,
          ")");
  require(count >= 0 && count <= stored - first, "count (", count, ") from token ", first, " on must be 0 to ",
          stored - first);
  detail::check_held(tiles, sequence, first, first + count);
  detail::check_kv_head(tiles, kv_head);
  return tiles;
}

}  // namespace headwise

#endif  // !HEADWISE_DECLARE_ONLY
