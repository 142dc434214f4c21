// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <memory>
#include <new>

#include "headwise/attention/mask_row.hpp"
#include "headwise/cache/tile_source.hpp"
#include "headwise/core/checked.hpp"
#include "headwise/core/tile_layout.hpp"
#include "headwise/kernel/table.hpp"

namespace headwise::detail {

/// Aligned bytes that only grow.
class Buffer {
 public:
  void* reserve(Index bytes) {
    if (bytes > size_) {
      memory_.reset();
      size_ = 0;
      memory_.reset(
          static_cast<char*>(::operator new(static_cast<std::size_t>(bytes), std::align_val_t{kTileAlignment})));
      size_ = bytes;
    }
    return memory_.get();
  }

 private:
  struct Free {
    void operator()(char* memory) const { ::operator delete(memory, std::align_val_t{kTileAlignment}); }
  };
  std::unique_ptr<char, Free> memory_;
  Index size_ = 0;
};

/// Unnormalised results of rows over some keys: output[row][padded value_dim] = Σ 2^(s − max)·v, sum = Σ 2^(s − max).
struct PartialRows {
  float* max;
  float* sum;
  float* output;

  PartialRows from(Index row, Index value_dim) const { return {max + row, sum + row, output + row * value_dim}; }
};

/// What a thread needs to walk one work item. Nothing grows with the number of keys but `depth`, by its logarithm.
struct WorkspaceShape {
  TileFormat format;
  Index kv_heads = 1;      // most of an item, and below:
  Index rows = 0;          // of each KV head
  Index depth = 1;         // partial sums of a row
  Index pack_scratch = 0;  // bytes to pack K or V of a tile
  bool masks = false;      // whether there are masks that are no intervals,
  bool adds = false;       // and one that adds numbers
};

/// A thread's memory for one work item.
struct Workspace {
  // of one KV head (head)
  void* queries;             // [rows][padded head_dim] of an operand
  float* lane_sums;          // [rows][kMaxLanes]
  PartialRows sums;          // [depth][rows]: of segments and of merged blocks of them
  ScoreRowInfo* score_rows;  // [rows]
  MaskRow* mask_rows;        // [rows]; null without such masks
  // of one tile of it
  float* scores;           // [rows][64]
  std::uint64_t* bits;     // [2][rows], the visible tokens of a masked tile and of the next one
  Index* ends;             // [2][rows], where they end
  float* added;            // [2][rows][64], what a mask adds to their scores; null where none does
  const float** added_of;  // [2][rows], where each row's is
  void* weights;           // [rows][64] of an operand
  float* tile_sums;        // [rows][kMaxLanes]
  float* wide_keys;        // a K tile as f32
  float* wide_values;      // a V tile as f32
  void* values_copy;       // a V tile with hidden tokens zeroed
  void* packed;            // K or V of a tile packed from the caller's memory
  float* dense_row;        // a query or output row made dense

  Workspace(Buffer& buffer, const WorkspaceShape& shape)
      : head_dim_(padded_head_dim(shape.format.head_dim)),
        value_dim_(padded_value_dim(shape.format.value_dim)),
        kv_heads_(shape.kv_heads),
        rows_(shape.rows),
        depth_(shape.depth) {
    // two rounds over the same list: the sizes, then the pointers
    const Index dk = head_dim_, dv = value_dim_, rows = shape.rows, all_rows = shape.kv_heads * rows;
    char* base = nullptr;
    for (int round = 0; round < 2; ++round) {
      Index used = 0;
      const auto take = [&](auto*& pointer, Index bytes) {
        if (base) pointer = static_cast<std::remove_reference_t<decltype(pointer)>>(static_cast<void*>(base + used));
        used += round_up(bytes, kTileAlignment);
      };
      take(queries, all_rows * dk * 4);
      take(lane_sums, all_rows * kMaxLanes * 4);
      take(sums.max, depth_ * all_rows * 4);
      take(sums.sum, depth_ * all_rows * 4);
      take(sums.output, depth_ * all_rows * dv * 4);
      take(score_rows, all_rows * static_cast<Index>(sizeof(ScoreRowInfo)));
      take(scores, rows * kTileTokens * 4);
      take(mask_rows, shape.masks ? all_rows * static_cast<Index>(sizeof(MaskRow)) : 0);
      take(bits, 2 * rows * static_cast<Index>(sizeof(std::uint64_t)));
      take(ends, 2 * rows * static_cast<Index>(sizeof(Index)));
      take(added, shape.adds ? 2 * rows * kTileTokens * 4 : 0);
      take(added_of, shape.adds ? 2 * rows * static_cast<Index>(sizeof(const float*)) : 0);
      take(weights, rows * kTileTokens * 4);
      take(tile_sums, rows * kMaxLanes * 4);
      take(wide_keys, kTileTokens * dk * 4);
      take(wide_values, kTileTokens * dv * 4);
      take(values_copy, kTileTokens * dv * 4);
      take(packed, shape.pack_scratch);
      take(dense_row, std::max(dk, dv) * 4);
      if (round == 0) base = static_cast<char*>(buffer.reserve(used));
    }
    if (!shape.masks) mask_rows = nullptr;
    if (!shape.adds) added = nullptr;
  }

  /// The memory of KV head i of the item: its own rows, the same tile.
  Workspace head(Index i) const {
    checked_index(i, kv_heads_, "KV head of a workspace");
    Workspace memory = *this;
    memory.queries = static_cast<char*>(queries) + i * rows_ * head_dim_ * 4;
    memory.lane_sums = lane_sums + i * rows_ * kMaxLanes;
    memory.sums = sums.from(i * depth_ * rows_, value_dim_);
    memory.score_rows = score_rows + i * rows_;
    if (mask_rows) memory.mask_rows = mask_rows + i * rows_;
    return memory;
  }

 private:
  Index head_dim_, value_dim_, kv_heads_, rows_, depth_;
};

}  // namespace headwise::detail
