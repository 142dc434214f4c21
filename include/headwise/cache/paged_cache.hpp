// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "headwise/cache/append_forms.hpp"
#include "headwise/cache/append_options.hpp"
#include "headwise/cache/cache_options.hpp"
#include "headwise/cache/check.hpp"
#include "headwise/cache/layer_ropes.hpp"
#include "headwise/cache/page_store.hpp"
#include "headwise/cache/paged_layer.hpp"
#include "headwise/cache/paged_options.hpp"
#include "headwise/cache/paged_sequences.hpp"
#include "headwise/cache/reorder_plan.hpp"
#include "headwise/cache/sequence_slots.hpp"
#include "headwise/core/error.hpp"
#include "headwise/core/heads.hpp"
#include "headwise/core/kv_sharing.hpp"
#include "headwise/core/view.hpp"
#include "headwise/position/rope.hpp"

namespace headwise {

/// Keys and values of many sequences in pages of one pool, keys stored as K and values as V as in a KvCache, in the tiles
/// that kernels read. Every PagedCache<K, V> is a PagedCache<>.
///
/// A page holds page_tokens tokens of every layer; sequences that begin alike hold the same pages, and what is written to
/// one of them never shows in another: PagedAttention, Kwon et al. 2023, arXiv 2309.06180.
///
/// Every function validates first: on std::invalid_argument, OutOfPages, OutOfSequences or std::bad_alloc nothing has
/// changed, and every sequence can still be used.
///
/// Threads: functions on different sequences may run at the same time, attention over them included; also functions on no
/// sequence or on all of them, but defragment, during which nothing else may run. A sequence is one thread's at a time;
/// const functions and fork may run at the same time on one. An append that takes no page takes no lock.
template <CacheStorage K = AnyStorage, CacheStorage V = K>
class PagedCache;

/// What takes a PagedCache of whatever storage types takes one of these.
using AnyPagedCache = PagedCache<>;

template <>
class PagedCache<AnyStorage, AnyStorage>
    : private detail::AppendForms<PagedCache<>, Index, const SequenceId&>,
      private detail::RaggedAppendForms<PagedCache<>, Index, std::span<const SequenceId>, std::span<const Index>> {
  using ToSequence = detail::AppendForms<PagedCache<>, Index, const SequenceId&>;
  using Ragged = detail::RaggedAppendForms<PagedCache<>, Index, std::span<const SequenceId>, std::span<const Index>>;

 public:
  /// A cache of one layer with num_pages pages.
  template <Index H, Index KV, Index D, Index DV>
  PagedCache(const Heads<H, KV, D, DV>& heads, Index num_pages, const PagedOptions& options)
      : PagedCache(LayerShape{heads.num_kv_heads(), heads.head_dim(), heads.value_dim()}, num_pages, options) {}

  /// A cache of a whole model: one shape per layer. Layers keep every token: of a window of 0.
  PagedCache(std::span<const LayerShape> layers, Index num_pages, const PagedOptions& options);

  /// The same where layers share keys and values. Those that share have equal shapes; only producers have storage. A
  /// borrower's tokens, tiles, keys and values are those of its source, and nothing is appended to it.
  PagedCache(std::span<const LayerShape> layers, const KvSharing& sharing, Index num_pages,
             const PagedOptions& options);

  // --- what it is ---

  /// Layers of the model, those that borrow included.
  Index num_layers() const { return sharing_.num_layers(); }
  /// Which layer's keys and values each layer reads.
  const KvSharing& sharing() const { return sharing_; }
  /// Heads and dimensions of a layer; value_dim is never 0 here.
  LayerShape layer_shape(Index layer = 0) const;
  Index page_tokens() const { return store_->page_tokens(); }
  Index max_sequences() const { return sequences_->size(); }
  /// Bytes allocated for tiles, whether written or not, each storage once.
  Index bytes() const { return page_bytes() * num_pages(); }
  /// Bytes of the pages that sequences or the prefix cache hold.
  Index bytes_used() const;
  /// Bytes of one page, all layers.
  Index page_bytes() const;
  /// Bytes that one token takes over all layers, with head_dim padded to 8 and value_dim to 16.
  Index bytes_per_token() const { return page_bytes() / page_tokens(); }
  Index num_pages() const { return pages().total; }
  PageCounts pages() const;

  // --- sequences ---

  /// A new sequence without tokens. Throws OutOfSequences.
  SequenceId create() { return sequences_->add(); }
  /// A new sequence with the tokens of another, in the same pages; the last of them, if it is not full, is copied when either
  /// is appended to. Throws OutOfSequences. Cost: a number per page.
  SequenceId fork(const SequenceId& parent);
  /// Ends a sequence; its name is not to be used again. Cost: a number per page.
  void release(const SequenceId& id);
  /// Sequences in use.
  Index num_sequences() const { return sequences_->in_use(); }
  /// Their names.
  std::vector<SequenceId> sequences() const { return sequences_->all(); }
  /// Whether this names a sequence in use.
  bool contains(const SequenceId& id) const { return sequences_->contains(id); }
  /// Tokens stored.
  Index num_tokens(Index layer, const SequenceId& id) const;
  /// Pages that a sequence holds, shared and reserved ones included.
  Index num_pages(const SequenceId& id) const { return sequences_->at(id).num_pages(); }

  // --- append ---

  // k and v are Views of any storage types and strides. Numbers are rounded to nearest, ties to even. Each append is one of
  //   append(place…, k, v)       layers whose values are beside their keys
  //   append(place…, k)          layers whose values are in their keys (LayerShape::values_in_keys)
  // with, behind that, nothing, AppendOptions (keys normed and turned by RoPE on their way), or a Rope alone. It throws
  // OutOfPages. The first layer that comes to a page takes it.

  /// append(layer, id, k, v, …) appends k [1][token][kv_head][head_dim] and v [1][token][kv_head][value_dim] to a sequence of
  /// a layer.
  using ToSequence::append;
  /// append_ragged(layer, ids, offsets, k, v, …) does the same for several sequences, all or none: tokens
  /// offsets[b] … offsets[b + 1] − 1 of k and v go to ids[b]. There are ids.size() + 1 offsets.
  using Ragged::append_ragged;

  /// Sees that `tokens` more can be appended to a sequence, in every layer, without wanting pages. Throws OutOfPages.
  void reserve(const SequenceId& id, Index tokens) { reserve(std::span(&id, 1), std::span(&tokens, 1)); }
  /// The same for several sequences, all or none: tokens[b] for ids[b].
  void reserve(std::span<const SequenceId> ids, std::span<const Index> tokens);

  // --- fewer, other or moved tokens ---

  /// Keeps the first `tokens` tokens of a sequence in every layer, and all of those that hold fewer; gives back pages behind
  /// them, reserved ones too. `tokens` is 0 … the most that any layer holds. Needs a page, and may throw OutOfPages, only
  /// where a page that others hold too is cut before an infinity or a NaN. Cost: the pages given back and a tile per layer
  /// and KV head.
  void truncate(const SequenceId& id, Index tokens);
  /// The same for one producer; other layers keep theirs.
  void truncate(Index layer, const SequenceId& id, Index tokens);
  /// Forgets all tokens of a sequence.
  void clear(const SequenceId& id) { truncate(id, 0); }

  /// Takes tokens [first, last), which every layer holds, out of a sequence; those behind move down by last − first. With
  /// ropes, the keys of these are turned to their new positions (and rounded once more): a context shift, or with first =
  /// sinks what StreamingLLM does (Xiao et al. 2023, arXiv 2309.17453). Throws OutOfPages where pages that others hold too
  /// have to be copied. Cost: the tokens that move; whole pages without ropes, a number per page.
  void evict(const SequenceId& id, Index first, Index last, LayerRopes ropes = {});
  /// Appends tokens [first, last) of one sequence, which every layer holds, to another or the same, in every layer, with
  /// ropes turned to their new positions. Throws OutOfPages. Cost: these tokens. (What begins another sequence is shared at
  /// no cost by fork and truncate.)
  void copy_range(const SequenceId& from, Index first, Index last, const SequenceId& to, LayerRopes ropes = {});

  /// Beam search: sequence ids[b] becomes what ids[parents[b]] was. parents are 0 … ids.size() − 1 and may repeat. Shares
  /// pages and copies nothing; allocates nothing once tables are as long as they get.
  void reorder(std::span<const SequenceId> ids, std::span<const Index> parents);

  /// Moves pages so that those of each sequence follow one another in memory, as far as sequences do not share them; no
  /// token and no result changes. Returns how many pages it moved. Nothing else may run at the same time.
  Index defragment();

  // --- the prefix cache ---

  /// A new sequence that holds the longest prefix of `tokens` that register_prefix has put into the prefix cache under this
  /// salt, in the same pages: whole pages, and never the last `leave` (at least 0) tokens, which are left to be computed.
  /// Without such a prefix it is empty. Throws OutOfSequences.
  SequenceId match_prefix(std::span<const std::int32_t> tokens, std::uint64_t salt = 0, Index leave = 1);
  /// Puts the full pages that hold the first tokens of a sequence into the prefix cache: they stay when no sequence holds
  /// them, the least recently used ones until pages are wanted. `tokens` are what was appended, from the first token on, to
  /// every layer; what else the keys and values depend on (an adapter, an image) must be told by the salt. Where the prefix
  /// cache has the same pages bit for bit, the sequence shares those. Returns how many tokens are in the prefix cache.
  Index register_prefix(const SequenceId& id, std::span<const std::int32_t> tokens, std::uint64_t salt = 0);
  /// Empties the prefix cache; sequences keep their pages.
  void clear_prefixes() { store_->clear_index(); }
  PrefixCounts prefixes() const;

  // --- reading back ---

  /// The stored key of one token, without its transform: writes head_dim floats.
  void read_key(Index layer, const SequenceId& id, Index token, Index kv_head, std::span<float> out) const {
    read_keys(layer, id, token, 1, kv_head, out);
  }
  /// The stored value of one token: writes value_dim floats.
  void read_value(Index layer, const SequenceId& id, Index token, Index kv_head, std::span<float> out) const {
    read_values(layer, id, token, 1, kv_head, out);
  }
  /// The same of `count` tokens from `first` on: writes [count][head_dim] or [count][value_dim] floats.
  void read_keys(Index layer, const SequenceId& id, Index first, Index count, Index kv_head,
                 std::span<float> out) const;
  void read_values(Index layer, const SequenceId& id, Index first, Index count, Index kv_head,
                   std::span<float> out) const;

  /// A layer of some sequences as attention reads it: sequence b is ids[b]. Refers to this cache (also after it was moved)
  /// and to `ids`, and shows later appends.
  PagedLayer layer(Index i, std::span<const SequenceId> ids) const;
  /// Some sequences as saving and restoring see them (cache/token_store.hpp): sequence b is ids[b]. Refers to this cache and
  /// to `ids`.
  PagedSequences store(std::span<const SequenceId> ids);

 private:
  PagedCache(const LayerShape& shape, Index num_pages, const PagedOptions& options)
      : PagedCache(std::span<const LayerShape>(&shape, 1), num_pages, options) {}

  static std::size_t index(Index i) { return static_cast<std::size_t>(i); }
  Index storage_of(Index layer) const;
  void check_is_producer(Index layer) const;
  void check_held(const SequenceId& id, Index first, Index last, const LayerRopes& ropes) const;
  const TileFormat& check_read(Index layer, const SequenceId& id, Index first, Index count, Index kv_head) const;

  /// A new sequence whose table fill(table) makes.
  template <class Fill>
  SequenceId make(Fill fill);
  // what the forms of an append become
  friend ToSequence;
  friend Ragged;
  using Rows = const ConstArray&;
  using MaybeRows = const std::optional<ConstArray>&;
  void append_in(Index layer, const SequenceId& id, Rows k, MaybeRows v, const AppendOptions& options);
  void append_in(Index layer, std::span<const SequenceId> ids, std::span<const Index> offsets, Rows k, MaybeRows v,
                 const AppendOptions& options);

  /// What reorder works in, kept so that it allocates nothing.
  struct ReorderMemory {
    std::mutex mutex;
    detail::ReorderPlan plan;
    std::vector<detail::PageTable> tables;
  };

  KvSharing sharing_;
  std::vector<Index> storage_of_layer_;  // [layer]
  std::vector<Index> layer_of_storage_;  // [storage]
  std::unique_ptr<detail::PageStore> store_;
  std::unique_ptr<detail::SequenceSlots> sequences_;
  std::unique_ptr<ReorderMemory> reorder_;
};

template <CacheStorage K, CacheStorage V>
class PagedCache : public PagedCache<> {
 public:
  template <Index H, Index KV, Index D, Index DV>
  PagedCache(const Heads<H, KV, D, DV>& heads, Index num_pages, PagedOptions options = {})
      : PagedCache<>(heads, num_pages, with_types(std::move(options))) {}
  PagedCache(std::span<const LayerShape> layers, Index num_pages, PagedOptions options = {})
      : PagedCache<>(layers, num_pages, with_types(std::move(options))) {}
  PagedCache(std::span<const LayerShape> layers, const KvSharing& sharing, Index num_pages, PagedOptions options = {})
      : PagedCache<>(layers, sharing, num_pages, with_types(std::move(options))) {}

 private:
  static PagedOptions with_types(PagedOptions options) {
    options.key_storage = detail::storage_of_cache<K>("key_storage", options.key_storage);
    if (std::same_as<V, AnyStorage> && !options.value_storage) options.value_storage = options.key_storage;
    options.value_storage = detail::storage_of_cache<V>("value_storage", options.value_storage);
    return options;
  }
};

}  // namespace headwise

#include "headwise/cache/paged_cache_functions.inl.hpp"
