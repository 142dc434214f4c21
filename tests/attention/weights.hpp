// SPDX-License-Identifier: MIT
#pragma once

#include "tests/attention/oracle.hpp"

// Scores and masses of calls, and what they are by the definition.
//
// Beside the errors of scores (tests/attention/oracle.hpp, which this states again in a simpler, larger form): a weight is
// e^(score − max) over the sum of these, so an error δ of a score changes it by the factor e^δ, twice: by its own and by what
// all have in common. As part of a mass it is rounded to a multiple of 2^-23, and where weights meet the values as bf16, to
// that first.

namespace headwise::testing {

/// What a call is asked for beside its results.
struct Asked {
  std::optional<ScoreStage> stage{};
  Index mass_heads = 0;  // 0: no mass
  std::optional<Index> last_queries{};
  bool add = false;
  bool lse = true;
};

inline constexpr ScoreStage kStages[] = {ScoreStage::scaled, ScoreStage::softcapped, ScoreStage::biased,
                                         ScoreStage::weights};
/// Keys that views have room for beyond those of the inputs.
inline constexpr Index kRoom = 3;

struct Weights {
  Results results;
  std::vector<float> scores;  // [sequence][token][head][key_tokens + kRoom]
  std::vector<float> mass;    // [key sequence][key_tokens + kRoom][mass_heads]
  friend bool operator==(const Weights& a, const Weights& b) {
    return a.results == b.results && Results{a.scores, a.mass} == Results{b.scores, b.mass};
  }
};
inline void PrintTo(const Weights& weights, std::ostream* out) { PrintTo(weights.results, out); }

/// One call; `keys` are the sequences and tokens of the source. Arrays hold NaN before, the mass `before`, if it is added to.
Weights weights_of(const Inputs& queries, const Inputs& keys, const Asked& asked, float before,
                   const std::function<void(View<const float>, const Outputs&)>& call);

template <class S, class E = const Serial&>
Weights weights_over(const S& source, const Inputs& in, const Options& options, const Asked& asked,
                     E&& executor = Serial{}, float before = 0) {
  return weights_of(in, in, asked, before, [&](View<const float> q, const Outputs& outputs) {
    Attention<>{in.heads}(q, source, outputs, options, executor);
  });
}

/// The definition's, and how near a call must come.
class ExpectedWeights {
 public:
  ExpectedWeights(const Inputs& in, const Options& options, bool bf16_pairs);

  void check_scores(const std::vector<float>& actual, ScoreStage stage) const;
  void check_mass(const std::vector<float>& actual, Index heads, std::optional<Index> last_queries = {}) const;

 private:
  const Inputs& in_;
  Options options_;
  bool pairs_;
  std::vector<reference::Result> results_;  // [sequence]
  double score_size_ = 0;

  double weight_error() const;
};

/// Whether rows meet keys and values of this storage as bf16 here.
inline bool meets_pairs(Storage storage) { return storage == Storage::bf16 && current_isa() == Isa::avx512bf16; }

}  // namespace headwise::testing
