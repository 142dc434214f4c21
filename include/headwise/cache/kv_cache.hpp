// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <concepts>
#include <span>
#include <vector>

#include "headwise/cache/cache_layer.hpp"
#include "headwise/cache/check.hpp"
#include "headwise/cache/layer_tiles.hpp"
#include "headwise/cache/reorder_plan.hpp"
#include "headwise/core/kv_sharing.hpp"
#include "headwise/core/quantize.hpp"
#include "headwise/core/view.hpp"

namespace headwise {

struct CacheOptions {
  Index num_sequences = 1;
  /// Whether an append past max_tokens makes room (at least doubling it) instead of being an error.
  bool growing = false;
  /// Whether every append adds |k|² of the keys, as they are stored, to a sum per layer, sequence and KV head: what
  /// key-driven grouping (Khan et al. 2024, arXiv 2408.08454) asks for.
  bool key_norms = false;
};

/// Keys and values of every token so far, of one layer or of all layers of a model, keys stored as K and values as V
/// (float, f16, bf16, e4m3, e5m2, int8 or int4; core/quantize.hpp) in the tiles that kernels read (core/tile_layout.hpp).
/// Layers may differ in heads and dimensions.
///
/// Every function validates first: on std::invalid_argument or std::bad_alloc nothing has changed. Moving is cheap;
/// copying is the explicit copy(). Const functions may run at the same time, and so may appends to different layers.
template <class K, class V = K>
class KvCache {
  static_assert(Storable<K> && Storable<V>, "a KvCache stores float, headwise::f16, bf16, e4m3, e5m2, int8 or int4");

 public:
  /// A cache of one layer for up to max_tokens (at least 1) tokens of each sequence.
  template <Index H, Index KV, Index D, Index DV>
  KvCache(const Heads<H, KV, D, DV>& heads, Index max_tokens, CacheOptions options = {})
      : KvCache(LayerShape{heads.num_kv_heads(), heads.head_dim(), heads.value_dim()}, max_tokens, options) {}

  /// A cache of a whole model: one shape per layer.
  KvCache(std::span<const LayerShape> layers, Index max_tokens, CacheOptions options = {})
      : KvCache(layers, sharing_of(layers), max_tokens, options) {}

  /// The same where layers share keys and values. Those that share have equal shapes; only producers have storage. A
  /// borrower's tokens, tiles, keys, values and norms are those of its source, and nothing is appended to it.
  KvCache(std::span<const LayerShape> layers, const KvSharing& sharing, Index max_tokens, CacheOptions options = {})
      : KvCache(options, sharing) {
    require(max_tokens >= 1 && max_tokens <= kMaxTokens, "max_tokens (", max_tokens, ") must be 1 to ", kMaxTokens);
    require(options.num_sequences >= 1, "num_sequences (", options.num_sequences, ") must be at least 1");
    for (std::size_t i = 0; i < layers.size(); ++i) detail::check_shape(i, layers[i]);
    std::vector<LayerShape> shapes(layers.begin(), layers.end());
    for (LayerShape& shape : shapes)
      if (shape.value_dim == 0) shape.value_dim = shape.head_dim;
    detail::check_shared_shapes(shapes, sharing);
    storages_.reserve(static_cast<std::size_t>(sharing.num_producers()));
    for (const Index l : sharing.producers())
      storages_.emplace_back(TileFormat{kKeys, kValues, shapes[index(l)].num_kv_heads, shapes[index(l)].head_dim,
                                        shapes[index(l)].value_dim},
                             options.num_sequences, max_tokens, options.key_norms);
    reorder_plan_ = detail::ReorderPlan(options.num_sequences);
  }

  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;
  KvCache(KvCache&&) noexcept = default;
  KvCache& operator=(KvCache&&) noexcept = default;

  /// A second cache with the same tokens, in memory of its own.
  KvCache copy() const {
    KvCache result(options_, sharing_);
    result.storages_.reserve(storages_.size());
    for (const auto& tiles : storages_) result.storages_.push_back(tiles.copy(tiles.max_tokens()));
    result.reorder_plan_ = detail::ReorderPlan(num_sequences());
    return result;
  }

  /// Layers of the model, those that borrow included.
  Index num_layers() const { return sharing_.num_layers(); }
  /// Which layer's keys and values each layer reads.
  const KvSharing& sharing() const { return sharing_; }
  Index num_sequences() const { return options_.num_sequences; }
  /// Heads and dimensions of a layer; value_dim is never 0 here.
  LayerShape layer_shape(Index layer = 0) const {
    const TileFormat& format = at(layer).format();
    return {format.num_kv_heads, format.head_dim, format.value_dim};
  }
  /// Tokens that each sequence of the layer has room for; layers differ only after a growing cache has grown.
  Index max_tokens(Index layer = 0) const { return at(layer).max_tokens(); }
  /// Tokens stored.
  Index num_tokens(Index layer = 0, Index sequence = 0) const {
    check_sequence(sequence);
    return at(layer).num_tokens(sequence);
  }

  /// Bytes allocated for tiles, whether written or not, each storage once.
  Index bytes() const {
    Index total = 0;
    for (const auto& tiles : storages_) total += tiles.bytes();
    return total;
  }
  /// Bytes that one token of one sequence takes over all layers, with head_dim padded to 8 and value_dim to 16.
  Index bytes_per_token() const {
    Index total = 0;
    for (const auto& tiles : storages_) total += tiles.format().num_kv_heads * tiles.tile_bytes() / kTileTokens;
    return total;
  }

  /// Appends k [sequence][token][kv_head][head_dim] and v [sequence][token][kv_head][value_dim], of any storage types
  /// and strides, to every sequence of a layer. Numbers are rounded to nearest, ties to even.
  template <ElementType A, ElementType B>
  void append(Index layer, View<A> k, View<B> v) {
    append_to(layer, 0, num_sequences(), View<const A>(k).array(), View<const B>(v).array());
  }
  /// The same for a cache of one layer.
  template <ElementType A, ElementType B>
  void append(View<A> k, View<B> v) {
    check_only_layer();
    append(0, k, v);
  }
  /// Appends to one sequence of a layer; k and v are views of one sequence.
  template <ElementType A, ElementType B>
  void append(Index layer, Index sequence, View<A> k, View<B> v) {
    check_sequence(sequence);
    append_to(layer, sequence, 1, View<const A>(k).array(), View<const B>(v).array());
  }

  /// Keeps the first `tokens` tokens of every sequence in every layer, and all of those that hold fewer.
  /// `tokens` is 0 … the most that any of them holds.
  void truncate(Index tokens) { truncate_range(0, num_sequences(), tokens); }
  /// The same for one sequence.
  void truncate(Index sequence, Index tokens) {
    check_sequence(sequence);
    truncate_range(sequence, 1, tokens);
  }
  /// The same for one sequence of one producer; other layers keep theirs.
  void truncate(Index layer, Index sequence, Index tokens) {
    check_is_producer(layer);
    detail::check_kept(tokens, num_tokens(layer, sequence));
    own(layer).truncate(sequence, tokens);
  }
  /// Forgets all tokens; keeps the memory.
  void clear() { truncate(0); }

  /// Beam search: in every layer, sequence b becomes what sequence parents[b] was, its length and key norms included.
  /// parents has one entry per sequence, each 0 … num_sequences − 1; they may repeat. Copies one sequence per entry that
  /// repeats an earlier one, so a permutation copies nothing, and allocates nothing.
  void reorder(std::span<const Index> parents) {
    require(std::ssize(parents) == num_sequences(), "parents (", parents.size(), ") must hold one per sequence (",
            num_sequences(), ")");
    for (std::size_t b = 0; b < parents.size(); ++b)
      require(parents[b] >= 0 && parents[b] < num_sequences(), "parents[", b, "] (", parents[b],
              ") must be 0 to num_sequences - 1 (", num_sequences() - 1, ")");
    reorder_plan_.make(parents);
    for (auto& tiles : storages_) tiles.reorder(parents, reorder_plan_);
  }

  /// The stored key of one token: writes head_dim floats.
  void read_key(Index layer, Index sequence, Index token, Index kv_head, std::span<float> out) const {
    const auto& tiles = check_read(layer, sequence, token, kv_head);
    const Index dim = tiles.format().head_dim;
    require(std::ssize(out) == dim, "out (", out.size(), " floats) must hold head_dim (", dim, ") floats");
    detail::read_stored_key(tiles.format(), tiles.tile(sequence, kv_head, token / kTileTokens), token % kTileTokens,
                            out.data());
  }
  /// The stored value of one token: writes value_dim floats.
  void read_value(Index layer, Index sequence, Index token, Index kv_head, std::span<float> out) const {
    const auto& tiles = check_read(layer, sequence, token, kv_head);
    const Index dim = tiles.format().value_dim;
    require(std::ssize(out) == dim, "out (", out.size(), " floats) must hold value_dim (", dim, ") floats");
    detail::read_stored_value(tiles.format(), tiles.tile(sequence, kv_head, token / kTileTokens), token % kTileTokens,
                              out.data());
  }

  /// The sum of |k|² over the stored tokens of one KV head, with every key as it is stored. Bit for bit a function of
  /// those keys: however they were appended, and whatever was appended and truncated between. Throws
  /// std::invalid_argument unless CacheOptions::key_norms is set.
  double key_norm_squares(Index layer, Index sequence, Index kv_head) const {
    require(options_.key_norms, "key_norms (false) of CacheOptions must be true for key_norm_squares");
    const auto& tiles = at(layer);
    check_sequence(sequence);
    detail::check_kv_head(tiles, kv_head);
    return tiles.key_norm_squares(sequence, kv_head);
  }

  /// A layer as attention reads it. Refers to this cache (also after it was moved) and shows later appends.
  CacheLayer layer(Index i) const { return CacheLayer(at(i)); }
  /// The layer of a cache of one layer.
  CacheLayer layer() const {
    check_only_layer();
    return layer(0);
  }

 private:
  static constexpr Storage kKeys = Stored<K>::storage, kValues = Stored<V>::storage;
  static constexpr Index kMaxTokens = Index{1} << 48;

  KvCache(const LayerShape& shape, Index max_tokens, CacheOptions options)
      : KvCache(std::span<const LayerShape>(&shape, 1), max_tokens, options) {}
  /// Of no storages yet.
  KvCache(CacheOptions options, const KvSharing& sharing) : options_(options), sharing_(sharing) {
    std::size_t producers = 0;
    for (Index l = 0; l < sharing.num_layers(); ++l)
      storage_of_layer_.push_back(sharing.is_producer(l) ? producers++ : storage_of_layer_[index(sharing.source(l))]);
  }
  static KvSharing sharing_of(std::span<const LayerShape> layers) {
    require(!layers.empty(), "layers (0) of a KvCache must be at least 1");
    return KvSharing::none(std::ssize(layers));
  }
  static std::size_t index(Index i) { return static_cast<std::size_t>(i); }

  const detail::LayerTiles& at(Index layer) const {
    require(layer >= 0 && layer < num_layers(), "layer (", layer, ") must be 0 to num_layers - 1 (", num_layers() - 1,
            ")");
    return storages_[storage_of_layer_[index(layer)]];
  }
  void check_is_producer(Index layer) const {
    require(sharing_.is_producer(layer), "layer (", layer, ") reads the keys and values of layer ",
            sharing_.source(layer), ": only a layer that makes its own can be appended to or truncated");
  }
  /// To change; checked before.
  detail::LayerTiles& own(Index layer) { return storages_[storage_of_layer_[index(layer)]]; }
  void check_sequence(Index sequence) const {
    require(sequence >= 0 && sequence < num_sequences(), "sequence (", sequence, ") must be 0 to num_sequences - 1 (",
            num_sequences() - 1, ")");
  }
  void check_only_layer() const {
    require(num_layers() == 1, "a KvCache of ", num_layers(),
            " layers needs the layer to be named: expected num_layers 1");
  }
  const detail::LayerTiles& check_read(Index layer, Index sequence, Index token, Index kv_head) const {
    const auto& tiles = at(layer);
    check_sequence(sequence);
    require(token >= 0 && token < tiles.num_tokens(sequence), "token (", token, ") must be 0 to num_tokens - 1 (",
            tiles.num_tokens(sequence) - 1, ")");
    detail::check_kv_head(tiles, kv_head);
    return tiles;
  }
  void append_to(Index layer, Index first_sequence, Index sequences, const ConstArray& k, const ConstArray& v) {
    check_is_producer(layer);
    const TileFormat& shape = at(layer).format();
    detail::check_rows("k", k, sequences, k.tokens, shape.num_kv_heads, shape.head_dim);
    detail::check_rows("v", v, sequences, k.tokens, shape.num_kv_heads, shape.value_dim);
    auto& tiles = own(layer);
    if (k.tokens == 0) return;  // there may be no memory to point into
    make_room(tiles, first_sequence, sequences, k.tokens);
    for (Index b = 0; b < sequences; ++b) tiles.append(first_sequence + b, k, v, b, nullptr, {});
  }

  /// Room for `tokens` more in each of the sequences.
  void make_room(detail::LayerTiles& tiles, Index first_sequence, Index sequences, Index tokens) const {
    Index stored = 0;
    for (Index b = 0; b < sequences; ++b) stored = std::max(stored, tiles.num_tokens(first_sequence + b));
    if (tokens <= tiles.max_tokens() - stored) return;
    require(options_.growing, "tokens (", tokens, ") to append must fit beside the ", stored, " stored: max_tokens is ",
            tiles.max_tokens());
    require(tokens <= kMaxTokens - stored, "tokens (", tokens, ") to append must be at most ", kMaxTokens - stored);
    tiles = tiles.copy(std::min(kMaxTokens, std::max(stored + tokens, 2 * tiles.max_tokens())));
  }

  void truncate_range(Index first_sequence, Index sequences, Index tokens) {
    Index most = 0;
    for (const auto& tiles : storages_)
      for (Index b = 0; b < sequences; ++b) most = std::max(most, tiles.num_tokens(first_sequence + b));
    detail::check_kept(tokens, most);
    for (auto& tiles : storages_)
      for (Index b = first_sequence; b < first_sequence + sequences; ++b) tiles.truncate(b, tokens);
  }

  CacheOptions options_;
  KvSharing sharing_;
  std::vector<std::size_t> storage_of_layer_;  // [layer]
  std::vector<detail::LayerTiles> storages_;   // [producer]
  detail::ReorderPlan reorder_plan_;           // kept, so that reorder allocates nothing
};

}  // namespace headwise
