// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <type_traits>
#include <utility>

#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"
#include "headwise/parallel/executor.hpp"
#include "headwise/parallel/first_exception.hpp"

namespace headwise {

/// What an adapter hands to a thread pool: call it with each index 0 … n-1 exactly once, from any threads, at the same
/// time or not. It never throws. 16 bytes, free to copy; valid until the adapter's `run` returns.
class IndexFunction {
 public:
  void operator()(Index i) const noexcept { call_(context_, i); }

 private:
  template <class Concurrency, class Run>
  friend class ExecutorAdapter;
  IndexFunction(void* context, void (*call)(void*, Index) noexcept) : context_(context), call_(call) {}

  void* context_;
  void (*call_)(void*, Index) noexcept;
};

/// Turns a thread pool of yours into an Executor, from
///   concurrency  how many indices it runs at the same time, at least 1: a number, or a function that returns one;
///   run(n, f)    calls f(0) … f(n-1), each exactly once, and returns when all have returned. n is at least 2.
///
/// OpenMP:            ExecutorAdapter openmp([] { return omp_get_max_threads(); }, [](Index n, IndexFunction f) {
///                    #pragma omp parallel for schedule(dynamic)
///                      for (Index i = 0; i < n; ++i) f(i);
///                    });
/// oneTBB:            ExecutorAdapter onetbb([] { return tbb::this_task_arena::max_concurrency(); },
///                                           [](Index n, IndexFunction f) { tbb::parallel_for(Index{0}, n, f); });
/// Eigen::ThreadPool: ExecutorAdapter eigen(pool.NumThreads(), [&pool](Index n, IndexFunction f) {
///                      Eigen::Barrier done(static_cast<unsigned>(n));
///                      for (Index i = 0; i < n; ++i) pool.Schedule([f, i, &done] { f(i), done.Notify(); });
///                      done.Wait();
///                    });
///
/// Exceptions need no care in `run`: the adapter keeps the first one, skips indices that begin later, and throws it
/// when `run` has returned. So even OpenMP, which ends the program where an exception leaves a parallel region, will
/// do. What `run` itself throws passes through. Calls from several threads, and from inside f, are as safe as `run` is:
/// a pool that waits for its own workers (Eigen's does) must not be called from one of them.
template <class Concurrency, class Run>
class ExecutorAdapter {
  static constexpr bool kAsks = std::is_invocable_r_v<Index, const Concurrency&>;
  static_assert(kAsks || std::is_convertible_v<const Concurrency&, Index>,
                "the first argument is a number of threads, or a function that returns one");
  static_assert(std::is_invocable_v<const Run&, Index, IndexFunction>,
                "the second argument is called as run(n, f) with an Index and an IndexFunction");

 public:
  /// Throws std::invalid_argument if `concurrency` is a number below 1.
  ExecutorAdapter(Concurrency concurrency, Run run) : concurrency_(std::move(concurrency)), run_(std::move(run)) {
    if constexpr (!kAsks) this->concurrency();
  }

  /// Throws std::invalid_argument if your function returns a number below 1.
  Index concurrency() const {
    Index threads = 0;
    if constexpr (kAsks) {
      threads = static_cast<Index>(concurrency_());
    } else {
      threads = static_cast<Index>(concurrency_);
    }
    require(threads >= 1, "concurrency (", threads, ") of an ExecutorAdapter must be at least 1");
    return threads;
  }

  /// f(0) … f(n-1) on your pool; fewer than two run on the calling thread.
  template <class F>
  void parallel_for(Index n, F&& f) const {
    if (n <= 1) {
      if (n == 1) f(Index{0});
      return;
    }
    FirstException error;
    auto call = [&f, &error](Index i) noexcept {
      if (error.any()) return;
      try {
        f(i);
      } catch (...) {
        error.capture();
      }
    };
    run_(n, IndexFunction(&call, [](void* context, Index i) noexcept { (*static_cast<decltype(call)*>(context))(i); }));
    error.rethrow();
  }

 private:
  Concurrency concurrency_;
  Run run_;
};

}  // namespace headwise
