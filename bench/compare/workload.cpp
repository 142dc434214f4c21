// SPDX-License-Identifier: MIT
#include "workload.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <set>

#include "headwise/reference.hpp"
#include "roofline.hpp"

namespace compare {

namespace {

using headwise::Storage;
using headwise::View;

// Tokens of random data that are made once and repeated: drawing gigabytes of random numbers would take longer than
// all the timing. Not a multiple of the 64-token tile, so that no two tiles of a cache are alike.
constexpr Index kBlock = 1021;

/// About normal numbers, mean 0 and variance 1: four uniform ones from each 64-bit draw (xorshift64*).
std::vector<float> random_values(Index count, std::uint64_t seed, Storage storage) {
  std::vector<float> values(static_cast<std::size_t>(count));
  std::uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
  for (Index i = 0; i < count; ++i) {
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    const std::uint64_t bits = state * 0x2545f4914f6cdd1du;
    Index sum = 0;
    for (int part = 0; part < 4; ++part) sum += static_cast<std::int16_t>(bits >> (16 * part));
    headwise::store_element(values.data(), Storage::f32, i, static_cast<float>(sum) * 0x1p-15f * 0.8660254f);
    if (storage != Storage::f32) {
      std::uint16_t rounded = 0;
      headwise::store_element(&rounded, storage, 0, values[static_cast<std::size_t>(i)]);
      values[static_cast<std::size_t>(i)] = headwise::load_element(&rounded, storage, 0);
    }
  }
  return values;
}

/// How far attention may be from the reference on these data (see Check).
///   f32 arithmetic: each of the n additions of a sum rounds, at random, so errors grow no faster than the square root
///     of n; the constant part covers the scores and exp2. Twice that.
///   bf16 dot products: queries and weights are rounded to bf16, each off by at most half a unit, which leaves a
///     relative error near sqrt(2)·epsilon/sqrt(3) whatever n is. Four times that, since a row has few dimensions.
/// One key too many or too few is off by about 1/sqrt(n), a wrong tile or head by far more: with bf16 dot products a
/// single lost key shows up to some thousand keys, everything else always.
double error_limit(Storage storage, Index kv_tokens) {
  const double f32 = headwise::epsilon_of(Storage::f32) * (8 + std::sqrt(static_cast<double>(kv_tokens)));
  const double dot = Roofline::uses_dot(storage) ? std::sqrt(2.0 / 3.0) * headwise::epsilon_of(storage) : 0.0;
  return 2 * f32 + 4 * dot;
}

std::set<Index> ends_and_middle(Index count) { return {0, count / 2, count - 1}; }

}  // namespace

template <class T>
Workload::AnyCache Workload::make_cache() {
  const std::vector<headwise::LayerShape> shapes(static_cast<std::size_t>(layers_),
                                                 {heads_.num_kv_heads(), heads_.head_dim()});
  std::vector<T> keys(keys_.size()), values(values_.size());
  std::ranges::transform(keys_, keys.begin(), [](float x) { return T(x); });
  std::ranges::transform(values_, values.begin(), [](float x) { return T(x); });

  headwise::KvCache<T> cache(shapes, kv_tokens_);
  for (Index layer = 0; layer < layers_; ++layer)
    for (Index done = 0; done < kv_tokens_; done += kBlock) {
      const Index tokens = std::min(kBlock, kv_tokens_ - done);
      const auto block = [&](std::vector<T>& data) {
        return View<T>(data.data(), tokens, heads_.num_kv_heads(), heads_.head_dim());
      };
      cache.append(layer, block(keys), block(values));
    }
  return cache;
}

Workload::Workload(const Model& model, Index kv_heads, Storage storage, Index kv_tokens, Index layers,
                   Index max_new_tokens)
    : heads_(model.num_heads, kv_heads, model.head_dim),
      storage_(storage),
      kv_tokens_(kv_tokens),
      layers_(layers),
      keys_(random_values(std::min(kBlock, kv_tokens) * kv_heads * model.head_dim, 1, storage)),
      values_(random_values(std::min(kBlock, kv_tokens) * kv_heads * model.head_dim, 2, storage)),
      cache_(storage == Storage::f32   ? make_cache<float>()
             : storage == Storage::f16 ? make_cache<headwise::f16>()
                                       : make_cache<headwise::bf16>()),
      attention_(heads_),
      queries_(random_values(max_new_tokens * model.num_heads * model.head_dim, 3, Storage::f32)),
      output_(queries_.size()) {}

Index Workload::bytes() const {
  return std::visit([&](const auto& cache) { return cache.bytes_per_token() * kv_tokens_; }, cache_);
}

void Workload::clear_output() { std::ranges::fill(output_, std::numeric_limits<float>::quiet_NaN()); }

Check Workload::check(Index new_tokens, ExecutorRef executor, std::span<const Index> boundaries) {
  clear_output();
  attend(0, new_tokens, executor, boundaries);
  return check_output(new_tokens, kv_tokens_, kv_tokens_, boundaries);
}

Check Workload::check_output(Index new_tokens, Index kv_tokens, Index window, std::span<const Index> boundaries) const {
  const Index dim = heads_.head_dim(), kv_heads = heads_.num_kv_heads();
  Check check{0, error_limit(storage_, std::min(kv_tokens, window))};
  for (const Index head : ends_and_middle(heads_.num_heads())) {
    // the reference sees this head alone: its KV head's keys and values, [token][dim]
    const Index kv_head = boundaries.empty() ? head / heads_.group_size()
                                             : std::ranges::upper_bound(boundaries, head) - boundaries.begin() - 1;
    for (const Index token : ends_and_middle(new_tokens)) {
      const Index end = kv_tokens - new_tokens + token + 1;  // causal: this query and all before it
      const Index begin = std::max<Index>(0, end - window);
      std::vector<double> keys, values;
      for (Index t = begin; t < end; ++t)
        for (Index d = 0; d < dim; ++d) {
          const auto at = static_cast<std::size_t>((t % kBlock * kv_heads + kv_head) * dim + d);
          keys.push_back(static_cast<double>(keys_[at]));
          values.push_back(static_cast<double>(values_[at]));
        }
      const auto row = static_cast<std::size_t>((token * heads_.num_heads() + head) * dim);
      const std::vector<double> query(queries_.begin() + static_cast<Index>(row),
                                      queries_.begin() + static_cast<Index>(row) + dim);
      const auto expected = headwise::reference::attend({1, end - begin, 1, 1, dim, dim}, query, keys, values);
      double error = 0, total = 0;
      for (std::size_t d = 0; d < static_cast<std::size_t>(dim); ++d) {
        const double difference = static_cast<double>(output_[row + d]) - expected.output[d];
        error += difference * difference;
        total += expected.output[d] * expected.output[d];
      }
      const double relative = std::sqrt(error / total);
      if (std::isnan(relative) || relative > check.error) check.error = relative;  // a NaN stays: nothing is above it
    }
  }
  return check;
}

}  // namespace compare
