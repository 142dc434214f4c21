// SPDX-License-Identifier: MIT
#pragma once

// Which sanitizer this is compiled for, said the same way by g++ and clang.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define HEADWISE_TEST_TSAN
#elif __has_feature(address_sanitizer) || __has_feature(memory_sanitizer)
#define HEADWISE_TEST_ASAN
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define HEADWISE_TEST_TSAN
#elif defined(__SANITIZE_ADDRESS__)
#define HEADWISE_TEST_ASAN
#endif
