// SPDX-License-Identifier: MIT
#include "tests/fuzz/attention/options.hpp"

namespace headwise::fuzz {

namespace {

// Inputs name options by their places here: new ones are added at the end.
constexpr void (*kOptions[])(Bytes&, Call&) = {
    read_scale,         read_causal,         read_window,         read_sinks,          read_window_right,
    read_softcap,       read_alibi,          read_relative_bias,  read_key_lengths,    read_query_lengths,
    read_query_offsets, read_share_prefix,   read_boundaries,     read_map_of_call,    read_map_of_attention,
    read_magnitude,     read_number,         read_poison,         read_other_heads,    read_wrong_argument,
    read_wrong_plan,    read_chunk_size,     read_prefix_lengths, read_key_starts,     read_temperature,
    read_sink_logits,   read_mask,           read_tree_mask,      read_draft_tree,     read_tile_set,
    read_mask_function, read_score_function, read_query_norm,     read_query_rope,     read_query_positions,
    read_key_norm,      read_key_rope,       read_key_positions,  read_values_in_keys, read_head_counts,
    read_scores,        read_mass,           read_merge};
static_assert(std::size(kOptions) == kNumOptions && kNumOptions <= 64);

}  // namespace

void read_option(Bytes& bytes, Call& call) {
  const std::uint8_t option = bytes.byte();
  if (option >= std::size(kOptions) || (call.options_read >> option & 1)) return;
  call.options_read |= std::uint64_t{1} << option;
  kOptions[option](bytes, call);
}

}  // namespace headwise::fuzz
