// SPDX-License-Identifier: MIT
#pragma once

#include <cstring>

#include "headwise/cache/row_codes.hpp"
#include "headwise/core/heads.hpp"

// Rows of codes in and out of tiles (core/tile_layout.hpp).

namespace headwise::detail {

inline std::uint16_t* scales_of_keys(Storage storage, void* tile, Index head_dim) {
  return reinterpret_cast<std::uint16_t*>(static_cast<std::byte*>(tile) + key_code_bytes(storage, head_dim));
}
inline std::uint16_t* scales_of_values(Storage storage, void* tile, Index value_dim) {
  return reinterpret_cast<std::uint16_t*>(static_cast<std::byte*>(tile) + value_code_bytes(storage, value_dim));
}

/// Up to a block of rows as codes: codes [count][padded], scales [count][kMaxRowScales].
template <Storage S>
struct CodeRows {
  alignas(64) Bits<S> codes[kBlockTokens * kMaxHeadDim];
  std::uint16_t scales[kBlockTokens * kMaxRowScales];
};

template <Storage S, bool kToTile>
inline void move_scales(std::uint16_t* in_tile, std::uint16_t* rows, Index dim, Index slot, Index count) {
  for (Index t = 0; t < count; ++t)
    for (Index i = 0; i < scales_per_token(S, dim); ++i) {
      std::uint16_t &a = in_tile[i * kTileTokens + slot + t], &b = rows[t * kMaxRowScales + i];
      if constexpr (kToTile)
        a = b;
      else
        b = a;
    }
}

/// rows → slots slot … slot + count − 1 of a K tile; all of one 16-token block.
template <Storage S>
[[gnu::noinline]] inline void put_keys(void* tile, Index head_dim, Index slot, Index count, CodeRows<S>& rows) {
  constexpr Index kKappa = kappa_of(S);
  const Index padded = padded_head_dim(head_dim), units = padded / kKappa;
  auto* const block =
      static_cast<LaneBits<S>*>(tile) + slot / kBlockTokens * kBlockTokens * units + slot % kBlockTokens;
  if (count == kBlockTokens) {
    // a whole line of the tile at a time
    for (Index u = 0; u < units; ++u)
      for (Index t = 0; t < kBlockTokens; ++t)
        block[u * kBlockTokens + t] = to_lane<S>(rows.codes + t * padded + u * kKappa);
  } else {
    for (Index t = 0; t < count; ++t)
      for (Index u = 0; u < units; ++u) block[u * kBlockTokens + t] = to_lane<S>(rows.codes + t * padded + u * kKappa);
  }
  if constexpr (has_scales(S))
    move_scales<S, true>(scales_of_keys(S, tile, head_dim), rows.scales, head_dim, slot, count);
}
template <Storage S>
[[gnu::noinline]] inline void get_keys(const void* tile, Index head_dim, Index slot, Index count, CodeRows<S>& rows) {
  constexpr Index kKappa = kappa_of(S);
  const Index padded = padded_head_dim(head_dim), units = padded / kKappa;
  const auto* const block =
      static_cast<const LaneBits<S>*>(tile) + slot / kBlockTokens * kBlockTokens * units + slot % kBlockTokens;
  for (Index t = 0; t < count; ++t)
    for (Index u = 0; u < units; ++u) from_lane<S>(block[u * kBlockTokens + t], rows.codes + t * padded + u * kKappa);
  if constexpr (has_scales(S))
    move_scales<S, false>(scales_of_keys(S, const_cast<void*>(tile), head_dim), rows.scales, head_dim, slot, count);
}

/// Element j = 0 of `slot` in the panel of a V tile that begins with dimension d; element j lies kappa further for each j.
/// Of int4, half a byte (lanes of 8 codes in 4 bytes): low for the first four slots of a lane, high for the others.
template <Storage S>
inline Bits<S>* value_elements(void* tile, Index d, Index width, Index slot) {
  constexpr Index kKappa = kappa_of(S);
  const Index lanes = d * kTileTokens + slot / kKappa * kKappa * width;
  if constexpr (S == Storage::int4) return static_cast<std::uint8_t*>(tile) + lanes / 2 + slot % 4;
  return static_cast<Bits<S>*>(tile) + lanes + slot % kKappa;
}

/// rows → slots slot … slot + count − 1 of a V tile; all of one 16-token block.
template <Storage S>
[[gnu::noinline]] inline void put_values(void* tile, Index value_dim, Index slot, Index count, CodeRows<S>& rows) {
  constexpr Index kKappa = kappa_of(S);
  const Index padded = padded_value_dim(value_dim);
  for (Index d = 0; d < padded; d += kPanelDims) {
    const Index width = panel_dims(value_dim, d);
    for (Index t = 0; t < count; ++t) {
      Bits<S>* const to = value_elements<S>(tile, d, width, slot + t);
      const Bits<S>* const row = rows.codes + t * padded + d;
      if constexpr (kKappa == 1) {
        std::memcpy(to, row, static_cast<std::size_t>(width) * sizeof(Bits<S>));
      } else if constexpr (S == Storage::int4) {
        const unsigned shift = (slot + t) % kKappa < 4 ? 0 : 4, other = 0xf0u >> shift;
        for (Index j = 0; j < width; ++j)
          to[4 * j] = static_cast<std::uint8_t>((to[4 * j] & other) | static_cast<unsigned>(row[j]) << shift);
      } else {
        for (Index j = 0; j < width; ++j) to[kKappa * j] = row[j];
      }
    }
  }
  if constexpr (has_scales(S))
    move_scales<S, true>(scales_of_values(S, tile, value_dim), rows.scales, value_dim, slot, count);
}
template <Storage S>
[[gnu::noinline]] inline void get_values(const void* tile, Index value_dim, Index slot, Index count,
                                         CodeRows<S>& rows) {
  constexpr Index kKappa = kappa_of(S), kStep = S == Storage::int4 ? 4 : kKappa;
  const Index padded = padded_value_dim(value_dim);
  for (Index d = 0; d < padded; d += kPanelDims) {
    const Index width = panel_dims(value_dim, d);
    for (Index t = 0; t < count; ++t) {
      const Bits<S>* const from = value_elements<S>(const_cast<void*>(tile), d, width, slot + t);
      Bits<S>* const row = rows.codes + t * padded + d;
      const unsigned shift = S == Storage::int4 && (slot + t) % kKappa >= 4 ? 4 : 0;
      for (Index j = 0; j < width; ++j)
        row[j] = S == Storage::int4 ? static_cast<Bits<S>>(from[kStep * j] >> shift & 15u) : from[kStep * j];
    }
  }
  if constexpr (has_scales(S))
    move_scales<S, false>(scales_of_values(S, const_cast<void*>(tile), value_dim), rows.scales, value_dim, slot, count);
}

}  // namespace headwise::detail
