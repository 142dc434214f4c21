// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "headwise/attention/work_item.hpp"
#include "headwise/attention/workspace.hpp"
#include "headwise/kernel/table.hpp"

// Partial results of the same rows over different keys: (m, l, o) and (m', l', o') give
//   M = max(m, m'),  L = l·2^(m−M) + l'·2^(m'−M),  O = o·2^(m−M) + o'·2^(m'−M).

namespace headwise::detail {

/// [rows][kMaxLanes] → [rows], pairwise: one order whatever the ISA fills of the lanes.
inline void reduce_lane_sums(const float* lanes, Index rows, float* sums) {
  for (Index r = 0; r < rows; ++r, lanes += kMaxLanes) {
    float a[kMaxLanes];
    std::copy_n(lanes, kMaxLanes, a);
    for (Index width = kMaxLanes / 2; width > 0; width /= 2)
      for (Index i = 0; i < width; ++i) a[i] += a[i + width];
    sums[r] = a[0];
  }
}

/// merged ← merged and next, in this order. A row that has seen no key (max −inf) leaves the other as it is.
inline void merge_rows(const TileKernels& kernels, const PartialRows& merged, const PartialRows& next, Index rows,
                       Index value_dim) {
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  for (Index r = 0; r < rows; ++r) {
    if (next.max[r] == kNone) continue;
    float *to = merged.output + r * value_dim, *from = next.output + r * value_dim;
    if (merged.max[r] == kNone) {
      merged.max[r] = next.max[r];
      merged.sum[r] = next.sum[r];
      std::copy_n(from, value_dim, to);
      continue;
    }
    // not std::max: a NaN on either side must survive
    const float max = next.max[r] > merged.max[r] ? next.max[r] : merged.max[r];
    const float a = std::exp2(merged.max[r] - max), b = std::exp2(next.max[r] - max);
    merged.max[r] = max;
    merged.sum[r] = std::fma(next.sum[r], b, merged.sum[r] * a);
    kernels.blend(to, a, from, b, value_dim);
  }
}

/// Merges the sums of segments as the binary tree over absolute positions: segments 2i and 2i + 1 become a block, blocks
/// of equal size likewise, and segments that nobody sees are left out of the tree. So the order of merging for a row is a
/// function of the segments that the row sees, whatever the rows beside it see (an unseen segment changes nothing), and a
/// part of the tree may as well be made on another thread. At most `merge_depth(segments)` partial results are alive at a
/// time.
class SegmentMerge {
 public:
  SegmentMerge(const TileKernels& kernels, Index rows, Index value_dim)
      : kernels_(kernels), rows_(rows), value_dim_(value_dim) {}

  Index count() const { return count_; }

  /// Takes the sum over segments [begin, begin + size), an aligned block behind those taken before. What has not been
  /// taken yet may come between two blocks only in the tree above both, so siblings alone are merged at once.
  void add(const PartialRows& sum, Index begin, Index size = 1) {
    checked_at(blocks_, count_++, "partial sum of a merge") = {sum, begin, size};
    while (count_ > 1 && are_siblings(at(count_ - 2), at(count_ - 1))) merge(count_ - 2);
  }

  /// Everything taken, in the place of the first block: the lowest pair of the tree first.
  PartialRows fold() {
    while (count_ > 1) {
      Index lowest = 0;
      for (Index i = 1; i + 1 < count_; ++i)
        if (level(i) < level(lowest)) lowest = i;
      merge(lowest);
    }
    return at(0).sum;
  }

 private:
  struct Block {
    PartialRows sum;
    Index begin, size;
  };
  Block& at(Index i) { return blocks_[static_cast<std::size_t>(checked_index(i, count_, "block of a merge"))]; }
  static bool are_siblings(const Block& a, const Block& b) {
    return a.size == b.size && a.begin + a.size == b.begin && a.begin % (2 * a.size) == 0;
  }
  /// Of the lowest node of the tree above blocks i and i + 1.
  int level(Index i) {
    return static_cast<int>(std::bit_width(static_cast<std::uint64_t>(at(i).begin ^ at(i + 1).begin)));
  }
  /// Block i and the one behind it become one.
  void merge(Index i) {
    merge_rows(kernels_, at(i).sum, at(i + 1).sum, rows_, value_dim_);
    at(i).size = at(i + 1).begin + at(i + 1).size - at(i).begin;
    for (Index j = i + 1; j + 1 < count_; ++j) at(j) = at(j + 1);
    --count_;
  }

  const TileKernels& kernels_;
  Index rows_, value_dim_, count_ = 0;
  std::array<Block, static_cast<std::size_t>(merge_depth(Index{1} << 62))> blocks_;
};

}  // namespace headwise::detail
