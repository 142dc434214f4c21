// SPDX-License-Identifier: MIT
// Attention called from several threads at once, and from inside the executor that it uses.
#include <thread>

#include "tests/attention/run.hpp"

namespace headwise {
namespace {

using namespace testing;

struct Call {
  Inputs in;
  Options options;
  Results expected;
};

std::vector<Call> different_calls() {
  std::vector<Call> calls;
  for (unsigned i = 0; i < 6; ++i) {
    Inputs in({8, 2, 32 + 16 * static_cast<Index>(i)}, 1, i % 2 ? 1 : 20, i % 2 ? 2500 : 200, i, {.coarse = false});
    const Options options{.window = i % 3 == 0 ? std::optional<Index>(70) : std::nullopt};
    Results expected = run(in, {}, options);
    calls.push_back({std::move(in), options, std::move(expected)});
  }
  return calls;
}

TEST(AttentionCallers, SeveralThreadsSharingOnePoolGetTheirOwnResults) {
  const auto calls = different_calls();
  ThreadPool pool(2);
  std::vector<std::thread> callers;
  for (const Call& call : calls)
    callers.emplace_back([&pool, &call] {
      for (int round = 0; round < 5; ++round) EXPECT_EQ(run(call.in, {}, call.options, pool), call.expected);
    });
  for (std::thread& caller : callers) caller.join();
}

TEST(AttentionCallers, OneCacheIsReadByManyAtOnce) {
  const Inputs in({8, 2, 64}, 1, 3, 400, 1);
  const auto cache = cache_of<bf16>(in);
  const Results expected = run_over(cache, in);
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i)
    callers.emplace_back([&] {
      for (int round = 0; round < 5; ++round) EXPECT_EQ(run_over(cache, in), expected);
    });
  for (std::thread& caller : callers) caller.join();
}

TEST(AttentionCallers, CallsFromInsideTheExecutorAreSafe) {
  const auto calls = different_calls();
  ThreadPool pool(3);
  std::vector<Results> results(calls.size());
  pool.parallel_for(std::ssize(calls), [&](Index i) {
    const Call& call = calls[static_cast<std::size_t>(i)];
    results[static_cast<std::size_t>(i)] = run(call.in, {}, call.options, pool);
  });
  for (std::size_t i = 0; i < calls.size(); ++i) EXPECT_EQ(results[i], calls[i].expected) << i;
}

/// Runs another attention call on the same thread while it should be running this one's work.
struct Interrupting {
  const Inputs* other;
  Results* result;
  Index concurrency() const { return 4; }
  template <class F>
  void parallel_for(Index n, F&& f) const {
    for (Index i = 0; i < n; ++i) {
      *result = run(*other);
      f(i);
    }
  }
};

TEST(AttentionCallers, AnExecutorMayRunAnotherCallInTheMiddleOfOne) {
  const Inputs in({8, 2, 64}, 1, 1, 3000, 2), other({4, 4, 80}, 2, 30, 90, 3);
  Results nested;
  EXPECT_EQ(run(in, {}, {}, Interrupting{&other, &nested}), run(in));
  EXPECT_EQ(nested, run(other));
}

}  // namespace
}  // namespace headwise
