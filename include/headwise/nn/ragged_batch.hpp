// SPDX-License-Identifier: MIT
#pragma once

#include <iterator>
#include <span>
#include <vector>

#include "headwise/attention/attention.hpp"
#include "headwise/cache/page_table.hpp"
#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"
#include "headwise/nn/multi_head_attention_options.hpp"

namespace headwise::nn {

/// The next tokens of some sequences of a PagedCache, any number of each: the pieces of prompts and the single tokens that
/// one step of continuous batching reads together. The rows of x are the tokens of the first sequence, then those of the
/// second, …. It goes through the layers of a model in their order and keeps the plan of the step, which layers that attend
/// alike share. Cleared and filled again for each step, it comes to allocate nothing.
class RaggedBatch {
 public:
  void clear() {
    is_planned_ = false;
    sequences_.clear();
    offsets_.assign(1, 0);
  }
  /// The next `tokens` (at least 1) of a sequence that the batch does not have yet. Throws std::invalid_argument.
  void add(const SequenceId& sequence, Index tokens) {
    require(tokens >= 1, "tokens (", tokens, ") of sequence ", sequence.number(),
            " in a RaggedBatch must be at least 1");
    for (const SequenceId& other : sequences_)
      require(!(other == sequence), "sequence (", sequence.number(), ") must be added to a RaggedBatch once");
    is_planned_ = false;
    sequences_.push_back(sequence);
    offsets_.push_back(num_tokens() + tokens);
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

 private:
  friend class MultiHeadAttention;

  /// The plan of a layer whose keys, the step's tokens among them, are `keys`: the last one, where that serves.
  template <class Source>
  const AttentionPlan& plan(const Attention<Heads<>>& attention, const MultiHeadAttentionOptions& options, Index layer,
                            const Source& keys, ExecutorRef executor) {
    if (!serves(options, layer, keys)) {
      is_planned_ = false;
      headwise::Options call = detail::attention_options(options);
      call.query_offsets = offsets_;
      attention.plan(plan_, num_tokens(), keys, call, executor);
      key_tokens_.clear();
      for (Index b = 0; b < num_sequences(); ++b) key_tokens_.push_back(keys.num_tokens(b));
      planned_for_ = options;
      is_planned_ = true;
    }
    last_layer_ = layer;
    return plan_;
  }
  /// Only to later layers: an earlier one is of another step.
  template <class Source>
  bool serves(const MultiHeadAttentionOptions& options, Index layer, const Source& keys) const {
    if (!is_planned_ || layer <= last_layer_ || std::ssize(key_tokens_) != num_sequences() ||
        !detail::attend_alike(planned_for_, options))
      return false;
    for (Index b = 0; b < num_sequences(); ++b)
      if (keys.num_tokens(b) != key_tokens_[static_cast<std::size_t>(b)]) return false;
    return true;
  }

  std::vector<SequenceId> sequences_;
  std::vector<Index> offsets_ = std::vector<Index>(1, 0);

  AttentionPlan plan_;
  bool is_planned_ = false;
  MultiHeadAttentionOptions planned_for_;  // kept, so that the next step's allocate nothing
  std::vector<Index> key_tokens_;          // of each sequence in the plan
  Index last_layer_ = 0;
};

}  // namespace headwise::nn
