// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "headwise/core/checked.hpp"
#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"
#include "headwise/score/tile_word.hpp"

namespace headwise {

/// Which nodes of a draft tree each node sees, in packed bits, for speculative decoding with trees (Miao et al., SpecInfer,
/// 2023, arXiv 2305.09781; Cai et al., Medusa, 2024, arXiv 2401.10774). The last n keys of a sequence are those of its n
/// query tokens, the nodes. Node i sees every key before the tree, and node j where bit j mod 64 of word j / 64 of its row
/// is set, its own among them or not.
///
/// It narrows what the other options let a query see. Where every node stands behind its parent, as DraftTree has it,
/// Options::causal hides nothing of it. Windows, ALiBi and biases count places among the keys, not depths in the tree.
///
/// A view of the caller's memory: a row of words for each query token of one tree, which serves all sequences, or of one
/// tree per sequence: [sequence][query token], in ragged batches all tokens of q.
class TreeMask {
 public:
  /// words [rows][words_per_row]; words_per_row holds a bit for each node of the largest tree. Throws
  /// std::invalid_argument on a negative size and on a null pointer.
  TreeMask(const std::uint64_t* words, Index rows, Index words_per_row)
      : words_(words), rows_(rows), words_per_row_(words_per_row) {
    require(rows >= 0, "rows (", rows, ") of a tree mask must be at least 0");
    require(words_per_row >= 1, "words_per_row (", words_per_row, ") of a tree mask must be at least 1");
    require(rows <= (Index{1} << 57) / words_per_row, "rows (", rows, ") of ", words_per_row,
            " words of a tree mask must be less than 2^57 words");
    require(words != nullptr || rows == 0, "words (null) of a tree mask must point to ", rows, " rows");
  }

  Index rows() const { return rows_; }
  Index words_per_row() const { return words_per_row_; }
  const std::uint64_t* row(Index i) const {
    return words_ + detail::checked_index(i, rows_, "row of the tree mask") * words_per_row_;
  }

 private:
  const std::uint64_t* words_;
  Index rows_, words_per_row_;
};

/// The mask of draft trees given as parents, and the depths of their nodes.
class DraftTree {
 public:
  /// parents  of the nodes of each tree, one tree behind another: the number of the parent within its tree, below the
  ///          node's own, or −1 for a node whose parent is the last token before the tree
  /// offsets  where each tree begins, and the end of the last, as Options::query_offsets; empty: one tree
  /// Every node sees its ancestors and itself. Throws std::invalid_argument where a parent or an offset is impossible.
  static DraftTree from_parents(std::span<const Index> parents, std::span<const Index> offsets = {}) {
    const Index one[] = {0, std::ssize(parents)};
    if (offsets.empty()) offsets = one;
    check(parents, offsets);
    DraftTree tree;
    Index most = 1;
    for (std::size_t b = 1; b < offsets.size(); ++b) most = std::max(most, offsets[b] - offsets[b - 1]);
    tree.words_per_row_ = ceil_div(most, kTileTokens);
    tree.words_.resize(static_cast<std::size_t>(std::ssize(parents) * tree.words_per_row_));
    tree.depths_.resize(parents.size());
    for (std::size_t b = 1; b < offsets.size(); ++b)
      for (Index node = 0; node < offsets[b] - offsets[b - 1]; ++node) tree.add(parents, offsets[b - 1], node);
    return tree;
  }

  Index num_nodes() const { return std::ssize(depths_); }
  /// Of each node: 0 where its parent is the last token before the tree. A node's token stands at the number of keys before
  /// the tree plus its depth: the position for RoPE.
  std::span<const Index> depths() const { return depths_; }
  /// For Options::tree_mask. Refers to this tree's memory.
  TreeMask mask() const { return {words_.data(), num_nodes(), words_per_row_}; }

 private:
  static void check(std::span<const Index> parents, std::span<const Index> offsets) {
    const Index nodes = std::ssize(parents);
    require(offsets.size() >= 2 && offsets.front() == 0 && offsets.back() == nodes, "offsets (", offsets.size(),
            " numbers) of a DraftTree must begin with 0 and end with the number of parents (", nodes, ")");
    for (std::size_t b = 1; b < offsets.size(); ++b) {
      const Index begin = offsets[b - 1], end = offsets[b];
      require(end >= begin && end <= nodes, "offsets[", b, "] (", end,
              ") of a DraftTree must be the offset before it (", begin, ") to the number of parents (", nodes, ")");
      for (Index node = 0; node < end - begin; ++node) {
        const Index parent = parents[static_cast<std::size_t>(begin + node)];
        require(parent >= -1 && parent < node, "parents[", begin + node, "] (", parent,
                ") of a DraftTree must be -1 to ", node - 1, ", a node before its own (", node, ")");
      }
    }
  }

  /// A node sees itself and what its parent sees.
  void add(std::span<const Index> parents, Index first, Index node) {
    const Index parent = parents[static_cast<std::size_t>(first + node)];
    const auto words = words_.begin() + (first + node) * words_per_row_;
    if (parent >= 0) {
      std::copy_n(words_.begin() + (first + parent) * words_per_row_, words_per_row_, words);
      depths_[static_cast<std::size_t>(first + node)] = depths_[static_cast<std::size_t>(first + parent)] + 1;
    }
    words[node / kTileTokens] |= std::uint64_t{1} << (node % kTileTokens);
  }

  DraftTree() = default;

  Index words_per_row_ = 1;
  std::vector<std::uint64_t> words_;  // [node][words_per_row]
  std::vector<Index> depths_;
};

}  // namespace headwise
