// SPDX-License-Identifier: MIT
#pragma once

#include <span>
#include <utility>
#include <vector>

#include "headwise/core/checked.hpp"
#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"

namespace headwise {

/// Which KV head each query head reads, and its inverse: the query heads of each KV head (the group).
/// A group may be empty. Every constructor throws std::invalid_argument on a bad map.
class HeadMap {
 public:
  /// m(i) = i / (H/G): consecutive query heads share a KV head. num_heads must be a multiple of num_kv_heads.
  static HeadMap contiguous(Index num_heads, Index num_kv_heads) {
    check_counts(num_heads, num_kv_heads);
    require(num_heads % num_kv_heads == 0, "num_heads (", num_heads, ") must be a multiple of num_kv_heads (",
            num_kv_heads, "); pass a HeadMap for unequal groups");
    return from(num_heads, num_kv_heads, [&](Index i) { return i / (num_heads / num_kv_heads); });
  }

  /// m(i) = i mod G.
  static HeadMap cyclic(Index num_heads, Index num_kv_heads) {
    check_counts(num_heads, num_kv_heads);
    return from(num_heads, num_kv_heads, [&](Index i) { return i % num_kv_heads; });
  }

  /// m(i) = floor(i·G / H): consecutive groups whose sizes differ by at most one.
  static HeadMap balanced(Index num_heads, Index num_kv_heads) {
    check_counts(num_heads, num_kv_heads);
    return from(num_heads, num_kv_heads, [&](Index i) { return i * num_kv_heads / num_heads; });
  }

  /// Consecutive groups of the given sizes; a size may be 0.
  static HeadMap blocks(std::span<const Index> sizes) {
    std::vector<Index> map;
    for (Index g = 0; g < std::ssize(sizes); ++g) {
      const Index size = sizes[static_cast<std::size_t>(g)];
      require(size >= 0 && size <= kMaxHeads, "sizes[", g, "] (", size, ") of a HeadMap must be 0 to ", kMaxHeads);
      map.insert(map.end(), static_cast<std::size_t>(size), g);
    }
    return HeadMap(std::move(map), std::ssize(sizes));
  }

  /// Any map: kv_head_of[i] is the KV head of query head i, each 0 … num_kv_heads-1.
  static HeadMap arbitrary(std::span<const Index> kv_head_of, Index num_kv_heads) {
    return HeadMap(std::vector<Index>(kv_head_of.begin(), kv_head_of.end()), num_kv_heads);
  }

  Index num_heads() const { return std::ssize(kv_head_of_); }
  Index num_kv_heads() const { return std::ssize(offsets_) - 1; }

  /// The KV head of query head i.
  Index kv_head_of(Index i) const { return detail::checked_at(kv_head_of_, i, "query head of a HeadMap"); }

  /// The query heads that share KV head g, ascending.
  std::span<const Index> query_heads_of(Index g) const {
    detail::checked_index(g, num_kv_heads(), "KV head of a HeadMap");
    const auto begin = static_cast<std::size_t>(offsets_[static_cast<std::size_t>(g)]);
    const auto end = static_cast<std::size_t>(offsets_[static_cast<std::size_t>(g) + 1]);
    return std::span(query_heads_).subspan(begin, end - begin);
  }

  friend bool operator==(const HeadMap&, const HeadMap&) = default;

 private:
  static constexpr Index kMaxHeads = 1 << 20;

  static void check_counts(Index num_heads, Index num_kv_heads) {
    require(num_heads >= 1 && num_heads <= kMaxHeads, "num_heads (", num_heads, ") must be 1 to ", kMaxHeads);
    require(num_kv_heads >= 1 && num_kv_heads <= num_heads, "num_kv_heads (", num_kv_heads,
            ") must be 1 to num_heads (", num_heads, ")");
  }

  template <class F>
  static HeadMap from(Index num_heads, Index num_kv_heads, F kv_head_of) {
    std::vector<Index> map(static_cast<std::size_t>(num_heads));
    for (Index i = 0; i < num_heads; ++i) map[static_cast<std::size_t>(i)] = kv_head_of(i);
    return HeadMap(std::move(map), num_kv_heads);
  }

  HeadMap(std::vector<Index> map, Index num_kv_heads) : kv_head_of_(std::move(map)) {
    require(!kv_head_of_.empty(), "num_heads (0) of a HeadMap must be at least 1");
    require(num_kv_heads >= 1 && num_kv_heads <= kMaxHeads, "num_kv_heads (", num_kv_heads,
            ") of a HeadMap must be 1 to ", kMaxHeads);
    offsets_.assign(static_cast<std::size_t>(num_kv_heads) + 1, 0);
    for (Index i = 0; i < num_heads(); ++i) {
      const Index g = this->kv_head_of(i);
      require(g >= 0 && g < num_kv_heads, "kv_head_of[", i, "] (", g, ") must be 0 to num_kv_heads - 1 (",
              num_kv_heads - 1, ")");
      ++offsets_[static_cast<std::size_t>(g) + 1];
    }
    for (std::size_t g = 1; g < offsets_.size(); ++g) offsets_[g] += offsets_[g - 1];
    query_heads_.resize(kv_head_of_.size());
    std::vector<Index> next(offsets_.begin(), offsets_.end() - 1);
    for (Index i = 0; i < num_heads(); ++i)
      query_heads_[static_cast<std::size_t>(next[static_cast<std::size_t>(this->kv_head_of(i))]++)] = i;
  }

  std::vector<Index> kv_head_of_;   // [query head]
  std::vector<Index> query_heads_;  // grouped by KV head
  std::vector<Index> offsets_;      // [KV head] → where its group starts in query_heads_
};

}  // namespace headwise
