// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <vector>

#include "tests/attention/weights.hpp"

// The calls whose scores and masses are held against the definition.

namespace headwise::testing {

/// f(inputs, route) of every kind of source, storage and shape: 0 and 1 keys, one less than a tile and more than two, head_dims
/// that no vector divides.
template <class F>
void for_each_weighed_shape(F&& f) {
  for (const Source source : {Source::cache, Source::packed_rows, Source::scattered_rows})
    for (const Storage storage : kAllStorages)
      for (const auto& [queries, keys] : {std::pair<Index, Index>{1, 130}, {3, 63}, {70, 100}, {2, 0}, {5, 1}})
        for (const Heads<>& heads : {Heads<>{4, 4, 8}, Heads<>{6, 2, 24, 16}, Heads<>{5, 1, 10}}) {
          f(Inputs(heads, 2, queries, keys, 61), Route{.source = source, .storage = storage});
          if (::testing::Test::HasFatalFailure()) return;
        }
}

/// f(inputs, options) of every option that moves scores or hides keys.
template <class F>
void for_each_weighed_option(F&& f) {
  const std::array<float, 4> slopes{0.5f, 0.01f, 0.0f, 0.125f}, sinks{1.0f, -3.0f, 2.5f, 0.0f};
  const std::vector<Index> keys{150, 3, 70, 0}, queries{45, 7, 0, 1}, prefixes{130, 0, 64, 120}, starts{70, 3, 0, 149};
  const Inputs in({4, 2, 8}, 4, 45, 150, 62);
  for (const Options& options :
       {Options{.causal = false}, Options{.window = 20, .num_sink_tokens = 3}, Options{.window = 0},
        Options{.causal = false, .window = 5, .window_right = 7}, Options{.softcap = 2.0f},
        Options{.scale = 0.3f, .softcap = 1.5f, .alibi_slopes = slopes},
        Options{.window = 30, .key_lengths = keys, .query_lengths = queries},
        Options{.chunk_size = 40, .temperature = Temperature{8, 0.5f}, .sink_logits = sinks},
        Options{.window = 25, .prefix_lengths = prefixes, .key_starts = starts}}) {
    f(in, options);
    if (::testing::Test::HasFatalFailure()) return;
  }
}

/// Keys that are all alike, so that each of n visible ones weighs 1/n and the scores of all are `score`, to an error that
/// all share.
inline Inputs alike(Index queries, Index keys, float score) {
  Inputs in({4, 2, 8}, 1, queries, keys, 63);
  std::fill(in.q.begin(), in.q.end(), 0.0f);
  std::fill(in.k.begin(), in.k.end(), 0.0f);
  for (std::size_t at = 0; at < in.q.size(); at += 8) in.q[at] = score;
  for (std::size_t at = 0; at < in.k.size(); at += 8) in.k[at] = 1.0f;
  return in;
}

}  // namespace headwise::testing
