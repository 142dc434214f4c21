// SPDX-License-Identifier: MIT
// Many rounds of ThreadPool with more threads than CPUs: races that need bad luck, best run under a sanitizer too.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <stdexcept>
#include <thread>
#include <vector>

#include "headwise/parallel/thread_pool.hpp"
#include "tests/parallel/run_counts.hpp"

namespace headwise {
namespace {

TEST(ThreadPoolStress, ManyShortCallsInARow) {
  for (Index threads : {2, 3, 8}) {
    ThreadPool pool(threads);
    for (Index round = 0; round < 20000; ++round) {
      const Index n = 2 + round % 5;
      std::atomic<Index> sum{0};
      pool.parallel_for(n, [&](Index i) { sum += i + 1; });
      ASSERT_EQ(sum, n * (n + 1) / 2) << "round " << round;
    }
  }
}

TEST(ThreadPoolStress, NoThreadTouchesACallThatIsOver) {
  // What f needs is freed at once after the call, so a thread that comes late would read freed memory.
  struct Body {
    std::vector<Index> in;
    std::vector<Index> out;
    void operator()(Index i) { out[static_cast<std::size_t>(i)] = in[static_cast<std::size_t>(i)] + 1; }
  };
  ThreadPool pool(6);
  for (Index round = 0; round < 5000; ++round) {
    auto body = std::make_unique<Body>(Body{std::vector<Index>(7, round), std::vector<Index>(7, -1)});
    pool.parallel_for(7, *body);
    ASSERT_EQ(body->out, std::vector<Index>(7, round + 1));  // plain memory: what f wrote is visible here
  }
}

TEST(ThreadPoolStress, SeveralCallersAtOnce) {
  for (Index threads : {2, 4}) {
    ThreadPool pool(threads);
    std::atomic<Index> wrong{0};
    std::vector<std::thread> callers;
    for (int caller = 0; caller < 5; ++caller) {
      callers.emplace_back([&, caller] {
        for (Index round = 0; round < 1500; ++round) {
          const Index n = (round * 7 + caller) % 40;
          RunCounts counts(n);
          pool.parallel_for(n, [&](Index i) { counts.add(i); });
          wrong += counts.wrong();
        }
      });
    }
    for (std::thread& caller : callers) caller.join();
    EXPECT_EQ(wrong, 0);
  }
}

TEST(ThreadPoolStress, SeveralCallersEachGetTheirOwnException) {
  ThreadPool pool(3);
  std::atomic<Index> wrong{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&, caller] {
      for (int round = 0; round < 500; ++round) {
        int caught = -1;
        try {
          pool.parallel_for(10, [&](Index i) {
            if (caller > 0 && i == round % 10) throw caller;  // caller 0 throws nothing, so it must catch nothing
          });
        } catch (int thrown) {
          caught = thrown;
        }
        wrong += caught != (caller > 0 ? caller : -1);
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(wrong, 0);
}

TEST(ThreadPoolStress, CallersAtOnceThatNest) {
  ThreadPool pool(4);
  std::atomic<Index> sum{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 3; ++caller) {
    callers.emplace_back([&] {
      for (int round = 0; round < 300; ++round) {
        pool.parallel_for(5, [&](Index) { pool.parallel_for(4, [&](Index) { ++sum; }); });
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(sum, 3 * 300 * 5 * 4);
}

TEST(ThreadPoolStress, CallsAcrossTheMomentWhenThreadsFallAsleep) {
  // Gaps from 0.8 to 1.3 ms straddle the end of the spin.
  ThreadPool pool(3);
  for (int round = 0; round < 500; ++round) {
    RunCounts counts(6);
    pool.parallel_for(6, [&](Index i) { counts.add(i); });
    ASSERT_EQ(counts.wrong(), 0);
    std::this_thread::sleep_for(std::chrono::microseconds(800 + round));
  }
}

TEST(ThreadPoolStress, PoolsComeAndGo) {
  for (int round = 0; round < 300; ++round) {
    ThreadPool pool(1 + round % 5);
    std::atomic<Index> sum{0};
    pool.parallel_for(9, [&](Index i) { sum += i; });
    ASSERT_EQ(sum, 36);
  }
}

TEST(ThreadPoolStress, APoolInsideAnother) {
  ThreadPool outer(3);
  ThreadPool inner(2);
  std::atomic<Index> sum{0};
  for (int round = 0; round < 500; ++round) {
    outer.parallel_for(4, [&](Index) { inner.parallel_for(4, [&](Index) { ++sum; }); });
  }
  EXPECT_EQ(sum, 500 * 16);
}

}  // namespace
}  // namespace headwise
