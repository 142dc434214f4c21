// SPDX-License-Identifier: MIT
// ExecutorAdapter over pools of several makes. The bodies given to Eigen and oneTBB are those of its documentation.
#include "headwise/parallel/adapters.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "tests/support/sanitizers.hpp"
#if defined(HEADWISE_TEST_TSAN)
// Eigen synchronises by fences and oneTBB in a library without instrumentation; this sanitizer follows neither.
#undef HEADWISE_TEST_TBB
#elif __has_include(<unsupported/Eigen/CXX11/ThreadPool>)
#define HEADWISE_TEST_EIGEN
#define EIGEN_USE_THREADS
#include <unsupported/Eigen/CXX11/ThreadPool>
#endif
#if defined(HEADWISE_TEST_TBB)
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>
#endif

#include "headwise/parallel/thread_pool.hpp"
#include "tests/parallel/run_counts.hpp"

namespace headwise {
namespace {

// A new thread for every index: as far from a good pool as one can get, and an exception in it ends the program.
void thread_each(Index n, IndexFunction f) {
  std::vector<std::thread> threads;
  for (Index i = 0; i < n; ++i) threads.emplace_back(f, i);
  for (std::thread& thread : threads) thread.join();
}

// A pool of the old school, which knows nothing of this library: int, and std::function by value.
struct OldPool {
  int calls = 0;
  void for_each(int n, std::function<void(int)> f) {
    ++calls;
    for (int i = n; i-- > 0;) f(i);
  }
};

template <class E>
void expect_every_index_once(E&& executor) {
  static_assert(Executor<std::remove_reference_t<E>>);
  for (Index n : {-1, 0, 1, 2, 3, 10, 100}) {
    RunCounts counts(std::max<Index>(n, 0));
    executor.parallel_for(n, [&](Index i) { counts.add(i); });
    EXPECT_EQ(counts.wrong(), 0) << "n = " << n;
  }
}

template <class E>
void expect_exception_to_arrive(E&& executor) {
  try {
    executor.parallel_for(20, [](Index i) {
      if (i == 13) throw std::out_of_range("thirteen");
    });
    ADD_FAILURE() << "nothing was thrown";
  } catch (const std::out_of_range& error) {
    EXPECT_STREQ(error.what(), "thirteen");
  }
}

TEST(ExecutorAdapter, RunsEveryIndexOnceOnThreadsOfTheCallers) {
  expect_every_index_once(ExecutorAdapter(4, thread_each));
}

TEST(ExecutorAdapter, FitsAPoolThatTakesAStdFunctionOfInt) {
  OldPool pool;
  ExecutorAdapter executor(1, [&](Index n, auto&& f) { pool.for_each(static_cast<int>(n), f); });
  expect_every_index_once(executor);
  EXPECT_GT(pool.calls, 0);
}

TEST(ExecutorAdapter, FitsAnotherExecutor) {
  ThreadPool pool(3);
  ExecutorAdapter executor(pool.concurrency(), [&](Index n, IndexFunction f) { pool.parallel_for(n, f); });
  expect_every_index_once(executor);
  expect_exception_to_arrive(executor);
}

TEST(ExecutorAdapter, WorksBehindAnExecutorRefAndConst) {
  const ExecutorAdapter executor(4, thread_each);
  expect_every_index_once(executor);
  expect_every_index_once(ExecutorRef(executor));
}

TEST(ExecutorAdapter, KeepsExceptionsAwayFromThePool) { expect_exception_to_arrive(ExecutorAdapter(4, thread_each)); }

TEST(ExecutorAdapter, SkipsWhatBeginsAfterAnException) {
  ExecutorAdapter executor(1, [](Index n, IndexFunction f) {
    for (Index i = 0; i < n; ++i) f(i);
  });
  Index ran = 0;
  const auto throw_at_two = [&](Index i) {
    ++ran;
    if (i == 2) throw std::runtime_error("two");
  };
  EXPECT_THROW(executor.parallel_for(10, throw_at_two), std::runtime_error);
  EXPECT_EQ(ran, 3);
  executor.parallel_for(10, [&](Index) { ++ran; });  // and forgets it
  EXPECT_EQ(ran, 13);
}

TEST(ExecutorAdapter, LetsAnExceptionOfThePoolItselfThrough) {
  ExecutorAdapter executor(2, [](Index, IndexFunction) { throw std::domain_error("the pool is closed"); });
  EXPECT_THROW(executor.parallel_for(2, [](Index) {}), std::domain_error);
}

TEST(ExecutorAdapter, RunsFewerThanTwoIndicesWithoutThePool) {
  OldPool pool;
  ExecutorAdapter executor(8, [&](Index n, auto&& f) { pool.for_each(static_cast<int>(n), f); });
  Index ran = 0;
  executor.parallel_for(-1, [&](Index) { ++ran; });
  executor.parallel_for(0, [&](Index) { ++ran; });
  EXPECT_EQ(ran, 0);
  executor.parallel_for(1, [&](Index i) { ran += i + 1; });
  EXPECT_EQ(ran, 1);
  EXPECT_EQ(pool.calls, 0);
}

TEST(ExecutorAdapter, AsksForTheConcurrencyEachTimeIfGivenAFunction) {
  int threads = 2;
  const ExecutorAdapter executor([&] { return threads; }, thread_each);
  EXPECT_EQ(executor.concurrency(), 2);
  threads = 5;
  EXPECT_EQ(executor.concurrency(), 5);
  EXPECT_EQ(ExecutorAdapter(7u, thread_each).concurrency(), 7);
}

TEST(ExecutorAdapter, RejectsAConcurrencyBelowOne) {
  const std::string expected = "headwise: concurrency (0) of an ExecutorAdapter must be at least 1";
  try {
    ExecutorAdapter executor(0, thread_each);
    ADD_FAILURE() << "a number below 1 was taken";
  } catch (const std::invalid_argument& error) {
    EXPECT_EQ(error.what(), expected);
  }
  const ExecutorAdapter asks([] { return 0; }, thread_each);
  try {
    asks.concurrency();
    ADD_FAILURE() << "a number below 1 was returned";
  } catch (const std::invalid_argument& error) {
    EXPECT_EQ(error.what(), expected);
  }
}

#if defined(HEADWISE_TEST_EIGEN)
TEST(ExecutorAdapter, FitsEigenThreadPool) {
  Eigen::ThreadPool pool(3);
  ExecutorAdapter eigen(pool.NumThreads(), [&pool](Index n, IndexFunction f) {
    Eigen::Barrier done(static_cast<unsigned>(n));
    for (Index i = 0; i < n; ++i) pool.Schedule([f, i, &done] { f(i), done.Notify(); });
    done.Wait();
  });
  EXPECT_EQ(eigen.concurrency(), 3);
  expect_every_index_once(eigen);
  expect_exception_to_arrive(eigen);
}
#endif

#if defined(HEADWISE_TEST_TBB)
TEST(ExecutorAdapter, FitsOneTbb) {
  ExecutorAdapter onetbb([] { return tbb::this_task_arena::max_concurrency(); },
                         [](Index n, IndexFunction f) { tbb::parallel_for(Index{0}, n, f); });
  EXPECT_GE(onetbb.concurrency(), 1);
  expect_every_index_once(onetbb);
  expect_exception_to_arrive(onetbb);
}
#endif

}  // namespace
}  // namespace headwise
