// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>
#if defined(__linux__)
#include <sched.h>
#endif

#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"
#include "headwise/parallel/executor.hpp"
#include "headwise/parallel/first_exception.hpp"

namespace headwise {

/// How many CPUs the calling thread may run on, at least 1. On Linux this is its affinity mask (taskset, numactl,
/// cpusets), which is what threads it creates inherit; a CPU-time quota of a container is not looked at.
inline Index usable_cpus() {
#if defined(__linux__)
  // The kernel refuses a mask shorter than its own, so the size is searched for.
  for (int cpus = 1024; cpus <= (1 << 20); cpus *= 2) {
    const std::size_t bytes = CPU_ALLOC_SIZE(cpus);
    cpu_set_t* set = CPU_ALLOC(cpus);
    if (set == nullptr) break;
    CPU_ZERO_S(bytes, set);
    const bool known = sched_getaffinity(0, bytes, set) == 0;
    const Index count = known ? CPU_COUNT_S(bytes, set) : 0;
    CPU_FREE(set);
    if (count > 0) return count;
  }
#endif
  return std::max<Index>(1, static_cast<Index>(std::thread::hardware_concurrency()));
}

/// A small thread pool made for calls of 50 µs that follow one another closely: a round trip is well under 1 µs while
/// the workers are awake. They spin for about 1 ms after the last call, then sleep until there is work for them.
///
/// The caller takes part, and every index is claimed only by the thread that runs it at once. So a call never waits
/// for a thread that the system has put aside, unless that thread is in the middle of f.
///
/// Calls from several threads, and calls from inside f, are safe and cannot deadlock: a call that finds the pool busy
/// runs all its indices on its own thread. An exception of f reaches the caller when every index that was begun has
/// ended; indices not begun by then are skipped, and the pool stays usable. There is no global state.
class ThreadPool {
 public:
  static constexpr Index kMaxThreads = 4096;
  static constexpr Index kMaxIndices = Index{1} << 47;

  /// `threads`: how many run at the same time, the caller included, 0 … kMaxThreads; 0 takes usable_cpus(), so a pool
  /// that a pinned thread creates is as large as that thread's mask, in which its workers stay.
  /// Throws std::invalid_argument outside that range, std::system_error if the system gives no thread.
  explicit ThreadPool(Index threads = 0) {
    require(threads >= 0 && threads <= kMaxThreads, "threads (", threads, ") must be between 0 (all usable CPUs) and ",
            kMaxThreads);
    concurrency_ = threads > 0 ? threads : std::min(usable_cpus(), kMaxThreads);
    workers_.reserve(static_cast<std::size_t>(concurrency_ - 1));
    try {
      while (std::ssize(workers_) < concurrency_ - 1) workers_.emplace_back([this] { work(); });
    } catch (...) {
      stop();
      throw;
    }
  }

  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  /// No call may be under way.
  ~ThreadPool() { stop(); }

  /// Threads that run indices at the same time, the caller included.
  Index concurrency() const { return concurrency_; }

  /// Calls f(0) … f(n-1), each exactly once, begun in about that order, and returns when all have ended. Does not
  /// allocate. Throws what f throws first, or std::invalid_argument if n is above kMaxIndices; a negative n is 0.
  template <class F>
  void parallel_for(Index n, F&& f) {
    require(n <= kMaxIndices, "n (", n, ") must be at most ", kMaxIndices);
    if (n <= 1 || concurrency_ == 1 || busy_.exchange(true, std::memory_order_acquire)) {
      for (Index i = 0; i < n; ++i) f(i);
      return;
    }
    struct Release {
      std::atomic<bool>& busy;
      ~Release() { busy.store(false, std::memory_order_release); }
    } release{busy_};

    auto call = [&f](Index i) { f(i); };  // an object even where f is a plain function
    context_ = &call;
    call_ = [](void* context, Index i) { (*static_cast<decltype(call)*>(context))(i); };
    count_ = n;
    publish();
    take_part();
    join();
    error_.rethrow();
  }

 private:
  // progress_ counts the indices of the current call: not begun, and running. One word, so that a thread claims an
  // index only while the call is open, and a call is over exactly when the word is 0. The description of the call
  // (context_, call_, count_) is read after a claim only: a claim keeps the caller in join(), so a thread that comes
  // late fails to claim and touches nothing.
  static constexpr int kWaitingShift = 16;
  static constexpr std::uint64_t kRunning = 1;
  static constexpr std::uint64_t kWaiting = std::uint64_t{1} << kWaitingShift;
  static_assert(kMaxThreads < static_cast<Index>(kWaiting));

  static Index waiting(std::uint64_t progress) { return static_cast<Index>(progress >> kWaitingShift); }
  static Index running(std::uint64_t progress) { return static_cast<Index>(progress & (kWaiting - 1)); }

  void publish() {
    progress_.store(static_cast<std::uint64_t>(count_) << kWaitingShift, std::memory_order_release);
    calls_.fetch_add(1, std::memory_order_seq_cst);
    wake();
  }

  // Runs indices until none is left to begin.
  void take_part() {
    bool ran = false;
    std::uint64_t seen = progress_.load(std::memory_order_relaxed);
    while (true) {
      // One step ends the index that this thread ran and claims the next.
      const bool more = seen >= kWaiting;
      if (!more && !ran) return;
      const std::uint64_t next = seen - (ran ? kRunning : 0) - (more ? kWaiting - kRunning : 0);
      if (!progress_.compare_exchange_weak(seen, next, std::memory_order_acq_rel, std::memory_order_relaxed)) continue;
      if (!more) return;
      try {
        call_(context_, count_ - waiting(seen));
      } catch (...) {
        error_.capture();
        progress_.fetch_and(kWaiting - 1, std::memory_order_relaxed);  // what has not begun is skipped
      }
      ran = true;
      seen = progress_.load(std::memory_order_relaxed);
    }
  }

  void join() {
    for (int turn = 0; progress_.load(std::memory_order_acquire) != 0; ++turn) {
      // Past about 50 µs the missing thread may be waiting for this very CPU.
      if (turn < 1000) {
        relax();
      } else {
        std::this_thread::yield();
      }
    }
  }

  // Wakes sleepers if there are more indices than threads awake to run them. At most two: each of them does the same
  // as it wakes, so a caller with 64 workers asleep does not spend 64 system calls before its own first index.
  void wake() {
    // Either this sees the thread that is about to sleep, or that thread sees calls_ change: both are sequentially
    // consistent. A missed wake-up would cost speed only, since the caller runs what nobody else does.
    const Index parked = parked_.load(std::memory_order_seq_cst);
    if (parked == 0) return;
    const std::uint64_t progress = progress_.load(std::memory_order_relaxed);
    const Index idle = concurrency_ - parked - running(progress);
    const Index wanted = std::min<Index>({waiting(progress) - idle, parked, 2});
    for (Index i = 0; i < wanted; ++i) calls_.notify_one();
  }

  void work() {
    for (std::uint32_t seen = 0;;) {
      await(seen);
      seen = calls_.load(std::memory_order_acquire);
      if (stopping_.load(std::memory_order_relaxed)) return;
      take_part();
    }
  }

  // Returns when a call after number `seen` has begun: spins first, then sleeps.
  void await(std::uint32_t seen) {
    using namespace std::chrono_literals;
    const auto begin = std::chrono::steady_clock::now();
    for (unsigned turn = 1; calls_.load(std::memory_order_acquire) == seen; ++turn) {
      relax();
      if (turn % 64 != 0) continue;
      const auto idle = std::chrono::steady_clock::now() - begin;
      if (idle > 1ms) {
        parked_.fetch_add(1, std::memory_order_seq_cst);
        calls_.wait(seen, std::memory_order_seq_cst);
        parked_.fetch_sub(1, std::memory_order_relaxed);
        wake();
        return;
      }
      if (idle > 100us) std::this_thread::yield();  // where threads outnumber CPUs, others get a turn
    }
  }

  static void relax() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("isb");  // the `yield` instruction does nothing on most cores
#else
    std::this_thread::yield();
#endif
  }

  void stop() {
    stopping_.store(true, std::memory_order_relaxed);
    calls_.fetch_add(1, std::memory_order_seq_cst);
    calls_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  // Spinning workers read the second group only, so they do not slow the claims in the first.
  alignas(128) std::atomic<std::uint64_t> progress_{0};
  Index count_ = 0;
  void* context_ = nullptr;
  void (*call_)(void*, Index) = nullptr;
  FirstException error_;

  alignas(128) std::atomic<std::uint32_t> calls_{0};  // calls so far, modulo 2^32; 32 bits is what a futex takes
  std::atomic<Index> parked_{0};
  std::atomic<bool> stopping_{false};

  alignas(128) std::atomic<bool> busy_{false};
  Index concurrency_ = 1;
  std::vector<std::thread> workers_;
};
static_assert(Executor<ThreadPool>);

}  // namespace headwise
