// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>

#include "headwise/attention/added_units.hpp"
#include "headwise/attention/mask_row.hpp"
#include "headwise/attention/problem.hpp"
#include "headwise/attention/row_range.hpp"
#include "headwise/kernel/table.hpp"
#include "headwise/score/tile_word.hpp"

namespace headwise::detail {

/// The masks of a call that are no intervals, for the rows of one KV head of a work item: a word per row and tile.
class ElementMasks {
 public:
  /// memory  [rows], null where the call has none
  ElementMasks(const CallShape& call, const TileKernels& kernels, const RowRange& range, Index kv_head, Index rows,
               MaskRow* memory)
      : options_(*call.options), kernels_(kernels), rows_(memory), num_rows_(memory ? rows : 0) {
    First first;
    for (Index r = 0; r < num_rows_; ++r) find(call, range, kv_head, r, first);
  }

  bool any() const { return num_rows_ > 0; }

  /// The first tile from `tile` on that some row may see for the tile set, or `end`.
  Index listed_tile(Index tile, Index end) const {
    if (!options_.tile_set || tile >= end) return tile;
    Index first = end;
    const std::uint64_t* before = nullptr;
    for (Index r = 0; r < num_rows_ && first > tile; ++r)
      if (rows_[r].listed != before) first = next_of_list(before = rows_[r].listed, tile, first);
    return first;
  }

  /// Takes from the words of the rows what the masks hide of a tile. added [rows][64], null where nothing is ever added:
  /// what is to be added to scores, in units of log2, in the first of the rows that have the same, and for each of them
  /// where that is. Returns whether anything but zeros is.
  bool narrow(Index tile, std::uint64_t* bits, float* added, const float** added_of) const {
    if (options_.tile_set) checked_index(tile, options_.tile_set->shape().tiles, "tile of the tile set");
    if (options_.tile_set)
      for (Index r = 0; r < num_rows_; ++r)
        if ((rows_[r].listed[tile / kTileTokens] >> (tile % kTileTokens) & 1) == 0) bits[r] = 0;
    if (options_.tree_mask) narrow_by_tree(tile, bits);
    const bool adds = options_.mask && narrow_by_elements(tile, bits, added, added_of);
    if (options_.mask_function) narrow_by_function(tile, bits);
    return adds;
  }

 private:
  /// The last rows that had another mask than the one before.
  struct First {
    MaskRow *elements = nullptr, *tree = nullptr, *function = nullptr;
  };

  void find(const CallShape& call, const RowRange& range, Index kv_head, Index r, First& first) {
    const QueryRow query = range.query(r);
    const Index head = call.groups.of(query.sequence, kv_head)[query.head_in_group],
                keys = call.num_keys(query.sequence);
    MaskRow& row = rows_[r];
    row = {
        query.sequence, head, query.position, keys, nullptr, nullptr, query.position - query.token, nullptr, 0, 0, 0};
    const MaskRow* const before = r > 0 ? &rows_[r - 1] : nullptr;
    const bool same_query = before && before->sequence == row.sequence && before->position == row.position;
    if (options_.mask) {
      row.elements = options_.mask->row(query.sequence, head, query.token);
      if (!before || before->elements != row.elements || before->keys != keys) first.elements = &row;
      ++first.elements->same_elements;
    }
    if (options_.tree_mask) {
      row.tree = options_.tree_mask->row(tree_row(call, query));
      if (!same_query) first.tree = &row;
      ++first.tree->same_tree;
    }
    if (options_.tile_set) row.listed = options_.tile_set->list_for(query.sequence, kv_head, query.token);
    if (options_.mask_function) {
      if (!same_query || options_.mask_function->by_head()) first.function = &row;
      ++first.function->same_function;
    }
  }

  static Index tree_row(const CallShape& call, const QueryRow& query) {
    const auto [sequence, token] = call.place_of(query.sequence, query.token);
    const Index all = call.is_ragged() ? call.tokens : call.tokens * call.num_sequences();
    return call.options->tree_mask->rows() == all ? sequence * call.tokens + token : query.token;
  }

  Index next_of_list(const std::uint64_t* list, Index tile, Index end) const {
    const Index words = std::min(options_.tile_set->num_words(), ceil_div(end, kTileTokens));
    std::uint64_t rest = kWholeTile << (tile % kTileTokens);
    for (Index word = tile / kTileTokens; word < words; ++word, rest = kWholeTile)
      if ((list[word] & rest) != 0) return std::min(end, word * kTileTokens + std::countr_zero(list[word] & rest));
    return end;
  }

  /// How many of a tile's tokens a row's sequence has.
  static Index tokens_of(const MaskRow& row, Index tile) {
    return std::clamp<Index>(row.keys - tile * kTileTokens, 0, kTileTokens);
  }

  /// Takes word_of(row, its number) from the rows that have the same.
  template <class WordOf>
  void narrow_by(Index MaskRow::*same, std::uint64_t* bits, WordOf word_of) const {
    for (Index r = 0; r < num_rows_;) {
      const std::uint64_t word = word_of(rows_[r], r);
      for (const Index end = r + rows_[r].*same; r < end; ++r) bits[r] &= word;
    }
  }

  void narrow_by_tree(Index tile, std::uint64_t* bits) const {
    narrow_by(&MaskRow::same_tree, bits, [&](const MaskRow& row, Index) {
      return word_at(row.tree, options_.tree_mask->words_per_row(), tile * kTileTokens - row.first_node);
    });
  }

  bool narrow_by_elements(Index tile, std::uint64_t* bits, float* added, const float** added_of) const {
    const Mask& mask = *options_.mask;
    bool adds = false;
    const auto by = [&](auto word_of) { narrow_by(&MaskRow::same_elements, bits, word_of); };
    switch (mask.kind()) {
      case MaskKind::bytes:
        by([&](const MaskRow& row, Index) { return bytes_word(mask, row, tile); });
        break;
      case MaskKind::bits:
        by([&](const MaskRow& row, Index) { return bits_word(mask, row, tile); });
        break;
      case MaskKind::additive:
        by([&](const MaskRow& row, Index r) {
          std::fill_n(added_of + r, row.same_elements, added + r * kTileTokens);
          return additive_word(mask, row, tile, added + r * kTileTokens, adds);
        });
    }
    return adds;
  }

  void narrow_by_function(Index tile, std::uint64_t* bits) const {
    const MaskFunction& function = *options_.mask_function;
    narrow_by(&MaskRow::same_function, bits, [&](const MaskRow& row, Index r) -> std::uint64_t {
      const bool any =
          std::any_of(bits + r, bits + r + row.same_function, [](std::uint64_t word) { return word != 0; });
      if (!any) return 0;
      return function(kernels_.lanes, {row.sequence, row.head, row.position, tile * kTileTokens, tokens_of(row, tile)});
    });
  }

  static std::uint64_t bits_word(const Mask& mask, const MaskRow& row, Index tile) {
    mask.check_keys(tile * kTileTokens, tokens_of(row, tile));
    std::uint64_t word;
    std::memcpy(&word, row.elements + tile * mask.key_stride() * static_cast<Index>(sizeof word), sizeof word);
    return mask.key_stride() == 0 && (word & 1) != 0 ? kWholeTile : mask.key_stride() == 0 ? 0 : word;
  }

  static std::uint64_t bytes_word(const Mask& mask, const MaskRow& row, Index tile) {
    const Index stride = mask.key_stride(), tokens = tokens_of(row, tile);
    if (stride == 0) return *row.elements != 0 ? kWholeTile : 0;
    mask.check_keys(tile * kTileTokens, tokens);
    const char* const first = row.elements + tile * kTileTokens * stride;
    __builtin_prefetch(first + kTileTokens);  // rows are many streams: too many for the hardware to follow
    if (stride == 1 && tokens == kTileTokens) return word_of_bytes(first);
    char bytes[kTileTokens] = {};
    for (Index j = 0; j < tokens; ++j) bytes[j] = first[j * stride];
    return word_of_bytes(bytes);
  }

  /// Leaves the tile's numbers in `added`; sets `adds` where one that is seen is not 0.
  std::uint64_t additive_word(const Mask& mask, const MaskRow& row, Index tile, float* added, bool& adds) const {
    const Index stride = mask.key_stride(), tokens = tokens_of(row, tile);
    const Index first = tile * kTileTokens * stride;
    mask.check_keys(tile * kTileTokens, tokens);
    const char* numbers = row.elements + first * size_of(mask.storage());
    Storage storage = mask.storage();
    float dense[kTileTokens];
    if (stride != 1) {
      std::fill_n(dense, kTileTokens, 0.0f);
      for (Index j = 0; j < tokens; ++j) dense[j] = load_element(row.elements, storage, first + j * stride);
      numbers = reinterpret_cast<const char*>(dense), storage = Storage::f32;
    }
    const AddedKinds kinds = kernels_.prepare_added(numbers, storage, tokens, {kLog2e, AddedUnits::kStretched}, added);
    for (Index j = 0; kinds.beyond && j < tokens; ++j)
      added[j] = AddedUnits::to_log2(load_element(numbers, storage, j));
    adds |= kinds.some;
    return kinds.seen;
  }

  const Options& options_;
  const TileKernels& kernels_;
  MaskRow* rows_;
  Index num_rows_;
};

}  // namespace headwise::detail
