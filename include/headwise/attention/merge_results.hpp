// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <span>
#include <type_traits>

#include "headwise/attention/outputs.hpp"
#include "headwise/core/linkage.hpp"
#include "headwise/core/view.hpp"
#include "headwise/parallel/executor.hpp"
#include "headwise/parallel/serial.hpp"

namespace headwise {

/// What a call gave for some queries over some of their keys: the output [sequence][token][head][value_dim] and the
/// log-sum-exp of each row [sequence][token][head][1], natural logarithm; each of f32, f16 or bf16.
struct PartialResult {
  template <ElementType T, ElementType L>
  PartialResult(View<T> values, View<L> log_sum_exp)
      : output(View<const T>(values).array()), lse(View<const L>(log_sum_exp).array()) {}

  ConstArray output, lse;
};

namespace detail {

void merge_results(std::span<const PartialResult> parts, const Outputs& merged, const ExecutorRef& executor);

}  // namespace detail

/// Results of the same queries over disjoint sets of keys become the result over all of them, as of one call (Milakov and
/// Gimelshein, Online normalizer calculation for softmax, 2018, arXiv 1805.02867): with M the largest lse,
///   L = Σ e^(lse − M),  output = Σ e^(lse − M) / L · output,  lse = M + log L,  in the order of the parts, in double.
/// parts   any number; one whose lse is −inf for a row has no keys for it and adds nothing, whatever its output holds
/// merged  a view, or {view, lse view}, of the shape of every part. It may be one of the parts' own memory, with the same
///         type and strides, and must not overlap the others
/// A row that no part has keys for gives 0 and lse −inf; NaN and infinities go where arithmetic takes them. Of calls with
/// sink logits, one part alone must have them. Gives the same bits for any executor.
/// Throws std::invalid_argument, before writing anything, when shapes differ.
template <class E = const Serial&>
  requires Executor<std::remove_reference_t<E>>
void merge_results(std::span<const PartialResult> parts, const Outputs& merged, E&& executor = Serial{}) {
  detail::merge_results(parts, merged, ExecutorRef(executor));
}

}  // namespace headwise

#if !defined(HEADWISE_DECLARE_ONLY)

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "headwise/core/error.hpp"

namespace headwise::detail {

inline void check_part(const BasicArray<const void>& part, const Array& merged, Index dim, const char* what, Index i) {
  require(part.sequences == merged.sequences && part.tokens == merged.tokens && part.heads == merged.heads &&
              part.dim == dim,
          what, " of parts[", i, "] ([", part.sequences, "][", part.tokens, "][", part.heads, "][", part.dim,
          "]) must have the shape of the merged one ([", merged.sequences, "][", merged.tokens, "][", merged.heads,
          "][", dim, "])");
}

inline void check_merge(std::span<const PartialResult> parts, const Outputs& merged) {
  const Array &out = merged.values, &lse = merged.lse;
  require(!merged.scores && !merged.mass, "merged (with scores or mass) must be an output and a log-sum-exp alone");
  if (merged.has_lse)
    require(lse.sequences == out.sequences && lse.tokens == out.tokens && lse.heads == out.heads && lse.dim == 1,
            "merged lse ([", lse.sequences, "][", lse.tokens, "][", lse.heads, "][", lse.dim,
            "]) must have the shape of the merged output ([", out.sequences, "][", out.tokens, "][", out.heads,
            "][1])");
  for (Index i = 0; i < std::ssize(parts); ++i) {
    check_part(parts[static_cast<std::size_t>(i)].output, out, out.dim, "output", i);
    check_part(parts[static_cast<std::size_t>(i)].lse, out, 1, "lse", i);
  }
}

/// Row (b, t, h) of all parts to the merged one.
inline void merge_row(std::span<const PartialResult> parts, const Outputs& merged, Index b, Index t, Index h) {
  constexpr double kNone = -std::numeric_limits<double>::infinity();
  constexpr Index kDims = 64;  // at a time: all parts are read before any is written, which may be one of them
  const Array& out = merged.values;
  const auto lse_of = [&](const PartialResult& part) {
    return static_cast<double>(load_element(part.lse.row(b, t, h), part.lse.storage, 0));
  };
  double top = kNone, sum = 0;
  for (const PartialResult& part : parts)
    if (const double lse = lse_of(part); lse > top || std::isnan(lse)) top = lse;  // a NaN stays
  const auto weight_of = [&](const PartialResult& part) {
    const double lse = lse_of(part);
    return lse == kNone ? 0 : std::exp(lse - top);
  };
  for (const PartialResult& part : parts) sum += weight_of(part);
  for (Index first = 0; first < out.dim; first += kDims) {
    const Index dims = std::min(kDims, out.dim - first);
    double total[kDims]{};
    for (const PartialResult& part : parts) {
      if (lse_of(part) == kNone) continue;
      const double weight = weight_of(part) / sum;
      const void* const row = part.output.row(b, t, h);
      for (Index d = 0; d < dims; ++d)
        total[d] +=
            weight * static_cast<double>(load_element(row, part.output.storage, (first + d) * part.output.strides.dim));
    }
    void* const row = out.row(b, t, h);
    for (Index d = 0; d < dims; ++d)
      store_element(row, out.storage, (first + d) * out.strides.dim, static_cast<float>(total[d]));
  }
  // last: the parts' are read for every 64 dimensions
  if (merged.has_lse)
    store_element(merged.lse.row(b, t, h), Storage::f32, 0, static_cast<float>(sum == 0 ? kNone : top + std::log(sum)));
}

HEADWISE_API void merge_results(std::span<const PartialResult> parts, const Outputs& merged,
                                const ExecutorRef& executor) {
  check_merge(parts, merged);
  const Array& out = merged.values;
  executor.parallel_for(out.sequences * out.tokens, [&](Index row) {
    for (Index h = 0; h < out.heads; ++h) merge_row(parts, merged, row / out.tokens, row % out.tokens, h);
  });
}

}  // namespace headwise::detail

#endif  // !HEADWISE_DECLARE_ONLY
