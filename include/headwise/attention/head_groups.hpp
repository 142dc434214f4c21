// SPDX-License-Identifier: MIT
#pragma once

#include <span>

#include "headwise/core/checked.hpp"
#include "headwise/core/head_map.hpp"
#include "headwise/core/index.hpp"

namespace headwise::detail {

/// The query heads of one KV head: those of a list, or consecutive ones.
class QueryHeads {
 public:
  explicit QueryHeads(std::span<const Index> heads) : list_(heads.data()), size_(std::ssize(heads)) {}
  QueryHeads(Index first, Index size) : first_(first), size_(size) {}

  Index size() const { return size_; }
  Index operator[](Index i) const {
    checked_index(i, size_, "query head of a group");
    return list_ ? list_[i] : first_ + i;
  }

 private:
  const Index* list_ = nullptr;
  Index first_ = 0, size_;
};

/// Which query heads read each KV head of each sequence: a map's, or what the boundaries of a call say
/// (Options::group_boundaries). Refers to either.
class HeadGroups {
 public:
  HeadGroups(const HeadMap& map, std::span<const Index> boundaries)
      : map_(&map),
        boundaries_(boundaries.empty() ? nullptr : boundaries.data()),
        of_next_sequence_(std::ssize(boundaries) == map.num_kv_heads() + 1 ? 0 : map.num_kv_heads() + 1) {}

  /// Of the shape, whether or not the map is what is followed.
  const HeadMap& map() const { return *map_; }
  Index num_kv_heads() const { return map_->num_kv_heads(); }

  QueryHeads of(Index sequence, Index kv_head) const {
    if (!boundaries_) return QueryHeads(map_->query_heads_of(kv_head));
    checked_index(kv_head, map_->num_kv_heads(), "KV head of the group boundaries");
    const Index* b = boundaries_ + sequence * of_next_sequence_ + kv_head;
    require_index(b[0] >= 0 && b[0] <= b[1] && b[1] <= map_->num_heads(), "group_boundaries (", b[0], " to ", b[1],
                  " of KV head ", kv_head, ") must rise and be at most num_heads (", map_->num_heads(), ")");
    return {b[0], b[1] - b[0]};
  }

 private:
  const HeadMap* map_;
  const Index* boundaries_;
  Index of_next_sequence_;
};

}  // namespace headwise::detail
