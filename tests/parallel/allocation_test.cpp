// SPDX-License-Identifier: MIT
// Executors do not allocate while they run, which counted_new.hpp sees for the whole test program, except where a
// sanitizer brings its own operator new.
#include "tests/support/sanitizers.hpp"

#if !defined(HEADWISE_TEST_ASAN) && !defined(HEADWISE_TEST_TSAN)
#include <gtest/gtest.h>

#include <atomic>

#include "headwise/parallel/adapters.hpp"
#include "headwise/parallel/serial.hpp"
#include "headwise/parallel/thread_pool.hpp"
#include "tests/support/counted_new.hpp"

namespace headwise {
namespace {

template <class E>
long allocations_of_calls(E&& executor) {
  std::atomic<Index> sum{0};
  const long before = allocations;
  for (int round = 0; round < 100; ++round) {
    executor.parallel_for(17, [&](Index i) {
      sum += i;
      executor.parallel_for(3, [&](Index j) { sum += j; });
    });
  }
  const long during = allocations - before;
  EXPECT_EQ(sum, 100 * (136 + 17 * 3));
  return during;
}

TEST(Allocation, IsSeenByTheCounter) {
  const long before = allocations;
  ThreadPool pool(3);
  EXPECT_GT(allocations, before);
}

TEST(Allocation, SerialMakesNone) { EXPECT_EQ(allocations_of_calls(Serial{}), 0); }

TEST(Allocation, ThreadPoolMakesNone) {
  for (Index threads : {1, 2, 4}) EXPECT_EQ(allocations_of_calls(ThreadPool(threads)), 0) << threads << " threads";
}

TEST(Allocation, ExecutorRefMakesNone) {
  ThreadPool pool(2);
  EXPECT_EQ(allocations_of_calls(ExecutorRef(pool)), 0);
}

TEST(Allocation, ExecutorAdapterMakesNoneOfItsOwn) {
  ThreadPool pool(2);
  EXPECT_EQ(allocations_of_calls(ExecutorAdapter(2, [&](Index n, IndexFunction f) { pool.parallel_for(n, f); })), 0);
}

}  // namespace
}  // namespace headwise
#endif
