// SPDX-License-Identifier: MIT
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "headwise/reference.hpp"
#include "tests/cache_cells/kinds.hpp"

namespace headwise::testing {

/// How far a number read back may be from element i of `row` (one head): one rounding of its type, or three of the row's
/// largest where a key was turned in between.
inline double allowed(Storage storage, std::span<const float> row, std::size_t i, double slack) {
  const auto largest = [&](std::size_t begin, std::size_t end) {
    double most = 0;
    for (std::size_t d = begin; d < std::min(end, row.size()); ++d) most = std::max(most, std::abs(double{row[d]}));
    return most;
  };
  constexpr double kTurn = 0x1p-20;  // f32's cos, sin, products
  const double all = largest(0, row.size()), least = storage == Storage::e4m3   ? 0x1p-10
                                                     : storage == Storage::e5m2 ? 0x1p-17
                                                                                : 0;
  if (slack > 0) return (1 + 2 * slack) * epsilon_of(storage) * all + kTurn * all + 3 * least;
  if (storage == Storage::int8) return epsilon_of(storage) * all;
  if (storage == Storage::int4) return epsilon_of(storage) * largest(i / 32 * 32, i / 32 * 32 + 32);
  return std::max(epsilon_of(storage) * std::abs(double{row[i]}), storage == Storage::f16 ? 0x1p-25 : least);
}

/// The cache holds what the model says, as far as it keeps it.
template <class Cache>
void expect_holds(const Cache& cache, const Model& model, const Types& types) {
  for (Index b = 0; b < kSequences; ++b)
    for (Index l = 0; l < kLayers; ++l) {
      const Tokens& tokens = model.at(b, cache.makes(l) ? l : 0);
      const LayerShape& s = model.shape(l);
      ASSERT_EQ(cache.num_tokens(l, b), std::ssize(tokens)) << "layer " << l << ", sequence " << b;
      std::vector<float> key(Model::index(s.head_dim)), value(Model::index(s.value_dim));
      for (Index t = 0; t < std::ssize(tokens); ++t) {
        if (!cache.keeps(l, b, t)) continue;
        const Token& want = tokens[Model::index(t)];
        for (Index g = 0; g < s.num_kv_heads; ++g) {
          cache.read(l, b, t, g, key, value);
          const std::span want_key(want.key.data() + g * s.head_dim, key.size()),
              want_value(want.value.data() + g * s.value_dim, value.size());
          for (std::size_t d = 0; d < key.size(); ++d)
            ASSERT_LE(std::abs(double{key[d]} - double{want_key[d]}), allowed(types.keys, want_key, d, want.key_slack))
                << "key, layer " << l << ", sequence " << b << ", token " << t << ", head " << g << ", dim " << d;
          for (std::size_t d = 0; d < value.size(); ++d)
            ASSERT_LE(std::abs(double{value[d]} - double{want_value[d]}),
                      // values in keys are rounded, and shifted, with all of the key
                      s.values_in_keys ? allowed(types.keys, want_key, d, want.key_slack)
                                       : allowed(types.values, want_value, d, 0))
                << "value, layer " << l << ", sequence " << b << ", token " << t << ", head " << g << ", dim " << d;
        }
      }
    }
}

/// How far attention may be from the definition over the numbers that are stored, whose magnitudes are below `largest`:
/// f32 arithmetic, pairs of bf16 where the CPU multiplies those, two 7-bit digits of queries and weights where int8 and
/// int4 are met as integers.
inline double allowed_output(const Types& types, double largest) {
  const auto of = [](Storage s) { return s == Storage::bf16 ? 0x1p-6 : has_scales(s) ? 0x1p-9 : 0x1p-16; };
  return largest * std::max(of(types.keys), of(types.values));
}

/// Attention of some queries over every layer is the definition over what the cache reads back.
template <class Cache>
void expect_attends(const Cache& cache, const Model& model, const Types& types, bool causal) {
  for (Index l = 0; l < kLayers; ++l) {
    const LayerShape& s = model.shape(l);
    const Index queries = causal ? 1 : 3, group = 2, H = group * s.num_kv_heads;
    const Heads<> heads{H, s.num_kv_heads, s.head_dim, s.value_dim};
    std::vector<float> q(Model::index(kSequences * queries * H * s.head_dim)),
        out(Model::index(kSequences * queries * H * s.value_dim));
    for (std::size_t i = 0; i < q.size(); ++i) q[i] = static_cast<float>(static_cast<int>(i * 37 % 41) - 20) / 16.0f;
    Options options{.causal = causal};
    if (s.window > 0) options.window = s.window;
    options.num_sink_tokens = s.num_sink_tokens;
    cache.with_source(l, [&](const auto& source) {
      Attention<>{heads}(View<const float>(q.data(), kSequences, queries, H, s.head_dim), source,
                         View<float>(out.data(), kSequences, queries, H, s.value_dim), options);
    });
    for (Index b = 0; b < kSequences; ++b) {
      const Index tokens = cache.num_tokens(l, b);
      std::vector<double> k, v;
      std::vector<float> key(Model::index(s.head_dim)), value(Model::index(s.value_dim));
      double largest = 0;
      for (Index t = 0; t < tokens; ++t)
        for (Index g = 0; g < s.num_kv_heads; ++g) {
          if (cache.keeps(l, b, t)) cache.read(l, b, t, g, key, value);
          k.insert(k.end(), key.begin(), key.end());
          v.insert(v.end(), value.begin(), value.end());
          for (const float x : value) largest = std::max(largest, std::abs(double{x}));
        }
      const auto* const mine = q.data() + b * queries * H * s.head_dim;
      reference::Parameters parameters{.causal = causal};
      if (s.window > 0) parameters.window = s.window;
      parameters.num_sink_tokens = s.num_sink_tokens;
      const auto want = reference::attend({queries, tokens, H, s.num_kv_heads, s.head_dim, s.value_dim},
                                          std::vector<double>(mine, mine + queries * H * s.head_dim), k, v, parameters);
      for (std::size_t i = 0; i < want.output.size(); ++i)
        ASSERT_NEAR(out[Model::index(b) * want.output.size() + i], want.output[i], allowed_output(types, largest))
            << "layer " << l << ", sequence " << b << ", element " << i;
    }
  }
}

}  // namespace headwise::testing
