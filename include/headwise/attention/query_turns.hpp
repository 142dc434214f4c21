// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "headwise/attention/problem.hpp"
#include "headwise/core/linkage.hpp"
#include "headwise/parallel/executor.hpp"
#include "headwise/position/rope.hpp"
#include "headwise/position/token_positions.hpp"

namespace headwise::detail {

/// cos and sin of every query token of a call with a query_rope: made once for all heads, and with a plan for all layers.
class QueryTurns {
 public:
  /// Of the token at `place` in the arrays of queries: [num_pairs] cosines, then as many sines.
  const float* cosines(const CallShape::Place& place) const {
    checked_index(place.token, tokens_, "token of the queries' turns");
    check_range((place.sequence * tokens_ + place.token) * 2 * pairs_, 2 * pairs_, std::ssize(numbers_),
                "turns of the queries");
    return numbers_.data() + (place.sequence * tokens_ + place.token) * 2 * pairs_;
  }
  const float* sines(const CallShape::Place& place) const { return cosines(place) + pairs_; }

 private:
  friend void make_turns(QueryTurns& turns, const CallShape& call, const ExecutorRef& executor);

  float* row(const CallShape::Place& place) { return const_cast<float*>(cosines(place)); }

  Index tokens_ = 0, pairs_ = 0;
  std::vector<float> numbers_;  // [sequence][token][2][num_pairs], as the queries lie
};

/// Where the query tokens of a sequence stand.
inline TokenPositions query_positions(const CallShape& call, Index sequence) {
  const Options& options = *call.options;
  const Index queries = call.num_queries(sequence), axes = options.query_rope->num_axes();
  if (options.query_positions.empty()) return {call.num_keys(sequence) - queries};
  const auto [b, token] = call.place_of(sequence, 0);
  return {0,
          options.query_positions.subspan(static_cast<std::size_t>((b * call.tokens + token) * axes),
                                          static_cast<std::size_t>(queries * axes)),
          axes};
}

/// Works out the turns of a checked call in the memory of those before; nothing where it has no query_rope.
void make_turns(QueryTurns& turns, const CallShape& call, const ExecutorRef& executor);

}  // namespace headwise::detail

#if !defined(HEADWISE_DECLARE_ONLY)

namespace headwise::detail {

HEADWISE_API void make_turns(QueryTurns& turns, const CallShape& call, const ExecutorRef& executor) {
  constexpr Index kTokensAtOnce = 32;  // some 50 µs of cos and sin: what waking a thread is worth
  const Rope* const rope = call.options->query_rope;
  if (!rope) return;
  turns.tokens_ = call.tokens;
  turns.pairs_ = rope->num_pairs();
  const Index places = (call.is_ragged() ? 1 : call.num_sequences()) * call.tokens;
  turns.numbers_.resize(static_cast<std::size_t>(places * 2 * turns.pairs_));
  const auto turn = [&](Index piece) {
    const Index first = piece * kTokensAtOnce, last = first + kTokensAtOnce;
    for (Index b = 0, before = 0; b < call.num_sequences() && before < last; before += call.num_queries(b++)) {
      const Index queries = call.num_queries(b), begin = std::max(first - before, Index{0});
      const Index end = std::min(last - before, queries);
      if (begin >= end) continue;
      const TokenPositions positions = query_positions(call, b);
      const Rope::Angles angles(*rope, rope->depends_on_length() ? positions.length(queries) : 0);
      for (Index t = begin; t < end; ++t) {
        float* const row = turns.row(call.place_of(b, t));
        angles.turn_at(positions.of(t), row, row + turns.pairs_);
      }
    }
  };
  Index total = 0;
  for (Index b = 0; b < call.num_sequences(); ++b) total += call.num_queries(b);
  if (total <= kTokensAtOnce)
    turn(0);
  else
    executor.parallel_for(ceil_div(total, kTokensAtOnce), turn);
}

}  // namespace headwise::detail

#endif  // !HEADWISE_DECLARE_ONLY
