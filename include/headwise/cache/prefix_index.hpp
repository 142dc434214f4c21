// SPDX-License-Identifier: MIT
#pragma once

#include <bit>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "headwise/cache/page_pool.hpp"
#include "headwise/core/checked.hpp"
#include "headwise/core/index.hpp"

namespace headwise::detail {

/// Hash of a page of tokens behind what `parent` is the hash of.
inline std::uint64_t hash_tokens(std::uint64_t parent, std::span<const std::int32_t> tokens) {
  std::uint64_t hash = parent;
  for (const std::int32_t token : tokens) {  // the finalizer of SplitMix64
    hash += 0x9e3779b97f4a7c15u + static_cast<std::uint32_t>(token);
    hash = (hash ^ (hash >> 30)) * 0xbf58476d1ce4e5b9u;
    hash = (hash ^ (hash >> 27)) * 0x94d049bb133111ebu;
    hash ^= hash >> 31;
  }
  return hash;
}

/// Full pages by the tokens they hold and all tokens before: automatic prefix caching (Kwon et al. 2023, arXiv 2309.06180).
/// An entry is a page of tokens behind its parent, an entry too; entries are found by a hash of the chain, and their tokens
/// and parents compared, so that a collision never gives a wrong page. Entries whose page no sequence uses are idle, in
/// order of their last use. Allocates nothing after construction.
class PrefixIndex {
 public:
  using Entry = std::int32_t;
  using Hash = std::uint64_t (*)(std::uint64_t parent, std::span<const std::int32_t> tokens);
  static constexpr Entry kNone = -1;

  PrefixIndex(Index num_pages, Index page_tokens, Hash hash = hash_tokens)
      : hash_(hash),
        page_tokens_(page_tokens),
        buckets_(std::bit_ceil(static_cast<std::size_t>(num_pages)), kNone),
        links_(static_cast<std::size_t>(num_pages)),
        entry_of_page_(static_cast<std::size_t>(num_pages), kNone),
        // uninitialised: what is never reached takes no memory
        tokens_(std::make_unique_for_overwrite<std::int32_t[]>(static_cast<std::size_t>(num_pages * page_tokens))) {
    for (Index i = num_pages; i-- > 0;) {
      at(static_cast<Entry>(i)).next_in_bucket = unused_;
      unused_ = static_cast<Entry>(i);
    }
  }

  PageId page(Entry entry) const { return at(entry).page; }
  /// The entry of a page, or kNone.
  Entry entry_of(PageId page) const { return checked_at(entry_of_page_, page, "page id"); }

  /// The entry of these page_tokens tokens behind `parent`, or, where that is kNone, at the beginning of sequences with
  /// this salt; kNone if there is none.
  Entry find(Entry parent, std::uint64_t salt, std::span<const std::int32_t> tokens) const {
    const std::uint64_t hash = hash_of(parent, salt, tokens);
    for (Entry e = bucket(hash); e != kNone; e = at(e).next_in_bucket)
      if (at(e).hash == hash && at(e).parent == parent && (parent != kNone || at(e).salt == salt) &&
          std::equal(tokens.begin(), tokens.end(), tokens_of(e)))
        return e;
    return kNone;
  }

  /// A new entry of a page that has none, in use.
  Entry add(Entry parent, std::uint64_t salt, std::span<const std::int32_t> tokens, PageId page) {
    const Entry e = unused_;
    unused_ = at(e).next_in_bucket;
    const std::uint64_t hash = hash_of(parent, salt, tokens);
    Links& entry = at(e) = Links{};
    entry.hash = hash;
    entry.salt = salt;
    entry.page = page;
    entry.next_in_bucket = bucket(hash);
    bucket(hash) = e;
    entry.parent = parent;
    if (parent != kNone) {
      entry.next_sibling = at(parent).first_child;
      if (entry.next_sibling != kNone) at(entry.next_sibling).previous_sibling = e;
      at(parent).first_child = e;
    }
    std::copy(tokens.begin(), tokens.end(), tokens_of(e));
    entry_of_page_[static_cast<std::size_t>(page)] = e;
    return e;
  }

  /// No sequence uses its page any more: it is the youngest of the idle ones.
  void set_idle(Entry e) {
    Links& entry = at(e);
    entry.idle = true;
    entry.older = youngest_;
    entry.younger = kNone;
    (youngest_ == kNone ? oldest_ : at(youngest_).younger) = e;
    youngest_ = e;
  }
  /// A sequence uses it again.
  void set_used(Entry e) {
    Links& entry = at(e);
    entry.idle = false;
    (entry.older == kNone ? oldest_ : at(entry.older).younger) = entry.younger;
    (entry.younger == kNone ? youngest_ : at(entry.younger).older) = entry.older;
  }

  /// The entry to give up first: the idle one that was used least recently, but never before an idle one behind it. There
  /// must be one.
  Entry oldest_idle() const {
    Entry e = oldest_;
    for (Entry child = at(e).first_child; child != kNone;) {
      if (at(child).idle) {
        e = child;
        child = at(e).first_child;
      } else {
        child = at(child).next_sibling;
      }
    }
    return e;
  }

  /// Removes an entry and all behind it, which could not be found any more; removed(page) sees the page of each.
  template <class Removed>
  void remove(Entry entry, Removed removed) {
    for (Entry e = entry;;) {
      while (at(e).first_child != kNone) e = at(e).first_child;
      const Entry parent = at(e).parent;
      const PageId page = at(e).page;
      unlink(e);
      removed(page);
      if (e == entry) return;
      e = parent;
    }
  }

  /// Page i is page to[i] now.
  void rename(const std::vector<PageId>& to) {
    for (const Entry e : entry_of_page_)
      if (e != kNone) at(e).page = to[static_cast<std::size_t>(at(e).page)];
    std::vector<Entry> entries(entry_of_page_.size());
    for (std::size_t i = 0; i < entries.size(); ++i) entries[static_cast<std::size_t>(to[i])] = entry_of_page_[i];
    entry_of_page_.swap(entries);
  }

 private:
  struct Links {
    std::uint64_t hash = 0, salt = 0;
    PageId page = 0;
    bool idle = false;
    Entry next_in_bucket = kNone;
    Entry parent = kNone, first_child = kNone, next_sibling = kNone, previous_sibling = kNone;
    Entry older = kNone, younger = kNone;  // of the idle ones
  };

  Links& at(Entry e) { return checked_at(links_, e, "entry of the prefix index"); }
  const Links& at(Entry e) const { return checked_at(links_, e, "entry of the prefix index"); }
  Entry& bucket(std::uint64_t hash) { return buckets_[hash & (buckets_.size() - 1)]; }
  Entry bucket(std::uint64_t hash) const { return buckets_[hash & (buckets_.size() - 1)]; }
  std::int32_t* tokens_of(Entry e) const { return tokens_.get() + e * page_tokens_; }
  std::uint64_t hash_of(Entry parent, std::uint64_t salt, std::span<const std::int32_t> tokens) const {
    return hash_(parent == kNone ? salt : at(parent).hash, tokens);
  }

  /// Removes an entry without children.
  void unlink(Entry e) {
    Links& entry = at(e);
    if (entry.idle) set_used(e);
    Entry* link = &bucket(entry.hash);
    while (*link != e) link = &at(*link).next_in_bucket;
    *link = entry.next_in_bucket;
    if (entry.next_sibling != kNone) at(entry.next_sibling).previous_sibling = entry.previous_sibling;
    if (entry.previous_sibling != kNone)
      at(entry.previous_sibling).next_sibling = entry.next_sibling;
    else if (entry.parent != kNone)
      at(entry.parent).first_child = entry.next_sibling;
    entry_of_page_[static_cast<std::size_t>(entry.page)] = kNone;
    entry.next_in_bucket = unused_;
    unused_ = e;
  }

  Hash hash_;
  Index page_tokens_;
  std::vector<Entry> buckets_;  // first of each chain
  std::vector<Links> links_;    // [entry]
  std::vector<Entry> entry_of_page_;
  std::unique_ptr<std::int32_t[]> tokens_;  // [entry][page_tokens]
  Entry unused_ = kNone, oldest_ = kNone, youngest_ = kNone;
};

}  // namespace headwise::detail
