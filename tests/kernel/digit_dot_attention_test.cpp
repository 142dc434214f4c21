// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "headwise/headwise.hpp"
#include "headwise/reference.hpp"
#include "tests/kernel/tables.hpp"

// The whole way of attention over kernels that meet int8 and int4 as integers: native where the CPU has them, and on any
// CPU emulated.

namespace headwise {
namespace {

class DigitDotAttention : public testing::EveryTable {
 protected:
  void SetUp() override {
    EveryTable::SetUp();
    if (!IsSkipped()) detail::use_kernels(*kernels);
  }
  void TearDown() override { detail::use_kernels(*before_); }

 private:
  const TileKernels* before_ = &detail::tile_kernels();
};

struct Shape {
  Index heads, kv_heads, head_dim, value_dim, queries, keys;
};

/// Normal queries, and a cache of normal keys and values.
template <class K, class V>
struct Call {
  Shape shape;
  Attention<> attend;
  std::vector<float> q;
  KvCache<K, V> cache;

  explicit Call(const Shape& s)
      : shape(s), attend(Heads<>(s.heads, s.kv_heads, s.head_dim, s.value_dim)), cache(attend.heads(), s.keys) {
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    const auto fill = [&](Index count) {
      std::vector<float> x(static_cast<std::size_t>(count));
      for (float& e : x) e = normal(random);
      return x;
    };
    q = fill(s.queries * s.heads * s.head_dim);
    const auto k = fill(s.keys * s.kv_heads * s.head_dim), v = fill(s.keys * s.kv_heads * s.value_dim);
    cache.append(View<const float>(k.data(), s.keys, s.kv_heads, s.head_dim),
                 View<const float>(v.data(), s.keys, s.kv_heads, s.value_dim));
  }

  /// Outputs of query tokens [first, first + count), seen from where they stand.
  template <class E>
  std::vector<float> run(Index first, Index count, const Options& given, E&& executor) const {
    std::vector<float> out(static_cast<std::size_t>(count * shape.heads * shape.value_dim));
    const std::vector<Index> lengths{shape.keys - shape.queries + first + count};
    Options options = given;
    options.key_lengths = lengths;
    attend(View<const float>(q.data() + first * shape.heads * shape.head_dim, count, shape.heads, shape.head_dim),
           cache, View<float>(out.data(), count, shape.heads, shape.value_dim), options, executor);
    return out;
  }

  /// Against the reference over the numbers that the cache holds. Per number of a query and per weight, half a unit of
  /// 2^-15 of the largest is lost at random: 2^-15 · 3 of the size of normal values is far above what adds up, and a lost
  /// digit is 2^-8.
  void expect_reference(const Options& options) const {
    const Shape& s = shape;
    std::vector<double> k, v;
    std::vector<float> row(static_cast<std::size_t>(std::max(s.head_dim, s.value_dim)));
    for (Index t = 0; t < s.keys; ++t)
      for (Index g = 0; g < s.kv_heads; ++g) {
        cache.read_key(0, 0, t, g, std::span(row).first(static_cast<std::size_t>(s.head_dim)));
        k.insert(k.end(), row.begin(), row.begin() + s.head_dim);
        cache.read_value(0, 0, t, g, std::span(row).first(static_cast<std::size_t>(s.value_dim)));
        v.insert(v.end(), row.begin(), row.begin() + s.value_dim);
      }
    reference::Parameters parameters;
    parameters.causal = options.causal;
    parameters.window = options.window;
    parameters.softcap = options.softcap;
    const auto want = reference::attend({s.queries, s.keys, s.heads, s.kv_heads, s.head_dim, s.value_dim},
                                        std::vector<double>(q.begin(), q.end()), k, v, parameters);
    const auto got = run(0, s.queries, options, Serial{});
    double error = 0, size = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
      error += (got[i] - want.output[i]) * (got[i] - want.output[i]);
      size += want.output[i] * want.output[i];
    }
    EXPECT_LE(std::sqrt(error / size), 3 * 0x1p-15)
        << name_of(Stored<K>::storage) << " keys, " << name_of(Stored<V>::storage) << " values, head_dim "
        << s.head_dim;
  }
};

template <class F>
void for_types(F f) {
  f.template operator()<int8, int8>();
  f.template operator()<int4, int4>();
  f.template operator()<int8, int4>();
  f.template operator()<int4, bf16>();
  f.template operator()<float, int8>();
}

TEST_P(DigitDotAttention, AgreesWithTheReferenceOverShapesAndMasks) {
  const Shape shapes[] = {{4, 4, 64, 64, 1, 1},    {8, 2, 128, 128, 1, 300}, {9, 3, 64, 64, 5, 129},
                          {6, 2, 80, 80, 33, 100}, {5, 5, 46, 46, 7, 70},    {8, 1, 32, 48, 50, 1100},
                          {8, 2, 13, 7, 3, 65},    {71, 1, 64, 64, 1, 100},  {4, 2, 16, 16, 5, 5},
                          {2, 1, 576, 512, 2, 64}, {13, 1, 8, 16, 2, 200}};
  for (const Shape& shape : shapes)
    for_types([&]<class K, class V>() {
      const Call<K, V> call(shape);
      call.expect_reference({});
      call.expect_reference({.causal = false});
      call.expect_reference({.window = 20, .softcap = 3.0f});
    });
}

TEST_P(DigitDotAttention, ATokenHasTheSameBitsInCallsOfAnyRowsOnAnyThreads) {
  // rows of a KV head: 1 … 13 tokens of a group of 1 … 10
  ThreadPool pool(3);
  for (const Index group : {1, 3, 10})
    for_types([&]<class K, class V>() {
      const Call<K, V> call({group, 1, 40, 48, 130 / group, 1200});
      const Index tokens = call.shape.queries, width = group * 48;
      const std::vector<float> whole = call.run(0, tokens, {}, Serial{});
      ASSERT_EQ(call.run(0, tokens, {}, pool), whole);
      for (Index count = 1; count <= 13; ++count)
        for (Index first = 0; first + count <= tokens; first += 7 * count) {
          const std::vector<float> part = call.run(first, count, {}, Serial{});
          ASSERT_EQ(0, std::memcmp(part.data(), whole.data() + first * width, part.size() * sizeof(float)))
              << count << " tokens of groups of " << group << " from " << first;
        }
    });
}

INSTANTIATE_TEST_SUITE_P(Kernels, DigitDotAttention, ::testing::ValuesIn(testing::digit_table_names()),
                         [](const auto& table) { return table.param; });

}  // namespace
}  // namespace headwise
