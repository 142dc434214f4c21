// SPDX-License-Identifier: MIT
// Scores and masses. A weight is e^(score − lse), so the errors of both change it by a factor; as part of a mass it is
// rounded to a multiple of 2^-23, after what it is rounded to where it meets the values.
#include <algorithm>
#include <cmath>

#include "tests/fuzz/attention/expected.hpp"

namespace headwise::fuzz {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// Relative, of one weight of a row.
double weight_error(const Expected& expected, Index i, Index h) {
  const double lse = expected.lse(i, h);
  return std::expm1(2 * expected.score_error(i, h)) + 2 * expected.sum_error() +
         16 * kRoundoff * (1 + (std::isfinite(lse) ? std::abs(lse) : 0));
}

bool forgotten(const Sequence& s, Index t) { return t >= s.kept.sinks && t < s.kept.begin; }

}  // namespace

void check_scores(const Call& call, const Expected& expected, const Array& scores, Index array_sequence, Index first) {
  const ScoreStage stage = call.scores->stage;
  const Sequence& s = expected.sequence();
  const bool weights = stage == ScoreStage::weights;
  for (Index i = 0; i < s.queries; ++i)
    for (Index h = 0; h < call.num_heads; ++h) {
      const double score_error = expected.score_error(i, h);
      if (!(score_error < 0.5)) continue;
      const double relative = weights ? weight_error(expected, i, h) : 0x1p-20;
      if (relative > 0.5) continue;
      // an infinite query gives scores of ±∞ and NaN, and all NaN as digits: which are hidden for being −∞ is open
      const bool doubtful = !expected.finite_query(i, h);
      for (Index t = 0; t < call.longest_keys() + call.scores->room; ++t) {
        const bool there = t < s.keys && !forgotten(s, t);
        const double value = there ? expected.score(stage, i, h, t) : weights ? 0 : -kInfinity;
        const float got = scores.get(array_sequence, first + i, h, t);
        if (there && doubtful && std::isnan(got)) continue;
        if (value == -kInfinity)
          expect(got == -std::numeric_limits<float>::infinity(), "the score of a hidden key is not -inf");
        const double size = std::isfinite(value) ? std::abs(value) : 0;
        compare(got, value, (weights ? 0x1p-100 : score_error) + relative * size, "score", i, h, t);
      }
    }
}

void check_mass(const Call& call, const Expected& expected, const Array& mass, Index b) {
  const Sequence& s = expected.sequence();
  const AskedMass& asked = *call.mass;
  const Index queries = call.queries_of_sequence(b),
              begin = std::max<Index>(0, queries - asked.last_queries.value_or(queries));
  const Index keys = call.longest_keys() + asked.room;
  // with as many of both, heads are KV heads
  const bool by_query_head = asked.heads != call.num_kv_heads;
  for (Index of = 0; of < asked.heads; ++of) {
    std::vector<double> sums(static_cast<std::size_t>(keys), 0.0), errors(static_cast<std::size_t>(keys), 0.0);
    bool sure = true;
    for (Index i = begin; i < queries; ++i)
      for (Index h = 0; h < call.num_heads; ++h) {
        if ((by_query_head ? h : expected.kv_head_of(h)) != of) continue;
        const double relative = weight_error(expected, i, h);
        sure &= expected.score_error(i, h) < 0.5 && relative < 0.5 && expected.finite_query(i, h);
        for (Index t = 0; t < std::min(keys, s.keys); ++t) {
          const double weight = expected.weight(i, h, t);
          sums[static_cast<std::size_t>(t)] += weight;
          errors[static_cast<std::size_t>(t)] += relative * weight + 0x1p-23 + expected.rounding().of_digits();
        }
      }
    for (Index t = 0; t < keys && sure; ++t) {
      const double paid = sums[static_cast<std::size_t>(t)], before = asked.add ? AskedMass::kBefore : 0;
      const double rounding = 2 * kRoundoff * (paid + before);
      compare(mass.get(b, t, of, 0), before + paid, errors[static_cast<std::size_t>(t)] + rounding, "mass", t, of, b);
    }
  }
}

}  // namespace headwise::fuzz
