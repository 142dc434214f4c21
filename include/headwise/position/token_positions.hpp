// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <span>
#include <string_view>

#include "headwise/core/checked.hpp"
#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"

namespace headwise {

/// Where a token stands: at one position on all axes, as text does, or at one of its own in time, height and width.
struct RopePosition {
  Index temporal = 0, height = 0, width = 0;

  constexpr RopePosition() = default;
  constexpr RopePosition(Index position)  // NOLINT: converts on purpose
      : temporal(position), height(position), width(position) {}
  constexpr RopePosition(Index t, Index h, Index w) : temporal(t), height(h), width(w) {}

  constexpr Index on(int axis) const { return axis == 0 ? temporal : axis == 1 ? height : width; }
};

namespace detail {

/// Beyond, double does not hold every integer.
inline constexpr Index kMaxPosition = Index{1} << 53;

/// Where the tokens of one sequence stand: at `first`, first + 1, …, or, unless it is empty, as `listed` says.
struct TokenPositions {
  Index first = 0;
  std::span<const Index> listed{};  // [token][axes]
  Index axes = 1;                   // 1, or 3 of a Rope with sections

  RopePosition of(Index token) const {
    if (listed.empty()) return first + token;
    check_range(token * axes, axes, std::ssize(listed), "positions of a token");
    const Index* const numbers = listed.data() + token * axes;
    return axes == 1 ? RopePosition(numbers[0]) : RopePosition(numbers[0], numbers[1], numbers[2]);
  }
  /// The length of a sequence whose last tokens are the first `tokens` of these: the largest position and one.
  Index length(Index tokens) const {
    if (listed.empty() || tokens == 0) return first + tokens;
    return *std::max_element(listed.begin(), listed.begin() + tokens * axes) + 1;
  }
};

/// Throws std::invalid_argument unless `listed` is empty or holds the positions of so many tokens.
inline void check_position_count(std::string_view name, std::span<const Index> listed, Index tokens, Index axes) {
  require(std::ssize(listed) == tokens * axes, name, " (", listed.size(), ") must hold ",
          axes == 1 ? "one position" : "three positions, temporal, height and width,", " per token (", tokens * axes,
          ")");
}
/// Throws std::invalid_argument unless numbers [begin, end) of `listed` are positions.
inline void check_position_range(std::string_view name, std::span<const Index> listed, Index begin, Index end) {
  for (Index i = begin; i < end; ++i) {
    const Index position = listed[static_cast<std::size_t>(i)];
    require(position >= 0 && position <= kMaxPosition, name, "[", i, "] (", position, ") must be 0 to ", kMaxPosition);
  }
}
inline void check_positions(std::string_view name, std::span<const Index> listed, Index tokens, Index axes) {
  check_position_count(name, listed, tokens, axes);
  check_position_range(name, listed, 0, std::ssize(listed));
}

}  // namespace detail

}  // namespace headwise
