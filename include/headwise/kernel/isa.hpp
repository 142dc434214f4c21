// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
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

#if defined(__aarch64__)
#define HEADWISE_HAS_NEON
#else
#if !defined(HEADWISE_NATIVE_ONLY) || !defined(__AVX2__) || !defined(__FMA__) || !defined(__F16C__)
#define HEADWISE_HAS_BASELINE
#endif
#if !defined(HEADWISE_NATIVE_ONLY) || (!defined(HEADWISE_HAS_BASELINE) && !defined(__AVX512F__))
#define HEADWISE_HAS_AVX2
#endif
#if !defined(HEADWISE_NATIVE_ONLY) || defined(__AVX512F__)
#define HEADWISE_HAS_AVX512
#endif
#if !defined(HEADWISE_NATIVE_ONLY) || (defined(__AVX512F__) && defined(__AVX512VNNI__))
#define HEADWISE_HAS_AVX512VNNI
#endif
#if !defined(HEADWISE_NATIVE_ONLY) || (defined(HEADWISE_HAS_AVX512VNNI) && defined(__AVX512BF16__))
#define HEADWISE_HAS_AVX512BF16
#endif
#endif  // architecture

// The tables are defined wherever this is included, unless HEADWISE_TABLES_APART is defined: then only those of vectors of
// HEADWISE_TABLES_OF bits are (none where it is not defined), and the others are declared. The source files of
// headwise::compiled divide them so.
#if defined(HEADWISE_TABLES_APART)
#define HEADWISE_DEFINES_TABLES_OF(bits) (HEADWISE_TABLES_OF == bits)
#define HEADWISE_TABLE constexpr
namespace headwise {
namespace neon {
extern const TileKernels kernels;
}
namespace baseline {
extern const TileKernels kernels;
}
namespace avx2 {
extern const TileKernels kernels;
}
namespace avx512 {
extern const TileKernels kernels;
}
namespace avx512vnni {
extern const TileKernels kernels;
}
namespace avx512bf16 {
extern const TileKernels kernels;
}
}  // namespace headwise
#else
#define HEADWISE_DEFINES_TABLES_OF(bits) 1
#define HEADWISE_TABLE inline constexpr
#endif

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpsabi"  // vectors are passed between always_inline functions only
#endif

#if defined(HEADWISE_HAS_NEON) && HEADWISE_DEFINES_TABLES_OF(128)
namespace headwise::neon {
#include "headwise/simd/neon.inl.hpp"
#include "headwise/kernel/kernels.inl.hpp"
}  // namespace headwise::neon
#endif

#if defined(HEADWISE_HAS_BASELINE) && HEADWISE_DEFINES_TABLES_OF(128)
namespace headwise::baseline {
#include "headwise/simd/baseline.inl.hpp"
#include "headwise/kernel/kernels.inl.hpp"
}  // namespace headwise::baseline
#endif

#if defined(HEADWISE_HAS_AVX2) && HEADWISE_DEFINES_TABLES_OF(256)
HEADWISE_REGION_BEGIN("avx2,fma,f16c")
namespace headwise::avx2 {
#include "headwise/simd/avx2.inl.hpp"
#include "headwise/kernel/kernels.inl.hpp"
}  // namespace headwise::avx2
HEADWISE_REGION_END
#endif

#if defined(HEADWISE_HAS_AVX512) && HEADWISE_DEFINES_TABLES_OF(512)
HEADWISE_REGION_BEGIN("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")
namespace headwise::avx512 {
#include "headwise/simd/avx512.inl.hpp"
#include "headwise/kernel/kernels.inl.hpp"
}  // namespace headwise::avx512
HEADWISE_REGION_END
#endif

#if defined(HEADWISE_HAS_AVX512VNNI) && HEADWISE_DEFINES_TABLES_OF(512)
HEADWISE_REGION_BEGIN("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")
namespace headwise::avx512vnni {
#include "headwise/simd/avx512.inl.hpp"
#include "headwise/simd/digit_dot.inl.hpp"
#include "headwise/kernel/digit_dot_kernels.inl.hpp"
HEADWISE_TABLE TileKernels kernels = with_digit_dot(avx512::kernels, Isa::avx512vnni);
}  // namespace headwise::avx512vnni
HEADWISE_REGION_END
#endif

#if defined(HEADWISE_HAS_AVX512BF16) && HEADWISE_DEFINES_TABLES_OF(512)
#define HEADWISE_BF16_DOT
HEADWISE_REGION_BEGIN("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vnni,avx2,fma,f16c")
namespace headwise::avx512bf16 {
#include "headwise/simd/avx512.inl.hpp"
#include "headwise/simd/bf16_dot.inl.hpp"
#include "headwise/kernel/bf16_dot_kernels.inl.hpp"
HEADWISE_TABLE TileKernels kernels = with_bf16_dot(avx512vnni::kernels, Isa::avx512bf16);
}  // namespace headwise::avx512bf16
HEADWISE_REGION_END
#undef HEADWISE_BF16_DOT
#endif

#undef HEADWISE_DEFINES_TABLES_OF
#undef HEADWISE_TABLE

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
