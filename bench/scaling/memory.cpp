// SPDX-License-Identifier: MIT
#include "scaling/memory.hpp"

#include <cstdio>
#include <exception>
#include <thread>

#include "headwise/attention/attention.hpp"
#include "tests/support/allocation_counts.hpp"
#include "tests/support/sanitizers.hpp"
#include "tests/support/tile_sources.hpp"

#if !defined(HEADWISE_TEST_ASAN) && !defined(HEADWISE_TEST_TSAN)
#include "tests/support/counted_new.hpp"
#define HEADWISE_COUNTS_ALLOCATIONS
#endif

namespace scaling {

namespace {

using headwise::View;

template <class T>
void run(MemoryUse& use) {
  const Index queries = use.phase == Phase::decode ? 1 : use.tokens;
  const headwise::Heads<>& heads = use.heads;
  headwise::testing::MeetingPool pool(use.threads);
  const headwise::testing::EndlessTile<T> source(heads, use.tokens, pool);
  const headwise::Attention<> attend(heads);
  const auto size = static_cast<std::size_t>(queries * heads.num_heads() * heads.head_dim());
  const std::vector<float> q(size, 0.5f);
  std::vector<float> out(size);
  const auto bytes_of_calls = [&](int calls) {
    const long before = allocated_bytes;
    for (int i = 0; i < calls; ++i)
      attend(View<const float>(q.data(), queries, heads.num_heads(), heads.head_dim()), source,
             View<float>(out.data(), queries, heads.num_heads(), heads.head_dim()), {}, pool);
    return allocated_bytes - before;
  };
  use.first_bytes = bytes_of_calls(1);
  use.later_bytes = bytes_of_calls(kLaterCalls);
}

/// On a thread of its own, since a thread keeps what it once allocated.
void measure(MemoryUse& use, Storage storage) {
  std::exception_ptr error;
  std::thread([&] {
    try {
      if (storage == Storage::f32)
        run<float>(use);
      else if (storage == Storage::f16)
        run<headwise::f16>(use);
      else
        run<headwise::bf16>(use);
    } catch (...) {
      error = std::current_exception();
    }
  }).join();
  if (error) std::rethrow_exception(error);
}

}  // namespace

bool counts_allocations() {
#if defined(HEADWISE_COUNTS_ALLOCATIONS)
  return true;
#else
  return false;
#endif
}

std::vector<MemoryUse> measure_memory(const Curves& curves, Index threads) {
  const headwise::Heads<>& own = curves.heads;
  std::vector<headwise::Heads<>> shapes{own};
  if (own.num_kv_heads() > 1) shapes.push_back({own.num_heads(), 1, own.head_dim()});
  std::vector<Index> counts = Curves::doublings(1, threads);
  if (counts.back() != threads) counts.push_back(threads);

  std::fprintf(stderr, "counting allocations\n");
  std::vector<MemoryUse> uses;
  const auto add = [&](const headwise::Heads<>& heads, Phase phase, Index tokens, Index n) {
    MemoryUse use{heads, phase, tokens, n, 0, 0};
    measure(use, curves.storages.front());
    uses.push_back(use);
  };
  for (const Index n : counts)
    for (const headwise::Heads<>& heads : shapes)
      for (const Index tokens : curves.kv_lengths()) add(heads, Phase::decode, tokens, n);
  for (const Index n : counts)
    for (const Index tokens : curves.prompts())
      if (tokens <= 4096) add(own, Phase::prefill, tokens, n);
  return uses;
}

}  // namespace scaling
