// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "headwise/attention/tile_bounds.hpp"
#include "headwise/core/head_map.hpp"
#include "headwise/core/offsets.hpp"
#include "headwise/core/linkage.hpp"
#include "headwise/core/view.hpp"
#include "headwise/parallel/executor.hpp"
#include "headwise/parallel/serial.hpp"
#include "headwise/score/tile_set.hpp"

namespace headwise {

/// How select_tiles chooses.
struct TileSelection {
  /// Most tiles of each sequence and KV head, at least 1.
  Index tiles = 32;
  /// Whether the newest tile, which holds the queries' own keys, and the first one, whose tokens draw attention as sinks, are
  /// always among them; in this order, where there is room.
  bool newest = true;
  bool first = true;
  /// Of ragged queries, as Options::query_offsets; empty: as many tokens of each sequence.
  std::span<const Index> query_offsets{};
};

namespace detail {
void select_tiles(TileSet& into, const ConstArray& queries, const HeadMap& map, const TileBounds& bounds,
                  const TileSelection& selection, const ExecutorRef& executor);
}

/// Quest's choice of tiles (see TileBounds), for Options::tile_set: for each sequence and KV head those whose keys may have
/// the largest products with the queries. A tile's score is Σ_d max(q_d·least_d, q_d·greatest_d), no key of it has a larger
/// one; the largest over the heads of the group and the sequence's query tokens counts. Of equal ones the newer is taken; a
/// NaN comes before all numbers.
///
/// into     becomes a set of 1 block of queries, in the memory it has
/// queries  [sequence][token][head][head_dim], or ragged; turned by RoPE, as the keys are
/// map      which KV head each query head reads
/// Throws std::invalid_argument where shapes do not fit the bounds.
template <class Q, class E = const Serial&>
  requires Executor<std::remove_reference_t<E>>
void select_tiles(TileSet& into, View<Q> queries, const HeadMap& map, const TileBounds& bounds,
                  const TileSelection& selection = {}, E&& executor = Serial{}) {
  detail::select_tiles(into, View<const Q>(queries).array(), map, bounds, selection, ExecutorRef(executor));
}
template <class Q, class E = const Serial&>
  requires Executor<std::remove_reference_t<E>>
TileSet select_tiles(View<Q> queries, const HeadMap& map, const TileBounds& bounds, const TileSelection& selection = {},
                     E&& executor = Serial{}) {
  TileSet made;
  select_tiles(made, queries, map, bounds, selection, executor);
  return made;
}

}  // namespace headwise

#if !defined(HEADWISE_DECLARE_ONLY)

namespace headwise::detail {

/// The largest product that a key within the bounds may have with a query.
inline float largest_product(const float* query, const float* least, const float* greatest, Index dim) {
  constexpr Index kLanes = 8;  // sums of their own, for compilers to make vectors of them
  float sums[kLanes] = {};
  const auto add = [&](Index lane, Index d) {
    const float a = query[d] * least[d], b = query[d] * greatest[d];
    sums[lane] += b > a ? b : a;
  };
  Index d = 0;
  for (; d + kLanes <= dim; d += kLanes)
    for (Index lane = 0; lane < kLanes; ++lane) add(lane, d + lane);
  for (; d < dim; ++d) add(0, d);
  float total = 0;
  for (const float sum : sums) total += sum;
  return total;
}

struct ScoredTile {
  float score;
  Index tile;
};

/// A tile's place in the order of choice.
inline bool comes_before(const ScoredTile& a, const ScoredTile& b) {
  if (std::isnan(a.score) != std::isnan(b.score)) return std::isnan(a.score);
  return a.score > b.score || (!(b.score > a.score) && a.tile > b.tile);
}

/// The list of one sequence and KV head, whose queries are tokens [begin, end) of sequence `from` of the array.
inline void select_list(TileSet& into, const ConstArray& queries, std::span<const Index> heads,
                        const TileBounds& bounds, const TileSelection& selection, Index sequence, Index kv_head,
                        Index from, Index begin, Index end) {
  const Index dim = bounds.head_dim(), tiles = bounds.num_tiles(sequence);
  std::vector<ScoredTile> scored;
  scored.reserve(static_cast<std::size_t>(tiles));
  for (Index i = 0; i < tiles; ++i) {
    const bool there = !(bounds.least(sequence, kv_head, i)[0] > bounds.greatest(sequence, kv_head, i)[0]);
    if (there) scored.push_back({-std::numeric_limits<float>::infinity(), i});
  }
  Index left = selection.tiles;
  const auto take = [&](const ScoredTile& tile) {
    into.insert(sequence, kv_head, 0, tile.tile);
    --left;
  };
  if (selection.newest && !scored.empty()) {
    take(scored.back());
    scored.pop_back();
  }
  if (selection.first && left > 0 && !scored.empty()) {
    take(scored.front());
    scored.erase(scored.begin());
  }
  const Index count = std::min(left, std::ssize(scored));
  if (count == 0) return;

  std::vector<float> query(static_cast<std::size_t>(dim));
  for (Index t = begin; t < end; ++t)
    for (const Index head : heads) {
      const void* const row = queries.row(from, t, head);
      for (Index d = 0; d < dim; ++d)
        query[static_cast<std::size_t>(d)] = load_element(row, queries.storage, d * queries.strides.dim);
      bounds.key_transform().to_query(kv_head, dim, query.data());
      for (ScoredTile& tile : scored) {
        const float score = largest_product(query.data(), bounds.least(sequence, kv_head, tile.tile),
                                            bounds.greatest(sequence, kv_head, tile.tile), dim);
        if (!(score <= tile.score) && !std::isnan(tile.score)) tile.score = score;
      }
    }
  std::partial_sort(scored.begin(), scored.begin() + count, scored.end(), comes_before);
  std::for_each_n(scored.begin(), count, take);
}

HEADWISE_API void select_tiles(TileSet& into, const ConstArray& queries, const HeadMap& map, const TileBounds& bounds,
                               const TileSelection& selection, const ExecutorRef& executor) {
  const std::span<const Index> offsets = selection.query_offsets;
  const Index sequences = bounds.num_sequences(), kv_heads = bounds.num_kv_heads();
  require(selection.tiles >= 1, "tiles (", selection.tiles, ") of a TileSelection must be at least 1");
  require(sequences > 0, "bounds (of no keys) must have been updated");
  require(map.num_kv_heads() == kv_heads, "num_kv_heads of the head map (", map.num_kv_heads(),
          ") must equal the KV heads of the bounds (", kv_heads, ")");
  require(queries.heads == map.num_heads(), "heads of q (", queries.heads, ") must equal num_heads of the head map (",
          map.num_heads(), ")");
  require(queries.dim == bounds.head_dim(), "dim of q (", queries.dim, ") must equal head_dim of the bounds (",
          bounds.head_dim(), ")");
  if (offsets.empty()) {
    require(queries.sequences == sequences, "sequences of q (", queries.sequences, ") must equal those of the bounds (",
            sequences, ")");
  } else {
    require(queries.sequences == 1, "sequences of q (", queries.sequences, ") must be 1 with query_offsets");
    check_offsets(offsets, "query_offsets", sequences, "the sequences of the bounds", queries.tokens, "tokens of q");
  }
  TileSetShape shape{.sequences = sequences, .kv_heads = kv_heads};
  for (Index b = 0; b < sequences; ++b) shape.tiles = std::max(shape.tiles, bounds.num_tiles(b));
  into.reset(shape);
  executor.parallel_for(sequences * kv_heads, [&](Index i) {
    const Index b = i / kv_heads, g = i % kv_heads;
    const Index from = offsets.empty() ? b : 0, begin = offsets.empty() ? 0 : offsets[static_cast<std::size_t>(b)],
                end = offsets.empty() ? queries.tokens : offsets[static_cast<std::size_t>(b) + 1];
    select_list(into, queries, map.query_heads_of(g), bounds, selection, b, g, from, begin, end);
  });
}

}  // namespace headwise::detail

#endif  // !HEADWISE_DECLARE_ONLY
