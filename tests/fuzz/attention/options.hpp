// SPDX-License-Identifier: MIT
#pragma once

#include "tests/fuzz/attention/call.hpp"

// What bytes say of each option: the value that the library is given, the same for the definition, and whether it is an
// impossible one. A new option is a function here and an entry in kOptions (options.cpp).

namespace headwise::fuzz {

inline constexpr int kNumOptions = 43;

/// Reads one option. Bytes that name none, or one that was read before, are passed over.
void read_option(Bytes& bytes, Call& call);

/// Mostly a moderate number, else any.
inline float read_float(Bytes& bytes) { return bytes.byte() < 224 ? bytes.number() : bytes.any_float(); }

/// What the definition may count with: it knows no overflow.
inline Index for_definition(Index count) { return std::min(count, Index{1} << 40); }

// options_masks.cpp: what queries see
void read_causal(Bytes& bytes, Call& call);
void read_window(Bytes& bytes, Call& call);
void read_sinks(Bytes& bytes, Call& call);
void read_window_right(Bytes& bytes, Call& call);
void read_chunk_size(Bytes& bytes, Call& call);
void read_prefix_lengths(Bytes& bytes, Call& call);
void read_key_starts(Bytes& bytes, Call& call);
void read_mask(Bytes& bytes, Call& call);
void read_tree_mask(Bytes& bytes, Call& call);
void read_draft_tree(Bytes& bytes, Call& call);
void read_tile_set(Bytes& bytes, Call& call);
void read_mask_function(Bytes& bytes, Call& call);

// options_scores.cpp: what scores become
void read_scale(Bytes& bytes, Call& call);
void read_softcap(Bytes& bytes, Call& call);
void read_alibi(Bytes& bytes, Call& call);
void read_relative_bias(Bytes& bytes, Call& call);
void read_temperature(Bytes& bytes, Call& call);
void read_sink_logits(Bytes& bytes, Call& call);
void read_score_function(Bytes& bytes, Call& call);

// options_positions.cpp: norms, RoPE and positions of queries and of appended keys
void read_query_norm(Bytes& bytes, Call& call);
void read_query_rope(Bytes& bytes, Call& call);
void read_query_positions(Bytes& bytes, Call& call);
void read_key_norm(Bytes& bytes, Call& call);
void read_key_rope(Bytes& bytes, Call& call);
void read_key_positions(Bytes& bytes, Call& call);

// options_shapes.cpp: lengths and heads, other numbers and arguments that do not fit
/// A length of each sequence, rarely of more or fewer.
std::vector<Index> read_lengths(Bytes& bytes, Call& call, Index Sequence::*limit);
void read_key_lengths(Bytes& bytes, Call& call);
void read_query_lengths(Bytes& bytes, Call& call);
void read_query_offsets(Bytes& bytes, Call& call);
void read_share_prefix(Bytes& bytes, Call& call);
void read_boundaries(Bytes& bytes, Call& call);
void read_map_of_call(Bytes& bytes, Call& call);
void read_map_of_attention(Bytes& bytes, Call& call);
void read_values_in_keys(Bytes& bytes, Call& call);
void read_head_counts(Bytes& bytes, Call& call);
void read_magnitude(Bytes& bytes, Call& call);
void read_number(Bytes& bytes, Call& call);
void read_poison(Bytes& bytes, Call& call);
void read_other_heads(Bytes& bytes, Call& call);
void read_wrong_argument(Bytes& bytes, Call& call);
void read_wrong_plan(Bytes& bytes, Call& call);

// options_outputs.cpp: what is asked for
void read_scores(Bytes& bytes, Call& call);
void read_mass(Bytes& bytes, Call& call);
void read_merge(Bytes& bytes, Call& call);

}  // namespace headwise::fuzz
