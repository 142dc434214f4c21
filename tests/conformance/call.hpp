// SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "headwise/headwise.hpp"
#include "tests/conformance/case_file.hpp"

// Calls of the library on the tensors of cases.

namespace headwise::conformance {

/// f32, f16 or bf16; throws std::invalid_argument for others.
Storage storage_of(const Tensor& tensor);

/// A tensor of rows of `heads` heads: [sequence][head][token][dim], or of rank 3, [sequence][token][head · dim].
class Rows {
 public:
  Rows(const Tensor& tensor, Index heads) : tensor_(&tensor), heads_(heads) {}

  Storage storage() const { return storage_of(*tensor_); }
  Index sequences() const { return tensor_->size(0); }
  Index tokens() const { return heads_first() ? tensor_->size(2) : tensor_->size(1); }
  Index heads() const { return heads_; }
  Index dim() const { return heads_first() ? tensor_->size(3) : tensor_->size(2) / heads_; }
  bool heads_first() const { return tensor_->rank() == 4; }
  /// Where element (sequence, token, head, d) lies in the tensor.
  Index at(Index sequence, Index token, Index head, Index d) const;
  double operator()(Index sequence, Index token, Index head, Index d) const {
    return (*tensor_)[at(sequence, token, head, d)];
  }
  template <class T>
  View<const T> view() const {
    return {reinterpret_cast<const T*>(tensor_->bytes.data()), sequences(), tokens(), heads_, dim(), strides()};
  }
  Strides strides() const;
  /// The largest |row| of finite numbers.
  double largest_norm() const;

 private:
  const Tensor* tensor_;
  Index heads_;
};

/// What a call gives, packed: output [sequence][token][head][value_dim], lse [sequence][token][head], and where they were
/// asked for, scores [sequence][token][head][key].
struct Results {
  std::vector<float> output, lse, scores;
};

/// Scores of so many keys, at a stage.
struct Scores {
  ScoreStage stage;
  Index keys;
};

/// Calls the library with queries as they lie and outputs of the queries' type.
template <class Source>
Results attend(const Rows& queries, const Source& source, Index value_dim, const Options& options,
               const std::optional<Scores>& scores = {});
extern template Results attend(const Rows&, const KvRows&, Index, const Options&, const std::optional<Scores>&);
extern template Results attend(const Rows&, const KvCache<>&, Index, const Options&, const std::optional<Scores>&);

/// A cache of keys and values as they are, those of the past first.
KvCache<> cache_of(std::span<const std::pair<Rows, Rows>> keys_and_values);

/// Keys and values as they lie, behind KvRows.
KvRows rows_of(const Rows& keys, const Rows& values);

/// How far results may be from expected ones, by the arithmetic: tests/attention/oracle.hpp says where the terms come
/// from. Expected numbers that are not of float64 have errors of the same kind, with the roundoff of their own type.
struct Arithmetic {
  Storage keys, outputs;
  double score_size;           // scale·|q|·|k| of the longest
  double added_size = 0;       // the largest finite term that is added to a score
  double softcap = 0;          // 0: none
  Index num_keys, head_dim;    // sums are over these
  double others_roundoff = 0;  // unit roundoff of the arithmetic behind the expected numbers; 0: float64

  /// Of an output near `expected` whose Σ p·|v| is `spread`.
  double of_output(double expected, double spread) const;
  double of_lse(double expected) const;
  double of_score() const;
  /// Of a softmax weight.
  double of_weight(double expected) const;

 private:
  double of_sums() const;
  double of_others() const;
};

/// Checks every number: near by tolerance(index), NaN where NaN is expected, infinite where that is. Says which is not.
void expect_near(std::span<const float> actual, const std::function<double(Index)>& expected,
                 const std::function<double(Index)>& tolerance, std::string_view what);

}  // namespace headwise::conformance
