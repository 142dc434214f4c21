// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

#include "headwise/kernel/table.hpp"

namespace headwise::testing {

/// f32 rows, one behind another, as `scores` meets them.
inline std::vector<float> grouped(const TileKernels& kernels, std::vector<float> queries, Index rows) {
  const Index dim = std::ssize(queries) / rows;
  std::vector<float> scratch(static_cast<std::size_t>(16 * dim));
  if (kernels.group_rows) kernels.group_rows(queries.data(), rows, dim, scratch.data());
  return queries;
}

}  // namespace headwise::testing
