// SPDX-License-Identifier: MIT
#pragma once

namespace headwise::detail {

/// Scores are kept in units of log2, so that weights are powers of two: natural ones times log2 e, and back.
inline constexpr float kLog2e = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

}  // namespace headwise::detail
