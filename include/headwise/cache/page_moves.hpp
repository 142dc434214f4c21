// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "headwise/cache/page_store.hpp"
#include "headwise/cache/reorder_plan.hpp"
#include "headwise/cache/sequence_slots.hpp"
#include "headwise/position/rope.hpp"

// The operations of a PagedCache that move tokens or pages. All are checked by their callers.

namespace headwise::detail {

/// Tokens of one storage on their way from one table to another, or to lower positions of the same.
struct TokenMove {
  const PageTable* from;
  Index first, last;  // tokens of `from`
  PageTable* to;
  Index target;  // the first one's token number in `to`, whose pages are writable
};

/// Moves tokens in order. Keys are turned to their new positions where there is a rope.
inline void move_tokens(PageStore& store, Index storage, const TokenMove& move, const Rope* rope) {
  const TileFormat& format = store.tiles(storage).format();
  const KeyTransform transform = store.tiles(storage).key_transform();
  RopeTurn turn;
  if (rope) turn = rope->turn_between(move.target - move.first);
  for (Index a = move.first, b = move.target; a < move.last;) {
    const Index count = std::min({kTileTokens - a % kTileTokens, kTileTokens - b % kTileTokens, move.last - a});
    for (Index g = 0; g < format.num_kv_heads; ++g) {
      std::byte* const to = store.tile(storage, *move.to, g, b / kTileTokens);
      move_slots(format, g, store.tile(storage, *move.from, g, a / kTileTokens), a % kTileTokens, to, b % kTileTokens,
                 count, rope, &turn, transform);
    }
    a += count;
    b += count;
  }
}

/// Slots behind the first `tokens` tokens, in their last tile, become unwritten ones.
inline void clear_rest(PageStore& store, Index storage, PageTable& table, Index tokens) {
  const TileFormat& format = store.tiles(storage).format();
  for (Index g = 0; g < format.num_kv_heads && tokens % kTileTokens > 0; ++g)
    clear_slots(format, store.tile(storage, table, g, tokens / kTileTokens), tokens % kTileTokens, kTileTokens);
}

/// Takes tokens [first, last), which every storage holds, out of a sequence; those behind move down. rope_of(storage) may be
/// null. Throws OutOfPages; nothing has changed then.
template <class RopeOf>
void evict(PageStore& store, PageTable& table, Index first, Index last, RopeOf rope_of) {
  const Index gap = last - first, page = store.page_tokens();
  if (gap == 0) return;
  if (last == table.most_tokens()) return store.truncate(table, 0, store.num_storages(), first);
  bool turns = false;
  for (Index s = 0; s < store.num_storages(); ++s) turns |= rope_of(s) != nullptr;
  if (!turns && first % page == 0 && gap % page == 0) {
    store.remove(table, first / page, last / page);
  } else {
    store.make_writable({&table, first, table.most_tokens() - gap});
    for (Index s = 0; s < store.num_storages(); ++s) {
      const Index stored = table.tokens[static_cast<std::size_t>(s)];
      move_tokens(store, s, {&table, last, stored, &table, first}, rope_of(s));
      clear_rest(store, s, table, stored - gap);
    }
  }
  for (Index& stored : table.tokens) stored -= gap;
  store.shrink(table, store.pages_of(table.most_tokens()));
  table.intact = std::min(table.intact, first);
}

/// Appends tokens [first, last), which every storage of `from` holds, to a sequence, which may be the same. Throws
/// OutOfPages or std::bad_alloc; nothing has changed then.
template <class RopeOf>
void copy_range(PageStore& store, const PageTable& from, Index first, Index last, PageTable& to, RopeOf rope_of) {
  const Index count = last - first;
  if (count == 0) return;
  store.make_writable({&to, to.least_tokens(), to.most_tokens() + count});
  for (Index s = 0; s < store.num_storages(); ++s) {
    Index& stored = to.tokens[static_cast<std::size_t>(s)];
    move_tokens(store, s, {&from, first, last, &to, stored}, rope_of(s));
    stored += count;
    clear_rest(store, s, to, stored);
  }
}

/// Sequence ids[b] becomes what ids[parents[b]] was: by sharing pages. `plan` and `reordered` are memory to work in, of the
/// caller alone. Throws std::bad_alloc; nothing has changed then.
inline void reorder(PageStore& store, SequenceSlots& sequences, std::span<const SequenceId> ids,
                    std::span<const Index> parents, ReorderPlan& plan, std::vector<PageTable>& reordered) {
  const auto table_of = [&](Index b) -> PageTable& { return sequences.table(ids[static_cast<std::size_t>(b)]); };
  const Index count = std::ssize(ids);
  plan.make(parents);
  for (Index b = 0; b < count; ++b)
    PageStore::make_room(table_of(plan.home(b)), table_of(parents[static_cast<std::size_t>(b)]).num_pages());
  for (Index b = 0; b < count; ++b) {
    const Index parent = parents[static_cast<std::size_t>(b)], home = plan.home(b);
    if (home == parent) continue;  // what is home to another is no one's parent
    store.shrink(table_of(home), 0);
    store.fork(table_of(parent), table_of(home));
  }
  for (Index b = 0; b < count; ++b) reordered[static_cast<std::size_t>(b)] = std::move(table_of(plan.home(b)));
  for (Index b = 0; b < count; ++b) table_of(b) = std::move(reordered[static_cast<std::size_t>(b)]);
}

/// Moves pages so that those of each sequence, as far as no other holds them too, follow one another. Returns how many.
inline Index defragment(PageStore& store, SequenceSlots& sequences) {
  const Index total = store.look([](const SharedPages& pages) { return pages.pool().size(); });
  const auto ids = sequences.all();
  constexpr PageId kNowhere = -1;
  std::vector<PageId> to(static_cast<std::size_t>(total), kNowhere);
  PageId next = 0;
  const auto place = [&](PageId page) {
    PageId& target = to[static_cast<std::size_t>(page)];
    if (target == kNowhere) target = next++;
  };
  for (const SequenceId& id : ids)
    for (const PageId page : sequences.table(id).pages) place(page);
  store.look([&](const SharedPages& pages) {
    for (PageId page = 0; page < total; ++page)
      if (pages.pool().is_indexed(page)) place(page);
  });
  const PageId held = next;
  for (PageId page = 0; page < total; ++page) place(page);
  Index moved = 0;
  for (PageId page = 0; page < total; ++page) {
    const PageId target = to[static_cast<std::size_t>(page)];
    moved += target < held && target != page;
  }
  store.rename(to, held);
  for (const SequenceId& id : ids)
    for (PageId& page : sequences.table(id).pages) page = to[static_cast<std::size_t>(page)];
  return moved;
}

}  // namespace headwise::detail
