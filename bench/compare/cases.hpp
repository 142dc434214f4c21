// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "headwise/core/storage.hpp"
#include "headwise/cost/attention_layer.hpp"
#include "models.hpp"

namespace compare {

enum class Phase { decode, append, prefill };

constexpr std::string_view name_of(Phase phase) {
  return phase == Phase::decode ? "decode" : phase == Phase::append ? "append" : "prefill";
}

/// One thing that is timed: `new_tokens` queries over `kv_tokens` keys, one attention layer, one sequence.
struct Case {
  const Model* model;
  Index kv_heads;
  headwise::Storage storage;
  Phase phase;
  Index new_tokens;  // decode 1, append 8 or 64, prefill kv_tokens
  Index kv_tokens;
  Index threads;
  bool warm;             // the same cache again and again, not a cycle of caches
  bool unequal = false;  // KV heads are read by the model's unequal groups of query heads, not by equal ones

  Index head_dim() const { return model->head_dim; }
  Index num_heads() const { return model->num_heads; }

  /// What the cost model says of the call (the core alone is timed, so hidden_size is of no account).
  headwise::cost::AttentionLayer layer() const {
    return headwise::cost::AttentionLayer({.hidden_size = num_heads() * head_dim(),
                                           .num_heads = num_heads(),
                                           .num_kv_heads = kv_heads,
                                           .head_dim = head_dim()});
  }
  headwise::cost::Step step() const { return {.new_tokens = new_tokens, .past = kv_tokens - new_tokens}; }

  /// Bytes of K and V that one call must read: every stored key and value once, whatever the group size.
  double kv_bytes() const { return layer().kv_bytes_read(step(), storage); }
  Index kv_bytes_per_token() const { return layer().kv_bytes_per_token(storage); }

  /// Multiply-adds of q·k and p·v over the visible keys (causal), two operations each; the softmax is not counted.
  double flops() const { return layer().core_flops(step()); }

  /// "llama3-8b/32:8:128/bf16/decode/1/kv4096/threads2", unique among the cases of a run.
  std::string name() const;

  /// Whether the other is the same with equal groups: the same bytes of K and V.
  bool is_unequal_form_of(const Case& other) const {
    return unequal && !other.unequal && kv_heads == other.kv_heads && is_sibling_of(other);
  }

  /// Whether the two differ in the number of KV heads alone, so that their times may be compared.
  bool is_sibling_of(const Case& other) const {
    return model == other.model && storage == other.storage && new_tokens == other.new_tokens &&
           kv_tokens == other.kv_tokens && threads == other.threads && warm == other.warm;
  }
};

/// Axes of a product of cases; empty: the default of that axis.
struct Axes {
  std::vector<std::string> models;    // keys
  std::vector<std::string> storages;  // f32, f16, bf16
  std::vector<std::string> phases;    // decode, append, prefill
  std::vector<Index> kv_tokens;
  std::vector<Index> threads;
  bool warm = false;
  bool unequal = false;

  bool any() const {
    return !models.empty() || !storages.empty() || !phases.empty() || !kv_tokens.empty() || warm || unequal;
  }
};

/// The chosen sets, siblings side by side. Threads are those of `axes` or {1, all}.
std::vector<Case> default_cases(const Axes& axes, Index all_threads);
std::vector<Case> quick_cases(const Axes& axes, Index all_threads);
std::vector<Case> smoke_cases(const Axes& axes, Index all_threads);
/// Every model, storage, phase and length; prefill up to 4096 tokens, since its work grows with their square.
std::vector<Case> full_cases(const Axes& axes, Index all_threads);
/// Every combination of the axes.
std::vector<Case> product_of(const Axes& axes, Index all_threads);

}  // namespace compare
