// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <memory>
#include <vector>

#include "headwise/core/heads.hpp"
#include "headwise/core/view.hpp"
#include "headwise/nn/linear.hpp"

namespace headwise::nn {

namespace detail {
class AttentionProjections;
}

/// Memory for the intermediate results of a forward pass. It grows to the largest call and is then reused: a decode
/// loop that keeps one allocates nothing here. One may serve all layers of a model, one call at a time.
class Workspace {
 public:
  Index bytes() const { return size_ * static_cast<Index>(sizeof(float)); }

 private:
  friend class detail::AttentionProjections;
  friend class MultiHeadAttention;

  /// At least `floats` floats of any content.
  float* reserve(Index floats) {
    if (floats > size_) {
      data_ = std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>(floats));
      size_ = floats;
    }
    return data_.get();
  }

  std::unique_ptr<float[]> data_;
  Index size_ = 0;
  std::vector<Index> positions_;  // of the tokens
};

namespace detail {

/// Where a pass keeps its intermediate results. Queries and keys lie side by side, qk [token][num_heads +
/// new_kv_heads][head_dim], so that RoPE computes a token's angles once for both.
struct Activations {
  Heads<> heads;
  Index new_kv_heads;       // that are projected: num_kv_heads, or 0
  Index sequences, tokens;  // tokens of each sequence
  float *qk, *v, *attended;

  Index query_width() const { return heads.num_heads() * heads.head_dim(); }
  Index key_width() const { return new_kv_heads * heads.head_dim(); }
  Index qk_width() const { return query_width() + key_width(); }
  Index value_width() const { return new_kv_heads * heads.value_dim(); }
  Index attended_width() const { return heads.num_heads() * heads.value_dim(); }

  /// All tokens, `width` features of rows that are `stride` apart.
  Eigen::Map<Matrix, 0, Eigen::OuterStride<>> map(float* data, Index width, Index stride) const {
    return {data, sequences * tokens, width, Eigen::OuterStride<>(stride)};
  }
  View<float> query() const { return view(qk, sequences, heads.num_heads()); }
  View<float> key() const { return view(qk + query_width(), sequences, new_kv_heads); }
  View<float> value() const { return {v, sequences, tokens, new_kv_heads, heads.value_dim()}; }
  View<float> output() const { return {attended, sequences, tokens, heads.num_heads(), heads.value_dim()}; }
  /// Queries and keys of `count` tokens from row `begin` on, as one sequence.
  View<float> query_and_key(Index begin, Index count) const {
    const Index num_heads = heads.num_heads() + new_kv_heads;
    return {qk + begin * qk_width(),
            1,
            count,
            num_heads,
            heads.head_dim(),
            {count * qk_width(), qk_width(), heads.head_dim(), 1}};
  }

 private:
  View<float> view(float* data, Index count, Index num_heads) const {
    return {data, count, tokens, num_heads, heads.head_dim(), {tokens * qk_width(), qk_width(), heads.head_dim(), 1}};
  }
};

}  // namespace detail

}  // namespace headwise::nn
