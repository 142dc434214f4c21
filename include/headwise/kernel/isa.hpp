// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <type_traits>
#include <utility>

#include "headwise/core/heads.hpp"
#include "headwise/core/quantize.hpp"
#include "headwise/core/storage.hpp"
#include "headwise/core/tile_layout.hpp"
#include "headwise/kernel/table.hpp"
#include "headwise/simd/operations.hpp"
#include "headwise/simd/region.hpp"

// One source, many ISAs: each region compiles the same kernels over its own vectors and ends in a table.
// HEADWISE_NATIVE_ONLY compiles a single table, for the ISA of the compiler's flags (-march=...): smaller and faster to
// build, and every translation unit of a program must then agree on it.

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpsabi"  // vectors are passed between always_inline functions only
#endif

#if defined(__aarch64__)

namespace headwise::neon {
#include "headwise/simd/neon.inl.hpp"
#include "headwise/kernel/kernels.inl.hpp"
}  // namespace headwise::neon

#else

#if !defined(HEADWISE_NATIVE_ONLY) || !defined(__AVX2__) || !defined(__FMA__) || !defined(__F16C__)
#define HEADWISE_HAS_BASELINE
namespace headwise::baseline {
#include "headwise/simd/baseline.inl.hpp"
#include "headwise/kernel/kernels.inl.hpp"
}  // namespace headwise::baseline
#endif

#if !defined(HEADWISE_NATIVE_ONLY) || (!defined(HEADWISE_HAS_BASELINE) && !defined(__AVX512F__))
#define HEADWISE_HAS_AVX2
HEADWISE_REGION_BEGIN("avx2,fma,f16c")
namespace headwise::avx2 {
#include "headwise/simd/avx2.inl.hpp"
#include "headwise/kernel/kernels.inl.hpp"
}  // namespace headwise::avx2
HEADWISE_REGION_END
#endif

#if !defined(HEADWISE_NATIVE_ONLY) || defined(__AVX512F__)
#define HEADWISE_HAS_AVX512
HEADWISE_REGION_BEGIN("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")
namespace headwise::avx512 {
#include "headwise/simd/avx512.inl.hpp"
#include "headwise/kernel/kernels.inl.hpp"
}  // namespace headwise::avx512
HEADWISE_REGION_END
#endif

#if !defined(HEADWISE_NATIVE_ONLY) || (defined(__AVX512F__) && defined(__AVX512VNNI__))
#define HEADWISE_HAS_AVX512VNNI
HEADWISE_REGION_BEGIN("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")
namespace headwise::avx512vnni {
#include "headwise/simd/avx512.inl.hpp"
#include "headwise/simd/digit_dot.inl.hpp"
#include "headwise/kernel/digit_dot_kernels.inl.hpp"
inline constexpr TileKernels kernels = with_digit_dot(avx512::kernels, Isa::avx512vnni);
}  // namespace headwise::avx512vnni
HEADWISE_REGION_END
#endif

#if !defined(HEADWISE_NATIVE_ONLY) || (defined(HEADWISE_HAS_AVX512VNNI) && defined(__AVX512BF16__))
#define HEADWISE_HAS_AVX512BF16
#define HEADWISE_BF16_DOT
HEADWISE_REGION_BEGIN("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vnni,avx2,fma,f16c")
namespace headwise::avx512bf16 {
#include "headwise/simd/avx512.inl.hpp"
#include "headwise/simd/bf16_dot.inl.hpp"
#include "headwise/kernel/bf16_dot_kernels.inl.hpp"
inline constexpr TileKernels kernels = with_bf16_dot(avx512vnni::kernels, Isa::avx512bf16);
}  // namespace headwise::avx512bf16
HEADWISE_REGION_END
#undef HEADWISE_BF16_DOT
#endif

#endif  // architecture

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
