// SPDX-License-Identifier: MIT
#include "tests/conformance/call.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/attention/inputs.hpp"

namespace headwise::conformance {

using headwise::testing::with_type;

Storage storage_of(const Tensor& tensor) {
  if (tensor.type == "f32") return Storage::f32;
  if (tensor.type == "f16") return Storage::f16;
  require(tensor.type == "bf16", "type of a tensor of rows (", tensor.type, ") must be f32, f16 or bf16");
  return Storage::bf16;
}

Strides Rows::strides() const {
  if (heads_first()) return {heads_ * tokens() * dim(), dim(), tokens() * dim(), 1};
  return {tokens() * heads_ * dim(), heads_ * dim(), dim(), 1};
}

Index Rows::at(Index sequence, Index token, Index head, Index d) const {
  const Strides s = strides();
  return sequence * s.sequence + token * s.token + head * s.head + d;
}

double Rows::largest_norm() const {
  double largest = 0;
  for (Index b = 0; b < sequences(); ++b)
    for (Index t = 0; t < tokens(); ++t)
      for (Index h = 0; h < heads_; ++h) {
        double sum = 0;
        for (Index d = 0; d < dim(); ++d) sum += (*this)(b, t, h, d) * (*this)(b, t, h, d);
        if (std::isfinite(sum)) largest = std::max(largest, sum);
      }
  return std::sqrt(largest);
}

template <class Source>
Results attend(const Rows& queries, const Source& source, Index value_dim, const Options& options,
               const std::optional<Scores>& scores) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Index B = queries.sequences(), T = queries.tokens(), H = queries.heads();
  Index kv_heads = 0;
  if constexpr (requires { source.keys(); })
    kv_heads = source.keys().heads;
  else
    kv_heads = source.layer_shape().num_kv_heads;
  const Attention<> attention(Heads<>(H, kv_heads, queries.dim(), value_dim));
  Results results;
  results.lse.assign(static_cast<std::size_t>(B * T * H), nan);
  with_type(queries.storage(), [&]<class Q>() {
    headwise::testing::Memory out(std::vector<float>(static_cast<std::size_t>(B * T * H * value_dim), nan),
                                  queries.storage(), B, T, H, value_dim);
    Outputs outputs{out.view<Q>(), View<float>(results.lse.data(), B, T, H, 1)};
    if (scores) {
      results.scores.assign(static_cast<std::size_t>(B * T * H * scores->keys), nan);
      outputs.scores.emplace(View<float>(results.scores.data(), B, T, H, scores->keys), scores->stage);
    }
    attention(queries.view<Q>(), source, outputs, options);
    results.output = out.packed();
  });
  return results;
}
template Results attend(const Rows&, const KvRows&, Index, const Options&, const std::optional<Scores>&);
template Results attend(const Rows&, const KvCache<>&, Index, const Options&, const std::optional<Scores>&);

KvCache<> cache_of(std::span<const std::pair<Rows, Rows>> keys_and_values) {
  const auto& [k, v] = keys_and_values.front();
  Index tokens = 0;
  for (const auto& [keys, values] : keys_and_values) tokens += keys.tokens();
  const LayerShape shape{k.heads(), k.dim(), v.dim()};
  KvCache<> cache(std::span(&shape, 1), std::max<Index>(1, tokens),
                  {.num_sequences = k.sequences(), .key_storage = k.storage(), .value_storage = v.storage()});
  for (const auto& [keys, values] : keys_and_values)
    with_type(keys.storage(), [&]<class K>() {
      with_type(values.storage(), [&]<class V>() { cache.append(keys.view<K>(), values.view<V>()); });
    });
  return cache;
}

KvRows rows_of(const Rows& keys, const Rows& values) {
  return with_type(keys.storage(), [&]<class K>() {
    return with_type(values.storage(), [&]<class V>() { return KvRows(keys.view<K>(), values.view<V>()); });
  });
}

namespace {
constexpr double kRoundoff = 0x1p-24, kSafety = 4;

/// bf16 keys and values meet rows of bf16 on the one ISA that multiplies those.
bool rounds_rows(Storage keys) { return keys == Storage::bf16 && current_isa() == Isa::avx512bf16; }
}  // namespace

double Arithmetic::of_sums() const { return kSafety * kRoundoff * std::sqrt(static_cast<double>(num_keys) / 8 + 1); }

/// Of a score that others computed: factors scaled and rounded, a sum of head_dim products, what is added.
double Arithmetic::of_others() const {
  const double terms = std::sqrt(static_cast<double>(head_dim)) + 5;
  return kSafety * others_roundoff * (terms * score_size + added_size);
}

double Arithmetic::of_score() const {
  double error = score_size * kSafety * kRoundoff;
  if (rounds_rows(keys)) error += score_size * epsilon_of(Storage::bf16);
  return error + softcap * 0x1p-21 + added_size * 4 * kRoundoff + of_others();
}

double Arithmetic::of_output(double expected, double spread) const {
  double relative = 2 * of_score() + 8 * kRoundoff + of_sums();
  if (rounds_rows(keys)) relative += 2 * epsilon_of(Storage::bf16);
  relative += kSafety * others_roundoff * (2 + 2 * std::sqrt(static_cast<double>(num_keys)));
  const double smallest_step = outputs == Storage::f16 ? 0x1p-25 : 0x1p-126;
  const double size = std::abs(expected) + relative * spread;
  return relative * spread + (epsilon_of(outputs) + others_roundoff) * size + smallest_step;
}

double Arithmetic::of_weight(double expected) const {
  const double relative = 2 * of_score() + 16 * kRoundoff + of_sums() +
                          kSafety * others_roundoff * (2 + std::sqrt(static_cast<double>(num_keys)));
  return relative * std::abs(expected) + 0x1p-126;
}

double Arithmetic::of_lse(double expected) const {
  if (std::isinf(expected)) return 0;
  double error = of_score() + 8 * kRoundoff * (1 + std::abs(expected));
  if (rounds_rows(keys)) error += epsilon_of(Storage::bf16);
  return error + of_sums();
}

void expect_near(std::span<const float> actual, const std::function<double(Index)>& expected,
                 const std::function<double(Index)>& tolerance, std::string_view what) {
  for (Index i = 0; i < std::ssize(actual); ++i) {
    const double found = static_cast<double>(actual[static_cast<std::size_t>(i)]), wanted = expected(i);
    if (std::isnan(wanted) ? std::isnan(found) : found == wanted || std::abs(found - wanted) <= tolerance(i)) continue;
    FAIL() << what << "[" << i << "]: " << found << ", expected " << wanted << " ± " << tolerance(i);
  }
}

}  // namespace headwise::conformance
