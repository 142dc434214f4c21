// SPDX-License-Identifier: MIT
#pragma once

#include <span>

#include "headwise/attention/head_groups.hpp"
#include "headwise/attention/outputs.hpp"
#include "headwise/cache/key_transform.hpp"
#include "headwise/cache/tile_source.hpp"
#include "headwise/core/checked.hpp"
#include "headwise/core/view.hpp"
#include "headwise/kernel/table.hpp"
#include "headwise/score/options.hpp"

namespace headwise {

namespace detail {

/// Any source of tiles behind a pointer and a few functions, so that what walks tiles is compiled once. A source either
/// holds tiles or packs them from memory of another shape, keys and values apart: they share the scratch in L1.
struct SourceRef {
  using Pack = const void* (*)(const void* self, Index sequence, Index kv_head, Index index, Index keys, void* scratch);

  const void* self;
  TileFormat format;
  Index num_sequences;
  Index (*num_tokens)(const void* self, Index sequence);
  TilePointers (*tile)(const void* self, Index sequence, Index kv_head, Index index);  // null: tiles are packed
  Pack pack_keys = nullptr, pack_values = nullptr;
  /// Where the rows lie that packing a tile of a KV head will read.
  AheadArgs (*rows_of_keys)(const void* self, Index sequence, Index kv_head, Index index) = nullptr;
  AheadArgs (*rows_of_values)(const void* self, Index sequence, Index kv_head, Index index) = nullptr;
  TokenRange (*kept)(const void* self, Index sequence) = nullptr;  // null: every token
  KeyTransform key_transform = {};
  /// Leading tokens that two sequences hold in the very same tiles; null: none.
  Index (*shared_tokens)(const void* self, Index a, Index b) = nullptr;
};

template <TileSource S>
SourceRef source_ref(const S& source) {
  SourceRef ref{&source, source.format(), source.num_sequences(),
                [](const void* self, Index sequence) { return static_cast<const S*>(self)->num_tokens(sequence); },
                [](const void* self, Index sequence, Index kv_head, Index index) {
                  return static_cast<const S*>(self)->tile(sequence, kv_head, index);
                }};
  if constexpr (requires { source.kept(Index{0}); })
    ref.kept = [](const void* self, Index sequence) -> TokenRange {
      return static_cast<const S*>(self)->kept(sequence);
    };
  if constexpr (requires { source.key_transform(); }) ref.key_transform = source.key_transform();
  if constexpr (requires { source.shared_tokens(Index{0}, Index{0}); })
    ref.shared_tokens = [](const void* self, Index a, Index b) -> Index {
      return static_cast<const S*>(self)->shared_tokens(a, b);
    };
  return ref;
}

/// Which queries meet which keys in a call: what its plan depends on.
struct CallShape {
  Index tokens;  // of q
  SourceRef source;
  HeadGroups groups;
  const Options* options;

  Index num_keys(Index sequence) const {
    if (options->key_lengths.empty()) return source.num_tokens(source.self, sequence);
    const Index length = checked_at(options->key_lengths, sequence, "sequence of key_lengths");
    if constexpr (kChecked)
      require_index(length >= 0 && length <= source.num_tokens(source.self, sequence), "key_lengths[", sequence, "] (",
                    length, ") has changed and must be 0 to the tokens of the keys (",
                    source.num_tokens(source.self, sequence), ")");
    return length;
  }
  bool is_ragged() const { return !options->query_offsets.empty(); }
  Index num_sequences() const { return source.num_sequences; }
  Index num_queries(Index sequence) const {
    if (is_ragged()) return offset(sequence + 1) - offset(sequence);
    if (options->query_lengths.empty()) return tokens;
    return checked_at(options->query_lengths, sequence, "sequence of query_lengths");
  }
  /// Where query token `token` of a sequence lies in the arrays of queries and outputs.
  struct Place {
    Index sequence, token;
  };
  Place place_of(Index sequence, Index token) const {
    if (is_ragged()) return {0, offset(sequence) + token};
    return {sequence, token};
  }

 private:
  Index offset(Index i) const { return checked_at(options->query_offsets, i, "sequence of query_offsets"); }
};

class QueryTurns;
class RowScales;

/// One attention call, checked, without types.
struct Problem : CallShape {
  ConstArray queries;  // [sequence][token][head][head_dim]; ragged: [1][token][head][head_dim]
  Outputs outputs;
  float scale;
  const QkNorm* query_norm;            // null: none
  std::span<const float> sink_logits;  // empty: none
  const QueryTurns* turns = nullptr;   // of a call with a query_rope, once they are made
  const RowScales* scales = nullptr;   // are written beside the outputs, where weights are made after them
};

}  // namespace detail

}  // namespace headwise
