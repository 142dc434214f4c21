// SPDX-License-Identifier: MIT
#pragma once

// The kernels of an ISA that multiplies bf16 pairs, over this architecture's narrowest vectors and with the product
// emulated: the pair layout, the bf16 rows and the bf16 weights are tested on CPUs without the instruction.

#include <algorithm>
#include <type_traits>

#include "headwise/core/storage.hpp"
#include "headwise/core/tile_layout.hpp"
#include "headwise/kernel/dispatch.hpp"
#include "headwise/kernel/table.hpp"
#include "headwise/simd/operations.hpp"
#include "headwise/simd/region.hpp"

#define HEADWISE_BF16_DOT
namespace headwise::emulated_bf16_dot {
#if defined(__aarch64__)
#include "headwise/simd/neon.inl.hpp"
#else
#include "headwise/simd/baseline.inl.hpp"
#endif

HEADWISE_INLINE I splat_pair(const void* p) {
  std::int32_t bits;
  std::memcpy(&bits, p, sizeof bits);
  return I{} + bits;
}
HEADWISE_INLINE F dot_bf16(F acc, I a, I b) {
  const auto odd = static_cast<std::int32_t>(0xffff0000u);
  acc = fma((F)(a & odd), (F)(b & odd), acc);
  return fma((F)(a << 16), (F)(b << 16), acc);
}
HEADWISE_INLINE void narrow_bf16(void* p, F v) {
  for (int i = 0; i < kLanes; ++i) {
    const std::uint16_t bits = to_bf16_bits(v[i]);
    std::memcpy(static_cast<char*>(p) + 2 * i, &bits, 2);
  }
}

#include "headwise/kernel/bf16_dot_kernels.inl.hpp"

/// The rest of the table is that of the vectors above, which is the last choice on every CPU.
inline const TileKernels kernels = with_bf16_dot(*detail::runnable_kernels().back(), kIsa);
}  // namespace headwise::emulated_bf16_dot
#undef HEADWISE_BF16_DOT
