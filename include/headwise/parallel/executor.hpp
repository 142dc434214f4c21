// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <type_traits>

#include "headwise/core/index.hpp"

namespace headwise {

/// What the library asks of a thread pool, stated once:
///   concurrency()      how many calls may run at the same time, at least 1;
///   parallel_for(n, f) calls f(0) … f(n-1), each exactly once, on any threads and in any order (one after another is
///                      allowed), and returns when all have returned; an exception of f reaches the caller.
/// Calls from several threads at once are as safe as the executor says they are. Results of the library never depend
/// on the executor.
template <class E>
concept Executor = requires(E& executor, Index n, void (*f)(Index)) {
  { executor.concurrency() } -> std::convertible_to<Index>;
  executor.parallel_for(n, f);
};

/// Any executor behind two words, so that code below it is compiled once. Does not own; valid during one call.
class ExecutorRef {
 public:
  template <Executor E>
    requires(!std::same_as<std::remove_cvref_t<E>, ExecutorRef>)
  ExecutorRef(E& executor)  // NOLINT: converts on purpose
      : self_(const_cast<void*>(static_cast<const void*>(&executor))),
        concurrency_(static_cast<Index>(executor.concurrency())),
        run_([](void* self, Index n, void (*f)(void*, Index), void* context) {
          static_cast<E*>(self)->parallel_for(n, [f, context](Index i) { f(context, i); });
        }) {}

  Index concurrency() const { return concurrency_; }

  template <class F>
  void parallel_for(Index n, F&& f) const {
    auto call = [&f](Index i) { f(i); };  // an object even where f is a plain function
    run_(
        self_, n, [](void* context, Index i) { (*static_cast<decltype(call)*>(context))(i); }, &call);
  }

 private:
  void* self_;
  Index concurrency_;
  void (*run_)(void*, Index, void (*)(void*, Index), void*);
};

}  // namespace headwise
