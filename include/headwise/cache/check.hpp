// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <concepts>
#include <optional>
#include <span>
#include <vector>

#include "headwise/cache/append_options.hpp"
#include "headwise/cache/cache_options.hpp"
#include "headwise/cache/layer_tiles.hpp"
#include "headwise/core/error.hpp"
#include "headwise/core/heads.hpp"
#include "headwise/core/kv_sharing.hpp"
#include "headwise/core/view.hpp"
#include "headwise/position/rope.hpp"

// What the functions of a KvCache ask of their arguments. Each throws std::invalid_argument that names the argument.

namespace headwise::detail {

/// Most tokens of a sequence.
inline constexpr Index kMaxTokens = Index{1} << 48;

/// How a layer of this shape, its value_dim resolved, is stored.
inline TileFormat format_of(const LayerShape& shape, Storage keys, Storage values) {
  return {keys,
          shape.values_in_keys ? keys : values,
          shape.num_kv_heads,
          shape.head_dim,
          shape.value_dim,
          shape.values_in_keys};
}

inline void check_shape(std::size_t i, const LayerShape& shape) {
  constexpr Index kMaxKvHeads = Index{1} << 20;
  require(shape.num_kv_heads >= 1 && shape.num_kv_heads <= kMaxKvHeads, "layers[", i, "].num_kv_heads (",
          shape.num_kv_heads, ") must be 1 to ", kMaxKvHeads);
  require(shape.head_dim >= 1 && shape.head_dim <= kMaxHeadDim, "layers[", i, "].head_dim (", shape.head_dim,
          ") must be 1 to ", kMaxHeadDim);
  require(shape.value_dim >= 0 && shape.value_dim <= kMaxHeadDim, "layers[", i, "].value_dim (", shape.value_dim,
          ") must be 0 (head_dim) to ", kMaxHeadDim);
  require(!shape.values_in_keys || shape.value_dim <= shape.head_dim, "layers[", i, "].value_dim (", shape.value_dim,
          ") must be at most head_dim (", shape.head_dim, ") where values_in_keys is true");
  require(shape.window >= 0 && shape.window <= kMaxTokens, "layers[", i, "].window (", shape.window,
          ") must be 0 (all tokens) to ", kMaxTokens);
  require(shape.num_sink_tokens >= 0 && shape.num_sink_tokens <= kMaxTokens, "layers[", i, "].num_sink_tokens (",
          shape.num_sink_tokens, ") must be 0 to ", kMaxTokens);
  require(shape.num_sink_tokens == 0 || shape.window > 0, "layers[", i, "].num_sink_tokens (", shape.num_sink_tokens,
          ") must be 0 where window is 0: such a layer keeps every token");
}

inline void check_options(const CacheOptions& options, std::span<const LayerShape> layers, const KvSharing& sharing) {
  require(options.num_sequences >= 1, "num_sequences (", options.num_sequences, ") must be at least 1");
  require(options.max_append >= 1 && options.max_append <= kMaxTokens, "max_append (", options.max_append,
          ") must be 1 to ", kMaxTokens);
  const auto& scales = options.key_channel_scales;
  require(scales.empty() || scales.size() == layers.size(), "key_channel_scales (", scales.size(),
          ") must be none or one per layer (", layers.size(), ")");
  for (std::size_t i = 0; i < layers.size(); ++i) {
    require(!options.key_norms || layers[i].window == 0, "key_norms (true) must be false where layers[", i,
            "].window is not 0 (", layers[i].window, "): a ring forgets keys");
    require(!options.hadamard_keys || !layers[i].values_in_keys, "hadamard_keys (true) must be false where layers[", i,
            "].values_in_keys is true: what is done to the keys would be done to the values");
    if (scales.empty() || scales[i].empty()) continue;
    require(!layers[i].values_in_keys, "key_channel_scales[", i, "] (", scales[i].size(),
            " factors) must be empty where layers[", i,
            "].values_in_keys is true: what is done to the keys would be done to the values");
    const Index layer = static_cast<Index>(i), size = layers[i].num_kv_heads * layers[i].head_dim;
    require(sharing.is_producer(layer), "key_channel_scales[", i, "] (", scales[i].size(),
            " factors) must be empty: layer ", i, " reads the keys of layer ", sharing.source(layer));
    require(std::ssize(scales[i]) == size, "key_channel_scales[", i, "] (", scales[i].size(),
            " factors) must hold num_kv_heads x head_dim (", size, ")");
    for (std::size_t c = 0; c < scales[i].size(); ++c)
      require(std::isnormal(scales[i][c]) && scales[i][c] > 0, "key_channel_scales[", i, "][", c, "] (", scales[i][c],
              ") must be above 0 and finite");
  }
}

/// The storage type that a cache of this type, or else its options, says.
template <CacheStorage T>
Storage storage_of_cache(const char* name, std::optional<Storage> option) {
  if constexpr (std::same_as<T, AnyStorage>) {
    require(option.has_value(), name, " (unset) of CacheOptions must be given for a cache whose type leaves it open");
    require(static_cast<int>(*option) < kStorages, name, " (", static_cast<int>(*option), ") must be a storage type");
    return *option;
  } else {
    require(!option || *option == Stored<T>::storage, name, " (", name_of(option.value_or(Storage::f32)), ") must be ",
            name_of(Stored<T>::storage), ", the compile-time type");
    return Stored<T>::storage;
  }
}

inline void check_kv_head(const LayerTiles& tiles, Index kv_head) {
  require(kv_head >= 0 && kv_head < tiles.format().num_kv_heads, "kv_head (", kv_head,
          ") must be 0 to num_kv_heads - 1 (", tiles.format().num_kv_heads - 1, ")");
}

inline void check_rows(const char* name, const ConstArray& rows, Index sequences, Index tokens, Index heads,
                       Index dim) {
  require(rows.sequences == sequences, "sequences (", rows.sequences, ") of ", name, " must be ", sequences);
  require(rows.tokens == tokens, "tokens (", rows.tokens, ") of ", name, " must equal the tokens of k (", tokens, ")");
  require(rows.heads == heads, "heads (", rows.heads, ") of ", name, " must be num_kv_heads (", heads, ")");
  require(rows.dim == dim, "dim (", rows.dim, ") of ", name, " must be ", dim);
}

/// That what a Rope turns is not part of the values.
inline void check_turns_keys_alone(const Rope* rope, const TileFormat& format) {
  if (!rope || !format.values_in_keys) return;
  require(rope->options().rotary_begin >= format.value_dim, "rotary_begin (", rope->options().rotary_begin,
          ") of the Rope must be at least value_dim (", format.value_dim,
          "): the dimensions before it are the values of the layer (values_in_keys is true)");
}

/// The arrays of an append, `v` unset where it was not given, fit a layer.
inline void check_appended(Index layer, const TileFormat& format, Index sequences, const ConstArray& k,
                           const std::optional<ConstArray>& v, const AppendOptions& options) {
  require(v || format.values_in_keys, "v (not given) must be given: layer ", layer,
          " stores values beside keys (values_in_keys is false)");
  require(!v || !format.values_in_keys, "v (given) must not be given: values of layer ", layer, " are the first ",
          format.value_dim, " dimensions of its keys (values_in_keys is true)");
  check_rows("k", k, sequences, k.tokens, format.num_kv_heads, format.head_dim);
  if (v) check_rows("v", *v, sequences, k.tokens, format.num_kv_heads, format.value_dim);
  check_append_options(options, sequences * k.tokens, format.head_dim);
  require(!options.key_norm || !format.values_in_keys,
          "key_norm (given) must not be given: it would change the values, which are in the keys of layer ", layer);
  check_turns_keys_alone(options.rope, format);
}

inline void check_append_to_ring(const LayerTiles& tiles, Index layer, Index tokens) {
  require(!tiles.is_ring() || tokens <= tiles.options().max_append, "tokens (", tokens,
          ") to append must be at most max_append (", tiles.options().max_append, ") of CacheOptions: layer ", layer,
          " is a ring that has room for so many beside its window");
}

inline void check_out(const char* dim_name, std::size_t size, Index count, Index dim) {
  require(static_cast<Index>(size) == count * dim, "out (", size, " floats) must hold ", count == 1 ? "" : "count x ",
          dim_name, " (", count * dim, ") floats");
}

inline void check_kept(Index tokens, Index stored) {
  require(tokens >= 0 && tokens <= stored, "tokens (", tokens, ") to keep must be 0 to the tokens stored (", stored,
          ")");
}
inline void check_truncate(const LayerTiles& tiles, Index layer, Index sequence, Index tokens) {
  const TokenRange& kept = tiles.kept(sequence);
  require(tokens >= kept.end || tiles.can_truncate(sequence, tokens), "tokens (", tokens, ") to keep must leave layer ",
          layer, " the ", tiles.options().window, " before them, but of sequence ", sequence,
          " it has forgotten tokens ", kept.sinks, " to ", kept.begin - 1);
}

/// That tokens [first, last) of a sequence are stored.
inline void check_token_range(const LayerTiles& tiles, Index layer, Index sequence, Index first, Index last) {
  require(first >= 0 && first <= last, "first (", first, ") must be 0 to last (", last, ")");
  require(last <= tiles.num_tokens(sequence), "last (", last, ") must be at most the ", tiles.num_tokens(sequence),
          " tokens that layer ", layer, " has stored of sequence ", sequence);
}
/// That none of them was forgotten.
inline void check_held(const LayerTiles& tiles, Index sequence, Index first, Index last) {
  const TokenRange& kept = tiles.kept(sequence);
  require(kept.begin == 0 || first == last || last <= kept.sinks || first >= kept.begin, "tokens ", first, " to ",
          last - 1, " of sequence ", sequence, " must not have been forgotten: kept are the first ", kept.sinks,
          " and ", kept.begin, " to ", kept.end - 1);
}

/// That a layer's keys can be moved by `distance` tokens.
inline void check_rope(const Rope* rope, const LayerTiles& tiles, Index layer, Index distance) {
  if (!rope) return;
  require(rope->head_dim() == tiles.format().head_dim, "head_dim (", rope->head_dim(), ") of the Rope of layer ", layer,
          " must be that of the layer (", tiles.format().head_dim, ")");
  check_turns_keys_alone(rope, tiles.format());
  rope->turn_between(distance);  // refuses what cannot move keys
}

/// Layers that share must have the same heads and dimensions; their value_dim is resolved.
inline void check_shared_shapes(std::span<const LayerShape> layers, const KvSharing& sharing) {
  require(sharing.num_layers() == std::ssize(layers), "sharing (", sharing.num_layers(),
          " layers) must be of as many layers as there are shapes (", layers.size(), ")");
  for (Index l = 0; l < sharing.num_layers(); ++l) {
    const LayerShape &have = layers[static_cast<std::size_t>(l)],
                     &want = layers[static_cast<std::size_t>(sharing.source(l))];
    require(have == want, "layers[", l, "] (num_kv_heads ", have.num_kv_heads, ", head_dim ", have.head_dim,
            ", value_dim ", have.value_dim, ", window ", have.window, ", num_sink_tokens ", have.num_sink_tokens,
            ", values_in_keys ", have.values_in_keys, ") reads the keys and values of layers[", sharing.source(l),
            "] and must have its num_kv_heads ", want.num_kv_heads, ", head_dim ", want.head_dim, ", value_dim ",
            want.value_dim, ", window ", want.window, ", num_sink_tokens ", want.num_sink_tokens, ", values_in_keys ",
            want.values_in_keys);
  }
}

/// The shapes of a cache's layers, with value_dim resolved.
inline std::vector<LayerShape> checked_shapes(std::span<const LayerShape> layers, const KvSharing& sharing) {
  for (std::size_t i = 0; i < layers.size(); ++i) check_shape(i, layers[i]);
  std::vector<LayerShape> shapes(layers.begin(), layers.end());
  for (LayerShape& shape : shapes)
    if (shape.value_dim == 0) shape.value_dim = shape.head_dim;
  check_shared_shapes(shapes, sharing);
  return shapes;
}

}  // namespace headwise::detail
