// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <optional>

#include "headwise/core/view.hpp"

namespace headwise {

/// Where scores are taken on their way to weights. What hides keys (masks, lengths) acts after `softcapped`.
enum class ScoreStage : std::uint8_t {
  scaled,      // scale·temperature·(q·k), of hidden keys too
  softcapped,  // the same after softcap
  biased,      // as they enter the softmax: softcap, ALiBi, biases, score function; −inf where hidden
  weights,     // softmax(score), 0 where hidden; with sink logits they add up to less than 1
};

/// Scores of every query and key: [sequence][token][head][key] in f32, laid out like the outputs (ragged: one sequence).
/// View::dim() is at least the keys of each sequence; strides make any other order of it. Natural units.
/// Keys that do not exist (beyond key_lengths, before key_starts, forgotten by a ring) and queries that do not are −inf, weights 0.
/// Before masks the keys are read that are hidden from all, and only there do they show. Made by a second pass over the
/// keys, after the outputs, to the same bits for any threads and cut of the prompt. That takes about as long again as the
/// call (three quarters of it at decode): half for q·k, half for an array that is larger than keys and values together.
struct ScoreOutput {
  ScoreOutput(View<float> scores, ScoreStage at) : values(scores.array()), stage(at) {}

  Array values;
  ScoreStage stage;
};

/// The attention that each key was paid: the sum of softmax weights over the queries, for caches that keep what is read
/// (Zhang et al., H2O: Heavy-Hitter Oracle, 2023, arXiv 2306.14048; Li et al., SnapKV, 2024, arXiv 2404.14469).
///   mass [sequence][key][head][1] in f32; at least as many keys as every sequence has; num_kv_heads heads, summed
///   over the query heads of each, or num_heads. A hidden or missing key gets 0; keys visible to a query of NaN get NaN.
/// Where a head's keys lie side by side (a token stride of 1) masses are made in place; another order takes a copy.
/// Each weight is rounded to a multiple of 2^-23, beside the error it has in the output (that of bf16, where weights meet
/// the values so), and the sums of a call are exact: they have the same bits for any threads, batch and plan. Calls that
/// add to each other round their sums to f32, so a prompt cut in chunks gives the same bits while a mass is below 2, and
/// 2^-24 of it per call apart beyond.
struct MassOutput {
  explicit MassOutput(View<float> mass) : values(mass.array()) {}
  MassOutput(View<float> mass, bool adds, std::optional<Index> queries = {})
      : values(mass.array()), add(adds), last_queries(queries) {}

  Array values;
  /// Adds to what the view holds; otherwise all of it is set.
  bool add = false;
  /// Of these last query tokens of each sequence alone (SnapKV's observation window); unset: of all.
  std::optional<Index> last_queries{};
};

/// Where results go: [sequence][token][head][value_dim] of f32, f16 or bf16, and optionally the log-sum-exp of each row,
/// [sequence][token][head][1], natural logarithm, in f32. Made from a view, or from two in braces: `{out, lse}`. What else
/// a call can give is set after that; none of it may overlap another array of the call.
struct Outputs {
  template <ElementType T>
  Outputs(View<T> output) : values(output.array()) {}  // NOLINT: converts on purpose
  template <ElementType T>
  Outputs(View<T> output, View<float> log_sum_exp) : values(output.array()), lse(log_sum_exp.array()), has_lse(true) {}

  Array values;
  Array lse;
  bool has_lse = false;
  std::optional<ScoreOutput> scores{};
  std::optional<MassOutput> mass{};
};

}  // namespace headwise
