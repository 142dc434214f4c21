// SPDX-License-Identifier: MIT
#pragma once

#include "headwise/cache/layer_tiles.hpp"
#include "headwise/core/error.hpp"
#include "headwise/core/heads.hpp"
#include "headwise/core/kv_sharing.hpp"
#include "headwise/core/view.hpp"

// What the functions of a KvCache ask of their arguments. Each throws std::invalid_argument that names the argument.

namespace headwise::detail {

inline void check_shape(std::size_t i, const LayerShape& shape) {
  constexpr Index kMaxKvHeads = Index{1} << 20;
  require(shape.num_kv_heads >= 1 && shape.num_kv_heads <= kMaxKvHeads, "layers[", i, "].num_kv_heads (",
          shape.num_kv_heads, ") must be 1 to ", kMaxKvHeads);
  require(shape.head_dim >= 1 && shape.head_dim <= kMaxHeadDim, "layers[", i, "].head_dim (", shape.head_dim,
          ") must be 1 to ", kMaxHeadDim);
  require(shape.value_dim >= 0 && shape.value_dim <= kMaxHeadDim, "layers[", i, "].value_dim (", shape.value_dim,
          ") must be 0 (head_dim) to ", kMaxHeadDim);
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

inline void check_kept(Index tokens, Index stored) {
  require(tokens >= 0 && tokens <= stored, "tokens (", tokens, ") to keep must be 0 to the tokens stored (", stored,
          ")");
}

/// Layers that share must have the same heads and dimensions; their value_dim is resolved.
inline void check_shared_shapes(std::span<const LayerShape> layers, const KvSharing& sharing) {
  require(sharing.num_layers() == std::ssize(layers), "sharing (", sharing.num_layers(),
          " layers) must be of as many layers as there are shapes (", layers.size(), ")");
  for (Index l = 0; l < sharing.num_layers(); ++l) {
    const LayerShape &have = layers[static_cast<std::size_t>(l)],
                     &want = layers[static_cast<std::size_t>(sharing.source(l))];
    require(have == want, "layers[", l, "] (num_kv_heads ", have.num_kv_heads, ", head_dim ", have.head_dim,
            ", value_dim ", have.value_dim, ") reads the keys and values of layers[", sharing.source(l),
            "] and must have its num_kv_heads ", want.num_kv_heads, ", head_dim ", want.head_dim, ", value_dim ",
            want.value_dim);
  }
}

}  // namespace headwise::detail
