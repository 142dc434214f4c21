// SPDX-License-Identifier: MIT
#pragma once

#include "headwise/cache/block_table.hpp"
#include "headwise/cache/kv_rows.hpp"
#include "headwise/core/checked.hpp"
#include "headwise/core/error.hpp"
#include "headwise/core/view.hpp"

namespace headwise {

/// Keys and values in blocks of the caller's own memory, [block][slot][kv_head][dim] each, any strides, and a table that
/// says which block holds which tokens of a sequence: a paged cache as vLLM keeps it (Kwon et al., Efficient Memory
/// Management for Large Language Model Serving with PagedAttention, 2023, arXiv 2309.06180). Blocks may hold any number
/// of tokens, lie in any order and be shared by sequences. K and V may differ in dim, storage type and heads, as in KvRows.
///
/// Nothing is copied or kept: attention packs a tile at a time as it reads, and the table and the lengths are read where
/// they lie. Where those change, make a new KvBlocks. Table entries and slots beyond a length are never looked at.
class KvBlocks {
 public:
  /// keys     [block][slot][kv_head][head_dim]: a View whose sequences are the blocks, and whose tokens are their slots
  /// values   [block][slot][kv_head][value_dim]
  /// table    [sequence][max_blocks] of std::int32_t or Index
  /// lengths  [sequence] tokens of each, std::int32_t or Index
  /// Throws std::invalid_argument where K and V disagree, where a length does not fit the table, and where an entry that a
  /// length reaches names no block.
  template <class K, class V>
  KvBlocks(View<K> keys, View<V> values, const BlockTable& table, const Integers& lengths)
      : keys_(View<const K>(keys).array()), values_(View<const V>(values).array()), table_(table), lengths_(lengths) {
    check();
  }

  const ConstArray& keys() const { return keys_; }
  const ConstArray& values() const { return values_; }
  const BlockTable& table() const { return table_; }
  Index num_blocks() const { return keys_.sequences; }
  Index block_size() const { return keys_.tokens; }
  Index num_sequences() const { return table_.sequences(); }
  Index num_tokens(Index sequence) const {
    const Index length = lengths_[sequence];
    detail::require_index(length >= 0 && blocks_for(length) <= table_.max_blocks(), "lengths[", sequence, "] (", length,
                          ") has changed and must be 0 to max_blocks x block_size (", table_.max_blocks(), " x ",
                          block_size(), ")");
    return length;
  }
  /// The block that holds a token.
  Index block_of(Index sequence, Index token) const {
    const Index entry = token / block_size(), block = table_(sequence, entry);
    detail::require_index(block >= 0 && block < num_blocks(), "table[", sequence, "][", entry, "] (", block,
                          ") has changed and must be a block, 0 to ", num_blocks() - 1);
    return block;
  }

 private:
  /// No sum or product here overflows, whatever the length.
  Index blocks_for(Index length) const { return length / block_size() + (length % block_size() != 0); }

  void check() const {
    require(values_.sequences == keys_.sequences, "blocks (", values_.sequences,
            ") of the values must equal those of the keys (", keys_.sequences, ")");
    require(values_.tokens == keys_.tokens, "block_size (", values_.tokens,
            ") of the values must equal that of the keys (", keys_.tokens, ")");
    detail::check_head_counts(keys_.heads, values_.heads);
    require(block_size() >= 1, "block_size (", block_size(), ") must be at least 1");
    require(lengths_.size() == num_sequences(), "lengths (", lengths_.size(),
            ") must hold one per sequence of the table (", num_sequences(), ")");
    for (Index b = 0; b < num_sequences(); ++b) {
      const Index length = lengths_[b];
      require(length >= 0 && blocks_for(length) <= table_.max_blocks(), "lengths[", b, "] (", length,
              ") must be 0 to max_blocks x block_size (", table_.max_blocks(), " x ", block_size(), ")");
      for (Index j = 0; j < blocks_for(length); ++j)
        require(table_(b, j) >= 0 && table_(b, j) < num_blocks(), "table[", b, "][", j, "] (", table_(b, j),
                ") must be a block, 0 to ", num_blocks() - 1, ": sequence ", b, " has ", length,
                " tokens in blocks of ", block_size());
    }
  }

  ConstArray keys_, values_;
  BlockTable table_;
  Integers lengths_;
};

}  // namespace headwise
