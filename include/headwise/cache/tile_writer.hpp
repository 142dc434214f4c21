// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "headwise/core/heads.hpp"
#include "headwise/core/storage.hpp"
#include "headwise/core/tile_layout.hpp"

// How rows of K and V of any storage type enter tiles: convert up to 16 rows into a small buffer, then move whole lanes
// from there. The buffer is padded with zeros, so what is written includes the padding of the tile.

namespace headwise::detail {

template <Storage S>
using Bits = std::conditional_t<S == Storage::f32, std::uint32_t, std::uint16_t>;

template <Storage From, Storage To>
inline Bits<To> convert_bits(Bits<From> bits) {
  if constexpr (From == To) {
    return bits;
  } else {
    float x;
    if constexpr (From == Storage::f32) x = std::bit_cast<float>(bits);
    if constexpr (From == Storage::f16) x = from_f16_bits(bits);
    if constexpr (From == Storage::bf16) x = from_bf16_bits(bits);
    if constexpr (To == Storage::f32) return std::bit_cast<std::uint32_t>(x);
    if constexpr (To == Storage::f16) return to_f16_bits(x);
    if constexpr (To == Storage::bf16) return to_bf16_bits(x);
  }
}

/// `dim` elements that lie `stride` elements apart → out, with zeros up to `padded`. The source may be misaligned.
template <Storage From, Storage To>
inline void read_row(const void* row, Index stride, Index dim, Index padded, Bits<To>* out) {
  const auto* bytes = static_cast<const char*>(row);
  if (stride == 1 && From == To) {
    std::memcpy(out, bytes, static_cast<std::size_t>(dim) * sizeof(Bits<To>));
  } else if (stride == 1) {
    for (Index d = 0; d < dim; ++d) {
      Bits<From> bits;
      std::memcpy(&bits, bytes + d * static_cast<Index>(sizeof bits), sizeof bits);
      out[d] = convert_bits<From, To>(bits);
    }
  } else {
    for (Index d = 0; d < dim; ++d) {
      Bits<From> bits;
      std::memcpy(&bits, bytes + d * stride * static_cast<Index>(sizeof bits), sizeof bits);
      out[d] = convert_bits<From, To>(bits);
    }
  }
  std::fill(out + dim, out + padded, Bits<To>{0});
}

/// What moves as one piece into a K tile: the kappa elements of one token and step.
template <Storage S>
using KeyUnit = std::conditional_t<kappa_of(S) * size_of(S) == 4, std::uint32_t, std::uint16_t>;

/// rows [count][padded_head_dim] → slots slot … slot + count − 1 of a K tile; all of one 16-token block.
template <Storage S>
inline void put_keys(void* tile, Index head_dim, Index slot, Index count, const Bits<S>* rows) {
  using Unit = KeyUnit<S>;
  const Index units = padded_head_dim(head_dim) / kappa_of(S);
  Unit* block = static_cast<Unit*>(tile) + slot / kBlockTokens * kBlockTokens * units + slot % kBlockTokens;
  const auto unit = [&](Index t, Index u) {
    Unit x;
    std::memcpy(&x, rows + (t * units + u) * kappa_of(S), sizeof x);
    return x;
  };
  if (count == kBlockTokens) {
    // a whole line of the tile at a time
    for (Index u = 0; u < units; ++u)
      for (Index t = 0; t < kBlockTokens; ++t) block[u * kBlockTokens + t] = unit(t, u);
  } else {
    for (Index t = 0; t < count; ++t)
      for (Index u = 0; u < units; ++u) block[u * kBlockTokens + t] = unit(t, u);
  }
}

/// rows [count][padded_value_dim] → slots slot … slot + count − 1 of a V tile.
template <Storage S>
inline void put_values(void* tile, Index value_dim, Index slot, Index count, const Bits<S>* rows) {
  const Index padded = padded_value_dim(value_dim);
  for (Index d = 0; d < padded; d += kPanelDims) {
    const Index width = panel_dims(value_dim, d);
    Bits<S>* panel = static_cast<Bits<S>*>(tile) + d * kTileTokens;
    for (Index t = 0; t < count; ++t) {
      const Bits<S>* row = rows + t * padded + d;
      if constexpr (kappa_of(S) == 1) {
        std::memcpy(panel + (slot + t) * width, row, static_cast<std::size_t>(width) * sizeof(Bits<S>));
      } else {
        static_assert(kappa_of(S) == 2);
        Bits<S>* pairs = panel + (slot + t) / 2 * width * 2;
        if ((slot + t) % 2 == 0 && t + 1 < count) {
          for (Index j = 0; j < width; ++j) {
            pairs[2 * j] = row[j];
            pairs[2 * j + 1] = row[padded + j];
          }
          ++t;
        } else {
          for (Index j = 0; j < width; ++j) pairs[2 * j + (slot + t) % 2] = row[j];
        }
      }
    }
  }
}

/// Rows of one head that enter tiles: row t (dim elements, `dim_stride` apart) starts `token_stride` after row t − 1.
/// Strides in elements of `storage`.
struct RowSource {
  const void* data;
  Storage storage;
  Index token_stride;
  Index dim_stride;

  template <Storage From>
  const void* row(Index t) const {
    return static_cast<const char*>(data) + t * token_stride * size_of(From);
  }
};

/// Converts rows first … first + count − 1 (at most 16) of the source into buffer [count][padded].
template <Storage To>
inline void read_rows(const RowSource& source, Index first, Index count, Index dim, Index padded, Bits<To>* buffer) {
  const auto read = [&]<Storage From>() {
    for (Index t = 0; t < count; ++t)
      read_row<From, To>(source.row<From>(first + t), source.dim_stride, dim, padded, buffer + t * padded);
  };
  switch (source.storage) {
    case Storage::f32:
      return read.template operator()<Storage::f32>();
    case Storage::f16:
      return read.template operator()<Storage::f16>();
    case Storage::bf16:
      return read.template operator()<Storage::bf16>();
  }
}

struct NoObserver {
  void operator()(Index, Index, const void*) const {}
};

/// Writes `count` tokens of one KV head behind the `stored` ones. `tile(i)` points to tile i: [K tile | V tile].
/// A tile that is begun but not filled is zeroed first, so what a kernel loads from an unwritten slot is finite.
/// observe(first token, count, keys [count][padded_head_dim]) sees all keys as they are stored, in order.
template <Storage S, class TileAt, class Observe>
void write_tokens(TileAt tile, Index head_dim, Index value_dim, Index stored, Index count, const RowSource& keys,
                  const RowSource& values, Observe observe) {
  const Index padded_k = padded_head_dim(head_dim), padded_v = padded_value_dim(value_dim);
  const Index key_bytes = key_tile_bytes(S, head_dim), all_bytes = tile_bytes(S, head_dim, value_dim);
  alignas(64) Bits<S> rows[kBlockTokens * kMaxHeadDim];
  for (Index done = 0; done < count;) {
    const Index slot = (stored + done) % kTileTokens;
    const Index block = std::min(kBlockTokens - slot % kBlockTokens, count - done);
    std::byte* const data = tile((stored + done) / kTileTokens);
    if (slot == 0 && count - done < kTileTokens) std::memset(data, 0, static_cast<std::size_t>(all_bytes));
    read_rows<S>(keys, done, block, head_dim, padded_k, rows);
    put_keys<S>(data, head_dim, slot, block, rows);
    observe(stored + done, block, rows);
    read_rows<S>(values, done, block, value_dim, padded_v, rows);
    put_values<S>(data + key_bytes, value_dim, slot, block, rows);
    done += block;
  }
}

/// Zeroes slots [from, to) of a tile.
template <Storage S>
void zero_slots(std::byte* tile, Index head_dim, Index value_dim, Index from, Index to) {
  auto* const keys = reinterpret_cast<Bits<S>*>(tile);
  auto* const values = reinterpret_cast<Bits<S>*>(tile + key_tile_bytes(S, head_dim));
  for (Index t = from; t < to; ++t) {
    for (Index d = 0; d < head_dim; ++d) keys[key_index(S, head_dim, t, d)] = 0;
    for (Index d = 0; d < value_dim; ++d) values[value_index(S, value_dim, t, d)] = 0;
  }
}

}  // namespace headwise::detail
