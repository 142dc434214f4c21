// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "headwise/core/checked.hpp"
#include "headwise/core/index.hpp"

namespace headwise::detail {

/// Whose memory each sequence takes when sequence b becomes what sequence parents[b] was. One child of every parent, the
/// parent itself where it is one, takes the parent's; each of the others takes that of a sequence without children and
/// needs a copy. So as little as possible is copied, never out of memory that was written before, and a permutation
/// copies nothing.
class ReorderPlan {
 public:
  ReorderPlan() = default;
  explicit ReorderPlan(Index num_sequences)
      : home_(static_cast<std::size_t>(num_sequences)), taken_(static_cast<std::size_t>(num_sequences)) {}

  /// parents [sequence], each a sequence. Allocates nothing.
  void make(std::span<const Index> parents) noexcept {
    const std::size_t count = parents.size();
    for (std::size_t b = 0; b < count; ++b) {
      home_[b] = -1;
      taken_[b] = 0;
    }
    const auto parent = [&](std::size_t b) { return static_cast<std::size_t>(parents[b]); };
    for (std::size_t b = 0; b < count; ++b)
      if (parent(b) == b) take(b, b);
    for (std::size_t b = 0; b < count; ++b)
      if (home_[b] < 0 && !taken_[parent(b)]) take(b, parent(b));
    for (std::size_t b = 0, free = 0; b < count; ++b) {
      if (home_[b] >= 0) continue;
      while (taken_[free]) ++free;
      take(b, free);
    }
  }

  /// The sequence whose memory sequence b takes.
  Index home(Index sequence) const { return checked_at(home_, sequence, "sequence of a reordering"); }

 private:
  void take(std::size_t sequence, std::size_t home) {
    home_[sequence] = static_cast<Index>(home);
    taken_[home] = 1;
  }

  std::vector<Index> home_;           // [sequence]
  std::vector<unsigned char> taken_;  // [sequence]
};

}  // namespace headwise::detail
