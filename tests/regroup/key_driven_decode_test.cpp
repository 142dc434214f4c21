// SPDX-License-Identifier: MIT
// Decoding with key-driven groups: a cache's norms, their groups and attention, step by step. Counts allocations for the
// whole test program, except where a sanitizer brings its own operator new.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "headwise/attention/attention.hpp"
#include "headwise/cache/kv_cache.hpp"
#include "headwise/regroup/key_driven/groups.hpp"
#include "tests/support/sanitizers.hpp"
#if !defined(HEADWISE_TEST_ASAN) && !defined(HEADWISE_TEST_TSAN)
#include "tests/support/counted_new.hpp"
#else
#include "tests/support/allocation_counts.hpp"
#endif

namespace headwise::regroup {
namespace {

constexpr Index kHeads = 8, kKvHeads = 3, kDim = 16, kSequences = 2, kTokens = 90;

/// Keys whose norms trade places while decoding.
float number(Index t, Index head, Index d, Index seed) {
  const auto x = static_cast<float>(((t * 31 + head * 17 + d * 7 + seed * 101) * 7919) % 1009) / 504.0f - 1.0f;
  return x * (1.0f + static_cast<float>(t * (head + 1) % 40) / 8.0f);
}

struct Step {
  std::vector<float> q, k, v;
};
Step step_of(Index t) {
  Step step;
  for (Index b = 0; b < kSequences; ++b)
    for (Index h = 0; h < kHeads; ++h)
      for (Index d = 0; d < kDim; ++d) {
        step.q.push_back(number(t, h, d, 3 * b) / 4);
        if (h < kKvHeads) step.k.push_back(number(t, h, d, 3 * b + 1)), step.v.push_back(number(t, h, d, 3 * b + 2));
      }
  return step;
}

/// 8 query heads over 3 KV heads: a map is needed to make it, the boundaries take its place.
Attention<> any_attention() { return {Heads<>(kHeads, kKvHeads, kDim), HeadMap::balanced(kHeads, kKvHeads)}; }

template <class T>
void decode(const Attention<>& attend, KeyDrivenGroups& groups, KvCache<T>& cache, const Step& step,
            std::vector<float>& out) {
  cache.append(View<const float>(step.k.data(), kSequences, 1, kKvHeads, kDim),
               View<const float>(step.v.data(), kSequences, 1, kKvHeads, kDim));
  attend(View<const float>(step.q.data(), kSequences, 1, kHeads, kDim), cache,
         View<float>(out.data(), kSequences, 1, kHeads, kDim), {.group_boundaries = groups(cache, 0)});
}

/// Σ |k|² over the stored keys, in plain double.
double norm(const KvCache<bf16>& cache, Index sequence, Index kv_head) {
  double sum = 0;
  std::vector<float> key(kDim);
  for (Index t = 0; t < cache.num_tokens(); ++t) {
    cache.read_key(0, sequence, t, kv_head, key);
    for (const float x : key) sum += static_cast<double>(x) * static_cast<double>(x);
  }
  return std::sqrt(sum);
}

TEST(KeyDrivenDecoding, IsAttentionOverTheGroupsThatTheStoredKeysGive) {
  KvCache<bf16> cache(Heads<>(kHeads, kKvHeads, kDim), kTokens, {.num_sequences = kSequences, .key_norms = true});
  KeyDrivenGroups groups(kHeads, kKvHeads, kSequences, {.scope = KeyDrivenScope::per_sequence});
  std::vector<float> out(kSequences * kHeads * kDim), expected(kSequences * kHeads * kDim);
  const Attention<> key_driven = any_attention();
  std::vector<std::vector<Index>> seen;
  for (Index t = 0; t < kTokens; ++t) {
    const Step step = step_of(t);
    decode(key_driven, groups, cache, step, out);

    for (Index b = 0; b < kSequences; ++b) {
      std::vector<double> norms;
      for (Index g = 0; g < kKvHeads; ++g) norms.push_back(norm(cache, b, g));
      std::vector<Index> boundaries(kKvHeads + 1), sizes;
      allocate(norms, kHeads, KeyDrivenMode::ratio, boundaries);
      for (Index g = 0; g < kKvHeads; ++g)
        sizes.push_back(boundaries[static_cast<std::size_t>(g) + 1] - boundaries[static_cast<std::size_t>(g)]);
      if (seen.empty() || seen.back() != sizes) seen.push_back(sizes);
      const Attention<> attend(Heads<>(kHeads, kKvHeads, kDim), HeadMap::blocks(sizes));
      // both sequences with the groups of one of them, whose outputs are compared
      attend(View<const float>(step.q.data(), kSequences, 1, kHeads, kDim), cache,
             View<float>(expected.data(), kSequences, 1, kHeads, kDim));
      const auto first = static_cast<std::size_t>(b * kHeads * kDim);
      ASSERT_EQ(std::memcmp(out.data() + first, expected.data() + first, kHeads * kDim * sizeof(float)), 0)
          << "token " << t << " sequence " << b;
    }
  }
  EXPECT_GE(seen.size(), 4u);  // the groups did move
}

TEST(KeyDrivenDecoding, AllocatesNothingAfterItsFirstStep) {
#if defined(HEADWISE_TEST_ASAN) || defined(HEADWISE_TEST_TSAN)
  GTEST_SKIP() << "skipped: the sanitizer has an operator new of its own";
#endif
  for (const KeyDrivenScope scope : {KeyDrivenScope::batch, KeyDrivenScope::per_sequence, KeyDrivenScope::frozen})
    for (const KeyDrivenMode mode : {KeyDrivenMode::ratio, KeyDrivenMode::authors_minmax}) {
      KvCache<f16> cache(Heads<>(kHeads, kKvHeads, kDim), kTokens, {.num_sequences = kSequences, .key_norms = true});
      KeyDrivenGroups groups(kHeads, kKvHeads, kSequences,
                             {.mode = mode, .dynamics = KeyDrivenDynamics::ema, .window = 2, .scope = scope});
      const Attention<> attend = any_attention();
      std::vector<float> out(kSequences * kHeads * kDim);
      std::vector<Step> steps;
      for (Index t = 0; t < kTokens; ++t) steps.push_back(step_of(t));
      decode(attend, groups, cache, steps[0], out);
      const std::vector<Index> all{0, kHeads, kHeads,
                                   kHeads};  // attention keeps memory for the largest group it has met
      attend(View<const float>(steps[0].q.data(), kSequences, 1, kHeads, kDim), cache,
             View<float>(out.data(), kSequences, 1, kHeads, kDim), {.group_boundaries = all});
      const long before = allocations;
      for (std::size_t t = 1; t < steps.size(); ++t) decode(attend, groups, cache, steps[t], out);
      EXPECT_EQ(allocations, before);
    }
}

}  // namespace
}  // namespace headwise::regroup
