// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstring>

#include "headwise/cache/layer_tiles.hpp"

// The operations of LayerTiles that move tokens. All are checked by their callers; none throws but `restorable`.

namespace headwise::detail {

/// Sequence `to` becomes a copy of sequence `from`.
inline void LayerTiles::fork(Index from, Index to) {
  copy_slot(at(to).slot, *this, at(from));
  at(to).kept = at(from).kept;
}

/// What is left of `kept` without [first, last): those behind move down, and so does what was forgotten among them.
inline TokenRange without(const TokenRange& kept, Index first, Index last) {
  const Index taken = last - first;
  if (kept.begin == 0) return {0, 0, kept.end - taken};
  const Index sinks = last <= kept.sinks ? kept.sinks - taken : std::min(kept.sinks, first);
  const Index begin = first >= kept.begin ? kept.begin : std::max(kept.begin, last) - taken;
  return begin <= sinks ? TokenRange{0, 0, kept.end - taken} : TokenRange{sinks, begin, kept.end - taken};
}

/// Whether tokens [first, last) can be taken out: what a ring keeps must still be there.
inline bool LayerTiles::can_evict(Index sequence, Index first, Index last) const {
  const TokenRange left = without(at(sequence).kept, first, last);
  return first == last || left.begin == 0 ||
         (left.sinks >= options_.num_sink_tokens && left.begin <= left.end - options_.window);
}

/// What `evict` needs: nothing, unless tiles of the ring have taken the places of others.
inline Index LayerTiles::evict_scratch_bytes(Index sequence) const {
  return num_tokens(sequence) > places() * kTileTokens ? format().num_kv_heads * places() * tile_bytes_ : 0;
}

/// Takes tokens [first, last) out; those behind move down.
inline void LayerTiles::evict(Index sequence, Index first, Index last, const Rope* rope, std::byte* scratch) {
  auto& [kept, slot] = at(sequence);
  if (first == last) return;
  const Index taken = last - first;
  // the ring may have no place any more for the first of those behind a gap that no longer ends with a tile
  const TokenRange left = grown(without(kept, first, last), 0);
  if (has_key_norms())
    for (Index g = 0; g < format().num_kv_heads; ++g)
      norms_.truncate(reader(), slot, g, first, data(slot, g, first / kTileTokens));
  const auto move = [&, s = slot, had = kept](auto tile_at) {
    if (last < had.sinks) move_tokens(s, tile_at, last, first, had.sinks - last, rope);
    const Index from = std::max({last, had.begin, left.begin + taken});
    move_tokens(s, tile_at, from, from - taken, had.end - from, rope);
  };
  if (const Index bytes = evict_scratch_bytes(sequence); bytes > 0) {
    std::memcpy(scratch, memory_.data() + offset(slot, 0, 0), static_cast<std::size_t>(bytes));
    move([&](Index g, Index i) { return scratch + (g * places() + place(i)) * tile_bytes_; });
  } else {
    move([&, s = slot](Index g, Index i) { return data(s, g, i); });
  }
  kept = left;
  clear_between(slot, kept);
}

/// Appends tokens [first, last) of a sequence of another layer of the same format and transform, or of another sequence of
/// this one. There must be room; a ring keeps the last of them.
inline void LayerTiles::append_from(const LayerTiles& other, Index from, Index first, Index last, Index to,
                                    const Rope* rope) {
  auto& [kept, slot] = at(to);
  const Index stored = kept.end;
  kept = grown(kept, last - first);
  const auto tile_at = [&](Index g, Index i) { return other.tile(from, g, i); };
  const auto move = [&, s = slot](Index begin, Index end) {
    if (begin < end) move_tokens(s, tile_at, first + begin - stored, begin, end - begin, rope);
  };
  if (kept.begin > stored) move(stored, std::min(kept.sinks, kept.end));
  move(std::max(stored, kept.begin), kept.end);
  clear_between(slot, kept);
}

/// What is kept of a range of tokens. Throws std::invalid_argument where it is too little for a ring or for key norms.
inline TokenRange LayerTiles::restorable(const TokenRange& range) const {
  if (range.begin <= range.sinks) return is_ring() ? grown({0, 0, 0}, range.end) : TokenRange{0, 0, range.end};
  require(!has_key_norms(), "ranges of a cache with key_norms must begin at token 0, not at ", range.begin);
  if (!is_ring()) return range;
  require(range.sinks >= options_.num_sink_tokens && range.begin <= range.end - options_.window, "ranges (sinks ",
          range.sinks, ", begin ", range.begin, ", end ", range.end, ") must hold what a ring keeps: the first ",
          options_.num_sink_tokens, " tokens and the last ", options_.window);
  return grown({std::min(range.sinks, sink_tiles_ * kTileTokens), range.begin, range.end}, 0);
}

/// Makes a sequence one that holds the tokens `kept`, from restorable(); fill(kv_head, index, tile) writes a tile.
template <class Fill>
void LayerTiles::restore(Index sequence, const TokenRange& kept, Fill fill) {
  const Index slot = at(sequence).slot;
  at(sequence).kept = kept;
  for (Index g = 0; g < format().num_kv_heads; ++g) for_each_tile(kept, [&](Index i) { fill(g, i, data(slot, g, i)); });
  clear_between(slot, kept);
  if (!has_key_norms()) return;
  norms_.clear(slot);
  for (Index g = 0; g < format().num_kv_heads; ++g)
    for_each_tile(kept, [&](Index i) {
      norms_.append(reader(), slot, g, i, data(slot, g, i), 0, std::min(kTileTokens, kept.end - i * kTileTokens));
    });
}

/// Tokens `from` … of what tile_at(kv_head, tile) reads become tokens `to` … of a slot, in order.
template <class TileAt>
void LayerTiles::move_tokens(Index slot, TileAt tile_at, Index from, Index to, Index count, const Rope* rope) {
  RopeTurn turn;
  if (rope) turn = rope->turn_between(to - from);
  for (Index done = 0; done < count;) {
    const Index a = (from + done) % kTileTokens, b = (to + done) % kTileTokens, index = (to + done) / kTileTokens;
    const Index piece = std::min({kTileTokens - a, kTileTokens - b, count - done});
    for (Index g = 0; g < format().num_kv_heads; ++g) {
      std::byte* const target = data(slot, g, index);
      move_slots(format(), g, tile_at(g, (from + done) / kTileTokens), a, target, b, piece, rope, &turn,
                 key_transform());
      if (has_key_norms()) norms_.append(reader(), slot, g, index, target, b, piece);
    }
    done += piece;
  }
}

/// In tiles that hold tokens of `kept`, or in which the next one is written, the other slots become unwritten ones.
inline void LayerTiles::clear_between(Index slot, const TokenRange& kept) {
  const Index tile = kept.begin / kTileTokens;  // whose first slots may be forgotten ones
  if (kept.sinks > tile * kTileTokens) {
    clear_rest(slot, kept.sinks, kept.begin);
  } else {
    clear_rest(slot, kept.sinks, tile * kTileTokens);
    for (Index g = 0; g < format().num_kv_heads && kept.begin > 0; ++g)
      clear_slots(format(), data(slot, g, tile), 0, kept.begin % kTileTokens);
  }
  clear_rest(slot, kept.end, kept.end + kTileTokens);
}

}  // namespace headwise::detail
