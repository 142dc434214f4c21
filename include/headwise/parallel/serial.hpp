// SPDX-License-Identifier: MIT
#pragma once

#include "headwise/parallel/executor.hpp"

namespace headwise {

/// The executor that runs everything on the calling thread.
struct Serial {
  static constexpr Index concurrency() { return 1; }
  template <class F>
  void parallel_for(Index n, F&& f) const {
    for (Index i = 0; i < n; ++i) f(i);
  }
};
static_assert(Executor<Serial>);

}  // namespace headwise
