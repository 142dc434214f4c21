// SPDX-License-Identifier: MIT
#pragma once

#include <atomic>

// What counted_new.hpp has counted so far, in all threads.
inline std::atomic<long> allocations{0};
inline std::atomic<long> allocated_bytes{0};  // as asked for; never less after a delete
