// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "tests/fuzz/attention/call.hpp"

// The results that the definition says, and how far from them arithmetic may come. With u = 2^-24, for a row of n keys,
// all bounds of the worst case:
//   scores    a sum of D products is off by (D + c)·u·Σ|q·k| ≤ (D + c)·u·|q||k|, where c stands for the roundings of q, its
//             norm and turn, the scale and temperature, and the rotation of both; channel scales of 0.5 … 2 let |q·c||k/c|
//             be 4 times that. Queries that enter as bf16 add ε(bf16)·|q||k|, as digits half a unit of 1/32639 of the
//             largest for each of D.
//             Softcap adds 2^-21 of its limit, what is added to scores a few u of it. A score function multiplies all that
//             and rounds in sizes of its terms.
//   weights   an error δ of scores changes them by the factor e^δ, in the sum and above it.
//   sums      n·u of Σ p|v|; where weights enter as bf16 or digits, so much more of each.
//   output    one rounding to its type.

namespace headwise::fuzz {

inline constexpr double kRoundoff = 0x1p-24;

/// How this CPU's kernels meet stored numbers.
struct Rounding {
  bool bf16_rows = false, digit_scores = false, digit_weights = false;
  explicit Rounding(const Call& call);
  /// Of a weight, relative to it.
  double of_weight() const { return bf16_rows ? epsilon_of(Storage::bf16) : 0; }
  /// Of a weight, relative to the largest.
  double of_digits() const { return digit_weights ? 0.5 / 32639 * 1.01 : 0; }
};

/// What the definition says of one sequence of a call.
class Expected {
 public:
  Expected(const Call& call, Index b);

  const Sequence& sequence() const { return s_; }
  const Rounding& rounding() const { return rounding_; }
  Index kv_head_of(Index head) const { return kv_head_of_[static_cast<std::size_t>(head)]; }
  /// Of query tokens that do not exist, too.
  double lse(Index i, Index h) const { return result_.lse[static_cast<std::size_t>(i * call_.num_heads + h)]; }
  double value(Index i, Index h, Index d) const { return output(i, h, d); }
  /// Σ p·|v|
  double spread(Index i, Index h, Index d) const { return output(i, h, call_.value_dim + d); }
  /// At a stage; where no scores were asked for, none.
  double score(ScoreStage stage, Index i, Index h, Index t) const;
  double weight(Index i, Index h, Index t) const { return score(ScoreStage::weights, i, h, t); }
  /// The largest finite number of the values that a head reads.
  double largest_value(Index h) const { return largest_value_[static_cast<std::size_t>(kv_head_of(h))]; }

  /// Whether the query is, normed and turned.
  bool finite_query(Index i, Index h) const { return std::isfinite(query_norm(i, h)); }
  /// Of any score of the row that has a weight, before what is added to it or after. From 0.5 on arithmetic says little, or
  /// overflows.
  double score_error(Index i, Index h) const;
  /// Relative, of sums over the row's weights.
  double sum_error() const { return static_cast<double>(s_.keys + 64) * kRoundoff + 2 * rounding_.of_weight(); }

 private:
  double output(Index i, Index h, Index d) const {
    return result_.output[static_cast<std::size_t>((i * call_.num_heads + h) * 2 * call_.value_dim + d)];
  }
  void change_queries(Index b);
  void set_masks(reference::Parameters& parameters, Index b) const;
  double largest_added(Index i, Index h) const;
  double query_norm(Index i, Index h) const;

  const Call& call_;
  const Sequence& s_;
  Index b_;
  std::vector<double> q_;  // [token][head][dim], normed and turned
  std::vector<Index> kv_head_of_;
  std::vector<double> sink_logits_;
  Rounding rounding_;
  reference::Result result_;
  std::vector<double> longest_key_, largest_value_;  // [KV head]
};

/// Ends the program unless `got` is `expected` within `tolerance`; what is not finite has to be as it is.
void compare(float got, double expected, double tolerance, const char* what, Index i, Index h, Index at);

/// The scores and masses of a call, sequence by sequence (check_weights.cpp).
void check_scores(const Call& call, const Expected& expected, const Array& scores, Index array_sequence, Index first);
void check_mass(const Call& call, const Expected& expected, const Array& mass, Index b);

}  // namespace headwise::fuzz
