// SPDX-License-Identifier: MIT
// Faults of results that vary, of paths that differ and of heads that are not served.
#include "headwise/parallel/thread_pool.hpp"
#include "tests/attention/oracle.hpp"

namespace headwise {
namespace {

using namespace testing;

// onnxruntime 26674: two runs over the same input differed, with a cache of which most was not written
TEST(RepeatabilityFaults, RunsOverACacheThatIsMostlyUnwrittenGiveTheSameBits) {
  const Inputs in({4, 2, 16}, 2, 4, 4);
  ThreadPool pool(3);
  const auto once = [&] {
    KvCache<float> cache(in.heads, 128, {.num_sequences = 2});
    cache.append(View<const float>(in.k.data(), 2, 4, 2, 16), View<const float>(in.v.data(), 2, 4, 2, 16));
    return run_over(cache, in, {}, pool);
  };
  const Results first = once();
  for (int i = 0; i < 20; ++i) ASSERT_EQ(once(), first);
  EXPECT_EQ(first, run(in));
}

// lm-evaluation-harness 1645: results depended on how many requests were served together
TEST(RepeatabilityFaults, ASequenceGivesTheSameBitsInABatchOfAnySize) {
  const Inputs all({8, 2, 32}, 16, 3, 1100);
  const std::size_t q = all.q.size() / 16, kv = all.k.size() / 16, lse = static_cast<std::size_t>(3 * 8);
  ThreadPool pool(3);
  const Results together = run(all, {}, {}, pool);
  for (const std::size_t b : {0u, 7u, 15u}) {
    Inputs one(all.heads, 1, 3, 1100);
    std::copy_n(all.q.begin() + static_cast<std::ptrdiff_t>(b * q), q, one.q.begin());
    std::copy_n(all.k.begin() + static_cast<std::ptrdiff_t>(b * kv), kv, one.k.begin());
    std::copy_n(all.v.begin() + static_cast<std::ptrdiff_t>(b * kv), kv, one.v.begin());
    const Results alone = run(one);
    EXPECT_TRUE(std::equal(alone.output.begin(), alone.output.end(),
                           together.output.begin() + static_cast<std::ptrdiff_t>(b * q)));
    EXPECT_TRUE(
        std::equal(alone.lse.begin(), alone.lse.end(), together.lse.begin() + static_cast<std::ptrdiff_t>(b * lse)));
  }
}

// llama.cpp 27086: prompts took a second path, half as fast as the plain one. There is one path here: a prompt at once has
// the bits of its tokens one by one.
TEST(RepeatabilityFaults, APromptAtOnceIsTheSameComputationAsTokenByToken) {
  const Inputs in({8, 2, 32}, 1, 200, 200);
  for (const Storage storage : kAllStorages) {
    const Results at_once = run(in, {.storage = storage});
    for (const Index token : {0, 1, 63, 64, 199}) {
      Inputs one(in.heads, 1, 1, token + 1);
      std::copy_n(in.q.begin() + token * 256, 256, one.q.begin());
      std::copy_n(in.k.begin(), one.k.size(), one.k.begin());
      std::copy_n(in.v.begin(), one.v.size(), one.v.begin());
      const Results alone = run(one, {.storage = storage});
      EXPECT_TRUE(std::equal(alone.output.begin(), alone.output.end(), at_once.output.begin() + token * 256)) << token;
    }
  }
}

/// Decode and prompt, of every storage.
void expect_served(Index dim) {
  for (const Storage storage : kAllStorages)
    for (const Index queries : {1, 65})
      for (const Source source : {Source::cache, Source::packed_rows})
        expect_defined(Inputs({4, 2, dim}, 1, queries, 130), {.source = source, .storage = storage});
}

// vllm 31968: heads of 80 and 112 were not served on CPUs
TEST(RepeatabilityFaults, HeadsOf80And112AreServed) {
  expect_served(80);
  expect_served(112);
}

// vllm 39065: heads of 512 were refused while running ("Unsupported CPU attention configuration")
TEST(RepeatabilityFaults, HeadsOf512AreServed) { expect_served(512); }

}  // namespace
}  // namespace headwise
