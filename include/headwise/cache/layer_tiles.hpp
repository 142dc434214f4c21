// SPDX-License-Identifier: MIT
#pragma once

#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "headwise/cache/key_norms.hpp"
#include "headwise/cache/reorder_plan.hpp"
#include "headwise/cache/tile_memory.hpp"
#include "headwise/cache/tile_codec.hpp"
#include "headwise/core/error.hpp"
#include "headwise/core/heads.hpp"
#include "headwise/core/tile_layout.hpp"

namespace headwise {

/// Heads and dimensions of K and V of one layer.
struct LayerShape {
  Index num_kv_heads;
  Index head_dim;
  Index value_dim = 0;  ///< 0: head_dim
  friend bool operator==(const LayerShape&, const LayerShape&) = default;
};

namespace detail {

/// The tiles of one layer: [slot][kv_head][tile]{K tile | V tile}. Each sequence has one slot; which one changes when
/// sequences are reordered.
class LayerTiles {
 public:
  /// An empty layer. Throws std::invalid_argument where its bytes do not fit in 63
  /// bits, std::bad_alloc where they are not to be had.
  LayerTiles(const TileFormat& format, Index num_sequences, Index max_tokens, bool key_norms)
      : format_(format),
        tile_bytes_(format.bytes()),
        max_tokens_(max_tokens),
        tiles_per_head_(ceil_div(max_tokens, kTileTokens)) {
    Index bytes = tile_bytes_;
    const bool fits = !__builtin_mul_overflow(bytes, tiles_per_head_, &bytes) &&
                      !__builtin_mul_overflow(bytes, format.num_kv_heads, &bytes) &&
                      !__builtin_mul_overflow(bytes, num_sequences, &bytes);
    require(fits, "max_tokens (", max_tokens, ") of ", num_sequences, " sequences and ", format.num_kv_heads,
            " KV heads of ", format.head_dim, " + ", format.value_dim, " dims must take less than 2^63 bytes");
    sequences_.resize(static_cast<std::size_t>(num_sequences));
    reordered_.resize(static_cast<std::size_t>(num_sequences));
    for (Index b = 0; b < num_sequences; ++b) at(b).slot = b;
    memory_ = TileMemory(bytes);
    if (key_norms) norms_ = KeyNorms(num_sequences, format.num_kv_heads, tiles_per_head_);
  }

  const TileFormat& format() const { return format_; }
  Index tile_bytes() const { return tile_bytes_; }  // of one tile, K and V
  Index bytes() const { return memory_.bytes(); }
  Index max_tokens() const { return max_tokens_; }  // of each sequence
  Index num_sequences() const { return std::ssize(sequences_); }
  Index num_tokens(Index sequence) const { return at(sequence).tokens; }
  const std::byte* tile(Index sequence, Index kv_head, Index i) const {
    return memory_.data() + offset(at(sequence).slot, kv_head, i);
  }
  bool has_key_norms() const { return norms_.kept(); }
  double key_norm_squares(Index sequence, Index kv_head) const { return norms_.sum(at(sequence).slot, kv_head); }

  /// The same tokens in memory for `new_max_tokens` of each sequence.
  LayerTiles copy(Index new_max_tokens) const {
    LayerTiles result(format_, num_sequences(), new_max_tokens, has_key_norms());
    for (Index b = 0; b < num_sequences(); ++b) {
      result.at(b).tokens = num_tokens(b);
      result.copy_slot(result.at(b).slot, *this, at(b).slot, num_tokens(b));
    }
    return result;
  }

  /// Writes k and v of their sequence b behind the stored tokens of `sequence`. There must be room.
  void append(Index sequence, const ConstArray& k, const ConstArray& v, Index b, const Rope* rope,
              const KeyTransform& transform) {
    auto& [stored, slot] = at(sequence);
    const Index place = slot;
    Index written = stored;
    write_tokens(
        format_, [&](Index g, Index i) { return memory_.data() + offset(place, g, i); }, stored, k, v, b, rope,
        transform,
        [&](Index g, const std::byte* tile, Index in_tile, Index count) {
          if (!has_key_norms()) return;
          norms_.append(format_, place, g, written / kTileTokens, tile, in_tile, count);
          if (g + 1 == format_.num_kv_heads) written += count;
        });
    stored += k.tokens;
  }

  /// Keeps the first `tokens` of a sequence, or all if it holds fewer.
  void truncate(Index sequence, Index tokens) {
    const auto [stored, slot] = at(sequence);
    if (tokens >= stored) return;
    at(sequence).tokens = tokens;
    // What is left of the last tile becomes unwritten slots again, which must be finite; a later tile is cleared when it
    // is begun.
    const Index tile = tokens / kTileTokens, from = tokens % kTileTokens;
    const Index to = std::min(kTileTokens, stored - tile * kTileTokens);
    for (Index g = 0; g < format_.num_kv_heads; ++g) {
      std::byte* const data = memory_.data() + offset(slot, g, tile);
      if (has_key_norms()) norms_.truncate(format_, slot, g, tokens, data);
      if (from > 0) clear_slots(format_, data, from, to);
    }
  }

  /// Sequence b becomes what sequence parents[b] was; `plan` is of these parents.
  void reorder(std::span<const Index> parents, const ReorderPlan& plan) noexcept {
    for (Index b = 0; b < num_sequences(); ++b) {
      const Sequence parent = at(parents[static_cast<std::size_t>(b)]);
      const Index slot = at(plan.home(b)).slot;
      if (slot != parent.slot) copy_slot(slot, *this, parent.slot, parent.tokens);
      reordered_[static_cast<std::size_t>(b)] = {parent.tokens, slot};
    }
    sequences_.swap(reordered_);
  }

 private:
  struct Sequence {
    Index tokens = 0;  // stored
    Index slot = 0;
  };

  Sequence& at(Index sequence) { return sequences_[static_cast<std::size_t>(sequence)]; }
  const Sequence& at(Index sequence) const { return sequences_[static_cast<std::size_t>(sequence)]; }
  Index offset(Index slot, Index kv_head, Index tile) const {
    return ((slot * format_.num_kv_heads + kv_head) * tiles_per_head_ + tile) * tile_bytes_;
  }

  /// Slot `to` becomes slot `from` of another layer of the same shape, or of this one.
  void copy_slot(Index to, const LayerTiles& other, Index from, Index tokens) {
    const Index tiles = ceil_div(tokens, kTileTokens);
    if (tiles == 0 && !has_key_norms()) return;
    for (Index g = 0; g < format_.num_kv_heads && tiles > 0; ++g)
      std::memcpy(memory_.data() + offset(to, g, 0), other.memory_.data() + other.offset(from, g, 0),
                  static_cast<std::size_t>(tiles * tile_bytes_));
    if (has_key_norms()) norms_.copy(to, other.norms_, from, tiles);
  }

  TileFormat format_;
  Index tile_bytes_, max_tokens_, tiles_per_head_;
  std::vector<Sequence> sequences_;
  std::vector<Sequence> reordered_;  // what reorder makes; kept, so that it allocates nothing
  TileMemory memory_;
  KeyNorms norms_;
};

}  // namespace detail

}  // namespace headwise
