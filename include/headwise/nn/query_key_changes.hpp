// SPDX-License-Identifier: MIT
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"
#include "headwise/nn/multi_head_attention_options.hpp"
#include "headwise/nn/workspace.hpp"
#include "headwise/parallel/executor.hpp"
#include "headwise/position/qk_norm.hpp"
#include "headwise/position/rope.hpp"
#include "headwise/position/token_positions.hpp"

namespace headwise::nn::detail {

/// What a layer does to queries and keys between its projections and attention: QK-norm, then RoPE. They are changed where
/// the projections left them, not as they are gathered and appended: they are in cache there, and cos and sin, on all
/// threads, serve both.
class QueryKeyChanges {
 public:
  /// Of resolved options. Norms of weight 1.
  explicit QueryKeyChanges(const MultiHeadAttentionOptions& options) {
    if (options.rope) rope_.emplace(*options.head_dim, *options.rope);
    if (options.qk_norm_epsilon) set_norms(options, {}, {});
  }

  void set_norms(const MultiHeadAttentionOptions& options, std::span<const float> query_weight,
                 std::span<const float> key_weight) {
    require(options.qk_norm_epsilon.has_value(),
            "qk_norm_epsilon (unset) of the options must be given for a layer with weights of QK-norm");
    require(!options.borrows_kv || key_weight.empty(), "key_weight (", key_weight.size(),
            " numbers) of QK-norm must be empty where borrows_kv is true: keys were normed by their producer");
    QkNorm query(*options.head_dim, query_weight, *options.qk_norm_epsilon);
    if (!options.borrows_kv) key_norm_.emplace(*options.head_dim, key_weight, *options.qk_norm_epsilon);
    query_norm_ = std::move(query);
  }
  /// Numbers in the weights of norms.
  Index parameters() const {
    return (query_norm_ ? query_norm_->head_dim() : 0) + (key_norm_ ? key_norm_->head_dim() : 0);
  }

  void norm_queries(const Activations& a, ExecutorRef run) const {
    if (query_norm_) query_norm_->apply(a.query(), run);
  }
  void norm_keys(const Activations& a, ExecutorRef run) const {
    if (key_norm_) key_norm_->apply(a.key(), run);
  }

  /// Turns queries and keys of a step by RoPE: tokens stand where `given` says or, where that is empty, behind those before
  /// them. `memory` holds positions during the call. Throws std::invalid_argument on positions that do not fit.
  template <class Step>
  void turn(const Activations& a, const Step& step, std::span<const Index> given, std::vector<Index>& memory,
            ExecutorRef run) const {
    if (!rope_) return;
    const Index rows = a.sequences * a.tokens, axes = rope_->num_axes();
    if (!given.empty()) headwise::detail::check_positions("positions", given, rows, axes);
    const std::span<const Index> positions = given.empty() ? consecutive(step, axes, memory) : given;
    if (!rope_->depends_on_length()) return rope_->apply(a.query_and_key(0, rows), positions, run);
    for (Index b = 0; b < step.num_sequences(); ++b) {  // of each sequence
      const Index begin = step.offset(b), count = step.offset(b + 1) - begin;
      rope_->apply(a.query_and_key(begin, count),
                   positions.subspan(static_cast<std::size_t>(begin * axes), static_cast<std::size_t>(count * axes)),
                   run);
    }
  }

 private:
  template <class Step>
  static std::span<const Index> consecutive(const Step& step, Index axes, std::vector<Index>& memory) {
    memory.clear();
    for (Index b = 0; b < step.num_sequences(); ++b)
      for (Index t = 0; t < step.offset(b + 1) - step.offset(b); ++t)
        memory.insert(memory.end(), static_cast<std::size_t>(axes), step.first_position(b) + t);
    return memory;
  }

  std::optional<Rope> rope_;
  std::optional<QkNorm> query_norm_, key_norm_;
};

}  // namespace headwise::nn::detail
