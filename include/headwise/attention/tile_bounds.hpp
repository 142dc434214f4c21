// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "headwise/attention/checked_call.hpp"
#include "headwise/attention/packed_rows.hpp"
#include "headwise/attention/problem.hpp"
#include "headwise/attention/workspace.hpp"
#include "headwise/cache/key_transform.hpp"
#include "headwise/kernel/dispatch.hpp"

namespace headwise {

/// The least and the greatest of each dimension of the keys of every tile, sequence and KV head: what Quest scores tiles by
/// (Tang et al., Quest: Query-Aware Sparsity for Efficient Long-Context LLM Inference, 2024, arXiv 2406.10774). One per
/// layer. Kept up to date as keys are appended: 2·head_dim floats per tile and KV head, a read of the new tiles.
///
/// Keys are taken as they are stored: after RoPE and rounding. A NaN among a tile's keys is its bound.
class TileBounds {
 public:
  /// Takes the keys that are new since the last update. A sequence that has become shorter is taken as truncated; after
  /// other changes of keys that were there before, or where a sequence was truncated and has grown again since the last
  /// update, call truncate first.
  /// keys  one layer: any TileSource, KvRows or KvBlocks. Throws std::invalid_argument where its shape or number of
  ///       sequences is not that of the updates before.
  template <class Source>
  void update(const Source& keys) {
    using detail::source_ref;
    update_from(source_ref(keys));
  }

  /// Forgets what it knows of the tokens of a sequence from `tokens` on.
  void truncate(Index sequence, Index tokens) {
    require(sequence >= 0 && sequence < num_sequences(), "sequence (", sequence, ") must be 0 to ", num_sequences() - 1,
            " of the TileBounds");
    require(tokens >= 0, "tokens (", tokens, ") must be at least 0");
    // the bounds of a tile cannot be taken back: all of it is read again
    Sequence& kept = sequences_[static_cast<std::size_t>(sequence)];
    if (tokens < kept.tokens) kept.tokens = tokens / kTileTokens * kTileTokens;
    kept.bounds.resize(
        std::min(kept.bounds.size(), static_cast<std::size_t>(ceil_div(kept.tokens, kTileTokens) * row())));
  }

  Index num_sequences() const { return std::ssize(sequences_); }
  Index num_kv_heads() const { return kv_heads_; }
  Index head_dim() const { return head_dim_; }
  Index num_tiles(Index sequence) const {
    return ceil_div(detail::checked_at(sequences_, sequence, "sequence of the TileBounds").tokens, kTileTokens);
  }
  /// What was done to the keys before they were stored, and is to be done to queries that are held against the bounds.
  const KeyTransform& key_transform() const { return key_transform_; }

  /// Of a tile: [head_dim] each; +inf and −inf where no key of it is there any more.
  const float* least(Index sequence, Index kv_head, Index tile) const {
    detail::checked_index(tile, num_tiles(sequence), "tile of the TileBounds");
    detail::checked_index(kv_head, kv_heads_, "KV head of the TileBounds");
    return sequences_[static_cast<std::size_t>(sequence)].bounds.data() + tile * row() + kv_head * 2 * head_dim_;
  }
  const float* greatest(Index sequence, Index kv_head, Index tile) const {
    return least(sequence, kv_head, tile) + head_dim_;
  }

 private:
  struct Sequence {
    Index tokens = 0;
    std::vector<float> bounds;  // [tile][KV head][2][head_dim]
  };

  /// Floats of a tile.
  Index row() const { return kv_heads_ * 2 * head_dim_; }

  void update_from(const detail::SourceRef& given) {
    detail::CheckedSource checked;
    const detail::SourceRef source = checked.of(given);
    const TileFormat& format = source.format;
    if (sequences_.empty()) {
      sequences_.resize(static_cast<std::size_t>(source.num_sequences));
      kv_heads_ = format.num_kv_heads;
      head_dim_ = format.head_dim;
    }
    require(source.num_sequences == num_sequences(), "sequences of the keys (", source.num_sequences,
            ") must be those of the updates before (", num_sequences(), ")");
    require(format.num_kv_heads == kv_heads_ && format.head_dim == head_dim_, "KV heads (", format.num_kv_heads,
            ") and head_dim (", format.head_dim, ") of the keys must be those of the updates before (", kv_heads_,
            " and ", head_dim_, ")");
    key_transform_ = source.key_transform;
    for (Index b = 0; b < source.num_sequences; ++b) update_sequence(source, b);
  }

  void update_sequence(const detail::SourceRef& source, Index b) {
    const Index tokens = source.num_tokens(source.self, b);
    if (tokens < sequences_[static_cast<std::size_t>(b)].tokens) truncate(b, tokens);
    Sequence& sequence = sequences_[static_cast<std::size_t>(b)];
    const TokenRange kept = source.kept ? source.kept(source.self, b) : TokenRange{0, 0, tokens};
    const Index first = sequence.tokens / kTileTokens, end = ceil_div(tokens, kTileTokens);
    sequence.bounds.resize(static_cast<std::size_t>(end * row()));
    for (Index tile = 0; tile < end; ++tile) {
      const Index begin = tile * kTileTokens;
      const bool forgotten = begin >= kept.sinks && begin + kTileTokens <= kept.begin;
      if (!forgotten && (tile < first || sequence.tokens == tokens)) continue;
      for (Index g = 0; g < kv_heads_; ++g) {
        float* const bounds = sequence.bounds.data() + tile * row() + g * 2 * head_dim_;
        std::fill_n(bounds, head_dim_, std::numeric_limits<float>::infinity());
        std::fill_n(bounds + head_dim_, head_dim_, -std::numeric_limits<float>::infinity());
        if (forgotten) continue;
        const float* const keys = widened(source, b, g, tile, tokens);
        const auto add = [&](Index from, Index to) {
          for (Index t = std::max(from, begin); t < std::min(to, begin + kTileTokens); ++t)
            widen_by(keys, t - begin, bounds);
        };
        add(0, std::min(kept.sinks, kept.begin));
        add(kept.begin <= kept.sinks ? 0 : kept.begin, tokens);
      }
    }
    sequence.tokens = tokens;
  }

  /// A tile's keys as f32.
  const float* widened(const detail::SourceRef& source, Index b, Index g, Index tile, Index tokens) {
    const TileFormat& format = source.format;
    const Index wide_bytes = key_tile_bytes(Storage::f32, head_dim_);
    char* const memory =
        static_cast<char*>(memory_.reserve(wide_bytes + (source.tile ? 0 : detail::pack_scratch_bytes(format))));
    const void* const stored = source.tile ? source.tile(source.self, b, g, tile).keys
                                           : source.pack_keys(source.self, b, g, tile, tokens, memory + wide_bytes);
    auto* const wide = reinterpret_cast<float*>(memory);
    detail::tile_kernels().widen_keys[static_cast<int>(format.key_storage)](stored, head_dim_, wide);
    return wide;
  }

  /// Bounds that hold token t of a tile too.
  void widen_by(const float* keys, Index t, float* bounds) const {
    const float* key = keys + key_index(Storage::f32, head_dim_, t, 0);
    for (Index d = 0; d < head_dim_; ++d, key += kBlockTokens) {
      // a NaN on either side stays
      float &least = bounds[d], &greatest = bounds[head_dim_ + d];
      if (!(*key >= least) && !std::isnan(least)) least = *key;
      if (!(*key <= greatest) && !std::isnan(greatest)) greatest = *key;
    }
  }

  Index kv_heads_ = 0, head_dim_ = 0;
  KeyTransform key_transform_{};
  std::vector<Sequence> sequences_;
  detail::Buffer memory_;  // of a widened tile
};

}  // namespace headwise
