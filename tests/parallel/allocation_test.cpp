// SPDX-License-Identifier: MIT
// Executors do not allocate while they run. This file replaces operator new for the whole test program, except where a
// sanitizer brings its own.
#include "tests/parallel/sanitizers.hpp"

#if !defined(HEADWISE_TEST_ASAN) && !defined(HEADWISE_TEST_TSAN)
#include <gtest/gtest.h>

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

#include "headwise/parallel/adapters.hpp"
#include "headwise/parallel/serial.hpp"
#include "headwise/parallel/thread_pool.hpp"

namespace {
std::atomic<long> allocations{0};

void* counted(std::size_t bytes, std::size_t alignment) {
  ++allocations;
  // aligned_alloc wants a multiple of the alignment
  void* memory = std::aligned_alloc(alignment, (bytes + alignment) / alignment * alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
}  // namespace

// Not inlined: g++ would see malloc on one side and operator delete on the other, and warn.
#define NOINLINE __attribute__((noinline))
NOINLINE void* operator new(std::size_t bytes) { return counted(bytes, alignof(std::max_align_t)); }
NOINLINE void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return counted(bytes, static_cast<std::size_t>(alignment));
}
NOINLINE void operator delete(void* memory) noexcept { std::free(memory); }
NOINLINE void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
NOINLINE void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
NOINLINE void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

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
