// SPDX-License-Identifier: MIT
#pragma once

#include <cstring>

#include "headwise/core/index.hpp"
#include "headwise/core/storage.hpp"

// How a tile of K and V lies in memory: a function of the storage type alone, the same on every ISA.
//
// A tile is 64 consecutive tokens of one KV head, [K tile | V tile], one contiguous stream. Kernels think in lanes of
// one token (K) or one value dimension (V) and step through the other axis, `kappa` elements per lane and step:
//   K tile  [4 blocks][head_dim/kappa][16 tokens][kappa], scales
//   V tile  [value_dim/32 panels][64/kappa][32 dims][kappa], and a last panel of 16 dims where value_dim needs one; scales
// Dimensions are padded with zeros: head_dim to 8, value_dim to 16.
//
// A lane of int4 is 8 codes in 4 bytes: byte j holds element j in its low half and element j + 4 in its high half, so that
// a mask and a shift give two lanes of 4 bytes. Scales (core/quantize.hpp) are bf16: one per token of int8, [64]; of int4
// one per token and 32 dimensions, [dims/32][64].
//
// Where values are the first dimensions of the keys (TileFormat::values_in_keys), there is a K tile alone.

namespace headwise {

inline constexpr Index kTileTokens = 64;   ///< tokens of a tile
inline constexpr Index kBlockTokens = 16;  ///< tokens of a K block
inline constexpr Index kPanelDims = 32;    ///< value dimensions of a V panel
inline constexpr Index kTileAlignment = 64;

inline constexpr Index kScaleDims = 32;  ///< dimensions of int4 that share a scale; those of a V panel

/// Elements per lane and step: what fills 32 bits, which is what the integer and bf16 dot products multiply; f16 is widened
/// 16 bits a lane and needs no pairs.
constexpr Index kappa_of(Storage storage) {
  constexpr Index kappas[kStorages] = {1, 1, 2, 4, 4, 4, 8};
  return kappas[static_cast<int>(storage)];
}

constexpr Index padded_head_dim(Index head_dim) { return round_up(head_dim, 8); }
constexpr Index padded_value_dim(Index value_dim) { return round_up(value_dim, 16); }

/// Bytes of the numbers or codes of a K or V tile; its scales, if any, lie behind them.
constexpr Index key_code_bytes(Storage storage, Index head_dim) {
  return kTileTokens * padded_head_dim(head_dim) * bits_of(storage) / 8;
}
constexpr Index value_code_bytes(Storage storage, Index value_dim) {
  return kTileTokens * padded_value_dim(value_dim) * bits_of(storage) / 8;
}
/// Scales of a tile of `dim` dimensions per token.
constexpr Index scales_per_token(Storage storage, Index dim) {
  return storage == Storage::int8 ? 1 : storage == Storage::int4 ? ceil_div(dim, kScaleDims) : 0;
}
/// Which of a tile's scales is that of dimension d of token t (0 … 63).
constexpr Index scale_index(Storage storage, Index t, Index d) {
  return storage == Storage::int4 ? d / kScaleDims * kTileTokens + t : t;
}

constexpr Index key_tile_bytes(Storage storage, Index head_dim) {
  return key_code_bytes(storage, head_dim) + 2 * kTileTokens * scales_per_token(storage, head_dim);
}
constexpr Index value_tile_bytes(Storage storage, Index value_dim) {
  return value_code_bytes(storage, value_dim) + 2 * kTileTokens * scales_per_token(storage, value_dim);
}
/// Bytes of one tile of one KV head, K and V of the same storage type.
constexpr Index tile_bytes(Storage storage, Index head_dim, Index value_dim) {
  return key_tile_bytes(storage, head_dim) + value_tile_bytes(storage, value_dim);
}

/// Shape and storage of the keys and values of one layer.
struct TileFormat {
  Storage key_storage;
  Storage value_storage;
  Index num_kv_heads;
  Index head_dim;
  Index value_dim;
  /// Whether values are the first value_dim (at most head_dim) dimensions of the keys, and stored as these alone: multi-head
  /// latent attention in its absorbed form. A tile is a K tile then, value_storage is key_storage.
  bool values_in_keys = false;

  Index key_bytes() const { return key_tile_bytes(key_storage, head_dim); }
  Index value_bytes() const { return values_in_keys ? 0 : value_tile_bytes(value_storage, value_dim); }
  /// Of one tile of one KV head, K and V.
  Index bytes() const { return key_bytes() + value_bytes(); }
  friend bool operator==(const TileFormat&, const TileFormat&) = default;
};

/// Element index in a K tile of dimension d of token t (0 … 63).
constexpr Index key_index(Storage storage, Index head_dim, Index t, Index d) {
  const Index kappa = kappa_of(storage);
  return t / kBlockTokens * kBlockTokens * padded_head_dim(head_dim) + d / kappa * kBlockTokens * kappa +
         t % kBlockTokens * kappa + d % kappa;
}

/// Dims of the panel that holds value dimension d: 32, or 16 in the last one.
constexpr Index panel_dims(Index value_dim, Index d) {
  const Index rest = padded_value_dim(value_dim) - d / kPanelDims * kPanelDims;
  return rest < kPanelDims ? rest : kPanelDims;
}

/// Element index in a V tile of dimension d of token t (0 … 63).
constexpr Index value_index(Storage storage, Index value_dim, Index t, Index d) {
  const Index kappa = kappa_of(storage), width = panel_dims(value_dim, d);
  return d / kPanelDims * kPanelDims * kTileTokens + t / kappa * width * kappa + d % kPanelDims * kappa + t % kappa;
}

}  // namespace headwise
