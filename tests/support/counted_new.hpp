// SPDX-License-Identifier: MIT
#pragma once

// Replaces operator new of the whole test program by one that counts, so include it in one file of a program, and not
// where a sanitizer brings its own (sanitizers.hpp). Others include allocation_counts.hpp.

#include <cstddef>
#include <cstdlib>
#include <new>

#include "tests/support/allocation_counts.hpp"

namespace {
void* counted(std::size_t bytes, std::size_t alignment) {
  ++allocations;
  allocated_bytes += static_cast<long>(bytes);
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

#undef NOINLINE
