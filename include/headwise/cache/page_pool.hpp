// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "headwise/core/checked.hpp"
#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"

namespace headwise {

/// More pages are wanted than can be had. Nothing has changed: every sequence is as it was.
class OutOfPages : public std::runtime_error {
 public:
  OutOfPages(Index wanted, Index free, Index evictable, Index total)
      : std::runtime_error(text(wanted, free, evictable, total)), wanted_(wanted), available_(free + evictable) {}

  /// Pages that the call needed.
  Index wanted() const { return wanted_; }
  /// Pages that it could have had.
  Index available() const { return available_; }

 private:
  static std::string text(Index wanted, Index free, Index evictable, Index total) {
    std::ostringstream result;
    result << "headwise: pages wanted (" << wanted << ") must be at most the free (" << free
           << ") and the evictable ones (" << evictable << ") of the " << total
           << " pages: release or truncate sequences";
    return result.str();
  }

  Index wanted_, available_;
};

namespace detail {

using PageId = std::int32_t;

/// Which pages are free, and how many page tables hold each of the others. An indexed page is one of the prefix index: it
/// stays when no table holds it, and its contents never change.
///
/// One thread at a time, except is_writable.
class PagePool {
 public:
  static constexpr Index kMaxPages = Index{1} << 30;

  explicit PagePool(Index num_pages)
      : size_(num_pages), states_(std::make_unique<std::atomic<State>[]>(static_cast<std::size_t>(num_pages))) {
    free_.resize(static_cast<std::size_t>(num_pages));
    // a stack: low pages first, and those that were written before those that never were
    for (Index i = 0; i < num_pages; ++i) free_[static_cast<std::size_t>(i)] = static_cast<PageId>(num_pages - 1 - i);
  }

  Index size() const { return size_; }
  Index free() const { return std::ssize(free_); }
  Index used() const { return used_; }                   // held by a table
  Index shared() const { return shared_; }               // held more than once
  Index idle() const { return size_ - used_ - free(); }  // held by the index alone
  Index peak() const { return peak_; }                   // the most that were used

  /// Whether the caller, whose table holds the page, is alone with it. Any thread may ask for pages of its sequences: no
  /// one else can make such a page one that is not.
  bool is_writable(PageId page) const { return at(page).load(std::memory_order_acquire) == kOnce; }
  /// Tables that hold the page.
  Index uses(PageId page) const { return at(page).load(std::memory_order_relaxed) / kOnce; }
  bool is_indexed(PageId page) const { return at(page).load(std::memory_order_relaxed) & kIndexed; }

  /// A free page for one table; there must be one.
  PageId take() {
    require_index(!free_.empty(), "pages free (0) must be at least 1");
    const PageId page = free_.back();
    free_.pop_back();
    at(page).store(kOnce, std::memory_order_relaxed);
    peak_ = std::max(peak_, ++used_);
    return page;
  }
  /// One more table holds the page.
  void share(PageId page) {
    const State before = at(page).fetch_add(kOnce, std::memory_order_relaxed);
    if (before / kOnce == 0) peak_ = std::max(peak_, ++used_);
    if (before / kOnce == 1) ++shared_;
  }
  /// One table less; whoever is alone with the page then sees all that this thread read and wrote before.
  void drop(PageId page) {
    const State before = at(page).fetch_sub(kOnce, std::memory_order_acq_rel);
    if (before / kOnce == 2) --shared_;
    if (before / kOnce == 1) --used_;
    if (before == kOnce) free_.push_back(page);
  }
  void set_indexed(PageId page) { at(page).fetch_or(kIndexed, std::memory_order_relaxed); }
  /// The index forgets the page, which is free if no table holds it.
  void clear_indexed(PageId page) {
    if (at(page).fetch_and(~kIndexed, std::memory_order_acq_rel) == kIndexed) free_.push_back(page);
  }

  /// Page i becomes page to[i], with its state.
  void rename(const std::vector<PageId>& to) {
    std::vector<State> states(to.size());
    for (std::size_t i = 0; i < to.size(); ++i) states[static_cast<std::size_t>(to[i])] = states_[i];
    free_.clear();
    for (std::size_t i = to.size(); i-- > 0;) {
      states_[i] = states[i];
      if (states[i] == 0) free_.push_back(static_cast<PageId>(i));
    }
  }

 private:
  using State = std::uint32_t;  // 2·tables + whether it is indexed
  static constexpr State kIndexed = 1, kOnce = 2;

  std::atomic<State>& at(PageId page) {
    return states_[static_cast<std::size_t>(checked_index(page, size_, "page id"))];
  }
  const std::atomic<State>& at(PageId page) const {
    return states_[static_cast<std::size_t>(checked_index(page, size_, "page id"))];
  }

  Index size_, used_ = 0, shared_ = 0, peak_ = 0;
  std::unique_ptr<std::atomic<State>[]> states_;
  std::vector<PageId> free_;
};

}  // namespace detail

}  // namespace headwise
