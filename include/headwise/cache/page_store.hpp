// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

#include "headwise/cache/page_pool.hpp"
#include "headwise/cache/page_table.hpp"
#include "headwise/cache/page_tiles.hpp"
#include "headwise/cache/shared_pages.hpp"
#include "headwise/core/checked.hpp"
#include "headwise/core/index.hpp"

namespace headwise::detail {

/// Tokens [begin, end) that are to be written to a sequence.
struct WriteRange {
  PageTable* table;
  Index begin, end;
};

/// The pages of all layers and who holds them. Page tables change only here: each by one thread at a time, different ones
/// at the same time, since pool and index have a lock. What is written goes only into pages that one table alone holds.
class PageStore {
 public:
  /// `tiles` [storage], of num_pages pages each.
  PageStore(std::vector<PageTiles> tiles, Index num_pages, Index page_tokens)
      : page_tokens_(page_tokens), tiles_(std::move(tiles)), pages_(num_pages, page_tokens) {}

  Index page_tokens() const { return page_tokens_; }
  Index num_storages() const { return std::ssize(tiles_); }
  PageTiles& tiles(Index storage) { return checked_at(tiles_, storage, "storage of a PagedCache"); }
  const PageTiles& tiles(Index storage) const { return checked_at(tiles_, storage, "storage of a PagedCache"); }
  /// Pages that hold `tokens` tokens.
  Index pages_of(Index tokens) const { return ceil_div(tokens, page_tokens_); }
  /// Tile i of a sequence.
  std::byte* tile(Index storage, const PageTable& table, Index kv_head, Index i) {
    const Index per_page = page_tokens_ / kTileTokens;
    return tiles(storage).tile(table.page(i / per_page), kv_head, i % per_page);
  }

  /// f(pages) under the lock.
  template <class F>
  auto look(F f) const {
    const std::lock_guard lock(mutex_);
    return f(std::as_const(pages_));
  }

  /// Sees that range_of(i), for i of 0 … count − 1, of different tables, can be written: takes pages for tokens beyond the
  /// table, and copies those that others hold too. Throws OutOfPages or std::bad_alloc; nothing has changed then.
  template <class RangeOf>
  void make_writable(Index count, RangeOf range_of) {
    bool ready = true;
    for (Index i = 0; i < count && ready; ++i) ready = is_writable(range_of(i));
    if (ready) return;
    for (Index i = 0; i < count; ++i) {
      const WriteRange range = range_of(i);
      make_room(*range.table, std::max(range.table->num_pages(), pages_of(range.end)) + touched(range));
    }
    take_pages(count, range_of);
    for (Index i = 0; i < count; ++i) copy_shared(range_of(i));
  }
  void make_writable(WriteRange range) {
    make_writable(1, [&](Index) { return range; });
  }

  /// `child`, which is empty, becomes a table of the same pages. Throws std::bad_alloc; nothing has changed then.
  void fork(const PageTable& parent, PageTable& child) {
    const Index pages = pages_of(parent.most_tokens());
    make_room(child, pages);
    const std::lock_guard lock(mutex_);
    for (Index i = 0; i < pages; ++i) {
      pages_.share(parent.page(i));
      child.pages.push_back(parent.page(i));
    }
    child.tokens = parent.tokens;
    child.intact = parent.intact;
  }

  /// Gives back the pages behind the first `pages`.
  void shrink(PageTable& table, Index pages) noexcept(!kChecked) {
    if (pages >= table.num_pages()) return;
    const std::lock_guard lock(mutex_);
    while (table.num_pages() > pages) {  // the last first: in the index, what follows is older than what it follows
      pages_.drop(table.pages.back());
      table.pages.pop_back();
    }
  }

  /// Takes pages [first, last) out of the table.
  void remove(PageTable& table, Index first, Index last) noexcept(!kChecked) {
    const std::lock_guard lock(mutex_);
    for (Index i = last; i-- > first;) pages_.drop(table.page(i));
    table.pages.erase(table.pages.begin() + first, table.pages.begin() + last);
  }

  /// Storages [first, last) keep their first `tokens` tokens, or all if they hold fewer. Takes a page only where the page
  /// that is cut has other holders and infinities or NaN behind the cut, which must not stay: throws OutOfPages then.
  void truncate(PageTable& table, Index first, Index last, Index tokens) {
    const Index i = tokens / page_tokens_, slot = tokens % kTileTokens;
    const Index tile = tokens % page_tokens_ / kTileTokens;
    const auto end = [&](Index s) {  // of what is cut off from the tile
      return std::min(kTileTokens, table.tokens[static_cast<std::size_t>(s)] - (tokens - slot));
    };
    if (slot > 0 && i < table.num_pages()) {
      bool finite = true;
      for (Index s = first; s < last && finite && !pages_.pool().is_writable(table.page(i)); ++s)
        finite = tiles(s).is_finite(table.page(i), tile, slot, end(s));
      if (!finite) make_writable({&table, tokens, tokens + 1});
      // kernels multiply what is in unwritten slots by 0
      for (Index s = first; s < last && pages_.pool().is_writable(table.page(i)); ++s)
        if (end(s) > slot) tiles(s).clear(table.page(i), tile, slot, end(s));
    }
    for (Index s = first; s < last; ++s) {
      Index& stored = table.tokens[static_cast<std::size_t>(s)];
      stored = std::min(stored, tokens);
    }
    const Index most = table.most_tokens();
    if (most <= table.intact) table.intact = PageTable{}.intact;
    shrink(table, pages_of(most));
  }

  /// `child`, which is empty, becomes a table of the longest chain of pages in the index that holds the first of `tokens`.
  /// At least the last `leave` tokens are left out.
  void match(std::span<const std::int32_t> tokens, Index leave, std::uint64_t salt, PageTable& child) {
    const Index most = std::max(Index{0}, std::ssize(tokens) - leave) / page_tokens_;
    make_room(child, most);
    const std::lock_guard lock(mutex_);
    pages_.match(tokens, most, salt, child.pages);
    std::fill(child.tokens.begin(), child.tokens.end(), child.num_pages() * page_tokens_);
  }

  /// Puts the first pages of the table, which hold `tokens`, into the index. A page that the index has already, bit for
  /// bit, takes the place of the table's own. Ends where the index has one with other bits. Returns the tokens of these
  /// pages.
  Index enter(PageTable& table, std::span<const std::int32_t> tokens, std::uint64_t salt) noexcept(!kChecked) {
    Index i = 0;
    std::unique_lock lock(mutex_);
    // no page that is passed can leave the index: this table holds it and those before
    for (; (i + 1) * page_tokens_ <= std::ssize(tokens); ++i) {
      const PageId mine = table.page(i),
                   other = pages_.enter(tokens, i * page_tokens_, salt, i == 0 ? -1 : table.page(i - 1), mine);
      if (other < 0) break;
      if (other == mine) continue;
      pages_.share(other);
      lock.unlock();
      const bool same =
          std::all_of(tiles_.begin(), tiles_.end(), [&](const PageTiles& t) { return t.equal(mine, other); });
      lock.lock();
      pages_.drop(same ? mine : other);
      if (!same) break;
      table.page(i) = other;
    }
    return i * page_tokens_;
  }
  /// Page i becomes page to[i]; `held` of them, and no others, come to be below `held`: the rest is free. No table is
  /// changed. Alone on all threads.
  void rename(const std::vector<PageId>& to, PageId held) {
    std::vector<PageId> target = to;  // of what is in place i
    for (PageId i = 0; i < static_cast<PageId>(std::ssize(to)); ++i)
      while (target[static_cast<std::size_t>(i)] < held && target[static_cast<std::size_t>(i)] != i) {
        const PageId j = target[static_cast<std::size_t>(i)];
        const bool is_free = target[static_cast<std::size_t>(j)] >= held;
        for (PageTiles& tiles : tiles_) is_free ? tiles.copy(i, j) : tiles.swap(i, j);
        std::swap(target[static_cast<std::size_t>(i)], target[static_cast<std::size_t>(j)]);
      }
    const std::lock_guard lock(mutex_);
    pages_.rename(to);
  }

  /// At least doubles, so that tables do not move each time a page is added.
  static void make_room(PageTable& table, Index pages) {
    const auto size = static_cast<std::size_t>(pages);
    if (table.pages.capacity() < size) table.pages.reserve(std::max(size, 2 * table.pages.capacity()));
  }

  /// Takes all pages out of the index.
  void clear_index() noexcept(!kChecked) {
    const std::lock_guard lock(mutex_);
    pages_.forget_all();
  }

 private:
  /// The pages of the table that the range lies in: [first, last).
  Index first_page(const WriteRange& range) const { return range.begin / page_tokens_; }
  Index last_page(const WriteRange& range) const { return std::min(range.table->num_pages(), pages_of(range.end)); }
  Index touched(const WriteRange& range) const { return std::max(Index{0}, last_page(range) - first_page(range)); }
  Index missing(const WriteRange& range) const {
    return std::max(Index{0}, pages_of(range.end) - range.table->num_pages());
  }
  bool is_writable(const WriteRange& range) const {
    if (missing(range) > 0) return false;
    for (Index i = first_page(range); i < last_page(range); ++i)
      if (!pages_.pool().is_writable(range.table->page(i))) return false;
    return true;
  }

  /// Behind each table, the pages that it lacks and then those for copies.
  template <class RangeOf>
  void take_pages(Index count, RangeOf range_of) {
    const std::lock_guard lock(mutex_);
    const Index available = pages_.available();
    Index wanted = 0;
    for (Index i = 0; i < count; ++i) {
      const WriteRange range = range_of(i);
      wanted += missing(range);
      for (Index p = first_page(range); p < last_page(range); ++p)
        wanted += !pages_.pool().is_writable(range.table->page(p));
    }
    const bool scarce = wanted > available;
    if (scarce) {
      wanted = 0;
      for (Index i = 0; i < count; ++i) wanted += missing(range_of(i)) + copies_if_scarce(i, range_of);
      if (wanted > available)
        throw OutOfPages(wanted, pages_.pool().free(), pages_.pool().idle(), pages_.pool().size());
      for (Index i = 0; i < count; ++i) {
        const WriteRange range = range_of(i);
        for (Index p = first_page(range); p < last_page(range); ++p)
          if (const PageId page = range.table->page(p);
              pages_.pool().is_indexed(page) && holders_left(i, page, range_of) == 1)
            pages_.forget(page);
      }
    }
    // counted before any is taken: what is written in place of a copy does not depend on the order
    for (Index i = 0; i < count; ++i) {
      PageTable& table = *range_of(i).table;
      table.spares = scarce ? copies_if_scarce(i, range_of) : 0;
      for (Index p = first_page(range_of(i)); !scarce && p < last_page(range_of(i)); ++p)
        table.spares += !pages_.pool().is_writable(table.page(p));
    }
    for (Index i = 0; i < count; ++i) {
      PageTable& table = *range_of(i).table;
      for (Index n = missing(range_of(i)) + table.spares; n > 0; --n) table.pages.push_back(pages_.take());
    }
  }

  /// Pages of range i that are copied if as few as possible are: the last to write a shared page has it alone when the
  /// others have made their copies, and rather than copy a page that the index alone shares, the index forgets it.
  template <class RangeOf>
  Index copies_if_scarce(Index i, RangeOf range_of) const {
    const WriteRange range = range_of(i);
    Index copies = 0;
    for (Index p = first_page(range); p < last_page(range); ++p)
      copies += holders_left(i, range.table->page(p), range_of) > 1;
    return copies;
  }
  /// Tables that hold a page of range i when the ranges before have made their copies of it.
  template <class RangeOf>
  Index holders_left(Index i, PageId page, RangeOf range_of) const {
    Index holders = pages_.pool().uses(page);
    for (Index j = 0; j < i; ++j) {
      const WriteRange earlier = range_of(j);
      for (Index p = first_page(earlier); p < last_page(earlier); ++p) holders -= earlier.table->page(p) == page;
    }
    return holders;
  }

  /// Copies the pages of the range that others hold too into the spare ones.
  void copy_shared(const WriteRange& range) noexcept(!kChecked) {
    PageTable& table = *range.table;
    for (Index i = first_page(range); table.spares > 0 && i < pages_of(range.end); ++i) {
      const PageId old = table.page(i);
      if (pages_.pool().is_writable(old)) continue;
      const PageId copy = table.pages.back();
      table.pages.pop_back();
      --table.spares;
      for (Index s = 0; s < num_storages(); ++s)
        tiles(s).copy(old, copy,
                      std::clamp(table.tokens[static_cast<std::size_t>(s)] - i * page_tokens_, Index{0}, page_tokens_));
      table.page(i) = copy;
      const std::lock_guard lock(mutex_);
      pages_.drop(old);
    }
    const Index rest = std::exchange(table.spares, 0);  // others have let go of a page meanwhile
    if (rest > 0) shrink(table, table.num_pages() - rest);
  }

  Index page_tokens_;
  std::vector<PageTiles> tiles_;  // [storage]
  mutable std::mutex mutex_;      // of what follows
  SharedPages pages_;
};

}  // namespace headwise::detail
