// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "headwise/cache/append_forms.hpp"
#include "headwise/cache/append_options.hpp"
#include "headwise/cache/cache_layer.hpp"
#include "headwise/cache/cache_options.hpp"
#include "headwise/cache/check.hpp"
#include "headwise/cache/layer_moves.hpp"
#include "headwise/cache/layer_ropes.hpp"
#include "headwise/cache/layer_tiles.hpp"
#include "headwise/cache/reorder_plan.hpp"
#include "headwise/cache/token_store.hpp"
#include "headwise/core/kv_sharing.hpp"
#include "headwise/core/quantize.hpp"
#include "headwise/core/view.hpp"

namespace headwise {

/// Keys and values of every token so far, of one layer or of all layers of a model, keys stored as K and values as V
/// (float, f16, bf16, e4m3, e5m2, int8 or int4; core/quantize.hpp) in the tiles that kernels read (core/tile_layout.hpp).
/// `KvCache<int8>` and `KvCache<>` with the option key_storage int8 are the same cache; every KvCache<K, V> is a KvCache<>.
/// Layers may differ in heads, dimensions and in how much they keep (LayerShape::window).
///
/// Every function validates first: on std::invalid_argument or std::bad_alloc nothing has changed. Moving is cheap;
/// copying is the explicit copy(). Const functions may run at the same time, and so may appends to different layers.
template <CacheStorage K = AnyStorage, CacheStorage V = K>
class KvCache;

template <>
class KvCache<AnyStorage, AnyStorage> : private detail::AppendForms<KvCache<>, Index>,
                                        private detail::AppendForms<KvCache<>>,
                                        private detail::AppendForms<KvCache<>, Index, Index>,
                                        private detail::RaggedAppendForms<KvCache<>, Index, std::span<const Index>> {
  using ToLayer = detail::AppendForms<KvCache<>, Index>;
  using ToOnlyLayer = detail::AppendForms<KvCache<>>;
  using ToSequence = detail::AppendForms<KvCache<>, Index, Index>;
  using Ragged = detail::RaggedAppendForms<KvCache<>, Index, std::span<const Index>>;

 public:
  /// A cache of one layer for up to max_tokens (at least 1) tokens of each sequence.
  template <Index H, Index KV, Index D, Index DV>
  KvCache(const Heads<H, KV, D, DV>& heads, Index max_tokens, CacheOptions options)
      : KvCache(LayerShape{heads.num_kv_heads(), heads.head_dim(), heads.value_dim()}, max_tokens, std::move(options)) {
  }

  /// A cache of a whole model: one shape per layer. A ring has no use for max_tokens.
  KvCache(std::span<const LayerShape> layers, Index max_tokens, CacheOptions options);

  /// The same where layers share keys and values. Those that share have equal shapes; only producers have storage. A
  /// borrower's tokens, tiles, keys, values and norms are those of its source, and nothing is appended to it.
  KvCache(std::span<const LayerShape> layers, const KvSharing& sharing, Index max_tokens, CacheOptions options);

  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;
  KvCache(KvCache&&) noexcept = default;
  KvCache& operator=(KvCache&&) noexcept = default;

  /// A second cache with the same tokens, in memory of its own.
  KvCache copy() const;

  // --- what it is ---

  /// Layers of the model, those that borrow included.
  Index num_layers() const { return sharing_.num_layers(); }
  /// Which layer's keys and values each layer reads.
  const KvSharing& sharing() const { return sharing_; }
  Index num_sequences() const { return options_.num_sequences; }
  /// Heads and dimensions of a layer; value_dim is never 0 here.
  LayerShape layer_shape(Index layer = 0) const;
  /// Tokens that each sequence of the layer has room for; layers differ only after a growing cache has grown. Of a ring,
  /// what its positions can count.
  Index max_tokens(Index layer = 0) const { return at(layer).max_tokens(); }
  /// Tokens appended: those of a ring that were forgotten count.
  Index num_tokens(Index layer = 0, Index sequence = 0) const {
    check_sequence(sequence);
    return at(layer).num_tokens(sequence);
  }

  /// Bytes allocated for tiles, whether written or not, each storage once.
  Index bytes() const;
  /// Bytes that one token of one sequence takes over all layers, with head_dim padded to 8 and value_dim to 16.
  Index bytes_per_token() const;
  /// Tiles that hold tokens, over all storages, sequences and KV heads, and their bytes.
  Index num_tiles() const;
  Index bytes_used() const;

  // --- append ---

  // k and v are Views of any storage types and strides. Numbers are rounded to nearest, ties to even. Each append is one of
  //   append(place…, k, v)       layers whose values are beside their keys
  //   append(place…, k)          layers whose values are in their keys (LayerShape::values_in_keys)
  // with, behind that, nothing, AppendOptions (keys normed and turned by RoPE on their way), or a Rope alone.

  /// append(layer, k, v, …) appends k [sequence][token][kv_head][head_dim] and v [sequence][token][kv_head][value_dim] to
  /// every sequence of a layer.
  using ToLayer::append;
  /// append(k, v, …) does the same in a cache of one layer.
  using ToOnlyLayer::append;
  /// append(layer, sequence, k, v, …) appends to one sequence of a layer; k and v are of one sequence.
  using ToSequence::append;
  /// append_ragged(layer, offsets, k, v, …) appends to each sequence of a layer as many tokens as it likes, 0 included: k
  /// and v are of one sequence whose tokens offsets[b] … offsets[b + 1] − 1 are those of sequence b. offsets [sequence + 1].
  using Ragged::append_ragged;

  // --- fewer, other or moved tokens ---

  /// Keeps the first `tokens` tokens of every sequence in every layer, and all of those that hold fewer. `tokens` is 0 …
  /// the most that any of them holds; of a ring, what it keeps of them must still be there, which is so at least for the
  /// last max_append. Cost: one tile per layer, sequence and KV head.
  void truncate(Index tokens) { truncate_range(0, num_sequences(), tokens); }
  /// The same for one sequence.
  void truncate(Index sequence, Index tokens) {
    check_sequence(sequence);
    truncate_range(sequence, 1, tokens);
  }
  /// The same for one sequence of one producer; other layers keep theirs.
  void truncate(Index layer, Index sequence, Index tokens);
  /// Forgets all tokens; keeps the memory.
  void clear() { truncate(0); }
  void clear(Index sequence) { truncate(sequence, 0); }

  /// Takes tokens [first, last) out of a sequence in every layer; those behind move down by last − first. With ropes, the
  /// keys of these are turned to their new positions (and rounded once more): a context shift, or with first = sinks what
  /// StreamingLLM does (Xiao et al. 2023, arXiv 2309.17453). Every layer must hold the tokens; of a ring, what it keeps
  /// must still be there. Cost: the tokens that move, and once what a ring keeps.
  void evict(Index sequence, Index first, Index last, LayerRopes ropes = {});

  /// Appends tokens [first, last) of one sequence to another, in every layer, with ropes turned to their new positions.
  /// A ring must not have forgotten any of them. Cost: these tokens.
  void copy_range(Index from, Index first, Index last, Index to, LayerRopes ropes = {});

  /// Sequence `to` becomes a copy of sequence `from` in every layer. Cost: the bytes of its tiles.
  void fork(Index from, Index to);

  /// Beam search: in every layer, sequence b becomes what sequence parents[b] was, its length and key norms included.
  /// parents has one entry per sequence, each 0 … num_sequences − 1; they may repeat. Copies one sequence per entry that
  /// repeats an earlier one, so a permutation copies nothing, and allocates nothing.
  void reorder(std::span<const Index> parents);

  // --- reading back ---

  /// The stored key of one token, without its transform: writes head_dim floats.
  void read_key(Index layer, Index sequence, Index token, Index kv_head, std::span<float> out) const {
    read_keys(layer, sequence, token, 1, kv_head, out);
  }
  /// The stored value of one token: writes value_dim floats.
  void read_value(Index layer, Index sequence, Index token, Index kv_head, std::span<float> out) const {
    read_values(layer, sequence, token, 1, kv_head, out);
  }
  /// The same of `count` tokens from `first` on: writes [count][head_dim] or [count][value_dim] floats.
  void read_keys(Index layer, Index sequence, Index first, Index count, Index kv_head, std::span<float> out) const;
  void read_values(Index layer, Index sequence, Index first, Index count, Index kv_head, std::span<float> out) const;

  /// The sum of |k|² over the stored tokens of one KV head, with every key as it is read back. Bit for bit a function of
  /// those keys: however they were appended, and whatever was appended and truncated between. Throws
  /// std::invalid_argument unless CacheOptions::key_norms is set.
  double key_norm_squares(Index layer, Index sequence, Index kv_head) const;

  /// A layer as attention reads it. Refers to this cache (also after it was moved) and shows later appends.
  CacheLayer layer(Index i) const { return CacheLayer(at(i)); }
  /// The layer of a cache of one layer.
  CacheLayer layer() const {
    check_only_layer();
    return layer(0);
  }

  // --- saving and restoring (cache/token_store.hpp) ---

  /// One per layer that is not a borrower, in their order.
  Index num_storages() const { return std::ssize(storages_); }
  TileFormat storage_format(Index storage) const { return storage_at(storage).format(); }
  KeyTransform storage_transform(Index storage) const { return storage_at(storage).key_transform(); }
  TokenRange kept(Index storage, Index sequence) const {
    check_sequence(sequence);
    return storage_at(storage).kept(sequence);
  }
  /// One of the tiles that for_each_tile(kept(storage, sequence)) names.
  const std::byte* stored_tile(Index storage, Index sequence, Index kv_head, Index index) const;
  template <class Fill>
  void restore_sequence(Index sequence, std::span<const TokenRange> ranges, Fill fill);

 protected:
  /// options with the storage types that a cache of K and V has.
  template <CacheStorage K, CacheStorage V>
  static CacheOptions with_types(CacheOptions options) {
    if (std::same_as<V, AnyStorage> && !options.value_storage) {
      options.value_storage = options.key_storage;
      if constexpr (!std::same_as<K, AnyStorage>) options.value_storage = Stored<K>::storage;
    }
    options.key_storage = detail::storage_of_cache<K>("key_storage", options.key_storage);
    options.value_storage = detail::storage_of_cache<V>("value_storage", options.value_storage);
    return options;
  }

 private:
  KvCache(const LayerShape& shape, Index max_tokens, CacheOptions options)
      : KvCache(std::span<const LayerShape>(&shape, 1), max_tokens, std::move(options)) {}
  KvCache(CacheOptions options, const KvSharing& sharing);  // of no storages yet

  static std::size_t index(Index i) { return static_cast<std::size_t>(i); }
  std::size_t storage_of(Index layer) const;
  const detail::LayerTiles& at(Index layer) const { return storages_[storage_of(layer)]; }
  const detail::LayerTiles& storage_at(Index storage) const;
  /// The producer whose storage this is.
  Index layer_of(std::size_t storage) const { return layer_of_storage_[storage]; }

  void check_is_producer(Index layer) const;
  void check_sequence(Index sequence, const char* name = "sequence") const;
  void check_only_layer() const;
  const detail::LayerTiles& check_read(Index layer, Index sequence, Index first, Index count, Index kv_head) const;

  // what the forms of an append become
  friend ToLayer;
  friend ToOnlyLayer;
  friend ToSequence;
  friend Ragged;
  using Rows = const ConstArray&;
  using MaybeRows = const std::optional<ConstArray>&;
  void append_in(Index layer, Rows k, MaybeRows v, const AppendOptions& options);
  void append_in(Rows k, MaybeRows v, const AppendOptions& options);
  void append_in(Index layer, Index sequence, Rows k, MaybeRows v, const AppendOptions& options);
  void append_in(Index layer, std::span<const Index> offsets, Rows k, MaybeRows v, const AppendOptions& options);
  void append_to(Index layer, Index first_sequence, Index sequences, Rows k, MaybeRows v, const AppendOptions& options);
  void check_append(Index layer, Index sequences, const ConstArray& k, const std::optional<ConstArray>& v,
                    const AppendOptions& options) const;
  void check_room(const detail::LayerTiles& tiles, Index stored, Index tokens) const;
  static void check_forgotten(const detail::LayerTiles& tiles, const TokenRange& range);
  Index larger(const detail::LayerTiles& tiles, Index tokens) const;
  void make_room(std::span<const Index> tokens);
  void truncate_range(Index first_sequence, Index sequences, Index tokens);

  CacheOptions options_;
  KvSharing sharing_;
  std::vector<std::size_t> storage_of_layer_;  // [layer]
  std::vector<Index> layer_of_storage_;        // [storage]
  std::vector<detail::LayerTiles> storages_;   // [storage]
  detail::ReorderPlan reorder_plan_;           // kept, so that reorder allocates nothing
};

template <CacheStorage K, CacheStorage V>
class KvCache : public KvCache<> {
  using Any = KvCache<>;

 public:
  template <Index H, Index KV, Index D, Index DV>
  KvCache(const Heads<H, KV, D, DV>& heads, Index max_tokens, CacheOptions options = {})
      : Any(heads, max_tokens, Any::with_types<K, V>(std::move(options))) {}
  KvCache(std::span<const LayerShape> layers, Index max_tokens, CacheOptions options = {})
      : Any(layers, max_tokens, Any::with_types<K, V>(std::move(options))) {}
  KvCache(std::span<const LayerShape> layers, const KvSharing& sharing, Index max_tokens, CacheOptions options = {})
      : Any(layers, sharing, max_tokens, Any::with_types<K, V>(std::move(options))) {}

  KvCache copy() const { return KvCache(Any::copy()); }

 private:
  explicit KvCache(Any&& other) : Any(std::move(other)) {}
};

}  // namespace headwise

#include "headwise/cache/kv_cache_functions.inl.hpp"
#include "headwise/cache/kv_cache_moves.inl.hpp"
