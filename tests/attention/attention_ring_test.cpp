// SPDX-License-Identifier: MIT
// Attention over a ring is that over a cache that forgets nothing, with the ring's window and sinks, bit for bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "headwise/attention/attention.hpp"
#include "headwise/cache/kv_cache.hpp"
#include "tests/cache/cache_contents.hpp"
#include "tests/support/errors.hpp"

namespace headwise {
namespace {

using testing::expect_error;
using testing::random_numbers;

struct RingCase {
  Storage keys, values;
  Index window, sinks;
  bool hadamard;
};

class AttentionOverRings : public ::testing::TestWithParam<RingCase> {};
INSTANTIATE_TEST_SUITE_P(Rings, AttentionOverRings,
                         ::testing::Values(RingCase{Storage::f32, Storage::f32, 1, 0, false},
                                           RingCase{Storage::f32, Storage::bf16, 64, 1, false},
                                           RingCase{Storage::f16, Storage::f16, 65, 64, false},
                                           RingCase{Storage::bf16, Storage::bf16, 200, 4, false},
                                           RingCase{Storage::e4m3, Storage::e5m2, 127, 70, false},
                                           RingCase{Storage::int8, Storage::int4, 100, 4, true},
                                           RingCase{Storage::int4, Storage::int8, 300, 0, false}),
                         [](const auto& of) {
                           return std::string(name_of(of.param.keys)) + "_" + std::string(name_of(of.param.values)) +
                                  "_window_" + std::to_string(of.param.window) + "_sinks_" +
                                  std::to_string(of.param.sinks);
                         });

TEST_P(AttentionOverRings, IsThatOfAFullCacheWithItsWindowAndSinks) {
  const RingCase& of = GetParam();
  const Heads<> heads(4, 2, 24, 40);
  const Index tokens = 2500, max_append = 50;
  const CacheOptions options{
      .max_append = max_append, .key_storage = of.keys, .value_storage = of.values, .hadamard_keys = of.hadamard};
  const LayerShape shape{2, 24, 40, of.window, of.sinks};
  KvCache<> ring(std::span<const LayerShape>(&shape, 1), 1, options), full(heads, tokens, options);
  const Attention attend(heads);
  const Index bytes = ring.bytes();
  const auto k = random_numbers(tokens * 48, 1), v = random_numbers(tokens * 80, 2), q = random_numbers(tokens * 96, 3);
  const Options window{.causal = true, .window = of.window, .num_sink_tokens = of.sinks};
  const std::vector<float> bad(static_cast<std::size_t>(max_append * 80), std::numeric_limits<float>::quiet_NaN());
  Index appended[] = {1, 50, 17, 33, 2, 49};
  for (Index t = 0, i = 0; t < tokens; ++i) {
    const Index n = std::min(appended[i % 6], tokens - t);
    for (KvCache<>* cache : {&ring, &full})
      cache->append(View<const float>(k.data() + t * 48, n, 2, 24), View<const float>(v.data() + t * 80, n, 2, 40));
    std::vector<float> a(static_cast<std::size_t>(n * 160)), b(a);
    const View<const float> queries(q.data() + t * 96, n, 4, 24);
    attend(queries, ring, View<float>(a.data(), n, 4, 40), window);
    attend(queries, full, View<float>(b.data(), n, 4, 40), window);
    ASSERT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0) << "token " << t;
    t += n;
    if (i % 5 == 0) {
      // tokens that are taken back leave no trace, of NaN either
      const Index wrong = 1 + i % max_append;
      ring.append(View<const float>(bad.data(), wrong, 2, 24), View<const float>(bad.data(), wrong, 2, 40));
      ring.truncate(t);
    }
  }
  EXPECT_EQ(ring.bytes(), bytes);
  EXPECT_EQ(ring.num_tokens(), tokens);
}

TEST(AttentionOverRings, RefusesQueriesThatSeeForgottenTokens) {
  const LayerShape shape{1, 8, 8, 64, 2};
  KvCache<float> ring(std::span<const LayerShape>(&shape, 1), 1, {.max_append = 64});
  const auto k = random_numbers(64 * 8, 1);
  const View<const float> rows(k.data(), 64, 1, 8);
  for (int i = 0; i < 10; ++i) ring.append(rows, rows);
  const Attention attend(Heads<>(1, 1, 8));
  std::vector<float> out(8);
  const View<float> output(out.data(), 1, 1, 8);
  const View<const float> query(k.data(), 1, 1, 8);
  EXPECT_NO_THROW(attend(query, ring, output, {.window = 64, .num_sink_tokens = 2}));
  expect_error([&] { attend(query, ring, output, {.window = 500}); }, {"window"});
  expect_error([&] { attend(query, ring, output); }, {"window"});
  expect_error([&] { attend(query, ring, output, {.window = 64, .num_sink_tokens = 65}); }, {"num_sink_tokens (65)"});
}

}  // namespace
}  // namespace headwise
