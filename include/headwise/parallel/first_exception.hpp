// SPDX-License-Identifier: MIT
#pragma once

#include <atomic>
#include <exception>
#include <utility>

namespace headwise {

/// Carries the first of several exceptions from the threads that threw to the thread that waits for them.
class FirstException {
 public:
  /// Inside a catch block: keeps the current exception unless one is kept already. Any thread.
  void capture() noexcept {
    if (!taken_.exchange(true, std::memory_order_relaxed)) exception_ = std::current_exception();
  }

  /// Whether some thread has thrown; a hint to skip work that has not begun.
  bool any() const noexcept { return taken_.load(std::memory_order_relaxed); }

  /// Throws what was kept, if anything, and is empty again. Only after every capture() happened before this call.
  void rethrow() {
    if (!any()) return;
    taken_.store(false, std::memory_order_relaxed);
    std::rethrow_exception(std::exchange(exception_, nullptr));
  }

 private:
  std::atomic<bool> taken_{false};
  std::exception_ptr exception_;
};

}  // namespace headwise
