// SPDX-License-Identifier: MIT
#pragma once

#include <optional>
#include <utility>
#include <vector>

#include "tests/conformance/call.hpp"

// The operator Attention of ONNX (opsets 23 to 25), in the terms of the library.

namespace headwise::conformance {

/// A case as a call. The order is the library's: the body of the operator, as its reference implementation has it,
/// computes (Q·√scale)·(K·√scale)ᵀ → softcap → + mask → softmax → ·V, and a row without keys gives 0.
///
/// Where queries stand differs. Query i is at i + offset, and causal and windows count from there; offset is the length of
/// the past, or nonpad_kv_seqlen[b] − queries where that is given, or 0, however many keys there are: upper-left aligned.
/// Ours is at keys − queries + i. They are the same with nonpad_kv_seqlen, and where as many keys are new as queries.
/// Elsewhere `shift` = offset + queries − keys is not 0: then causal alone is a window to the right (shift > 0) or fewer
/// keys (shift < 0), and windows are a mask.
class OnnxAttention {
 public:
  explicit OnnxAttention(const Case& given);

  const Rows& queries() const { return q_; }
  Index value_dim() const { return new_values_.dim(); }
  Index num_keys() const { return num_keys_; }
  bool has_past() const { return past_.has_value(); }
  /// The keys and values of the past, where there are any, and the new ones.
  std::vector<std::pair<Rows, Rows>> keys_and_values() const;
  /// [sequence][head][query][key], sizes 1 serve all: bool, or numbers that are added. Of rank 4.
  const std::optional<Tensor>& mask() const { return mask_; }
  /// Without the mask. Spans are of this object.
  Options options() const;
  Arithmetic arithmetic() const;

 private:
  Index offset(Index sequence) const;
  Index length(Index sequence) const;
  void place(Index left, Index right);
  void hide(Index left, Index right);

  Rows q_, new_keys_, new_values_;
  std::optional<std::pair<Rows, Rows>> past_;
  Index num_keys_;
  std::vector<Index> nonpad_;       // nonpad_kv_seqlen; empty: none
  std::vector<Index> key_lengths_;  // of the call; empty: all keys
  std::optional<Tensor> mask_;
  double scale_, softcap_;
  bool causal_ = false;
  std::optional<Index> window_, window_right_;
};

}  // namespace headwise::conformance
