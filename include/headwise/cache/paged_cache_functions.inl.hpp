// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <utility>

#include "headwise/cache/paged_cache.hpp"
#include "headwise/cache/page_moves.hpp"
#include "headwise/cache/tile_codec.hpp"
#include "headwise/core/offsets.hpp"

// What the functions of a PagedCache do: check everything, then ask the store of pages.

namespace headwise {

namespace detail {

inline void check_paged_options(const PagedOptions& options, Index num_pages, std::span<const LayerShape> layers,
                                const KvSharing& sharing) {
  constexpr Index kMaxPageTokens = Index{1} << 20, kMaxSequences = Index{1} << 24;
  require(num_pages >= 1 && num_pages <= PagePool::kMaxPages, "num_pages (", num_pages, ") must be 1 to ",
          PagePool::kMaxPages);
  const Index page = options.page_tokens;
  require(page >= kTileTokens && page <= kMaxPageTokens && page % kTileTokens == 0, "page_tokens (", page,
          ") must be a multiple of ", kTileTokens, " up to ", kMaxPageTokens);
  require(options.max_sequences >= 1 && options.max_sequences <= kMaxSequences, "max_sequences (",
          options.max_sequences, ") must be 1 to ", kMaxSequences);
  for (std::size_t i = 0; i < layers.size(); ++i)
    require(layers[i].window == 0, "layers[", i, "].window (", layers[i].window,
            ") must be 0 in a PagedCache: pages keep every token");
  check_options({.hadamard_keys = options.hadamard_keys, .key_channel_scales = options.key_channel_scales}, layers,
                sharing);
}

/// `count` tokens of an array from `first` on.
inline ConstArray token_rows(ConstArray array, Index first, Index count) {
  array.data = array.row(0, first, 0);
  array.tokens = count;
  return array;
}

}  // namespace detail

inline PagedCache<>::PagedCache(std::span<const LayerShape> layers, Index num_pages, const PagedOptions& options)
    : PagedCache(layers, KvSharing::none(std::ssize(layers)), num_pages, options) {}
inline PagedCache<>::PagedCache(std::span<const LayerShape> layers, const KvSharing& sharing, Index num_pages,
                                const PagedOptions& options)
    : sharing_(sharing) {
  const std::vector<LayerShape> shapes = detail::checked_shapes(layers, sharing);
  detail::check_paged_options(options, num_pages, shapes, sharing);
  require(options.key_storage.has_value(), "key_storage (unset) of PagedOptions must be given for a PagedCache<>");
  const Storage keys = *options.key_storage, values = options.value_storage.value_or(keys);
  std::vector<detail::PageTiles> tiles;
  for (Index l = 0; l < num_layers(); ++l) {
    storage_of_layer_.push_back(sharing.is_producer(l) ? std::ssize(tiles)
                                                       : storage_of_layer_[index(sharing.source(l))]);
    if (!sharing.is_producer(l)) continue;
    const LayerShape& shape = shapes[index(l)];
    tiles.emplace_back(detail::format_of(shape, keys, values), num_pages, options.page_tokens,
                       options.key_channel_scales.empty() ? std::vector<float>{} : options.key_channel_scales[index(l)],
                       options.hadamard_keys);
    layer_of_storage_.push_back(l);
  }
  sequences_ = std::make_unique<detail::SequenceSlots>(options.max_sequences, std::ssize(tiles));
  store_ = std::make_unique<detail::PageStore>(std::move(tiles), num_pages, options.page_tokens);
  reorder_ = std::make_unique<ReorderMemory>();
  reorder_->plan = detail::ReorderPlan(options.max_sequences);
  reorder_->tables.resize(index(options.max_sequences));
}

inline LayerShape PagedCache<>::layer_shape(Index layer) const {
  const TileFormat& format = store_->tiles(storage_of(layer)).format();
  return {.num_kv_heads = format.num_kv_heads,
          .head_dim = format.head_dim,
          .value_dim = format.value_dim,
          .values_in_keys = format.values_in_keys};
}
inline Index PagedCache<>::page_bytes() const {
  Index total = 0;
  for (Index s = 0; s < store_->num_storages(); ++s) total += store_->tiles(s).page_bytes();
  return total;
}
inline Index PagedCache<>::bytes_used() const {
  const PageCounts counts = pages();
  return (counts.used + counts.cached) * page_bytes();
}
inline PageCounts PagedCache<>::pages() const {
  return store_->look([](const detail::SharedPages& pages) {
    const detail::PagePool& pool = pages.pool();
    return PageCounts{pool.size(), pool.free(), pool.used(), pool.shared(), pool.idle(), pool.peak()};
  });
}
inline PrefixCounts PagedCache<>::prefixes() const {
  return store_->look([](const detail::SharedPages& pages) { return pages.counts(); });
}
inline Index PagedCache<>::num_tokens(Index layer, const SequenceId& id) const {
  return sequences_->at(id).tokens[index(storage_of(layer))];
}

template <class Fill>
SequenceId PagedCache<>::make(Fill fill) {
  const SequenceId id = sequences_->add();
  try {
    fill(sequences_->table(id));
  } catch (...) {
    sequences_->remove(id);
    throw;
  }
  return id;
}
inline SequenceId PagedCache<>::fork(const SequenceId& parent) {
  const detail::PageTable& table = sequences_->at(parent);
  return make([&](detail::PageTable& child) { store_->fork(table, child); });
}
inline void PagedCache<>::release(const SequenceId& id) {
  store_->shrink(sequences_->at(id), 0);
  sequences_->remove(id);
}
inline SequenceId PagedCache<>::match_prefix(std::span<const std::int32_t> tokens, std::uint64_t salt, Index leave) {
  require(leave >= 0, "leave (", leave, ") must be at least 0");
  return make([&](detail::PageTable& child) { store_->match(tokens, leave, salt, child); });
}
inline Index PagedCache<>::register_prefix(const SequenceId& id, std::span<const std::int32_t> tokens,
                                           std::uint64_t salt) {
  detail::PageTable& table = sequences_->at(id);
  require(std::ssize(tokens) <= table.least_tokens(), "tokens (", tokens.size(),
          ") to register must be stored in every layer; the least is ", table.least_tokens());
  require(std::ssize(tokens) <= table.intact, "tokens (", tokens.size(), ") to register must be at most ", table.intact,
          ": those from there on follow tokens that were evicted");
  return store_->enter(table, tokens, salt);
}

inline void PagedCache<>::append_in(Index layer, const SequenceId& id, Rows k, MaybeRows v,
                                    const AppendOptions& options) {
  const Index offsets[] = {0, k.tokens};
  append_in(layer, std::span(&id, 1), offsets, k, v, options);
}
inline void PagedCache<>::append_in(Index layer, std::span<const SequenceId> ids, std::span<const Index> offsets,
                                    Rows k, MaybeRows v, const AppendOptions& options) {
  const Index storage = storage_of(layer);
  check_is_producer(layer);
  const TileFormat& format = store_->tiles(storage).format();
  sequences_->check_distinct(ids);
  detail::check_appended(layer, format, 1, k, v, options);
  detail::check_offsets(offsets, "offsets", std::ssize(ids), "the ids of sequences", k.tokens, "tokens of k");

  const auto range = [&](Index b) {
    detail::PageTable& table = sequences_->table(ids[index(b)]);
    const Index stored = table.tokens[index(storage)], more = offsets[index(b) + 1] - offsets[index(b)];
    return more == 0 ? detail::WriteRange{&table, 0, 0} : detail::WriteRange{&table, stored, stored + more};
  };
  store_->make_writable(std::ssize(ids), range);
  for (Index b = 0; b < std::ssize(ids); ++b) {
    const auto [table, begin, end] = range(b);
    if (begin == end) continue;  // there may be no memory to point into
    const Index first = offsets[index(b)];
    detail::write_tokens(
        format, [&, pages = table](Index g, Index i) { return store_->tile(storage, *pages, g, i); }, begin,
        detail::token_rows(k, first, end - begin),
        v ? std::optional(detail::token_rows(*v, first, end - begin)) : std::nullopt, 0,
        detail::for_tokens(options, first, end - begin), store_->tiles(storage).key_transform(),
        [](Index, const std::byte*, Index, Index) {});
    table->tokens[index(storage)] = end;
  }
}

inline void PagedCache<>::reserve(std::span<const SequenceId> ids, std::span<const Index> tokens) {
  sequences_->check_distinct(ids);
  require(tokens.size() == ids.size(), "tokens (", tokens.size(), ") must be one per sequence (", ids.size(), ")");
  for (std::size_t b = 0; b < tokens.size(); ++b) {
    const Index most = detail::kMaxTokens - sequences_->table(ids[b]).most_tokens();
    require(tokens[b] >= 0 && tokens[b] <= most, "tokens (", tokens[b], ") to reserve must be 0 to ", most);
  }
  store_->make_writable(std::ssize(ids), [&](Index b) {
    detail::PageTable& table = sequences_->table(ids[index(b)]);
    const Index more = tokens[index(b)], stored = table.most_tokens();
    return more == 0 ? detail::WriteRange{&table, 0, 0}
                     : detail::WriteRange{&table, table.least_tokens(), stored + more};
  });
}

inline void PagedCache<>::truncate(const SequenceId& id, Index tokens) {
  detail::PageTable& table = sequences_->at(id);
  detail::check_kept(tokens, table.most_tokens());
  store_->truncate(table, 0, store_->num_storages(), tokens);
}
inline void PagedCache<>::truncate(Index layer, const SequenceId& id, Index tokens) {
  detail::check_kept(tokens, num_tokens(layer, id));
  check_is_producer(layer);
  store_->truncate(sequences_->table(id), storage_of(layer), storage_of(layer) + 1, tokens);
}

inline void PagedCache<>::check_held(const SequenceId& id, Index first, Index last, const LayerRopes& ropes) const {
  const Index stored = sequences_->at(id).least_tokens();
  require(first >= 0 && first <= last, "first (", first, ") must be 0 to last (", last, ")");
  require(last <= stored, "last (", last, ") must be at most the ", stored, " tokens that every layer has stored");
  ropes.check(num_layers());
  for (const Index layer : layer_of_storage_) {
    const Rope* const rope = ropes.of(layer);
    if (!rope) continue;
    const Index dim = layer_shape(layer).head_dim;
    require(rope->head_dim() == dim, "head_dim (", rope->head_dim(), ") of the Rope of layer ", layer,
            " must be that of the layer (", dim, ")");
    detail::check_turns_keys_alone(rope, store_->tiles(storage_of(layer)).format());
    rope->turn_between(0);  // refuses what cannot move keys
  }
}
inline void PagedCache<>::evict(const SequenceId& id, Index first, Index last, LayerRopes ropes) {
  check_held(id, first, last, ropes);
  detail::evict(*store_, sequences_->table(id), first, last,
                [&](Index storage) { return ropes.of(layer_of_storage_[index(storage)]); });
}
inline void PagedCache<>::copy_range(const SequenceId& from, Index first, Index last, const SequenceId& to,
                                     LayerRopes ropes) {
  sequences_->check(to);
  check_held(from, first, last, ropes);
  detail::copy_range(*store_, sequences_->table(from), first, last, sequences_->table(to),
                     [&](Index storage) { return ropes.of(layer_of_storage_[index(storage)]); });
}
inline void PagedCache<>::reorder(std::span<const SequenceId> ids, std::span<const Index> parents) {
  sequences_->check_distinct(ids);
  require(parents.size() == ids.size(), "parents (", parents.size(), ") must hold one per sequence (", ids.size(), ")");
  for (std::size_t b = 0; b < parents.size(); ++b)
    require(parents[b] >= 0 && parents[b] < std::ssize(ids), "parents[", b, "] (", parents[b],
            ") must be 0 to the sequences - 1 (", std::ssize(ids) - 1, ")");
  const std::lock_guard lock(reorder_->mutex);
  detail::reorder(*store_, *sequences_, ids, parents, reorder_->plan, reorder_->tables);
}
inline Index PagedCache<>::defragment() { return detail::defragment(*store_, *sequences_); }

inline const TileFormat& PagedCache<>::check_read(Index layer, const SequenceId& id, Index first, Index count,
                                                  Index kv_head) const {
  const Index stored = num_tokens(layer, id);
  require(first >= 0 && first < std::max(stored, Index{1}), "token (", first, ") must be 0 to num_tokens - 1 (",
          stored - 1, ")");
  require(count >= 0 && count <= stored - first, "count (", count, ") must be 0 to the tokens from ", first, " on (",
          stored - first, ")");
  const TileFormat& format = store_->tiles(storage_of(layer)).format();
  require(kv_head >= 0 && kv_head < format.num_kv_heads, "kv_head (", kv_head, ") must be 0 to num_kv_heads - 1 (",
          format.num_kv_heads - 1, ")");
  return format;
}
inline void PagedCache<>::read_keys(Index layer, const SequenceId& id, Index first, Index count, Index kv_head,
                                    std::span<float> out) const {
  const TileFormat& format = check_read(layer, id, first, count, kv_head);
  const Index storage = storage_of(layer), dim = format.head_dim;
  require(std::ssize(out) == count * dim, "out (", out.size(), " floats) must hold count x head_dim (", count * dim,
          ") floats");
  for (Index t = 0; t < count; ++t) {
    const std::byte* const tile = store_->tile(storage, sequences_->table(id), kv_head, (first + t) / kTileTokens);
    detail::read_stored_key(format, tile, (first + t) % kTileTokens, out.data() + t * dim);
    store_->tiles(storage).key_transform().from_key(kv_head, dim, out.data() + t * dim);
  }
}
inline void PagedCache<>::read_values(Index layer, const SequenceId& id, Index first, Index count, Index kv_head,
                                      std::span<float> out) const {
  const TileFormat& format = check_read(layer, id, first, count, kv_head);
  const Index storage = storage_of(layer), dim = format.value_dim;
  require(std::ssize(out) == count * dim, "out (", out.size(), " floats) must hold count x value_dim (", count * dim,
          ") floats");
  for (Index t = 0; t < count; ++t) {
    const std::byte* const tile = store_->tile(storage, sequences_->table(id), kv_head, (first + t) / kTileTokens);
    detail::read_stored_value(format, tile, (first + t) % kTileTokens, out.data() + t * dim);
  }
}

inline PagedLayer PagedCache<>::layer(Index i, std::span<const SequenceId> ids) const {
  const Index storage = storage_of(i);
  for (const SequenceId& id : ids) sequences_->check(id);
  return PagedLayer(store_->tiles(storage), *sequences_, index(storage), ids);
}
inline PagedSequences PagedCache<>::store(std::span<const SequenceId> ids) {
  for (const SequenceId& id : ids) sequences_->check(id);
  return PagedSequences(*store_, *sequences_, ids);
}

inline Index PagedCache<>::storage_of(Index layer) const {
  require(layer >= 0 && layer < num_layers(), "layer (", layer, ") must be 0 to num_layers - 1 (", num_layers() - 1,
          ")");
  return storage_of_layer_[index(layer)];
}
inline void PagedCache<>::check_is_producer(Index layer) const {
  require(sharing_.is_producer(layer), "layer (", layer, ") reads the keys and values of layer ",
          sharing_.source(layer), ": only a layer that makes its own can be appended to or truncated");
}

}  // namespace headwise
