// SPDX-License-Identifier: MIT
#pragma once

#include <iterator>
#include <span>
#include <string_view>

#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"

namespace headwise::detail {

/// Checks offsets [sequences + 1] of packed rows: those of sequence b are rows offsets[b] … offsets[b + 1] − 1. `whose`
/// says whose sequences they are, `what` what the rows are, both in the plural.
inline void check_offsets(std::span<const Index> offsets, std::string_view name, Index sequences,
                          std::string_view whose, Index rows, std::string_view what) {
  require(std::ssize(offsets) == sequences + 1, name, " (", offsets.size(), " numbers) must hold one more than ", whose,
          " (", sequences, ")");
  require(offsets.front() == 0, name, "[0] (", offsets.front(), ") must be 0");
  for (std::size_t b = 1; b < offsets.size(); ++b)
    require(offsets[b] >= offsets[b - 1] && offsets[b] <= rows, name, "[", b, "] (", offsets[b],
            ") must be the offset before it (", offsets[b - 1], ") to the ", what, " (", rows, ")");
  require(offsets.back() == rows, name, "[", sequences, "] (", offsets.back(), ") must be the ", what, " (", rows, ")");
}

}  // namespace headwise::detail
