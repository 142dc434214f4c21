// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>

#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"

// How many query heads each KV head is given for the norm of its keys: Khan et al., Beyond Uniform Query Distribution:
// Key-Driven Grouped Query Attention, 2024 (arXiv 2408.08454).

namespace headwise::regroup {

enum class KeyDrivenMode : std::uint8_t {
  /// In proportion to the norms: shares H·n / Σn rounded down, and the heads left over to the largest remainders, ties to
  /// the lowest index.
  ratio,
  /// As the authors' code: norms are first spread to 0 … 1 by (n − min) / (max − min), their shares rounded to nearest,
  /// ties to even; then the largest group loses, or the smallest gains, a head at a time until they are H (ties to the
  /// lowest index). So the KV head of the smallest norm is given nothing but what is left over.
  authors_minmax,
};

namespace detail {

/// Shares of num_heads in proportion to importances: share(g) = num_heads·weight(g) / Σ weight. Exact where importances
/// are whole numbers, so that ties are ties.
class HeadShares {
 public:
  HeadShares(std::span<const double> norms, Index num_heads, KeyDrivenMode mode)
      : norms_(norms), num_heads_(static_cast<double>(num_heads)) {
    const auto [least, most] = std::ranges::minmax(norms);
    equal_ = least == most;
    if (mode == KeyDrivenMode::authors_minmax) least_ = least;
    std::frexp(most, &exponent_);
    for (std::size_t g = 0; g < norms.size(); ++g) sum_ += weight(g);
  }

  bool are_equal() const { return equal_; }
  Index whole(std::size_t g) const {
    return static_cast<Index>(std::round((num_heads_ * weight(g) - remainder(g)) / sum_));
  }
  /// Of the share, times Σ weight: fmod has no rounding.
  double remainder(std::size_t g) const { return std::fmod(num_heads_ * weight(g), sum_); }
  /// Ties to even.
  Index nearest(std::size_t g) const {
    const double twice = 2 * remainder(g);
    const Index down = whole(g);
    return down + (twice > sum_ || (twice == sum_ && down % 2 != 0) ? 1 : 0);
  }

 private:
  /// Scaled by a power of two, so that no sum overflows.
  double weight(std::size_t g) const { return equal_ ? 1 : std::ldexp(norms_[g] - least_, -exponent_); }

  std::span<const double> norms_;
  double num_heads_, least_ = 0, sum_ = 0;
  bool equal_ = false;
  int exponent_ = 0;
};

/// Hands out num_heads − Σ sizes more heads, one each, by the largest remainder.
inline void give_to_largest_remainders(const HeadShares& shares, Index num_heads, std::span<Index> sizes) {
  Index left = num_heads;
  for (const Index size : sizes) left -= size;
  // the order of the remainders is nowhere written down: each next one is looked for behind the one before
  double before = 0;
  std::size_t before_index = sizes.size();  // none
  for (; left > 0; --left) {
    double best = -1;
    std::size_t best_index = 0;
    for (std::size_t g = 0; g < sizes.size(); ++g) {
      const double remainder = shares.remainder(g);
      const bool behind =
          before_index == sizes.size() || remainder < before || (remainder == before && g > before_index);
      if (behind && remainder > best) best = remainder, best_index = g;
    }
    ++sizes[best_index];
    before = best;
    before_index = best_index;
  }
}

/// Takes from the largest or gives to the smallest, one head at a time, until the sizes are num_heads.
inline void level_to(Index num_heads, std::span<Index> sizes) {
  Index sum = 0;
  for (const Index size : sizes) sum += size;
  for (; sum > num_heads; --sum) --*std::ranges::max_element(sizes);
  for (; sum < num_heads; ++sum) ++*std::ranges::min_element(sizes);
}

}  // namespace detail

/// Allocates num_heads query heads to KV heads by the norms of their keys and writes the boundaries of the groups, as
/// Options::group_boundaries takes them: KV head g is read by query heads boundaries[g] … boundaries[g+1] − 1. A group may
/// be empty. Equal norms give equal groups, the first of them a head more where the heads do not divide; so do norms that
/// are all zero.
///   norms       [num_kv_heads] of the keys, or any other importance; finite and at least 0
///   boundaries  [num_kv_heads + 1], written
/// Allocates nothing. Throws std::invalid_argument, before anything is written, where sizes do not fit or a norm is NaN,
/// infinite or negative.
inline void allocate(std::span<const double> norms, Index num_heads, KeyDrivenMode mode, std::span<Index> boundaries) {
  require(!norms.empty(), "norms (0) must be of at least 1 KV head");
  require(num_heads >= 1, "num_heads (", num_heads, ") must be at least 1");
  require(std::ssize(boundaries) == std::ssize(norms) + 1, "boundaries (", boundaries.size(),
          " numbers) must hold one more than the ", norms.size(), " norms");
  for (std::size_t g = 0; g < norms.size(); ++g)
    require(std::isfinite(norms[g]) && norms[g] >= 0, "norms[", g, "] (", norms[g], ") must be finite and at least 0");

  const detail::HeadShares shares(norms, num_heads, mode);
  const bool by_remainder = mode == KeyDrivenMode::ratio || shares.are_equal();
  const std::span<Index> sizes = boundaries.subspan(1);
  for (std::size_t g = 0; g < sizes.size(); ++g) sizes[g] = by_remainder ? shares.whole(g) : shares.nearest(g);
  if (by_remainder)
    detail::give_to_largest_remainders(shares, num_heads, sizes);
  else
    detail::level_to(num_heads, sizes);
  boundaries[0] = 0;
  for (std::size_t g = 1; g < boundaries.size(); ++g) boundaries[g] += boundaries[g - 1];
}

}  // namespace headwise::regroup
