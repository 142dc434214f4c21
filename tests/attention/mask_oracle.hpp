// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "headwise/reference.hpp"
#include "headwise/score/options.hpp"

// The masks of options as the definition asks for them: key by key, from the memory that they refer to.

namespace headwise::testing {

/// The element of a mask, as a number to add: −inf where it hides.
inline double mask_element(const Mask& mask, Index sequence, Index head, Index token, Index key) {
  const char* const row = mask.row(sequence, head, token);
  const Index at = key * mask.key_stride();
  constexpr double kHidden = -std::numeric_limits<double>::infinity();
  switch (mask.kind()) {
    case MaskKind::bytes:
      return row[at] != 0 ? 0 : kHidden;
    case MaskKind::bits: {
      unsigned char byte;  // of little-endian words
      std::memcpy(&byte, row + at / 8, 1);
      return byte >> (at % 8) & 1 ? 0 : kHidden;
    }
    case MaskKind::additive:
      break;
  }
  return static_cast<double>(load_element(row, mask.storage(), at));
}

/// Adds the masks of `options` to the parameters of sequence b, whose query tokens are those from row `first_row` of the
/// tree mask on.
inline void add_masks(reference::Parameters& parameters, const Options& options, const reference::Shape& shape, Index b,
                      Index first_row) {
  const Index keys = parameters.key_length.value_or(shape.key_tokens),
              queries = parameters.query_length.value_or(shape.query_tokens), shift = keys - queries,
              group = shape.num_heads / shape.num_kv_heads;
  if (options.mask)
    parameters.added = [mask = *options.mask, b](Index h, Index i, Index t) { return mask_element(mask, b, h, i, t); };
  if (!options.tree_mask && !options.tile_set && !options.mask_function) return;
  parameters.visible = [options, b, first_row, shift, group, kv_head_of = parameters.kv_head_of, keys](Index h, Index i,
                                                                                                       Index t) {
    const Index p = shift + i;
    if (options.tree_mask && t >= shift) {
      const Index node = t - shift;
      if ((options.tree_mask->row(first_row + i)[node / 64] >> (node % 64) & 1) == 0) return false;
    }
    if (options.tile_set) {
      const Index g = kv_head_of.empty() ? h / group : kv_head_of[static_cast<std::size_t>(h)];
      if (!options.tile_set->contains(b, g, i, t / 64)) return false;
    }
    if (options.mask_function) {
      const Index first = t / 64 * 64;
      if (((*options.mask_function)({b, h, p, first, std::min<Index>(64, keys - first)}) >> (t - first) & 1) == 0)
        return false;
    }
    return true;
  };
}

/// The largest finite number that a mask adds.
inline double largest_added(const Options& options, const reference::Shape& shape, Index b) {
  double largest = 0;
  if (!options.mask || options.mask->kind() != MaskKind::additive) return 0;
  for (Index h = 0; h < shape.num_heads; ++h)
    for (Index i = 0; i < shape.query_tokens; ++i)
      for (Index t = 0; t < shape.key_tokens; ++t) {
        const double x = mask_element(*options.mask, b, h, i, t);
        if (std::isfinite(x)) largest = std::max(largest, std::abs(x));
      }
  return largest;
}

}  // namespace headwise::testing
