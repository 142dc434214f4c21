// SPDX-License-Identifier: MIT
// The promises of ThreadPool one by one; thread_pool_stress_test.cpp has those that take many rounds.
#include "headwise/parallel/thread_pool.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <limits>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>
#if defined(__linux__)
#include <dirent.h>
#include <pthread.h>
#include <sched.h>

#include <fstream>
#endif

#include "tests/parallel/run_counts.hpp"

namespace headwise {
namespace {

using namespace std::chrono_literals;

// True if every one of `together` indices begins before any of them ends. The deadline is for a pool that fails.
bool all_run_at_once(ThreadPool& pool, Index together) {
  std::atomic<Index> begun{0};
  std::atomic<Index> met{0};
  pool.parallel_for(together, [&](Index) {
    ++begun;
    const auto deadline = std::chrono::steady_clock::now() + 60s;
    while (begun < together && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
    if (begun == together) ++met;
  });
  return met == together;
}

std::string message_of(auto&& call) {
  try {
    call();
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "no std::invalid_argument";
}

// [threads of the pool]
class ThreadPoolOf : public testing::TestWithParam<Index> {};
INSTANTIATE_TEST_SUITE_P(Sizes, ThreadPoolOf, testing::Values(1, 2, 3, 4, 7, 16), testing::PrintToStringParamName());

TEST_P(ThreadPoolOf, SaysHowManyThreadsRunAtOnce) { EXPECT_EQ(ThreadPool(GetParam()).concurrency(), GetParam()); }

TEST_P(ThreadPoolOf, RunsEveryIndexExactlyOnce) {
  ThreadPool pool(GetParam());
  for (Index n : {0, 1, 2, 3, 4, 5, 8, 15, 16, 17, 31, 64, 100, 1000, 4097}) {
    RunCounts counts(n);
    pool.parallel_for(n, [&](Index i) { counts.add(i); });
    EXPECT_EQ(counts.wrong(), 0) << "n = " << n;
  }
}

TEST_P(ThreadPoolOf, RunsAsManyIndicesAtOnceAsItHasThreads) {
  ThreadPool pool(GetParam());
  EXPECT_TRUE(all_run_at_once(pool, GetParam()));
}

TEST_P(ThreadPoolOf, WakesAllItsThreadsAfterTheySlept) {
  ThreadPool pool(GetParam());
  for (int round = 0; round < 3; ++round) {
    std::this_thread::sleep_for(20ms);
    EXPECT_TRUE(all_run_at_once(pool, GetParam()));
  }
}

TEST_P(ThreadPoolOf, RunsNestedCallsExactlyOnce) {
  ThreadPool pool(GetParam());
  RunCounts counts(20 * 30 * 3);
  pool.parallel_for(20, [&](Index i) {
    pool.parallel_for(30, [&](Index j) { pool.parallel_for(3, [&](Index k) { counts.add((i * 30 + j) * 3 + k); }); });
  });
  EXPECT_EQ(counts.wrong(), 0);
}

TEST_P(ThreadPoolOf, RunsANestedCallOnTheThreadThatMakesIt) {
  ThreadPool pool(GetParam());
  std::atomic<Index> elsewhere{0};
  pool.parallel_for(8, [&](Index) {
    const auto self = std::this_thread::get_id();
    pool.parallel_for(8, [&](Index) { elsewhere += std::this_thread::get_id() != self; });
  });
  // A pool of one runs nothing in parallel, so its nested calls are ordinary ones; they are on this thread too.
  EXPECT_EQ(elsewhere, 0);
}

TEST_P(ThreadPoolOf, CarriesAnExceptionToTheCaller) {
  ThreadPool pool(GetParam());
  for (Index at : {0, 1, 50, 99}) {
    try {
      pool.parallel_for(100, [&](Index i) {
        if (i == at) throw std::out_of_range("at " + std::to_string(i));
      });
      ADD_FAILURE() << "nothing was thrown";
    } catch (const std::out_of_range& error) {
      EXPECT_EQ(error.what(), "at " + std::to_string(at));
    }
  }
}

TEST_P(ThreadPoolOf, ThrowsOneOfManyExceptions) {
  ThreadPool pool(GetParam());
  EXPECT_THROW(pool.parallel_for(100, [](Index i) { throw std::out_of_range(std::to_string(i)); }), std::out_of_range);
}

TEST_P(ThreadPoolOf, ThrowsOnlyAfterEveryBegunIndexHasEnded) {
  ThreadPool pool(GetParam());
  std::atomic<Index> begun{0};
  std::atomic<Index> ended{0};
  struct End {
    std::atomic<Index>& ended;
    ~End() { ++ended; }
  };
  EXPECT_THROW(pool.parallel_for(100,
                                 [&](Index i) {
                                   ++begun;
                                   const End end{ended};
                                   if (i == 0) throw std::runtime_error("first");
                                   std::this_thread::sleep_for(1ms);
                                 }),
               std::runtime_error);
  EXPECT_EQ(begun, ended);
}

TEST_P(ThreadPoolOf, SkipsWhatHasNotBegunAfterAnException) {
  ThreadPool pool(GetParam());
  std::atomic<Index> begun{0};
  // More indices than could ever be run.
  EXPECT_THROW(pool.parallel_for(ThreadPool::kMaxIndices,
                                 [&](Index) {
                                   ++begun;
                                   throw std::runtime_error("stop");
                                 }),
               std::runtime_error);
  EXPECT_LE(begun, GetParam());  // each thread began at most one: the first it began threw
}

TEST_P(ThreadPoolOf, StaysUsableAfterAnException) {
  ThreadPool pool(GetParam());
  for (int round = 0; round < 20; ++round) {
    EXPECT_THROW(pool.parallel_for(10, [](Index) { throw 7; }), int);
    RunCounts counts(10);
    pool.parallel_for(10, [&](Index i) { counts.add(i); });
    EXPECT_EQ(counts.wrong(), 0);
  }
  EXPECT_TRUE(all_run_at_once(pool, GetParam()));
}

TEST_P(ThreadPoolOf, CarriesAnExceptionOutOfANestedCall) {
  ThreadPool pool(GetParam());
  EXPECT_THROW(pool.parallel_for(4,
                                 [&](Index) {
                                   pool.parallel_for(4, [](Index j) {
                                     if (j == 3) throw std::domain_error("inner");
                                   });
                                 }),
               std::domain_error);
}

TEST_P(ThreadPoolOf, CanBeDestroyedWhileItsThreadsSpinAndWhileTheySleep) {
  for (const auto idle : {0us, 50us, 1000us, 20000us}) {
    ThreadPool pool(GetParam());
    RunCounts counts(10);
    pool.parallel_for(10, [&](Index i) { counts.add(i); });
    std::this_thread::sleep_for(idle);
    EXPECT_EQ(counts.wrong(), 0);
  }
  for (int round = 0; round < 20; ++round) ThreadPool unused(GetParam());
}

TEST(ThreadPool, RunsAFewIndicesOnTheCallingThread) {
  ThreadPool pool(4);
  std::vector<std::thread::id> threads;
  pool.parallel_for(0, [&](Index) { threads.push_back(std::this_thread::get_id()); });
  pool.parallel_for(-3, [&](Index) { threads.push_back(std::this_thread::get_id()); });
  EXPECT_TRUE(threads.empty());
  pool.parallel_for(1, [&](Index) { threads.push_back(std::this_thread::get_id()); });
  EXPECT_EQ(threads, std::vector{std::this_thread::get_id()});
}

TEST(ThreadPool, RunsACallOnItsOwnThreadWhileAnotherCallKeepsThePoolBusy) {
  ThreadPool pool(2);
  std::atomic<bool> held{false};
  std::atomic<bool> release{false};
  std::thread other([&] {
    pool.parallel_for(2, [&](Index) {
      held = true;
      while (!release) std::this_thread::yield();
    });
  });
  while (!held) std::this_thread::yield();
  RunCounts counts(100);
  pool.parallel_for(100, [&](Index i) { counts.add(i); });  // would hang if it waited for the other call
  EXPECT_EQ(counts.wrong(), 0);
  release = true;
  other.join();
}

TEST(ThreadPool, CallsTheCallersObjectAndTakesPlainFunctions) {
  ThreadPool pool(2);
  struct Summing {
    std::atomic<Index> sum{0};
    void operator()(Index i) { sum += i; }
  } summing;
  pool.parallel_for(10, summing);
  EXPECT_EQ(summing.sum, 45);
  static std::atomic<Index> total;
  total = 0;
  struct Plain {
    static void add(Index i) { total += i; }
  };
  pool.parallel_for(10, Plain::add);
  EXPECT_EQ(total, 45);
}

TEST(ThreadPool, WorksBehindAnExecutorRef) {
  ThreadPool pool(3);
  const ExecutorRef executor(pool);
  EXPECT_EQ(executor.concurrency(), 3);
  RunCounts counts(50);
  executor.parallel_for(50, [&](Index i) { counts.add(i); });
  EXPECT_EQ(counts.wrong(), 0);
}

TEST(ThreadPool, RejectsAThreadCountOutsideItsRange) {
  EXPECT_EQ(message_of([] { ThreadPool pool(-2); }),
            "headwise: threads (-2) must be between 0 (all usable CPUs) and 4096");
  EXPECT_THAT(message_of([] { ThreadPool pool(std::numeric_limits<Index>::max()); }),
              testing::HasSubstr("threads (9223372036854775807) must be between 0"));
}

TEST(ThreadPool, RejectsMoreIndicesThanItCanCount) {
  ThreadPool pool(2);
  bool called = false;
  EXPECT_EQ(message_of([&] { pool.parallel_for(ThreadPool::kMaxIndices + 1, [&](Index) { called = true; }); }),
            "headwise: n (140737488355329) must be at most 140737488355328");
  EXPECT_FALSE(called);
}

TEST(ThreadPool, TakesAllUsableCpusByDefault) {
  EXPECT_GE(usable_cpus(), 1);
  EXPECT_EQ(ThreadPool().concurrency(), usable_cpus());
}

#if defined(__linux__)
TEST(ThreadPool, IsAsLargeAsTheMaskOfThePinnedThreadThatCreatesIt) {
  std::thread([] {
    cpu_set_t mask;
    ASSERT_EQ(sched_getaffinity(0, sizeof mask, &mask), 0);
    int first = 0;
    while (!CPU_ISSET(first, &mask)) ++first;
    CPU_ZERO(&mask);
    CPU_SET(first, &mask);
    ASSERT_EQ(pthread_setaffinity_np(pthread_self(), sizeof mask, &mask), 0);
    EXPECT_EQ(usable_cpus(), 1);
    EXPECT_EQ(ThreadPool().concurrency(), 1);
    // An explicit size is kept, and works on the one CPU.
    ThreadPool pool(3);
    EXPECT_TRUE(all_run_at_once(pool, 3));
  }).join();
}

// The scheduler state of every thread of this process: R runs or could run, S sleeps.
std::string thread_states() {
  std::string states;
  DIR* tasks = opendir("/proc/self/task");
  while (const dirent* task = readdir(tasks)) {
    std::ifstream stat(std::string("/proc/self/task/") + task->d_name + "/stat");
    std::string line;
    if (task->d_name[0] != '.' && std::getline(stat, line)) states += line.at(line.rfind(')') + 2);
  }
  closedir(tasks);
  return states;
}

TEST(ThreadPool, PutsIdleThreadsToSleep) {
  ThreadPool pool(4);
  for (int round = 0; round < 3; ++round) {
    EXPECT_TRUE(all_run_at_once(pool, 4));
    const auto deadline = std::chrono::steady_clock::now() + 60s;
    std::string states;
    do {
      std::this_thread::sleep_for(5ms);
      states = thread_states();
    } while (std::count(states.begin(), states.end(), 'R') > 1 && std::chrono::steady_clock::now() < deadline);
    EXPECT_EQ(std::count(states.begin(), states.end(), 'R'), 1) << states;  // this thread
    EXPECT_GE(states.size(), 4u) << states;
  }
}
#endif

}  // namespace
}  // namespace headwise
