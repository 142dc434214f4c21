// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include "headwise/core/index.hpp"
#include "headwise/score/options.hpp"

namespace headwise::detail {

/// Whether the options hold masks that are no intervals.
inline bool has_element_masks(const Options& options) {
  return options.mask || options.tree_mask || options.tile_set || options.mask_function;
}
/// Whether they add numbers to scores.
inline bool adds_mask(const Options& options) { return options.mask && options.mask->kind() == MaskKind::additive; }

/// Where a row of a work item finds its masks.
struct MaskRow {
  Index sequence, head, position, keys;
  const char* elements;         // of Options::mask
  const std::uint64_t* tree;    // of Options::tree_mask
  Index first_node;             // the key of the tree's node 0
  const std::uint64_t* listed;  // of Options::tile_set
  // rows from this one on that have the same; of no meaning in those behind the first
  Index same_elements, same_tree, same_function;
};

}  // namespace headwise::detail
