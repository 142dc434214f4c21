// SPDX-License-Identifier: MIT
// Differential attention by two calls or by one, over the caller's memory or a cache, against plain loops in double.
#include "headwise/attention/differential.hpp"

#include "tests/attention/inputs.hpp"
#include "headwise/reference.hpp"
#include "tests/support/errors.hpp"

namespace headwise {
namespace {

using namespace testing;

constexpr Index kHeads = 6, kKvHeads = 2, kDim = 24, kValueDim = 2 * kDim, kQueries = 5, kKeys = 90;

/// q [token][head][2][D], k [token][kv_head][2][D], v [token][kv_head][2·D]: two of each share a value.
struct Data {
  std::mt19937 generator{3};
  std::vector<float> q = random_numbers(kQueries * kHeads * 2 * kDim, generator),
                     k = random_numbers(kKeys * kKvHeads * 2 * kDim, generator),
                     v = random_numbers(kKeys * kKvHeads * kValueDim, generator);
  std::vector<float> lambdas{0.2f, 0.8f, -0.5f, 0.0f, 1.0f, 0.36f};

  /// Half i of queries or keys.
  static View<const float> half(const std::vector<float>& x, Index tokens, Index heads, Index i) {
    return {x.data() + i * kDim, 1, tokens, heads, kDim, {0, heads * 2 * kDim, 2 * kDim, 1}};
  }
  View<const float> values() const { return {v.data(), kKeys, kKvHeads, kValueDim}; }

  /// The definition: two softmaxes, subtracted, times v. [token][head][2·D]
  std::vector<double> expected() const {
    std::vector<double> maps[2];
    for (Index i = 0; i < 2; ++i) {
      std::vector<double> qs, ks;
      const auto take = [&](View<const float> x, std::vector<double>& to) {
        for (Index t = 0; t < x.tokens(); ++t)
          for (Index h = 0; h < x.heads(); ++h)
            for (Index d = 0; d < x.dim(); ++d) to.push_back(static_cast<double>(x(0, t, h, d)));
      };
      take(half(q, kQueries, kHeads, i), qs);
      take(half(k, kKeys, kKvHeads, i), ks);
      const std::vector<double> vs(v.begin(), v.end());
      maps[i] = reference::attend({kQueries, kKeys, kHeads, kKvHeads, kDim, kValueDim}, qs, ks, vs).output;
    }
    for (std::size_t j = 0; j < maps[0].size(); ++j)
      maps[0][j] -= static_cast<double>(lambdas[j / kValueDim % kHeads]) * maps[1][j];
    return maps[0];
  }
};

/// Both maps are within 2^-18 of their values' size, which coarse numbers keep below 4; λ is at most 1.
void expect_near(const std::vector<float>& actual, const std::vector<double>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) ASSERT_NEAR(actual[i], expected[i], 0x1p-15) << "element " << i;
}

/// Of outputs [token][head][half][value_dim]: the first halves minus lambda times the second ones.
std::vector<float> difference_of_neighbours(std::vector<float>& out, const Data& data, ExecutorRef executor) {
  const Strides every_second{0, 2 * kHeads * kValueDim, 2 * kValueDim, 1};
  const View<float> first(out.data(), 1, kQueries, kHeads, kValueDim, every_second),
      second(out.data() + kValueDim, 1, kQueries, kHeads, kValueDim, every_second);
  subtract_attention(first, data.lambdas, second, executor);
  std::vector<float> result;
  for (Index t = 0; t < kQueries; ++t)
    for (Index h = 0; h < kHeads; ++h)
      for (Index d = 0; d < kValueDim; ++d) result.push_back(first(0, t, h, d));
  return result;
}

TEST(Differential, OfTwoCallsOverHalvesIsTheDefinition) {
  const Data data;
  const Attention<> attend(Heads<>{kHeads, kKvHeads, kDim, kValueDim});
  std::vector<float> outs[2];
  for (Index i = 0; i < 2; ++i) {
    outs[i].resize(kQueries * kHeads * kValueDim);
    attend(Data::half(data.q, kQueries, kHeads, i), KvRows(Data::half(data.k, kKeys, kKvHeads, i), data.values()),
           View<float>(outs[i].data(), kQueries, kHeads, kValueDim));
  }
  subtract_attention(View<float>(outs[0].data(), kQueries, kHeads, kValueDim), data.lambdas,
                     View<float>(outs[1].data(), kQueries, kHeads, kValueDim));
  expect_near(outs[0], data.expected());
}

TEST(Differential, OfOneCallWhoseKeyHeadsShareValueHeadsIsTheDefinition) {
  const Data data;
  // query head h of half i is head 2h + i, and reads key head 2g + i
  std::vector<Index> map;
  for (Index h = 0; h < kHeads; ++h)
    for (Index i = 0; i < 2; ++i) map.push_back(h / (kHeads / kKvHeads) * 2 + i);
  const Attention<> attend(Heads<>{2 * kHeads, 2 * kKvHeads, kDim, kValueDim}, HeadMap::arbitrary(map, 2 * kKvHeads));
  std::vector<float> out(kQueries * 2 * kHeads * kValueDim);
  ThreadPool pool(2);
  attend(View<const float>(data.q.data(), kQueries, 2 * kHeads, kDim),
         KvRows(View<const float>(data.k.data(), kKeys, 2 * kKvHeads, kDim), data.values()),
         View<float>(out.data(), kQueries, 2 * kHeads, kValueDim), {}, pool);
  expect_near(difference_of_neighbours(out, data, pool), data.expected());
}

TEST(Differential, OfACacheOfKeysSideBySideIsTheDefinition) {
  const Data data;
  KvCache<float> cache(Heads<>{kHeads, kKvHeads, 2 * kDim, kValueDim}, kKeys);
  cache.append(View<const float>(data.k.data(), kKeys, kKvHeads, 2 * kDim), data.values());
  std::vector<float> q(2 * data.q.size());  // [token][head][half][2·D], the other half 0
  for (std::size_t row = 0; row < data.q.size() / kDim; ++row)
    std::copy_n(data.q.data() + row * kDim, kDim, q.data() + row * 2 * kDim + row % 2 * kDim);
  const Attention<> attend(Heads<>{2 * kHeads, kKvHeads, 2 * kDim, kValueDim});
  std::vector<float> out(kQueries * 2 * kHeads * kValueDim);
  attend(View<const float>(q.data(), kQueries, 2 * kHeads, 2 * kDim), cache,
         View<float>(out.data(), kQueries, 2 * kHeads, kValueDim), {.scale = 1 / std::sqrt(static_cast<float>(kDim))});
  Serial serial;
  expect_near(difference_of_neighbours(out, data, serial), data.expected());
}

TEST(Differential, SubtractsAcrossTypesWithOneRounding) {
  std::vector<bf16> first{bf16(1.0f), bf16(-2.0f)};
  const std::vector<f16> second{f16(0.5f), f16(3.0f)};
  subtract_attention(View<bf16>(first.data(), 1, 1, 2), 0.25f, View<const f16>(second.data(), 1, 1, 2));
  EXPECT_EQ(static_cast<float>(first[0]), 0.875f);
  EXPECT_EQ(static_cast<float>(first[1]), -2.75f);
}

TEST(Differential, LambdasAreThoseOfThePaper) {
  EXPECT_DOUBLE_EQ(differential_lambda_init(0), 0.2);  // 0.8 − 0.6
  EXPECT_NEAR(differential_lambda_init(10), 0.8 - 0.6 * 0.04978706836786395, 1e-15);
  const std::vector<float> a{1.0f, 2.0f}, b{0.5f, -0.25f}, zero{0.0f, 0.0f};
  EXPECT_FLOAT_EQ(differential_lambda(a, b, zero, a, 0.2), 0.2f);        // e^0 − e^0 + 0.2
  EXPECT_FLOAT_EQ(differential_lambda(a, a, zero, a, 0.5), 147.91316f);  // e^5 − 1 + 0.5
  expect_error([] { differential_lambda_init(-1); }, {"layer (-1)", "at least 0"});
  expect_error([&] { differential_lambda(a, b, zero, std::vector<float>(3), 0.2); }, {"3 numbers", "q1 (2)"});
}

TEST(Differential, WhatDoesNotFitIsNamed) {
  std::vector<float> a(64), b(64);
  const std::vector<float> lambdas{1, 2, 3};
  const auto call = [&](Index tokens, Index heads, Index dim, std::span<const float> l) {
    return [&a, &b, tokens, heads, dim, l] {
      subtract_attention(View<float>(a.data(), 2, 4, 8), l, View<float>(b.data(), tokens, heads, dim));
    };
  };
  expect_error(call(1, 4, 8, lambdas), {"tokens (1) of second", "first (2)"});
  expect_error(call(2, 2, 8, lambdas), {"heads (2) of second", "first (4)"});
  expect_error(call(2, 4, 7, lambdas), {"dim (7) of second", "first (8)"});
  expect_error(call(2, 4, 8, lambdas), {"lambdas (3 numbers)", "one per head (4)"});
}

}  // namespace
}  // namespace headwise
