// SPDX-License-Identifier: MIT
// Offsets beyond 32 bits: memory of many gigabytes of which a few pages are touched.
#include <new>

#include "tests/attention/run.hpp"
#include "tests/support/reserved.hpp"

#if defined(__linux__)

namespace headwise {
namespace {

using namespace testing;

constexpr Index kApart = (Index{1} << 31) + 64;  // elements between two neighbours

/// A view [1][tokens][heads][dim] of reserved memory in which tokens or heads lie kApart from each other, and its copy
/// of packed numbers.
View<float> spread(const Reserved& memory, const std::vector<float>& packed, Index tokens, Index heads, Index dim,
                   bool far_tokens) {
  const Strides strides = far_tokens ? Strides{0, kApart, dim, 1} : Strides{0, dim, kApart, 1};
  const View<float> view(memory.data(), 1, tokens, heads, dim, strides);
  for (Index t = 0; t < tokens; ++t)
    for (Index h = 0; h < heads; ++h)
      for (Index d = 0; d < dim && !packed.empty(); ++d)
        view(0, t, h, d) = packed[static_cast<std::size_t>((t * heads + h) * dim + d)];
  return view;
}

TEST(AttentionLarge, StridesBeyond32BitsReachTheirElements) {
  for (const bool far_tokens : {true, false}) {
    const Inputs in({3, 3, 16}, 1, 3, 3);
    const Index bytes = 4 * (3 * kApart + 4096);
    const Reserved q(bytes), k(bytes), v(bytes), out(bytes);
    if (!q || !k || !v || !out) GTEST_SKIP() << "skipped: no address space of 4 × 26 GB";
    const View<float> output = spread(out, {}, 3, 3, 16, far_tokens);
    Attention<>(in.heads)(spread(q, in.q, 3, 3, 16, far_tokens),
                          KvRows(spread(k, in.k, 3, 3, 16, far_tokens), spread(v, in.v, 3, 3, 16, far_tokens)), output);
    const Results expected = run(in);
    for (Index t = 0; t < 3; ++t)
      for (Index h = 0; h < 3; ++h)
        for (Index d = 0; d < 16; ++d)
          EXPECT_EQ(output(0, t, h, d), expected.output[static_cast<std::size_t>((t * 3 + h) * 16 + d)]);
  }
}

TEST(AttentionLarge, ACacheBeyond2To31ElementsFindsItsTokens) {
  // 2 sequences of 2^31 elements each, of which the second is used
  const Index max_tokens = Index{1} << 21;
  const Inputs in({2, 1, 512}, 1, 2, 100);
  try {
    KvCache<f16> cache(in.heads, max_tokens, {.num_sequences = 2});
    EXPECT_EQ(cache.bytes(), Index{2} * 2 * 2 * (Index{1} << 30));
    cache.append(0, 1, View<const float>(in.k.data(), 100, 1, 512), View<const float>(in.v.data(), 100, 1, 512));
    Inputs both({2, 1, 512}, 2, 2, 0);
    std::copy(in.q.begin(), in.q.end(), both.q.begin() + std::ssize(in.q));
    const Results results = run_over(cache, both), expected = run(in, {.storage = Storage::f16});
    EXPECT_TRUE(std::equal(expected.output.begin(), expected.output.end(),
                           results.output.begin() + std::ssize(expected.output)));
    std::vector<float> key(512);
    cache.read_key(0, 1, 99, 0, key);
    EXPECT_TRUE(std::equal(key.begin(), key.end(), in.k.begin() + 99 * 512));  // coarse: exact in f16
  } catch (const std::bad_alloc&) {
    GTEST_SKIP() << "skipped: this system gives no 8 GB of memory, even unused";
  }
}

}  // namespace
}  // namespace headwise
#endif
