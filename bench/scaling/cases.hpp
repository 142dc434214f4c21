// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <vector>

#include "compare/cases.hpp"
#include "headwise/core/heads.hpp"

namespace scaling {

using compare::Phase;
using headwise::Index;
using headwise::Storage;

/// One point of a curve: attention of one layer, one sequence, causal.
struct Case {
  headwise::Heads<> heads;
  Storage storage;
  Phase phase;   // decode: one query; prefill: as many as keys
  Index tokens;  // keys
  Index window;  // keys a query sees at most; tokens or more: all
  Index threads;

  Index new_tokens() const { return phase == Phase::decode ? 1 : tokens; }
  bool windowed() const { return window < tokens; }

  /// Keys that some query sees.
  Index seen_tokens() const { return phase == Phase::decode ? std::min(tokens, window) : tokens; }
  /// Query-key pairs of one head.
  double pairs() const {
    if (phase == Phase::decode) return static_cast<double>(seen_tokens());
    const auto n = static_cast<double>(tokens), w = static_cast<double>(std::min(tokens, window));
    return n * w - w * (w - 1) / 2;
  }
  /// Bytes of K and V that must be read, each once.
  double kv_bytes() const {
    return static_cast<double>(seen_tokens() * heads.num_kv_heads() * 2 * heads.head_dim() * size_of(storage));
  }
  /// Multiply-adds of q·k and p·v, two operations each; the softmax is not counted.
  double flops() const { return 4.0 * static_cast<double>(heads.num_heads() * heads.head_dim()) * pairs(); }
  /// What should set the time: bytes where a token is decoded, pairs where a prompt is read.
  double work() const { return phase == Phase::decode ? kv_bytes() : pairs(); }
};

/// Which curves to draw.
struct Curves {
  headwise::Heads<> heads{32, 8, 128};
  std::vector<Storage> storages{Storage::bf16, Storage::f32};
  std::vector<Index> threads;
  Index max_kv = 131072, max_prompt = 8192, window = 1024;
  bool decode = true, prefill = true;

  static std::vector<Index> doublings(Index first, Index last) {
    std::vector<Index> values;
    for (Index value = first; value <= last; value *= 2) values.push_back(value);
    return values;
  }
  std::vector<Index> kv_lengths() const { return doublings(std::min<Index>(1024, max_kv), max_kv); }
  std::vector<Index> prompts() const { return doublings(std::min<Index>(512, max_prompt), max_prompt); }
};

}  // namespace scaling
