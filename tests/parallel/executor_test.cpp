// SPDX-License-Identifier: MIT
// Serial, and ExecutorRef, which hides any executor.
#include "headwise/parallel/executor.hpp"

#include <gtest/gtest.h>

#include <numeric>
#include <stdexcept>
#include <thread>
#include <vector>

#include "headwise/parallel/serial.hpp"

namespace headwise {
namespace {

std::vector<Index> counting(Index n) {
  std::vector<Index> indices(static_cast<std::size_t>(n));
  std::iota(indices.begin(), indices.end(), Index{0});
  return indices;
}

// Runs backwards and says that it has three threads, so that a stand-in can be told from the real thing.
struct Backwards {
  Index calls = 0;
  Index concurrency() const { return 3; }
  template <class F>
  void parallel_for(Index n, F&& f) {
    ++calls;
    for (Index i = n - 1; i >= 0; --i) f(i);
  }
};
static_assert(Executor<Backwards>);

struct WithoutConcurrency {
  template <class F>
  void parallel_for(Index, F&&) {}
};
static_assert(!Executor<WithoutConcurrency>);
static_assert(!Executor<int>);

Index total = 0;
void add_to_total(Index i) { total += i; }

TEST(Serial, RunsEveryIndexOnceInOrder) {
  for (Index n : {0, 1, 2, 7, 100}) {
    std::vector<Index> seen;
    Serial{}.parallel_for(n, [&](Index i) { seen.push_back(i); });
    EXPECT_EQ(seen, counting(n));
  }
}

TEST(Serial, RunsOnTheCallingThread) {
  EXPECT_EQ(Serial::concurrency(), 1);
  Serial{}.parallel_for(
      3, [&, caller = std::this_thread::get_id()](Index) { EXPECT_EQ(std::this_thread::get_id(), caller); });
}

TEST(Serial, LetsAnExceptionOutAndSkipsTheRest) {
  std::vector<Index> seen;
  const auto throw_at_two = [&](Index i) {
    seen.push_back(i);
    if (i == 2) throw std::runtime_error("two");
  };
  EXPECT_THROW(Serial{}.parallel_for(5, throw_at_two), std::runtime_error);
  EXPECT_EQ(seen, counting(3));
}

TEST(ExecutorRef, ForwardsToTheExecutorBehindIt) {
  Backwards backwards;
  const ExecutorRef executor(backwards);
  std::vector<Index> seen;
  executor.parallel_for(4, [&](Index i) { seen.push_back(i); });
  EXPECT_EQ(seen, (std::vector<Index>{3, 2, 1, 0}));
  EXPECT_EQ(backwards.calls, 1);
  EXPECT_EQ(executor.concurrency(), 3);
}

TEST(ExecutorRef, IsAnExecutorItself) {
  static_assert(Executor<ExecutorRef> && Executor<const ExecutorRef>);
  Backwards backwards;
  ExecutorRef inner(backwards);
  const ExecutorRef copy = inner;
  Index sum = 0;
  copy.parallel_for(5, [&](Index i) { sum += i; });
  EXPECT_EQ(sum, 10);
}

TEST(ExecutorRef, TakesAConstExecutor) {
  const Serial serial;
  const ExecutorRef executor(serial);
  Index sum = 0;
  executor.parallel_for(5, [&](Index i) { sum += i; });
  EXPECT_EQ(sum, 10);
}

TEST(ExecutorRef, CallsTheCallersObjectAndNotACopy) {
  struct Summing {
    Index sum = 0;
    void operator()(Index i) { sum += i; }
  } summing;
  Serial serial;
  ExecutorRef(serial).parallel_for(5, summing);
  EXPECT_EQ(summing.sum, 10);
}

TEST(ExecutorRef, TakesAPlainFunction) {
  total = 0;
  Serial serial;
  ExecutorRef(serial).parallel_for(5, add_to_total);
  EXPECT_EQ(total, 10);
}

TEST(ExecutorRef, LetsAnExceptionOut) {
  Serial serial;
  EXPECT_THROW(ExecutorRef(serial).parallel_for(2, [](Index) { throw std::out_of_range("f"); }), std::out_of_range);
}

}  // namespace
}  // namespace headwise
