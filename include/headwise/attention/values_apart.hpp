// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <cstring>

#include "headwise/attention/workspace.hpp"
#include "headwise/core/tile_layout.hpp"
#include "headwise/kernel/table.hpp"

namespace headwise::detail {

/// Token t of a copied V tile becomes 0: its numbers or, where codes have scales, those.
inline void clear_value(void* tile, Storage storage, Index value_dim, Index t) {
  auto* const copy = static_cast<char*>(tile);
  if (has_scales(storage)) {
    char* const scales = copy + value_code_bytes(storage, value_dim);
    for (Index g = 0; g < scales_per_token(storage, value_dim); ++g)
      std::memset(scales + 2 * (g * kTileTokens + t), 0, 2);
    return;
  }
  for (Index d = 0; d < value_dim; ++d)
    std::memset(copy + value_index(storage, value_dim, t, d) * size_of(storage), 0,
                static_cast<std::size_t>(size_of(storage)));
}

/// The weighted sum of a tile that hides infinities or NaN, row by row, each over a copy of the values that holds what the
/// row sees (the bits of a word) and zeros; of a type that is met by f32 rows in f32, which gives the same bits.
/// value_dim is padded; `stored` the value_dim of the format.
template <class BitsOf>
void sum_values_apart(const TileKernels& kernels, Storage storage, const void* values, Index stored, Index value_dim,
                      Operand operand, const Workspace& memory, Index rows, BitsOf bits_of, float* output) {
  if (storage != Storage::f32 && kernels.operand[static_cast<int>(storage)] == Operand::f32) {
    kernels.widen_values[static_cast<int>(storage)](values, stored, memory.wide_values);
    values = memory.wide_values;
    storage = Storage::f32;
  }
  for (Index r = 0; r < rows; ++r) {
    const std::uint64_t bits = bits_of(r);
    std::memcpy(memory.values_copy, values, static_cast<std::size_t>(value_tile_bytes(storage, value_dim)));
    for (Index t = 0; t < kTileTokens; ++t)
      if ((bits >> t & 1) == 0) clear_value(memory.values_copy, storage, value_dim, t);
    kernels.weighted_sum[static_cast<int>(storage)](
        {static_cast<char*>(memory.weights) + r * row_bytes(operand, kTileTokens),
         memory.values_copy,
         output + r * value_dim,
         1,
         value_dim,
         kTileTokens,
         nullptr,
         {values, 0}});
  }
}

}  // namespace headwise::detail
