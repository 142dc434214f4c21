// SPDX-License-Identifier: MIT
#include <cmath>

#include "tests/fuzz/attention/expected.hpp"

namespace headwise::fuzz {

namespace {

/// Outputs and log-sum-exps; of merged results, what the errors of two parts' log-sum-exps add.
void check_outputs(const Call& call, const Expected& expected, const Results& results, bool merged, Index sequence,
                   Index first) {
  for (Index i = 0; i < expected.sequence().queries; ++i)
    for (Index h = 0; h < call.num_heads; ++h) {
      const double score_error = expected.score_error(i, h);
      if (!(score_error < 0.5)) continue;
      const double lse = expected.lse(i, h), sums = expected.sum_error();
      double tolerance = score_error + sums + 16 * kRoundoff * (1 + std::abs(lse));
      if (merged && std::isfinite(lse)) tolerance *= 3;
      if (merged && std::isfinite(lse) && tolerance > 0.5) continue;
      if (call.lse) {
        const float got = results.lse.get(sequence, first + i, h, 0);
        if (lse < 0 && std::isinf(lse)) expect(std::isinf(got) && got < 0, "the lse of a row without keys is not -inf");
        compare(got, lse, std::isinf(lse) ? 0 : tolerance, "lse", i, h, 0);
      }
      for (Index d = 0; d < call.value_dim; ++d) {
        const double value = expected.value(i, h, d), spread = expected.spread(i, h, d);
        const double relative = std::expm1(2 * score_error) + 2 * sums + (merged ? 2 * tolerance : 0);
        double error = relative * spread;
        if (expected.rounding().digit_weights)
          error += expected.largest_value(h) *
                   (64 * expected.rounding().of_digits() + 0x1p-90 * static_cast<double>(expected.sequence().keys));
        const double step = call.outputs == Storage::f16 ? 0x1p-25 : 0x1p-126;
        error += epsilon_of(call.outputs) * (std::abs(value) + error) + step;
        const double most = call.outputs == Storage::f16 ? 65504.0 : 3e38;
        if (std::isfinite(value) && std::abs(value) + error > most / 4096) continue;  // may overflow
        compare(results.output.get(sequence, first + i, h, d), value, error, merged ? "merged output" : "output", i, h,
                d);
      }
    }
}

}  // namespace

void check_results(const Call& call, const AllResults& results) {
  for (Index b = 0; b < call.num_sequences(); ++b) {
    const auto [array_sequence, first] = call.queries_of(b);
    const Expected expected(call, b);
    check_outputs(call, expected, results.whole, false, array_sequence, first);
    if (results.merged) check_outputs(call, expected, *results.merged, true, array_sequence, first);
    if (call.scores) check_scores(call, expected, results.whole.scores, array_sequence, first);
    if (call.mass) check_mass(call, expected, results.whole.mass, b);
  }
}

}  // namespace headwise::fuzz
