// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstring>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "headwise/cache/key_norms.hpp"
#include "headwise/cache/key_transform.hpp"
#include "headwise/cache/reorder_plan.hpp"
#include "headwise/cache/tile_codec.hpp"
#include "headwise/cache/tile_memory.hpp"
#include "headwise/cache/tile_source.hpp"
#include "headwise/core/checked.hpp"
#include "headwise/core/error.hpp"
#include "headwise/core/tile_layout.hpp"

namespace headwise::detail {

/// What a LayerTiles is made for.
struct LayerTilesOptions {
  TileFormat format;
  Index num_sequences;
  Index max_tokens;       // of each sequence; of a ring, what positions can count
  Index window;           // 0: no ring
  Index num_sink_tokens;  // of a ring
  Index max_append;       // of a ring
  bool key_norms;         // not of a ring
  bool hadamard_keys;
  std::vector<float> key_channel_scales;  // [num_kv_heads][head_dim] or empty
};

/// The tiles of one layer: [slot][kv_head][place]{K tile | V tile}. Each sequence has one slot; which one changes when
/// sequences are reordered. Tile i of a sequence has place i; in a ring, the tiles of sinks have theirs for good and those
/// behind share the others in turn, so that a tile takes the place of one that is forgotten.
///
/// A sequence holds the tokens of its TokenRange, where begin is 0 as long as nothing is forgotten. Of tokens that were
/// forgotten or never written, tiles that hold others have finite numbers.
class LayerTiles {
 public:
  /// Nothing stored. Throws std::invalid_argument where its bytes do not fit in 63 bits, std::bad_alloc where they are not
  /// to be had.
  explicit LayerTiles(LayerTilesOptions options) : options_(std::move(options)), tile_bytes_(options_.format.bytes()) {
    const TileFormat& format = options_.format;
    if (options_.window > 0) {
      sink_tiles_ = ceil_div(options_.num_sink_tokens, kTileTokens);
      // the tiles that window + max_append tokens may touch
      ring_tiles_ = (options_.window + options_.max_append + kTileTokens - 2) / kTileTokens + 1;
    } else {
      ring_tiles_ = ceil_div(options_.max_tokens, kTileTokens);
    }
    Index bytes = tile_bytes_;
    const bool fits = !__builtin_mul_overflow(bytes, places(), &bytes) &&
                      !__builtin_mul_overflow(bytes, format.num_kv_heads, &bytes) &&
                      !__builtin_mul_overflow(bytes, options_.num_sequences, &bytes);
    require(fits, is_ring() ? "window (" : "max_tokens (", is_ring() ? options_.window : options_.max_tokens, ") of ",
            options_.num_sequences, " sequences and ", format.num_kv_heads, " KV heads of ", format.head_dim, " + ",
            format.value_dim, " dims must take less than 2^63 bytes");
    sequences_.resize(static_cast<std::size_t>(options_.num_sequences));
    reordered_.resize(static_cast<std::size_t>(options_.num_sequences));
    for (Index b = 0; b < num_sequences(); ++b) at(b).slot = b;
    memory_ = TileMemory(bytes);
    if (options_.key_norms) norms_ = KeyNorms(num_sequences(), format.num_kv_heads, places());
  }

  const TileFormat& format() const { return options_.format; }
  const LayerTilesOptions& options() const { return options_; }
  KeyTransform key_transform() const {
    return {options_.key_channel_scales.empty() ? nullptr : options_.key_channel_scales.data(), options_.hadamard_keys};
  }
  bool is_ring() const { return options_.window > 0; }
  Index tile_bytes() const { return tile_bytes_; }  // of one tile, K and V
  Index bytes() const { return memory_.bytes(); }
  Index max_tokens() const { return options_.max_tokens; }  // of each sequence
  Index num_sequences() const { return std::ssize(sequences_); }
  Index num_tokens(Index sequence) const { return at(sequence).kept.end; }
  const TokenRange& kept(Index sequence) const { return at(sequence).kept; }
  bool holds(Index sequence, Index token) const {
    const TokenRange& kept = at(sequence).kept;
    return token >= 0 && (token < kept.sinks || (token >= kept.begin && token < kept.end));
  }
  const std::byte* tile(Index sequence, Index kv_head, Index i) const {
    check_held(sequence, i);
    return memory_.data() + offset(at(sequence).slot, kv_head, place(i));
  }
  /// Tiles of one KV head that hold tokens.
  Index tiles_used(Index sequence) const {
    Index count = 0;
    for_each_tile(kept(sequence), [&](Index) { ++count; });
    return count;
  }
  bool has_key_norms() const { return norms_.kept(); }
  double key_norm_squares(Index sequence, Index kv_head) const { return norms_.sum(at(sequence).slot, kv_head); }
  /// The key of a token that is held, as it was appended up to rounding.
  void read_key(Index sequence, Index token, Index kv_head, float* out) const {
    reader().read(kv_head, tile(sequence, kv_head, token / kTileTokens), token % kTileTokens, out);
  }
  void read_value(Index sequence, Index token, Index kv_head, float* out) const {
    read_stored_value(format(), tile(sequence, kv_head, token / kTileTokens), token % kTileTokens, out);
  }

  /// The same tokens in memory for `new_max_tokens` of each sequence.
  LayerTiles copy(Index new_max_tokens) const {
    LayerTilesOptions options = options_;
    options.max_tokens = new_max_tokens;
    LayerTiles result(std::move(options));
    for (Index b = 0; b < num_sequences(); ++b) {
      result.at(b).kept = kept(b);
      result.copy_slot(result.at(b).slot, *this, at(b));
    }
    return result;
  }

  /// Writes k and v (unset where values are in the keys) of their sequence b behind the stored tokens of `sequence`;
  /// `options` are those of this sequence. There must be room.
  void append(Index sequence, const ConstArray& k, const std::optional<ConstArray>& v, Index b,
              const AppendOptions& options) {
    auto& [kept, slot_of] = at(sequence);
    const Index stored = kept.end, slot = slot_of;
    kept = grown(kept, k.tokens);
    Index written = stored;
    write_tokens(
        format(), [&](Index g, Index i) { return data(slot, g, i); }, stored, k, v, b, options, key_transform(),
        [&](Index g, const std::byte* tile, Index in_tile, Index count) {
          if (!has_key_norms()) return;
          norms_.append(reader(), slot, g, written / kTileTokens, tile, in_tile, count);
          if (g + 1 == format().num_kv_heads) written += count;
        });
  }

  /// Whether the first `tokens`, no more than are stored, can be kept: what a ring keeps of them must still be there.
  bool can_truncate(Index sequence, Index tokens) const {
    const TokenRange& kept = at(sequence).kept;
    return tokens == kept.end || kept.begin == 0 || tokens <= kept.sinks || kept.begin <= tokens - options_.window;
  }
  /// Keeps the first `tokens` of a sequence, or all if it holds fewer.
  void truncate(Index sequence, Index tokens) {
    auto& [kept, slot] = at(sequence);
    if (tokens >= kept.end) return;
    if (has_key_norms())
      for (Index g = 0; g < format().num_kv_heads; ++g)
        norms_.truncate(reader(), slot, g, tokens, data(slot, g, tokens / kTileTokens));
    clear_rest(slot, tokens, kept.end);
    kept = tokens <= kept.sinks ? TokenRange{0, 0, tokens} : TokenRange{kept.sinks, kept.begin, tokens};
  }

  /// Sequence b becomes what sequence parents[b] was; `plan` is of these parents.
  void reorder(std::span<const Index> parents, const ReorderPlan& plan) noexcept(!kChecked) {
    for (Index b = 0; b < num_sequences(); ++b) {
      const Sequence& parent = at(parents[static_cast<std::size_t>(b)]);
      const Index slot = at(plan.home(b)).slot;
      if (slot != parent.slot) copy_slot(slot, *this, parent);
      reordered_[static_cast<std::size_t>(b)] = {parent.kept, slot};
    }
    sequences_.swap(reordered_);
  }

  // Those that move tokens (layer_moves.hpp):

  void fork(Index from, Index to);
  bool can_evict(Index sequence, Index first, Index last) const;
  Index evict_scratch_bytes(Index sequence) const;
  void evict(Index sequence, Index first, Index last, const Rope* rope, std::byte* scratch);
  void append_from(const LayerTiles& other, Index from, Index first, Index last, Index to, const Rope* rope);
  TokenRange restorable(const TokenRange& range) const;
  template <class Fill>
  void restore(Index sequence, const TokenRange& kept, Fill fill);

 private:
  struct Sequence {
    TokenRange kept;
    Index slot = 0;
  };

  Sequence& at(Index sequence) { return checked_at(sequences_, sequence, "sequence of a cache"); }
  const Sequence& at(Index sequence) const { return checked_at(sequences_, sequence, "sequence of a cache"); }
  /// In checked mode: that tile i holds a token.
  void check_held(Index sequence, Index i) const {
    const TokenRange& kept = at(sequence).kept;
    const Index first = i * kTileTokens;
    require_index(i >= 0 && first < kept.end && (first < kept.sinks || first + kTileTokens > kept.begin), "tile (", i,
                  ") of sequence ", sequence, " must hold one of the tokens that its cache has: ", kept.begin, " to ",
                  kept.end, ", and 0 to ", kept.sinks);
  }
  /// Tiles that a sequence has memory for, of each KV head.
  Index places() const { return sink_tiles_ + ring_tiles_; }
  Index place(Index i) const { return i < places() ? i : sink_tiles_ + (i - sink_tiles_) % ring_tiles_; }
  Index offset(Index slot, Index kv_head, Index place) const {
    checked_index(slot, num_sequences(), "slot of a cache");
    checked_index(kv_head, format().num_kv_heads, "KV head of a cache");
    checked_index(place, places(), "place of a tile in a cache");
    return ((slot * format().num_kv_heads + kv_head) * places() + place) * tile_bytes_;
  }
  /// Tile i of a slot.
  std::byte* data(Index slot, Index kv_head, Index i) { return memory_.data() + offset(slot, kv_head, place(i)); }
  KeyReader reader() const { return {format(), key_transform()}; }

  /// What is held when `tokens` more are: tiles that lose their place are forgotten.
  TokenRange grown(TokenRange kept, Index tokens) const {
    kept.end += tokens;
    const Index oldest = ceil_div(kept.end, kTileTokens) - ring_tiles_;  // of those with a place in the ring
    if (is_ring() && oldest > sink_tiles_) {
      if (kept.begin == 0) kept.sinks = sink_tiles_ * kTileTokens;
      kept.begin = std::max(kept.begin, oldest * kTileTokens);
    }
    return kept;
  }

  /// Of the tile that token `tokens` lies in, the slots from it on, up to token `stored`, become unwritten ones. A later
  /// tile is cleared when it is begun.
  void clear_rest(Index slot, Index tokens, Index stored) {
    const Index tile = tokens / kTileTokens, from = tokens % kTileTokens;
    if (from == 0) return;
    for (Index g = 0; g < format().num_kv_heads; ++g)
      clear_slots(format(), data(slot, g, tile), from, std::min(kTileTokens, stored - tile * kTileTokens));
  }

  /// Slot `to` becomes that of a sequence of another layer of the same options, or of this one.
  void copy_slot(Index to, const LayerTiles& other, const Sequence& from) {
    const TokenRange& kept = from.kept;
    const Index count = kept.begin > 0 && is_ring() ? places() : ceil_div(kept.end, kTileTokens);
    for (Index g = 0; g < format().num_kv_heads && count > 0; ++g)
      std::memcpy(memory_.data() + offset(to, g, 0), other.memory_.data() + other.offset(from.slot, g, 0),
                  static_cast<std::size_t>(count * tile_bytes_));
    if (has_key_norms()) norms_.copy(to, other.norms_, from.slot, count);
  }

  // layer_moves.hpp
  template <class TileAt>
  void move_tokens(Index slot, TileAt tile_at, Index from, Index to, Index count, const Rope* rope);
  void clear_between(Index slot, const TokenRange& kept);

  LayerTilesOptions options_;
  Index tile_bytes_, sink_tiles_ = 0, ring_tiles_ = 0;
  std::vector<Sequence> sequences_;
  std::vector<Sequence> reordered_;  // what reorder makes; kept, so that it allocates nothing
  TileMemory memory_;
  KeyNorms norms_;
};

}  // namespace headwise::detail
