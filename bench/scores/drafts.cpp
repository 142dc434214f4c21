// SPDX-License-Identifier: MIT
#include <cstdint>

#include "scores/variants.hpp"

namespace scores {

namespace {

/// Every node has two children.
headwise::DraftTree binary_tree(Index nodes) {
  std::vector<Index> parents;
  for (Index node = 0; node < nodes; ++node) parents.push_back((node + 1) / 2 - 1);
  return headwise::DraftTree::from_parents(parents);
}

void ask_for_tree(Call& c) { c.options.tree_mask = c.keep(binary_tree(c.shape.queries)).mask(); }

/// The same said key by key, for all of them.
void ask_for_mask(Call& c) {
  const Index queries = c.shape.queries, keys = c.shape.keys;
  const headwise::DraftTree tree = binary_tree(queries);
  std::vector<std::uint8_t> seen(static_cast<std::size_t>(queries * keys), 1);
  for (Index i = 0; i < queries; ++i)
    for (Index node = 0; node < queries; ++node)
      seen[static_cast<std::size_t>((i + 1) * keys - queries + node)] =
          tree.mask().row(i)[node / 64] >> (node % 64) & 1;
  c.options.mask = headwise::Mask(c.keep(std::move(seen)).data(), queries, keys);
}

}  // namespace

std::vector<Variant> draft_variants(const Shape&) {
  return {
      {"causal"},
      {"tree of drafts", ask_for_tree, define_masks, kBuiltIn},
      {"the same as a boolean mask", ask_for_mask, define_masks, kBuiltIn},
  };
}

}  // namespace scores
