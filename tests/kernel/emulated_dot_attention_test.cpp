// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "headwise/headwise.hpp"
#include "headwise/reference.hpp"
#include "tests/kernel/emulated_bf16_dot.hpp"

// The whole way of attention over kernels that multiply bf16 pairs, on any CPU.

namespace headwise {
namespace {

class EmulatedBf16Dot : public ::testing::Test {
 protected:
  void SetUp() override { detail::use_kernels(emulated_bf16_dot::kernels); }
  void TearDown() override { detail::use_kernels(*before_); }

 private:
  const TileKernels* before_ = &detail::tile_kernels();
};

std::vector<double> to_double(const std::vector<bf16>& x) {
  std::vector<double> y;
  for (const bf16 e : x) y.push_back(static_cast<float>(e));
  return y;
}

struct Shape {
  Index heads, kv_heads, head_dim, value_dim, queries, keys;
};

/// Output and lse of a call, and the reference's.
void expect_reference(const Shape& s, const Options& options, bool own_memory) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  const auto fill = [&](Index count) {
    std::vector<bf16> x(static_cast<std::size_t>(count));
    for (bf16& e : x) e = bf16(normal(random));
    return x;
  };
  const auto q = fill(s.queries * s.heads * s.head_dim), k = fill(s.keys * s.kv_heads * s.head_dim),
             v = fill(s.keys * s.kv_heads * s.value_dim);
  std::vector<float> out(static_cast<std::size_t>(s.queries * s.heads * s.value_dim)),
      lse(static_cast<std::size_t>(s.queries * s.heads));
  const Heads<> heads(s.heads, s.kv_heads, s.head_dim, s.value_dim);
  const View<const bf16> qv(q.data(), s.queries, s.heads, s.head_dim), kv(k.data(), s.keys, s.kv_heads, s.head_dim),
      vv(v.data(), s.keys, s.kv_heads, s.value_dim);
  std::vector<float> mass(static_cast<std::size_t>(s.keys * s.heads));
  Outputs outputs(View<float>(out.data(), s.queries, s.heads, s.value_dim),
                  View<float>(lse.data(), s.queries, s.heads, 1));
  outputs.mass = MassOutput(View<float>(mass.data(), s.keys, s.heads, 1));
  const Attention attend(heads);
  if (own_memory) {
    attend(qv, KvRows(kv, vv), outputs, options);
  } else {
    KvCache<bf16> cache(heads, s.keys);
    cache.append(kv, vv);
    attend(qv, cache, outputs, options);
  }
  reference::Parameters parameters;
  parameters.causal = options.causal;
  parameters.window = options.window;
  parameters.softcap = options.softcap;
  parameters.keep_scores = true;
  const auto want = reference::attend({s.queries, s.keys, s.heads, s.kv_heads, s.head_dim, s.value_dim}, to_double(q),
                                      to_double(k), to_double(v), parameters);
  // q·scale is rounded to bf16 (2^-8 relative): a score of |q||k|/sqrt(D) moves by that much times about 1 for normal
  // data, and the weights by the same; weights are rounded to bf16 once more; values are of magnitude up to 4
  const double tolerance = 4 * 4 * 0x1p-8;
  for (std::size_t i = 0; i < out.size(); ++i) ASSERT_NEAR(out[i], want.output[i], tolerance) << i;
  for (std::size_t i = 0; i < lse.size(); ++i) {
    if (std::isinf(want.lse[i]))
      ASSERT_EQ(lse[i], want.lse[i]);
    else
      ASSERT_NEAR(lse[i], want.lse[i], 4 * 4 * 0x1p-8) << i;
  }
  for (Index t = 0; t < s.keys; ++t)
    for (Index h = 0; h < s.heads; ++h) {
      double paid = 0;
      for (Index i = 0; i < s.queries; ++i)
        paid += want.weights[static_cast<std::size_t>((i * s.heads + h) * s.keys + t)];
      // a weight moves by the errors of its score and lse, and is rounded to bf16 itself
      ASSERT_NEAR(mass[static_cast<std::size_t>(t * s.heads + h)], paid,
                  3 * tolerance * paid + static_cast<double>(s.queries) * 0x1p-24)
          << t;
    }
}

TEST_F(EmulatedBf16Dot, AgreesWithTheReferenceOverShapesAndMasks) {
  const Shape shapes[] = {{4, 4, 64, 64, 1, 1},    {8, 2, 128, 128, 1, 300}, {9, 3, 64, 64, 5, 129},
                          {6, 2, 80, 80, 33, 100}, {5, 5, 46, 46, 7, 70},    {8, 1, 32, 48, 50, 1100},
                          {8, 2, 13, 7, 3, 65},    {71, 1, 64, 64, 1, 100},  {4, 2, 16, 16, 5, 2},
                          {2, 1, 576, 512, 2, 64}, {13, 1, 8, 16, 2, 200}};
  for (const Shape& shape : shapes)
    for (const bool own_memory : {false, true}) {
      expect_reference(shape, {}, own_memory);
      expect_reference(shape, {.causal = false}, own_memory);
      expect_reference(shape, {.window = 20, .softcap = 3.0f}, own_memory);
    }
}

TEST_F(EmulatedBf16Dot, ValuesInKeysGiveTheBitsOfValuesBesideThem) {
  for (const Shape& s : {Shape{16, 1, 576, 512, 1, 100}, Shape{3, 1, 40, 24, 1, 70}, Shape{6, 2, 72, 50, 40, 150}}) {
    std::mt19937 random(11);
    std::normal_distribution<float> normal;
    std::vector<float> q(static_cast<std::size_t>(s.queries * s.heads * s.head_dim)),
        k(static_cast<std::size_t>(s.keys * s.kv_heads * s.head_dim));
    for (auto* x : {&q, &k})
      for (float& e : *x) e = normal(random);
    const View<const float> kv(k.data(), s.keys, s.kv_heads, s.head_dim),
        vv(k.data(), 1, s.keys, s.kv_heads, s.value_dim, kv.strides());
    std::vector<float> outs[2];
    for (const bool in_keys : {false, true}) {
      const LayerShape shape{
          .num_kv_heads = s.kv_heads, .head_dim = s.head_dim, .value_dim = s.value_dim, .values_in_keys = in_keys};
      KvCache<bf16> cache(std::span(&shape, 1), s.keys);
      if (in_keys)
        cache.append(kv);
      else
        cache.append(kv, vv);
      outs[in_keys].resize(static_cast<std::size_t>(s.queries * s.heads * s.value_dim));
      Attention<>(Heads<>(s.heads, s.kv_heads, s.head_dim, s.value_dim))(
          View<const float>(q.data(), s.queries, s.heads, s.head_dim), cache,
          View<float>(outs[in_keys].data(), s.queries, s.heads, s.value_dim));
    }
    EXPECT_EQ(outs[1], outs[0]) << s.head_dim;
  }
}

TEST_F(EmulatedBf16Dot, APromptInChunksGivesTheSameBitsAsAtOnce) {
  const Index tokens = 150, heads = 6, dim = 40;
  std::mt19937 random(9);
  std::normal_distribution<float> normal;
  std::vector<float> q(static_cast<std::size_t>(tokens * heads * dim)), k(static_cast<std::size_t>(tokens * 2 * dim)),
      v(k.size());
  for (auto* x : {&q, &k, &v})
    for (float& e : *x) e = normal(random);
  const Attention attend(Heads<>(heads, 2, dim));
  std::vector<float> whole(q.size());
  for (const Index chunk : {tokens, Index{1}, Index{7}, Index{64}}) {
    KvCache<bf16> cache(attend.heads(), tokens);
    std::vector<float> out(q.size());
    for (Index t = 0; t < tokens; t += chunk) {
      const Index n = std::min(chunk, tokens - t);
      cache.append(View<const float>(k.data() + t * 2 * dim, n, 2, dim),
                   View<const float>(v.data() + t * 2 * dim, n, 2, dim));
      attend(View<const float>(q.data() + t * heads * dim, n, heads, dim), cache,
             View<float>(out.data() + t * heads * dim, n, heads, dim));
    }
    if (chunk == tokens) whole = out;
    EXPECT_EQ(out, whole) << "chunk " << chunk;
  }
}

}  // namespace
}  // namespace headwise
