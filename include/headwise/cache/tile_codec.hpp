// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>

#include "headwise/cache/append_options.hpp"
#include "headwise/cache/key_transform.hpp"
#include "headwise/core/checked.hpp"
#include "headwise/core/heads.hpp"
#include "headwise/core/linkage.hpp"
#include "headwise/core/tile_layout.hpp"
#include "headwise/core/view.hpp"
#include "headwise/position/rope.hpp"

// Tokens in and out of tiles of any storage types: what every cache is made of. A block is up to 16 tokens that lie in one
// block of a tile (kBlockTokens). All functions are compiled once (core/linkage.hpp).

namespace headwise::detail {

/// Rows of one head that enter tiles: row t (dim elements, `dim_stride` apart) starts `token_stride` after row t − 1.
/// Strides in elements of `storage`, an element type.
struct RowSource {
  const void* data;
  Storage storage;
  Index token_stride;
  Index dim_stride;

  RowSource(const ConstArray& rows, Index sequence, Index token, Index head)
      : data(rows.row(sequence, token, head)),
        storage(rows.storage),
        token_stride(rows.strides.token),
        dim_stride(rows.strides.dim) {}
};

/// Where and how a block of one KV head is written.
struct BlockTarget {
  const TileFormat* format;
  std::byte* tile;  // [K tile | V tile]
  Index slot;       // of the first token, 0 … 63
  Index count;      // 1 … 16, not beyond its block
  Index kv_head;
};

/// What each key of a block goes through, in this order.
struct KeyChanges {
  const QkNorm* norm;     // null: none
  const Rope* rope;       // null: none
  const RopeTurn* turns;  // [count]
  KeyTransform transform;

  bool any() const { return norm || rope || transform.any(); }
};

/// Writes the first `count` rows of keys, changed, and of values (unset where these are in the keys). Sees to the padding of
/// dimensions.
void write_block(const BlockTarget& to, const RowSource& keys, const std::optional<RowSource>& values,
                 const KeyChanges& changes);

/// The numbers in one slot: head_dim of the key, or value_dim of the value. Keys as they are stored, transformed.
void read_stored_key(const TileFormat& format, const std::byte* tile, Index slot, float* out);
void read_stored_value(const TileFormat& format, const std::byte* tile, Index slot, float* out);

/// Copies `count` tokens from slot `from_slot` on of one tile to slots `to_slot` … of another, or of the same if from_slot
/// is not below to_slot, bit for bit; blocks may be crossed. With a rope, keys are turned by `turn` on the way: read,
/// turned and stored anew, which rounds them once more (not the values, where these are apart).
void move_slots(const TileFormat& format, Index kv_head, const std::byte* from, Index from_slot, std::byte* to,
                Index to_slot, Index count, const Rope* rope, const RopeTurn* turn, const KeyTransform& transform);

/// Slots [from, to) become unwritten ones: finite.
void clear_slots(const TileFormat& format, std::byte* tile, Index from, Index to);

/// Writes `count` tokens of one sequence behind the `stored` ones: k and v [sequence b][token][kv_head][dim], v unset where
/// values are in the keys.
/// tile_at(kv_head, i) points to tile i: std::byte*. A tile that is begun but not filled is cleared first, so that what a
/// kernel loads from an unwritten slot is finite. observe(kv_head, tile, first slot, count) sees each block when it is
/// written, those of a head in order. `options` are those of this sequence.
template <class TileAt, class Observe>
void write_tokens(const TileFormat& format, TileAt tile_at, Index stored, const ConstArray& k,
                  const std::optional<ConstArray>& v, Index b, const AppendOptions& options,
                  const KeyTransform& transform, Observe observe) {
  const Index count = k.tokens;
  const Rope* const rope = options.rope;
  RopeTurn turns[kBlockTokens];
  const KeyChanges changes{options.key_norm, rope, turns, transform};
  const TokenPositions positions{stored, options.positions, rope ? rope->num_axes() : 1};
  const Index length = rope && rope->depends_on_length() ? positions.length(count) : 0;
  for (Index done = 0; done < count;) {
    const Index token = stored + done, slot = token % kTileTokens;
    const Index block = std::min(kBlockTokens - slot % kBlockTokens, count - done);
    if (rope) {
      const Rope::Angles angles(*rope, length);
      for (Index t = 0; t < block; ++t)
        angles.turn_at(positions.of(done + t), turns[t].cosines.data(), turns[t].sines.data());
    }
    for (Index g = 0; g < format.num_kv_heads; ++g) {
      std::byte* const tile = tile_at(g, token / kTileTokens);
      if (slot == 0 && count - done < kTileTokens) std::fill_n(tile, format.bytes(), std::byte{0});
      const BlockTarget target{&format, tile, slot, block, g};
      const RowSource keys(k, b, done, g);
      std::optional<RowSource> values;
      if (v) values.emplace(*v, b, done, g);
      write_block(target, keys, values, changes);
      observe(g, static_cast<const std::byte*>(tile), slot, block);
    }
    done += block;
  }
}

}  // namespace headwise::detail

#if !defined(HEADWISE_DECLARE_ONLY)

#include "headwise/cache/tile_rows.hpp"

namespace headwise::detail {

/// f.template operator()<S>() for the storage type S that `storage` is.
template <class F>
inline void with_storage(Storage storage, F f) {
  switch (storage) {
    case Storage::f32:
      return f.template operator()<Storage::f32>();
    case Storage::f16:
      return f.template operator()<Storage::f16>();
    case Storage::bf16:
      return f.template operator()<Storage::bf16>();
    case Storage::e4m3:
      return f.template operator()<Storage::e4m3>();
    case Storage::e5m2:
      return f.template operator()<Storage::e5m2>();
    case Storage::int8:
      return f.template operator()<Storage::int8>();
    case Storage::int4:
      return f.template operator()<Storage::int4>();
  }
}

/// Row t of the source as floats [padded], zeros behind dim.
[[gnu::noinline]] inline void read_row(const RowSource& source, Index t, Index dim, Index padded, float* out) {
  const Index size = size_of(source.storage);
  const auto* row = static_cast<const char*>(source.data) + t * source.token_stride * size;
  Index done = 0;  // in whole chunks
  if (source.dim_stride == 1) {
    const Index whole = dim / kChunk * kChunk;
    if (source.storage == Storage::f32)
      std::memcpy(out, row, static_cast<std::size_t>(whole) * sizeof(float));
    else
      for (; done < whole; done += kChunk) {
        std::uint16_t in[kChunk];
        std::memcpy(in, row + done * 2, sizeof in);
        if (source.storage == Storage::f16)
          widen_chunk<Storage::f16>(in, out + done);
        else
          widen_chunk<Storage::bf16>(in, out + done);
      }
    done = whole;
  }
  for (; done < dim; ++done) out[done] = load_element(row, source.storage, done * source.dim_stride);
  std::fill(out + dim, out + padded, 0.0f);
}

/// `count` rows of the source as codes. change(t, row), if any, alters a row of floats on the way.
template <Storage S, class Change>
inline void encode_rows(const RowSource& source, Index count, Index dim, Index padded, bool changes, Change change,
                        CodeRows<S>& rows) {
  for (Index t = 0; t < count; ++t) {
    Bits<S>* const codes = rows.codes + t * padded;
    if (!changes && source.storage == S && source.dim_stride == 1) {  // bits as they are, of NaN too
      std::memcpy(codes, static_cast<const char*>(source.data) + t * source.token_stride * size_of(S),
                  static_cast<std::size_t>(dim * size_of(S)));
      std::fill(codes + dim, codes + padded, Bits<S>{0});
      continue;
    }
    alignas(64) float row[kMaxHeadDim];
    read_row(source, t, dim, padded, row);
    if (changes) change(t, row);
    encode_row<S>(row, padded, codes, rows.scales + t * kMaxRowScales);
  }
}

/// What a key becomes before it is encoded.
[[gnu::noinline]] inline void change_key(const KeyChanges& changes, Index token, Index kv_head, Index dim, float* row) {
  if (changes.norm) changes.norm->apply(row);
  if (changes.rope) changes.rope->apply(changes.turns[token], row);
  changes.transform.to_key(kv_head, dim, row);
}

HEADWISE_API void write_block(const BlockTarget& to, const RowSource& keys, const std::optional<RowSource>& values,
                              const KeyChanges& changes) {
  const TileFormat& format = *to.format;
  check_range(to.slot % kBlockTokens, to.count, kBlockTokens, "slots of a block");
  checked_index(to.slot, kTileTokens, "slot of a tile");
  with_storage(format.key_storage, [&]<Storage S>() {
    CodeRows<S> rows;
    const auto change = [&](Index t, float* row) { change_key(changes, t, to.kv_head, format.head_dim, row); };
    encode_rows<S>(keys, to.count, format.head_dim, padded_head_dim(format.head_dim), changes.any(), change, rows);
    put_keys<S>(to.tile, format.head_dim, to.slot, to.count, rows);
  });
  if (!values) return;
  with_storage(format.value_storage, [&]<Storage S>() {
    CodeRows<S> rows;
    encode_rows<S>(
        *values, to.count, format.value_dim, padded_value_dim(format.value_dim), false, [](Index, float*) {}, rows);
    put_values<S>(to.tile + format.key_bytes(), format.value_dim, to.slot, to.count, rows);
  });
}

HEADWISE_API void read_stored_key(const TileFormat& format, const std::byte* tile, Index slot, float* out) {
  checked_index(slot, kTileTokens, "slot of a tile");
  with_storage(format.key_storage, [&]<Storage S>() {
    CodeRows<S> rows;
    get_keys<S>(tile, format.head_dim, slot, 1, rows);
    decode_row<S>(rows.codes, rows.scales, format.head_dim, out);
  });
}
HEADWISE_API void read_stored_value(const TileFormat& format, const std::byte* tile, Index slot, float* out) {
  checked_index(slot, kTileTokens, "slot of a tile");
  if (format.values_in_keys) {
    float key[kMaxHeadDim];
    read_stored_key(format, tile, slot, key);
    std::copy_n(key, format.value_dim, out);
    return;
  }
  with_storage(format.value_storage, [&]<Storage S>() {
    CodeRows<S> rows;
    get_values<S>(tile + format.key_bytes(), format.value_dim, slot, 1, rows);
    decode_row<S>(rows.codes, rows.scales, format.value_dim, out);
  });
}

HEADWISE_API void move_slots(const TileFormat& format, Index kv_head, const std::byte* from, Index from_slot,
                             std::byte* to, Index to_slot, Index count, const Rope* rope, const RopeTurn* turn,
                             const KeyTransform& transform) {
  const Index dim = format.head_dim, padded = padded_head_dim(dim);
  check_range(from_slot, count, kTileTokens, "slots of a tile");
  check_range(to_slot, count, kTileTokens, "slots of a tile");
  for (Index done = 0; done < count;) {
    const Index a = from_slot + done, b = to_slot + done;
    const Index block = std::min({kBlockTokens - a % kBlockTokens, kBlockTokens - b % kBlockTokens, count - done});
    with_storage(format.key_storage, [&]<Storage S>() {
      CodeRows<S> rows;
      get_keys<S>(from, dim, a, block, rows);
      for (Index t = 0; rope && t < block; ++t) {
        alignas(64) float row[kMaxHeadDim] = {};
        Bits<S>* const codes = rows.codes + t * padded;
        std::uint16_t* const scales = rows.scales + t * kMaxRowScales;
        decode_row<S>(codes, scales, dim, row);
        transform.from_key(kv_head, dim, row);
        rope->apply(*turn, row);
        transform.to_key(kv_head, dim, row);
        encode_row<S>(row, padded, codes, scales);
      }
      put_keys<S>(to, dim, b, block, rows);
    });
    done += block;
    if (format.values_in_keys) continue;
    with_storage(format.value_storage, [&]<Storage S>() {
      CodeRows<S> rows;
      get_values<S>(from + format.key_bytes(), format.value_dim, a, block, rows);
      put_values<S>(to + format.key_bytes(), format.value_dim, b, block, rows);
    });
  }
}

HEADWISE_API void clear_slots(const TileFormat& format, std::byte* tile, Index from, Index to) {
  if (from < to) check_range(from, to - from, kTileTokens, "slots of a tile");
  for (Index done = from; done < to;) {
    const Index block = std::min(kBlockTokens - done % kBlockTokens, to - done);
    with_storage(format.key_storage, [&]<Storage S>() {
      CodeRows<S> rows{};
      put_keys<S>(tile, format.head_dim, done, block, rows);
    });
    if (!format.values_in_keys)
      with_storage(format.value_storage, [&]<Storage S>() {
        CodeRows<S> rows{};
        put_values<S>(tile + format.key_bytes(), format.value_dim, done, block, rows);
      });
    done += block;
  }
}

}  // namespace headwise::detail

#endif  // !HEADWISE_DECLARE_ONLY
