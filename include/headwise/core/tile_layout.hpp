// SPDX-License-Identifier: MIT
#pragma once

#include <cstring>

#include "headwise/core/index.hpp"
#include "headwise/core/storage.hpp"

// How a tile of K and V lies in memory: a function of the storage type alone, the same on every ISA.
//
// A tile is 64 consecutive tokens of one KV head, [K tile | V tile], one contiguous stream. Kernels think in lanes of
// one token (K) or one value dimension (V) and step through the other axis, `kappa` elements per lane and step:
//   K tile  [4 blocks][head_dim/kappa][16 tokens][kappa]
//   V tile  [value_dim/32 panels][64/kappa][32 dims][kappa], and a last panel of 16 dims where value_dim needs one
// Dimensions are padded with zeros: head_dim to 8, value_dim to 16.

namespace headwise {

inline constexpr Index kTileTokens = 64;   ///< tokens of a tile
inline constexpr Index kBlockTokens = 16;  ///< tokens of a K block
inline constexpr Index kPanelDims = 32;    ///< value dimensions of a V panel
inline constexpr Index kTileAlignment = 64;

/// Elements per lane and step: bf16 comes in pairs because that is what vdpbf16ps multiplies; f16 is widened 16 bits
/// a lane and needs no pairs.
constexpr Index kappa_of(Storage storage) { return storage == Storage::bf16 ? 2 : 1; }

constexpr Index padded_head_dim(Index head_dim) { return round_up(head_dim, 8); }
constexpr Index padded_value_dim(Index value_dim) { return round_up(value_dim, 16); }

constexpr Index key_tile_bytes(Storage storage, Index head_dim) {
  return kTileTokens * padded_head_dim(head_dim) * size_of(storage);
}
constexpr Index value_tile_bytes(Storage storage, Index value_dim) {
  return kTileTokens * padded_value_dim(value_dim) * size_of(storage);
}
/// Bytes of one tile of one KV head, K and V.
constexpr Index tile_bytes(Storage storage, Index head_dim, Index value_dim) {
  return key_tile_bytes(storage, head_dim) + value_tile_bytes(storage, value_dim);
}

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
