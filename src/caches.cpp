// SPDX-License-Identifier: MIT
// headwise::compiled: caches, what puts tokens into tiles, and saved sequences.
#define HEADWISE_IMPLEMENTATION
#include "headwise/cache/kv_cache.hpp"
#include "headwise/cache/paged_cache.hpp"
#include "headwise/cache/save.hpp"
