// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "headwise/cache/page_pool.hpp"
#include "headwise/cache/prefix_index.hpp"
#include "headwise/core/index.hpp"

namespace headwise {

/// How often the prefix cache had what match_prefix asked for.
struct PrefixCounts {
  Index hit_tokens = 0;     ///< found
  Index missed_tokens = 0;  ///< asked for and not found
  friend bool operator==(const PrefixCounts&, const PrefixCounts&) = default;
};

namespace detail {

/// The pages of a pool and the index that keeps some of them: what holds between the two, and that pages of the index which
/// no table holds are given up where pages are wanted. One thread at a time.
class SharedPages {
 public:
  SharedPages(Index num_pages, Index page_tokens)
      : page_tokens_(page_tokens), pool_(num_pages), index_(num_pages, page_tokens) {}

  const PagePool& pool() const { return pool_; }
  const PrefixCounts& counts() const { return counts_; }
  /// Pages that can be taken.
  Index available() const { return pool_.free() + pool_.idle(); }

  /// A page for one table; there must be one.
  PageId take() {
    if (pool_.free() == 0) forget(index_.page(index_.oldest_idle()));
    return pool_.take();
  }
  /// One more table holds the page.
  void share(PageId page) {
    if (pool_.uses(page) == 0) index_.set_used(index_.entry_of(page));
    pool_.share(page);
  }
  /// One table less.
  void drop(PageId page) {
    const bool indexed = pool_.is_indexed(page);
    pool_.drop(page);
    if (indexed && pool_.uses(page) == 0) index_.set_idle(index_.entry_of(page));
  }
  /// Takes a page that is indexed, and those behind it, out of the index.
  void forget(PageId page) {
    index_.remove(index_.entry_of(page), [&](PageId gone) { pool_.clear_indexed(gone); });
  }
  void forget_all() {
    for (PageId page = 0; page < static_cast<PageId>(pool_.size()); ++page)
      if (pool_.is_indexed(page)) forget(page);
  }

  /// For one table, the longest chain of pages in the index that holds the first of `tokens`, a multiple of page_tokens;
  /// `pages` has room for them.
  void match(std::span<const std::int32_t> tokens, std::uint64_t salt, std::vector<PageId>& pages) {
    PrefixIndex::Entry entry = PrefixIndex::kNone;
    Index found = 0;
    for (; found < std::ssize(tokens); found += page_tokens_) {
      entry = index_.find(entry, salt, page_of(tokens, found));
      if (entry == PrefixIndex::kNone) break;
      share(index_.page(entry));
      pages.push_back(index_.page(entry));
    }
    counts_.hit_tokens += found;
    counts_.missed_tokens += std::ssize(tokens) - found;
  }
  /// The page of the index with the page_tokens tokens from `first` on behind the page `parent`, if any, of the index, or
  /// `page` if there was none and it is not in the index with other tokens; −1 else.
  PageId enter(std::span<const std::int32_t> tokens, Index first, std::uint64_t salt, PageId parent, PageId page) {
    const auto of_page = page_of(tokens, first);
    const PrefixIndex::Entry before = first == 0 ? PrefixIndex::kNone : index_.entry_of(parent);
    if (const PrefixIndex::Entry entry = index_.find(before, salt, of_page); entry != PrefixIndex::kNone)
      return index_.page(entry);
    if (pool_.is_indexed(page)) return -1;
    index_.add(before, salt, of_page, page);
    pool_.set_indexed(page);
    return page;
  }

  /// Page i is page to[i] now.
  void rename(const std::vector<PageId>& to) {
    pool_.rename(to);
    index_.rename(to);
  }

 private:
  std::span<const std::int32_t> page_of(std::span<const std::int32_t> tokens, Index first) const {
    return tokens.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(page_tokens_));
  }

  Index page_tokens_;
  PagePool pool_;
  PrefixIndex index_;
  PrefixCounts counts_;
};

}  // namespace detail

}  // namespace headwise
