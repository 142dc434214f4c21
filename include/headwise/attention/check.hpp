// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <string>

#include "headwise/attention/check_masks.hpp"
#include "headwise/attention/problem.hpp"
#include "headwise/core/heads.hpp"
#include "headwise/core/offsets.hpp"
#include "headwise/position/qk_norm.hpp"
#include "headwise/position/rope.hpp"
#include "headwise/position/token_positions.hpp"
#include "headwise/score/interval.hpp"

namespace headwise::detail {

/// Checks `lengths` (one per sequence, each 0 … limit(sequence)) where given.
template <class Limit>
void check_lengths(std::span<const Index> lengths, std::string_view name, Index sequences, std::string_view what,
                   Limit limit) {
  if (lengths.empty()) return;
  require(std::ssize(lengths) == sequences, name, " (", lengths.size(), " lengths) must hold one length per sequence (",
          sequences, ")");
  for (Index b = 0; b < sequences; ++b) {
    const Index length = lengths[static_cast<std::size_t>(b)];
    require(length >= 0 && length <= limit(b), name, "[", b, "] (", length, ") must be 0 to the ", what, " (", limit(b),
            ")");
  }
}

/// Checks Options::group_boundaries where given.
inline void check_boundaries(const Options& options, const Heads<>& heads, Index sequences) {
  const std::span<const Index> all = options.group_boundaries;
  if (all.empty()) return;
  require(!options.head_map, "group_boundaries (", all.size(),
          " numbers) must not be given together with head_map: both say which KV head a query head reads");
  const Index count = heads.num_kv_heads() + 1;
  require(std::ssize(all) == count || std::ssize(all) == sequences * count, "group_boundaries (", all.size(),
          " numbers) must hold num_kv_heads + 1 (", count, ") numbers, or as many for each of the ", sequences,
          " sequences");
  for (Index i = 0; i < std::ssize(all); ++i) {
    const Index g = i % count, number = all[static_cast<std::size_t>(i)];
    if (g == 0)
      require(number == 0, "group_boundaries[", i, "] (", number, ") must be 0, where the first group begins");
    else if (g == heads.num_kv_heads())
      require(number == heads.num_heads(), "group_boundaries[", i, "] (", number, ") must be num_heads (",
              heads.num_heads(), "), where the last group ends");
    if (g > 0) {
      const Index before = all[static_cast<std::size_t>(i) - 1];
      require(number >= before, "group_boundaries[", i, "] (", number, ") must not be below the boundary before it (",
              before, ")");
    }
  }
}

/// Checks Options::query_offsets.
inline void check_query_offsets(const Options& options, Index sequences, Index tokens) {
  const std::span<const Index> all = options.query_offsets;
  require(options.query_lengths.empty(), "query_offsets (", all.size(),
          " numbers) must not be given together with query_lengths: both say which queries a sequence has");
  check_offsets(all, "query_offsets", sequences, "the sequences of the keys and values", tokens, "tokens of q");
}

/// Checks Options::query_rope and query_positions, and the norm of the queries.
inline void check_query_changes(const CallShape& call, const QkNorm* norm, const Heads<>& heads) {
  const Rope* const rope = call.options->query_rope;
  require(!norm || norm->head_dim() == heads.head_dim(), "head_dim (", norm ? norm->head_dim() : 0,
          ") of query_norm must equal head_dim (", heads.head_dim(), ")");
  require(!rope || rope->head_dim() == heads.head_dim(), "head_dim (", rope ? rope->head_dim() : 0,
          ") of query_rope must equal head_dim (", heads.head_dim(), ")");
  const std::span<const Index> positions = call.options->query_positions;
  if (positions.empty()) return;
  require(rope != nullptr, "query_positions (", positions.size(), ") must be empty without query_rope");
  const Index axes = rope->num_axes();
  check_position_count("query_positions", positions, (call.is_ragged() ? 1 : call.num_sequences()) * call.tokens, axes);
  for (Index b = 0; b < call.num_sequences(); ++b) {
    const auto [sequence, token] = call.place_of(b, 0);
    const Index first = (sequence * call.tokens + token) * axes;
    check_position_range("query_positions", positions, first, first + call.num_queries(b) * axes);
  }
}

/// Checks that no query of the call sees a token that its source has forgotten.
inline void check_kept(const CallShape& call) {
  if (!call.source.kept) return;
  const Options& options = *call.options;
  for (Index b = 0; b < call.num_sequences(); ++b) {
    const Index keys = call.num_keys(b), queries = call.num_queries(b);
    const TokenRange kept = call.source.kept(call.source.self, b);
    if (queries == 0 || kept.begin <= kept.sinks) continue;
    const VisibleKeys visible(options, keys, b);
    const Interval first = visible(keys - queries), last = visible(keys - 1);  // together they see all between
    const Index reached = std::max(first.begin, kept.sinks);
    if (reached < std::min(last.end, kept.begin))
      fail("window (", options.window ? std::to_string(*options.window) : "unset", ") of ", queries,
           " query tokens of sequence ", b, " reaches back to token ", reached, ", but the cache keeps only ",
           kept.sinks > 0 ? "tokens 0 to " + std::to_string(kept.sinks - 1) + " and " : "", kept.begin, " to ",
           kept.end - 1, ": use a smaller window, or fewer query tokens at once",
           visible.sinks() > kept.sinks ? ", and num_sink_tokens of at most " + std::to_string(kept.sinks) : "");
    const Index sinks = std::min(visible.sinks(), kept.begin);
    require(last.begin == visible.first() || sinks <= std::max(kept.sinks, visible.first()), "num_sink_tokens (",
            options.num_sink_tokens, ") must be at most the first tokens that the cache keeps (", kept.sinks,
            ") of sequence ", b, ", beside those from ", kept.begin, " on");
  }
}

/// The head map and the keys and values fit `heads`.
inline void check_keys(const CallShape& call, const Heads<>& heads) {
  const TileFormat& kv = call.source.format;
  const HeadMap& map = call.groups.map();
  require(map.num_heads() == heads.num_heads(), "num_heads of the head map (", map.num_heads(),
          ") must equal num_heads (", heads.num_heads(), ")");
  require(map.num_kv_heads() == heads.num_kv_heads(), "num_kv_heads of the head map (", map.num_kv_heads(),
          ") must equal num_kv_heads (", heads.num_kv_heads(), ")");
  require(kv.num_kv_heads == heads.num_kv_heads(), "KV heads of the keys and values (", kv.num_kv_heads,
          ") must equal num_kv_heads (", heads.num_kv_heads(), ")");
  require(kv.head_dim == heads.head_dim(), "dim of the keys (", kv.head_dim, ") must equal head_dim (",
          heads.head_dim(), ")");
  require(kv.value_dim == heads.value_dim(), "dim of the values (", kv.value_dim, ") must equal value_dim (",
          heads.value_dim(), ")");
}

/// The options are possible and fit the other arguments.
inline void check_options(const CallShape& call, const Heads<>& heads) {
  const Options& options = *call.options;
  const Index sequences = call.num_sequences();
  check_options(options, heads.num_heads());
  check_boundaries(options, heads, sequences);
  const auto stored = [&](Index b) { return call.source.num_tokens(call.source.self, b); };
  check_lengths(options.key_lengths, "key_lengths", sequences, "tokens of the keys and values", stored);
  const auto keys = [&](Index b) { return call.num_keys(b); };
  check_lengths(options.key_starts, "key_starts", sequences, "keys of the sequence", keys);
  check_lengths(options.prefix_lengths, "prefix_lengths", sequences, "keys of the sequence", keys);
  if (call.is_ragged()) check_query_offsets(options, sequences, call.tokens);
  check_lengths(options.query_lengths, "query_lengths", sequences, "tokens of q", [&](Index) { return call.tokens; });
  check_masks(call, heads);
  check_kept(call);
}

/// Scores and masses fit the call, whose options are checked.
inline void check_weight_outputs(const Problem& call, const Heads<>& heads) {
  const ConstArray& q = call.queries;
  Index most_keys = 0;
  for (Index b = 0; b < call.num_sequences(); ++b) most_keys = std::max(most_keys, call.num_keys(b));
  if (call.outputs.scores) {
    const Array& scores = call.outputs.scores->values;
    require(scores.sequences == q.sequences, "sequences of the scores (", scores.sequences, ") must equal those of q (",
            q.sequences, ")");
    require(scores.tokens == q.tokens, "tokens of the scores (", scores.tokens, ") must equal those of q (", q.tokens,
            ")");
    require(scores.heads == heads.num_heads(), "heads of the scores (", scores.heads, ") must equal num_heads (",
            heads.num_heads(), ")");
    require(scores.dim >= most_keys, "dim of the scores (", scores.dim, ") must be at least the keys of a sequence (",
            most_keys, ")");
  }
  if (call.outputs.mass) {
    const Array& mass = call.outputs.mass->values;
    require(mass.sequences == call.num_sequences(), "sequences of the mass (", mass.sequences,
            ") must equal those of the keys and values (", call.num_sequences(), ")");
    require(mass.tokens >= most_keys, "tokens of the mass (", mass.tokens,
            ") must be at least the keys of a sequence (", most_keys, ")");
    require(mass.heads == heads.num_heads() || mass.heads == heads.num_kv_heads(), "heads of the mass (", mass.heads,
            ") must equal num_kv_heads (", heads.num_kv_heads(), ") or num_heads (", heads.num_heads(), ")");
    require(mass.dim == 1, "dim of the mass (", mass.dim, ") must be 1");
    if (call.outputs.mass->last_queries)
      require(*call.outputs.mass->last_queries >= 0, "last_queries of the mass (", *call.outputs.mass->last_queries,
              ") must be at least 0");
  }
}

/// Throws std::invalid_argument naming the first argument that does not fit `heads` and the other arguments, of what is
/// planned before there are queries.
inline void check(const CallShape& call, const Heads<>& heads) {
  require(call.tokens >= 0, "query_tokens (", call.tokens, ") must be at least 0");
  check_keys(call, heads);
  check_options(call, heads);
  check_query_changes(call, call.options->query_norm, heads);
}

/// The same of a whole call. Nothing has been read or written then.
inline void check(const Problem& call, const Heads<>& heads) {
  const ConstArray& q = call.queries;
  const Array &out = call.outputs.values, &lse = call.outputs.lse;
  check_keys(call, heads);

  require(q.heads == heads.num_heads(), "heads of q (", q.heads, ") must equal num_heads (", heads.num_heads(), ")");
  require(q.dim == heads.head_dim(), "dim of q (", q.dim, ") must equal head_dim (", heads.head_dim(), ")");
  const Index sequences = call.num_sequences();
  if (call.is_ragged())
    require(q.sequences == 1, "sequences of q (", q.sequences, ") must be 1 with query_offsets");
  else
    require(q.sequences == sequences, "sequences of q (", q.sequences, ") must equal those of the keys and values (",
            sequences, ")");

  require(out.sequences == q.sequences, "sequences of the output (", out.sequences, ") must equal those of q (",
          q.sequences, ")");
  require(out.tokens == q.tokens, "tokens of the output (", out.tokens, ") must equal those of q (", q.tokens, ")");
  require(out.heads == heads.num_heads(), "heads of the output (", out.heads, ") must equal num_heads (",
          heads.num_heads(), ")");
  require(out.dim == heads.value_dim(), "dim of the output (", out.dim, ") must equal value_dim (", heads.value_dim(),
          ")");
  if (call.outputs.has_lse) {
    require(lse.sequences == q.sequences, "sequences of lse (", lse.sequences, ") must equal those of q (", q.sequences,
            ")");
    require(lse.tokens == q.tokens, "tokens of lse (", lse.tokens, ") must equal those of q (", q.tokens, ")");
    require(lse.heads == heads.num_heads(), "heads of lse (", lse.heads, ") must equal num_heads (", heads.num_heads(),
            ")");
    require(lse.dim == 1, "dim of lse (", lse.dim, ") must be 1");
  }

  check_options(call, heads);
  check_weight_outputs(call, heads);
  check_query_changes(call, call.query_norm, heads);
  check_sink_logits(call.sink_logits, heads.num_heads());
}

}  // namespace headwise::detail
