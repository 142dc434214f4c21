// SPDX-License-Identifier: MIT
#pragma once

#include <iterator>
#include <span>
#include <vector>

#include "headwise/attention/attention.hpp"
#include "headwise/cache/page_table.hpp"
#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"
#include "headwise/nn/forward_options.hpp"
#include "headwise/nn/multi_head_attention_options.hpp"
#include "headwise/nn/resolved_options.hpp"

namespace headwise::nn {

namespace detail {
class RaggedStep;
}

/// The next tokens of some sequences of a PagedCache, any number of each: the pieces of prompts and the single tokens that
/// one step of continuous batching reads together. The rows of x are the tokens of the first sequence, then those of the
/// second, …. It goes through the layers of a model in their order and keeps the plans of the step, which layers that attend
/// alike share. Cleared and filled again for each step, it comes to allocate nothing.
class RaggedBatch {
 public:
  void clear() {
    num_plans_ = 0;
    sequences_.clear();
    offsets_.assign(1, 0);
    options_ = {};
  }
  /// The next `tokens` (at least 1) of a sequence that the batch does not have yet. Throws std::invalid_argument.
  void add(const SequenceId& sequence, Index tokens) {
    require(tokens >= 1, "tokens (", tokens, ") of sequence ", sequence.number(),
            " in a RaggedBatch must be at least 1");
    for (const SequenceId& other : sequences_)
      require(!(other == sequence), "sequence (", sequence.number(), ") must be added to a RaggedBatch once");
    num_plans_ = 0;
    sequences_.push_back(sequence);
    offsets_.push_back(num_tokens() + tokens);
  }
  /// What the layers are told of the step's tokens, until the batch is cleared. What it refers to must live as long, and be
  /// set again where it has changed. Throws std::invalid_argument on groups, which are of a KvCache alone.
  void set_options(const ForwardOptions& options) {
    require(!options.groups, "groups (given) of a RaggedBatch must not be given: they are decided in a KvCache alone");
    num_plans_ = 0;
    options_ = options;
  }

  Index num_sequences() const { return std::ssize(sequences_); }
  /// Of all sequences: rows of x.
  Index num_tokens() const { return offsets_.back(); }
  Index num_tokens(Index b) const { return offset(b + 1) - offset(b); }
  std::span<const SequenceId> sequences() const { return sequences_; }
  const SequenceId& sequence(Index b) const { return sequences_[static_cast<std::size_t>(b)]; }
  /// num_sequences + 1 rows: those of sequence b are offsets[b] … offsets[b + 1] − 1.
  std::span<const Index> offsets() const { return offsets_; }
  Index offset(Index b) const { return offsets_[static_cast<std::size_t>(b)]; }
  const ForwardOptions& options() const { return options_; }
  /// Plans made since the step began: one for each way that its layers attend.
  Index num_plans() const { return static_cast<Index>(num_plans_); }

 private:
  friend class detail::RaggedStep;

  /// A plan, and what it serves.
  struct StepPlan {
    AttentionPlan plan;
    MultiHeadAttentionOptions options;
    std::vector<Index> key_tokens;  // of each sequence
  };

  /// The plan of a layer whose keys, the step's tokens among them, are `keys`: one of this step, where any serves.
  template <class Source>
  const AttentionPlan& plan(const Attention<Heads<>>& attention, const MultiHeadAttentionOptions& options, Index layer,
                            const Source& keys, ExecutorRef executor) {
    if (layer <= last_layer_) num_plans_ = 0;  // an earlier layer is of another step
    last_layer_ = layer;
    for (std::size_t i = 0; i < num_plans_; ++i)
      if (serves(plans_[i], options, keys)) return plans_[i].plan;
    if (num_plans_ == plans_.size()) plans_.emplace_back();
    StepPlan& made = plans_[num_plans_];
    headwise::Options call = detail::attention_options(options, options_);
    call.query_offsets = offsets_;
    call.sink_logits = {};  // each layer's own
    attention.plan(made.plan, num_tokens(), keys, call, executor);
    made.key_tokens.clear();
    for (Index b = 0; b < num_sequences(); ++b) made.key_tokens.push_back(keys.num_tokens(b));
    made.options = options;
    ++num_plans_;
    return made.plan;
  }
  template <class Source>
  bool serves(const StepPlan& made, const MultiHeadAttentionOptions& options, const Source& keys) const {
    if (!detail::attend_alike(made.options, options)) return false;
    for (Index b = 0; b < num_sequences(); ++b)
      if (keys.num_tokens(b) != made.key_tokens[static_cast<std::size_t>(b)]) return false;
    return true;
  }

  std::vector<SequenceId> sequences_;
  std::vector<Index> offsets_ = std::vector<Index>(1, 0);
  ForwardOptions options_;

  std::vector<StepPlan> plans_;  // the first num_plans_ are of this step; the rest is memory for the next ones
  std::size_t num_plans_ = 0;
  Index last_layer_ = 0;
};

}  // namespace headwise::nn
