// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <vector>

#include "headwise/cache/check.hpp"
#include "headwise/cache/layer_tiles.hpp"
#include "headwise/cache/page_store.hpp"
#include "headwise/cache/paged_layer.hpp"
#include "headwise/cache/sequence_slots.hpp"
#include "headwise/core/error.hpp"
#include "headwise/core/kv_sharing.hpp"
#include "headwise/core/view.hpp"
#include "headwise/position/rope.hpp"

namespace headwise {

struct PagedOptions {
  /// Tokens of a page, for all layers; a multiple of 64.
  Index page_tokens = 64;
  /// Sequences that there can be at a time.
  Index max_sequences = 256;
};

/// What a PagedCache does with its pages at a moment.
struct PageCounts {
  Index total = 0;
  Index free = 0;
  Index used = 0;    ///< held by sequences
  Index shared = 0;  ///< of these, held by more than one
  Index cached = 0;  ///< held by the prefix cache alone, and given up where pages are wanted
  Index peak = 0;    ///< the most that were used at a time
  friend bool operator==(const PageCounts&, const PageCounts&) = default;
};

/// A PagedCache of any storage types: everything but its making.
class AnyPagedCache {
 public:
  /// Layers of the model, those that borrow included.
  Index num_layers() const { return sharing_.num_layers(); }
  /// Which layer's keys and values each layer reads.
  const KvSharing& sharing() const { return sharing_; }
  /// Heads and dimensions of a layer; value_dim is never 0 here.
  LayerShape layer_shape(Index layer = 0) const {
    const TileFormat& format = store_->tiles(storage_of(layer)).format();
    return {format.num_kv_heads, format.head_dim, format.value_dim};
  }
  Index page_tokens() const { return store_->page_tokens(); }
  Index max_sequences() const { return sequences_->size(); }
  /// Bytes allocated for tiles, whether written or not.
  Index bytes() const { return page_bytes() * num_pages(); }
  /// Bytes of one page, all layers.
  Index page_bytes() const {
    Index total = 0;
    for (Index s = 0; s < store_->num_storages(); ++s) total += store_->tiles(s).page_bytes();
    return total;
  }
  Index num_pages() const { return pages().total; }
  PageCounts pages() const {
    return store_->look([](const detail::SharedPages& pages) {
      const detail::PagePool& pool = pages.pool();
      return PageCounts{pool.size(), pool.free(), pool.used(), pool.shared(), pool.idle(), pool.peak()};
    });
  }

  /// A new sequence without tokens. Throws OutOfSequences.
  SequenceId create() { return sequences_->add(); }
  /// A new sequence with the tokens of another, in the same pages; the last of them, if it is not full, is copied when either
  /// is appended to. Throws OutOfSequences.
  SequenceId fork(const SequenceId& parent) {
    const detail::PageTable& table = sequences_->at(parent);
    return make([&](detail::PageTable& child) { store_->fork(table, child); });
  }
  /// A new sequence that holds the longest prefix of `tokens` that register_prefix has put into the prefix cache under this
  /// salt, in the same pages: whole pages, and never the last `leave` (at least 0) tokens, which are left to be computed.
  /// Without such a prefix it is empty. Throws OutOfSequences.
  SequenceId match_prefix(std::span<const std::int32_t> tokens, std::uint64_t salt = 0, Index leave = 1) {
    require(leave >= 0, "leave (", leave, ") must be at least 0");
    const auto most = tokens.first(tokens.size() - std::min(tokens.size(), static_cast<std::size_t>(leave)));
    const SequenceId id = make([&](detail::PageTable& child) { store_->match(most, salt, child); });
    return id;
  }
  /// Puts the full pages that hold the first tokens of a sequence into the prefix cache: they stay when no sequence holds
  /// them, the least recently used ones until pages are wanted. `tokens` are what was appended, from the first token on, to
  /// every layer; what else the keys and values depend on (an adapter, an image) must be told by the salt. Where the prefix
  /// cache has the same pages bit for bit, the sequence shares those. Returns how many tokens are in the prefix cache.
  Index register_prefix(const SequenceId& id, std::span<const std::int32_t> tokens, std::uint64_t salt = 0) {
    detail::PageTable& table = sequences_->at(id);
    require(std::ssize(tokens) <= table.least_tokens(), "tokens (", tokens.size(),
            ") to register must be stored in every layer; the least is ", table.least_tokens());
    require(std::ssize(tokens) <= table.intact, "tokens (", tokens.size(), ") to register must be at most ",
            table.intact, ": behind them tokens were evicted");
    return store_->enter(table, tokens, salt);
  }
  /// Empties the prefix cache; sequences keep their pages.
  void clear_prefixes() { store_->clear_index(); }
  PrefixCounts prefixes() const {
    return store_->look([](const detail::SharedPages& pages) { return pages.counts(); });
  }

  /// Ends a sequence; its name is not to be used again.
  void release(const SequenceId& id) {
    store_->shrink(sequences_->at(id), 0);
    sequences_->remove(id);
  }

  /// Sequences in use.
  Index num_sequences() const { return sequences_->in_use(); }
  /// Their names.
  std::vector<SequenceId> sequences() const { return sequences_->all(); }
  /// Tokens stored.
  Index num_tokens(Index layer, const SequenceId& id) const {
    return sequences_->at(id).tokens[static_cast<std::size_t>(storage_of(layer))];
  }
  /// Pages that a sequence holds, shared ones included.
  Index num_pages(const SequenceId& id) const { return sequences_->at(id).num_pages(); }

  /// Appends k [1][token][kv_head][head_dim] and v [1][token][kv_head][value_dim], of any storage types and strides, to a
  /// sequence of a layer. Numbers are rounded to nearest, ties to even; with a rope, keys are turned to their positions
  /// first, which are their token numbers. Throws OutOfPages.
  template <ElementType A, ElementType B>
  void append(Index layer, const SequenceId& id, View<A> k, View<B> v) {
    append_one(layer, id, View<const A>(k).array(), View<const B>(v).array(), nullptr);
  }
  template <ElementType A, ElementType B>
  void append(Index layer, const SequenceId& id, View<A> k, View<B> v, const Rope& rope) {
    append_one(layer, id, View<const A>(k).array(), View<const B>(v).array(), &rope);
  }
  /// The same for several sequences, all or none: tokens offsets[b] … offsets[b + 1] − 1 of k and v go to ids[b]. There are
  /// ids.size() + 1 offsets.
  template <ElementType A, ElementType B>
  void append_ragged(Index layer, std::span<const SequenceId> ids, std::span<const Index> offsets, View<A> k,
                     View<B> v) {
    append_packed(layer, ids, offsets, View<const A>(k).array(), View<const B>(v).array(), nullptr);
  }
  template <ElementType A, ElementType B>
  void append_ragged(Index layer, std::span<const SequenceId> ids, std::span<const Index> offsets, View<A> k, View<B> v,
                     const Rope& rope) {
    append_packed(layer, ids, offsets, View<const A>(k).array(), View<const B>(v).array(), &rope);
  }

  /// Sees that `tokens` more can be appended to a sequence, in every layer, without wanting pages. Throws OutOfPages.
  void reserve(const SequenceId& id, Index tokens) { reserve(std::span(&id, 1), std::span(&tokens, 1)); }
  /// The same for several sequences, all or none: tokens[b] for ids[b].
  void reserve(std::span<const SequenceId> ids, std::span<const Index> tokens) {
    sequences_->check_distinct(ids);
    require(tokens.size() == ids.size(), "tokens (", tokens.size(), ") must be one per sequence (", ids.size(), ")");
    for (std::size_t b = 0; b < tokens.size(); ++b) check_more(ids[b], tokens[b]);
    store_->make_writable(std::ssize(ids), [&](Index b) {
      detail::PageTable& table = sequences_->table(ids[index(b)]);
      const Index more = tokens[index(b)], stored = table.most_tokens();
      return detail::WriteRange{&table, more == 0 ? stored + more : table.least_tokens(), stored + more};
    });
  }

  /// Keeps the first `tokens` tokens of a sequence in every layer, and all of those that hold fewer; gives back pages behind
  /// them, reserved ones too. `tokens` is 0 … the most that any layer holds. Needs a page, and may throw OutOfPages, only
  /// where a page that other sequences hold too is cut before an infinity or a NaN.
  void truncate(const SequenceId& id, Index tokens) {
    detail::PageTable& table = sequences_->at(id);
    detail::check_kept(tokens, table.most_tokens());
    store_->truncate(table, 0, store_->num_storages(), tokens);
  }
  /// The same for one producer; other layers keep theirs.
  void truncate(Index layer, const SequenceId& id, Index tokens) {
    check_is_producer(layer);
    detail::check_kept(tokens, num_tokens(layer, id));
    const Index storage = storage_of(layer);
    store_->truncate(sequences_->table(id), storage, storage + 1, tokens);
  }
  /// Forgets all tokens of a sequence.
  void clear(const SequenceId& id) { truncate(id, 0); }

  /// The stored key of one token: writes head_dim floats.
  void read_key(Index layer, const SequenceId& id, Index token, Index kv_head, std::span<float> out) const {
    const auto [tile, format] = check_read(layer, id, token, kv_head);
    require(std::ssize(out) == format.head_dim, "out (", out.size(), " floats) must hold head_dim (", format.head_dim,
            ") floats");
    detail::read_stored_key(format, tile, token % kTileTokens, out.data());
  }
  /// The stored value of one token: writes value_dim floats.
  void read_value(Index layer, const SequenceId& id, Index token, Index kv_head, std::span<float> out) const {
    const auto [tile, format] = check_read(layer, id, token, kv_head);
    require(std::ssize(out) == format.value_dim, "out (", out.size(), " floats) must hold value_dim (",
            format.value_dim, ") floats");
    detail::read_stored_value(format, tile, token % kTileTokens, out.data());
  }

  /// A layer of some sequences as attention reads it: sequence b is ids[b]. Refers to this cache (also after it was moved)
  /// and to `ids`, and shows later appends.
  PagedLayer layer(Index i, std::span<const SequenceId> ids) const {
    const Index storage = storage_of(i);
    for (const SequenceId& id : ids) sequences_->check(id);
    return PagedLayer(store_->tiles(storage), *sequences_, index(storage), ids);
  }

 protected:
  AnyPagedCache(std::span<const LayerShape> layers, const KvSharing& sharing, Storage keys, Storage values,
                Index num_pages, const PagedOptions& options)
      : sharing_(sharing) {
    require(num_pages >= 1 && num_pages <= detail::PagePool::kMaxPages, "num_pages (", num_pages, ") must be 1 to ",
            detail::PagePool::kMaxPages);
    require(options.page_tokens >= kTileTokens && options.page_tokens <= kMaxPageTokens &&
                options.page_tokens % kTileTokens == 0,
            "page_tokens (", options.page_tokens, ") must be a multiple of ", kTileTokens, " up to ", kMaxPageTokens);
    require(options.max_sequences >= 1 && options.max_sequences <= kMaxSequences, "max_sequences (",
            options.max_sequences, ") must be 1 to ", kMaxSequences);
    for (std::size_t i = 0; i < layers.size(); ++i) detail::check_shape(i, layers[i]);
    std::vector<LayerShape> shapes(layers.begin(), layers.end());
    for (LayerShape& shape : shapes)
      if (shape.value_dim == 0) shape.value_dim = shape.head_dim;
    detail::check_shared_shapes(shapes, sharing);
    std::vector<TileFormat> formats;
    for (Index l = 0; l < sharing.num_layers(); ++l) {
      storage_of_layer_.push_back(sharing.is_producer(l) ? std::ssize(formats)
                                                         : storage_of_layer_[index(sharing.source(l))]);
      const auto& [heads, head_dim, value_dim] = shapes[index(l)];
      if (sharing.is_producer(l)) formats.push_back({keys, values, heads, head_dim, value_dim});
    }
    store_ = std::make_unique<detail::PageStore>(formats, num_pages, options.page_tokens);
    sequences_ = std::make_unique<detail::SequenceSlots>(options.max_sequences, std::ssize(formats));
  }
  static KvSharing sharing_of(std::span<const LayerShape> layers) {
    require(!layers.empty(), "layers (0) of a PagedCache must be at least 1");
    return KvSharing::none(std::ssize(layers));
  }

 private:
  static constexpr Index kMaxPageTokens = Index{1} << 20, kMaxSequences = Index{1} << 24, kMaxTokens = Index{1} << 48;

  static std::size_t index(Index i) { return static_cast<std::size_t>(i); }

  Index storage_of(Index layer) const {
    require(layer >= 0 && layer < num_layers(), "layer (", layer, ") must be 0 to num_layers - 1 (", num_layers() - 1,
            ")");
    return storage_of_layer_[index(layer)];
  }
  void check_is_producer(Index layer) const {
    require(sharing_.is_producer(layer), "layer (", layer, ") reads the keys and values of layer ",
            sharing_.source(layer), ": only a layer that makes its own can be appended to or truncated");
  }
  void check_more(const SequenceId& id, Index tokens) const {
    const Index stored = sequences_->table(id).most_tokens();
    require(tokens >= 0 && tokens <= kMaxTokens - stored, "tokens (", tokens, ") to append must be 0 to ",
            kMaxTokens - stored);
  }
  struct StoredTile {
    const std::byte* tile;
    const TileFormat& format;
  };
  StoredTile check_read(Index layer, const SequenceId& id, Index token, Index kv_head) const {
    const Index storage = storage_of(layer), stored = num_tokens(layer, id);
    require(token >= 0 && token < stored, "token (", token, ") must be 0 to num_tokens - 1 (", stored - 1, ")");
    const TileFormat& format = store_->tiles(storage).format();
    require(kv_head >= 0 && kv_head < format.num_kv_heads, "kv_head (", kv_head, ") must be 0 to num_kv_heads - 1 (",
            format.num_kv_heads - 1, ")");
    return {store_->tile(storage, sequences_->table(id), kv_head, token / kTileTokens), format};
  }

  /// A new sequence whose table fill(table) makes.
  template <class Fill>
  SequenceId make(Fill fill) {
    const SequenceId id = sequences_->add();
    try {
      fill(sequences_->table(id));
    } catch (...) {
      sequences_->remove(id);
      throw;
    }
    return id;
  }

  void append_one(Index layer, const SequenceId& id, const ConstArray& k, const ConstArray& v, const Rope* rope) {
    const Index offsets[] = {0, k.tokens};
    append_packed(layer, std::span(&id, 1), offsets, k, v, rope);
  }
  void append_packed(Index layer, std::span<const SequenceId> ids, std::span<const Index> offsets, const ConstArray& k,
                     const ConstArray& v, const Rope* rope) {
    check_is_producer(layer);
    const Index storage = storage_of(layer);
    const TileFormat& format = store_->tiles(storage).format();
    sequences_->check_distinct(ids);
    detail::check_rows("k", k, 1, k.tokens, format.num_kv_heads, format.head_dim);
    detail::check_rows("v", v, 1, k.tokens, format.num_kv_heads, format.value_dim);
    require(!rope || rope->head_dim() == format.head_dim, "head_dim (", rope ? rope->head_dim() : 0,
            ") of rope must be that of the layer (", format.head_dim, ")");
    require(offsets.size() == ids.size() + 1, "offsets (", offsets.size(), ") must be one more than sequences (",
            ids.size(), ")");
    require(offsets.front() == 0, "offsets[0] (", offsets.front(), ") must be 0");
    for (std::size_t b = 0; b < ids.size(); ++b)
      require(offsets[b] <= offsets[b + 1], "offsets[", b + 1, "] (", offsets[b + 1], ") must not be below offsets[", b,
              "] (", offsets[b], ")");
    require(offsets.back() == k.tokens, "offsets[", ids.size(), "] (", offsets.back(), ") must be the tokens of k (",
            k.tokens, ")");

    const auto range = [&](Index b) {
      detail::PageTable& table = sequences_->table(ids[index(b)]);
      const Index stored = table.tokens[index(storage)], more = offsets[index(b) + 1] - offsets[index(b)];
      // of no tokens: no page
      return more == 0 ? detail::WriteRange{&table, 0, 0} : detail::WriteRange{&table, stored, stored + more};
    };
    store_->make_writable(std::ssize(ids), range);
    for (Index b = 0; b < std::ssize(ids); ++b) {
      const auto [table, begin, end] = range(b);
      if (begin == end) continue;
      detail::write_tokens(
          format, [&, table = table](Index g, Index i) { return store_->tile(storage, *table, g, i); }, begin,
          rows(k, offsets[index(b)], end - begin), rows(v, offsets[index(b)], end - begin), 0, rope, {},
          [](Index, const std::byte*, Index, Index) {});
      table->tokens[index(storage)] = end;
    }
  }
  /// `count` tokens from `first` on.
  static ConstArray rows(ConstArray array, Index first, Index count) {
    array.data = array.row(0, first, 0);
    array.tokens = count;
    return array;
  }

  KvSharing sharing_;
  std::vector<Index> storage_of_layer_;  // [layer]
  std::unique_ptr<detail::PageStore> store_;
  std::unique_ptr<detail::SequenceSlots> sequences_;
};

}  // namespace headwise
