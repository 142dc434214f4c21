// SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "headwise/attention/attend.hpp"
#include "headwise/attention/check.hpp"
#include "headwise/attention/plan.hpp"
#include "headwise/attention/problem.hpp"
#include "headwise/attention/query_turns.hpp"
#include "headwise/core/head_map.hpp"
#include "headwise/core/heads.hpp"
#include "headwise/parallel/executor.hpp"

namespace headwise {

template <class HeadsType>
class Attention;

/// What differs between the layers whose calls share a plan: each, where it is given, in place of what the plan's options
/// say.
struct LayerOptions {
  const QkNorm* query_norm = nullptr;
  std::span<const float> sink_logits{};
};

/// The work of one step, worked out once by Attention::plan and done by every layer's call: which queries meet which
/// keys, under which options, on how many threads. Calls that use it give the same bits as calls that plan for
/// themselves. Holds copies of the options' spans; refers to what relative_bias, masks, tile sets, functions, query_norm and
/// query_rope of the options refer to. Calls from several threads may
/// share a plan while none makes it anew.
class AttentionPlan {
 public:
  /// Empty: no call may use it before Attention::plan has made it.
  AttentionPlan() = default;

  bool empty() const { return !step_ || !step_->made; }
  /// Sequences of the keys and values; tokens of q. 0 where empty.
  Index num_sequences() const { return empty() ? 0 : std::ssize(step_->key_tokens); }
  Index query_tokens() const { return empty() ? 0 : step_->query_tokens; }
  /// Sequences whose leading tokens are read together with those of others (Options::share_prefix).
  Index num_sharing_sequences() const {
    Index count = 0;
    if (!empty())
      for (const detail::PrefixRun& run : step_->plan.prefixes().runs()) count += run.count;
    return count;
  }

 private:
  template <class>
  friend class Attention;

  struct Step {
    bool made = false;
    Heads<> heads{1, 1, 1};
    std::optional<HeadMap> map;
    bool map_of_call = false;  // from the options, not the attention's own
    Options options;           // spans of the vectors below
    std::vector<Index> key_lengths, key_starts, prefix_lengths, query_lengths, query_offsets, group_boundaries,
        query_positions;
    std::vector<float> alibi_slopes, sink_logits;
    Index query_tokens = 0;
    bool packs = false;
    std::vector<Index> key_tokens;  // of each sequence
    detail::Plan plan;
    detail::QueryTurns turns;
  };

  /// Reuses the memory of the plan before it; `shape` is checked.
  void make(const detail::CallShape& shape, const Heads<>& heads, const ExecutorRef& executor) {
    if (!step_) step_ = std::make_unique<Step>();
    Step& step = *step_;
    step.made = false;
    step.heads = heads;
    step.map = shape.groups.map();
    step.options = *shape.options;
    step.map_of_call = step.options.head_map != nullptr;
    step.options.head_map = nullptr;
    const auto keep = [](auto& span, auto& memory) {
      memory.assign(span.begin(), span.end());
      span = memory;
    };
    keep(step.options.key_lengths, step.key_lengths);
    keep(step.options.key_starts, step.key_starts);
    keep(step.options.prefix_lengths, step.prefix_lengths);
    keep(step.options.query_lengths, step.query_lengths);
    keep(step.options.query_offsets, step.query_offsets);
    keep(step.options.group_boundaries, step.group_boundaries);
    keep(step.options.alibi_slopes, step.alibi_slopes);
    keep(step.options.sink_logits, step.sink_logits);
    keep(step.options.query_positions, step.query_positions);
    step.query_tokens = shape.tokens;
    step.packs = !shape.source.tile;
    step.key_tokens.clear();
    for (Index b = 0; b < shape.num_sequences(); ++b)
      step.key_tokens.push_back(shape.source.num_tokens(shape.source.self, b));
    detail::make_plan(step.plan, shape, executor.concurrency());
    detail::make_turns(step.turns, shape, executor);
    step.made = true;
  }

  /// Throws std::invalid_argument where a call is not what was planned.
  void check(const detail::SourceRef& source, Index query_tokens, const Heads<>& heads, const HeadMap& map) const {
    require(!empty(), "plan (empty) must be made by Attention::plan");
    const Step& step = *step_;
    require(heads.head_dim() == step.heads.head_dim() && heads.value_dim() == step.heads.value_dim(), "head_dim (",
            heads.head_dim(), ") and value_dim (", heads.value_dim(), ") must equal those of the plan (",
            step.heads.head_dim(), " and ", step.heads.value_dim(), ")");
    require(step.map_of_call || map == *step.map, "head map (of ", map.num_heads(), " heads and ", map.num_kv_heads(),
            " KV heads) of the attention must be the one of the plan (", step.map->num_heads(), " and ",
            step.map->num_kv_heads(), ")");
    require(query_tokens == step.query_tokens, "tokens of q (", query_tokens, ") must equal those of the plan (",
            step.query_tokens, ")");
    require(source.num_sequences == num_sequences(), "sequences of the keys and values (", source.num_sequences,
            ") must equal those of the plan (", num_sequences(), ")");
    require(!source.tile == step.packs, "keys (", source.tile ? "tiles" : "the caller's memory",
            ") must be of the kind that was planned: ", step.packs ? "the caller's memory" : "tiles");
    // with key_lengths, what lies beyond does not matter
    for (Index b = 0; step.key_lengths.empty() && b < num_sequences(); ++b) {
      const Index tokens = source.num_tokens(source.self, b), planned = step.key_tokens[static_cast<std::size_t>(b)];
      require(tokens == planned, "tokens of the keys and values (", tokens, ") of sequence ", b,
              " must equal those of the plan (", planned, ")");
    }
    const detail::SharedPrefixes& prefixes = step.plan.prefixes();
    for (const detail::PrefixRun& run : prefixes.runs())
      for (Index i = 1; i < run.count; ++i) {
        const Index a = prefixes.sequence(run, 0), b = prefixes.sequence(run, i),
                    planned = run.segments * detail::kSegmentTokens;
        const Index shared = source.shared_tokens ? source.shared_tokens(source.self, a, b) : 0;
        require(shared >= planned, "shared_tokens (", shared, ") of sequences ", a, " and ", b,
                " must be at least those of the plan (", planned, ")");
      }
  }

  const Options& options() const { return step_->options; }
  const detail::Plan& work() const { return step_->plan; }
  const detail::QueryTurns& turns() const { return step_->turns; }
  detail::CallShape shape(const detail::SourceRef& source) const {
    return {step_->query_tokens, source, {*step_->map, step_->options.group_boundaries}, &step_->options};
  }

  std::unique_ptr<Step> step_;
};

}  // namespace headwise
