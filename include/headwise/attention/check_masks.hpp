// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include "headwise/attention/problem.hpp"
#include "headwise/core/heads.hpp"

namespace headwise::detail {

/// The longest of a call's sequences.
struct LongestSequence {
  Index queries = 0, keys = 0;

  explicit LongestSequence(const CallShape& call) {
    for (Index b = 0; b < call.num_sequences(); ++b) {
      queries = std::max(queries, call.num_queries(b));
      keys = std::max(keys, call.num_keys(b));
    }
  }
};

/// Checks Options::mask.
inline void check_mask(const CallShape& call, const Heads<>& heads) {
  const Mask& mask = *call.options->mask;
  const LongestSequence longest(call);
  require(mask.sequences() == 1 || mask.sequences() == call.num_sequences(), "sequences of the mask (",
          mask.sequences(), ") must be 1 or those of the keys and values (", call.num_sequences(), ")");
  require(mask.heads() == 1 || mask.heads() == heads.num_heads(), "heads of the mask (", mask.heads(),
          ") must be 1 or num_heads (", heads.num_heads(), ")");
  if (call.is_ragged())
    require(mask.queries() == 1 || mask.queries() >= longest.queries, "queries of the mask (", mask.queries(),
            ") must be 1 or at least the query tokens of the longest sequence (", longest.queries, ")");
  else
    require(mask.queries() == 1 || mask.queries() == call.tokens, "queries of the mask (", mask.queries(),
            ") must be 1 or the tokens of q (", call.tokens, ")");
  require(mask.keys() == 1 || mask.keys() >= longest.keys, "keys of the mask (", mask.keys(),
          ") must be 1 or at least the keys of the longest sequence (", longest.keys, ")");
}

/// Checks Options::tree_mask.
inline void check_tree_mask(const CallShape& call) {
  const TreeMask& tree = *call.options->tree_mask;
  const Index longest = LongestSequence(call).queries;
  const Index all = call.is_ragged() ? call.tokens : call.num_sequences() * call.tokens;
  bool one = tree.rows() >= longest;  // of as many nodes as every sequence has
  for (Index b = 0; one && call.is_ragged() && b < call.num_sequences(); ++b) one = call.num_queries(b) == tree.rows();
  if (!call.is_ragged()) one = tree.rows() == call.tokens;
  require(one || tree.rows() == all, "rows of the tree mask (", tree.rows(), ") must be the ",
          call.is_ragged() ? "query tokens of every sequence" : "tokens of q", " (", longest,
          "), one tree for all, or those of all sequences (", all, ")");
  require(tree.words_per_row() * kTileTokens >= longest, "words_per_row of the tree mask (", tree.words_per_row(),
          ") must hold a bit for each query token of the longest sequence (", longest, ")");
}

/// Checks Options::tile_set.
inline void check_tile_set(const CallShape& call, const Heads<>& heads) {
  const TileSetShape& shape = call.options->tile_set->shape();
  const LongestSequence longest(call);
  require(shape.sequences == 1 || shape.sequences == call.num_sequences(), "sequences of tile_set (", shape.sequences,
          ") must be 1 or those of the keys and values (", call.num_sequences(), ")");
  require(shape.kv_heads == 1 || shape.kv_heads == heads.num_kv_heads(), "kv_heads of tile_set (", shape.kv_heads,
          ") must be 1 or num_kv_heads (", heads.num_kv_heads(), ")");
  const Index blocks = ceil_div(longest.queries, shape.block_tokens);
  require(shape.query_blocks == 1 || shape.query_blocks >= blocks, "query_blocks of tile_set (", shape.query_blocks,
          ") must be 1 or at least the blocks of ", shape.block_tokens,
          " query tokens that the longest sequence needs (", blocks, ")");
  const Index tiles = ceil_div(longest.keys, kTileTokens);
  require(shape.tiles >= tiles, "tiles of tile_set (", shape.tiles,
          ") must be at least those of the longest sequence (", tiles, ")");
}

/// Checks the masks that are no intervals against the call's shape; nothing is read.
inline void check_masks(const CallShape& call, const Heads<>& heads) {
  if (call.options->mask) check_mask(call, heads);
  if (call.options->tree_mask) check_tree_mask(call);
  if (call.options->tile_set) check_tile_set(call, heads);
}

}  // namespace headwise::detail
