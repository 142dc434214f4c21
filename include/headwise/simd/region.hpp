// SPDX-License-Identifier: MIT
#pragma once

// Standard headers and intrinsics come before the first region: nothing of theirs may be compiled for a wider ISA.
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#else
#error "headwise has kernels for x86-64 and aarch64"
#endif

#if !defined(__GNUC__)
#error "headwise needs g++ (12 or later) or clang (16 or later)"
#endif
#if defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__
#error "headwise needs infinities and NaN: compile without -ffast-math and -ffinite-math-only"
#endif

// A target region compiles what stands in it for one ISA, whatever the compiler's flags:
//   HEADWISE_REGION_BEGIN("avx2,fma,f16c")
//   namespace headwise::avx2 { ... }
//   HEADWISE_REGION_END
// Rules (each learned from a miscompile or a warning): no vector type crosses a region's boundary; helpers inside are
// HEADWISE_INLINE; loops over accumulators are HEADWISE_UNROLLed.
#define HEADWISE_STRING_(x) #x
#define HEADWISE_STRING(x) HEADWISE_STRING_(x)
#if defined(__clang__)
#define HEADWISE_REGION_BEGIN(isa) \
  _Pragma(HEADWISE_STRING(clang attribute push(__attribute__((target(isa))), apply_to = function)))
#define HEADWISE_REGION_END _Pragma("clang attribute pop")
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define HEADWISE_UNROLL  // forced unrolling makes sanitizer builds take minutes
#endif
#endif
#ifndef HEADWISE_UNROLL
#define HEADWISE_UNROLL _Pragma("clang loop unroll(full)")
#endif
#else
#define HEADWISE_REGION_BEGIN(isa) _Pragma("GCC push_options") _Pragma(HEADWISE_STRING(GCC target(isa)))
#define HEADWISE_REGION_END _Pragma("GCC pop_options")
#define HEADWISE_UNROLL _Pragma("GCC unroll 32")
#endif
#define HEADWISE_INLINE inline __attribute__((always_inline))
