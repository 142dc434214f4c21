// SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "headwise/reference.hpp"
#include "tests/attention/run.hpp"

// Expected results by the definition (headwise/reference.hpp), and how far the arithmetic may take the library from
// them. Nothing here is tuned to what the library happens to give.
//
// With u = 2^-24 the unit roundoff of f32, for one row whose visible keys are t = 1 … n:
//   scores    a sum of D products of random sign: partial sums are of the size |q|·|k|·√(d)/D, so D independent roundings
//             of them add up to about u·|q|·|k|, times the scale. Where q enters as bf16, its rounding adds at most
//             ε(bf16)·Σ|q·k| ≤ ε(bf16)·|q|·|k|.
//             Softcap adds 2^-21 of its limit (its tanh), ALiBi and a relative bias a few u of their largest terms, a
//             temperature two roundings of its own, the same for all scores of a row. A function of the user's makes
//             all of it `slope` times as large and rounds in sizes of its terms. A sink logit is rounded as scores are.
//   weights   an error δ of the scores changes p by the factor e^δ: the output moves by at most 2δ·Σ p|v|.
//             exp2 has a few u. Where p enters as bf16, ε(bf16) once in the sum and once in the weights.
//   sums      of p over n keys in 8 or more lanes: √(n/8) roundings of growing sums; of p·v, of random sign, less.
//   output    one rounding to its storage type, with that type's smallest step near zero.
// kSafety stands before every estimate of random roundings.

namespace headwise::testing {

reference::Parameters parameters_of(const Options& options);

/// What Options::score_function is to compute, written down a second time in double.
struct ExactFunction {
  std::function<double(double score, Index sequence, Index head, Index query, Index key)> value{};
  double slope = 1;  // no change of a score changes the result by more than so many times as much
  double size = 0;   // the largest term or result
};

class Expected {
 public:
  Expected(const Inputs& in, const Options& options = {}, const HeadMap* map = nullptr, ExactFunction function = {});

  /// Every output and lse of the library is within what its arithmetic allows.
  void check(const Results& actual, const Route& route, std::string_view what = {}) const;

 private:
  struct Row {
    double lse;
    double score_size;  // |q|·|k|·scale of the longest
    double added_size;  // the largest terms of ALiBi, of the relative bias and of a mask, and the sink logit
  };

  /// The KV head of every query head of a sequence; empty: consecutive groups of equal size.
  std::vector<Index> kv_heads_of(Index sequence, const HeadMap* map) const;
  void add_sequence(const Inputs& in, Index b, const std::vector<Index>& kv_head_of);
  double largest_bias(Index head, Index queries, Index keys) const;
  double score_error(const Row& row, const Route& route) const;
  double output_tolerance(const Row& row, std::size_t i, const Route& route) const;
  double lse_tolerance(const Row& row, const Route& route) const;
  double sum_error() const;
  std::string place(Index row) const;
  std::string describe(const Route& route, std::string_view what) const;

  Options options_;
  ExactFunction function_;
  std::vector<double> sink_logits_;
  reference::Shape shape_;
  std::vector<double> output_, spread_;  // Σ p·v and Σ p·|v| [sequence][token][head][value_dim]
  std::vector<Row> rows_;                // [sequence][token][head]
};

/// Runs the library and checks it against the definition.
void expect_defined(const Inputs& in, const Route& route, const Options& options = {}, const HeadMap* map = nullptr,
                    std::string_view what = {}, ExactFunction function = {});

/// The same for keys and values of every storage type, in a cache and in the caller's memory.
void expect_defined_for_every_storage(const Inputs& in, const Options& options, std::string_view what);

}  // namespace headwise::testing
