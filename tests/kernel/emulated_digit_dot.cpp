// SPDX-License-Identifier: MIT
// The kernels of an ISA that multiplies 8-bit integers, over this architecture's narrowest vectors and with the product
// emulated: rows as digits, and codes met as they are stored, are tested on CPUs without the instruction.

#include "tests/kernel/emulated_digit_dot.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <type_traits>

#include "headwise/core/heads.hpp"
#include "headwise/core/quantize.hpp"
#include "headwise/core/storage.hpp"
#include "headwise/core/tile_layout.hpp"
#include "headwise/kernel/dispatch.hpp"
#include "headwise/kernel/table.hpp"
#include "headwise/simd/operations.hpp"
#include "headwise/simd/region.hpp"

namespace headwise::emulated_digit_dot {
#if defined(__aarch64__)
#include "headwise/simd/neon.inl.hpp"
#else
#include "headwise/simd/baseline.inl.hpp"
#endif

inline constexpr int kDigitBigRows = 6;

HEADWISE_INLINE I splat_bits(const void* p) {
  std::int32_t bits;
  std::memcpy(&bits, p, sizeof bits);
  return I{} + bits;
}
HEADWISE_INLINE I dot_digits(I acc, I codes, I digits) {
  for (int lane = 0; lane < kLanes; ++lane) {
    const auto code = static_cast<std::uint32_t>(codes[lane]), digit = static_cast<std::uint32_t>(digits[lane]);
    std::int32_t sum = 0;
    for (unsigned byte = 0; byte < 32; byte += 8)
      sum += static_cast<std::uint8_t>(code >> byte) * static_cast<std::int8_t>(digit >> byte);
    acc[lane] = static_cast<std::int32_t>(static_cast<std::uint32_t>(acc[lane]) + static_cast<std::uint32_t>(sum));
  }
  return acc;
}
HEADWISE_INLINE F load_scales(const void* p) {
  F v;
  for (int lane = 0; lane < kLanes; ++lane) v[lane] = load_element(p, Storage::bf16, lane);
  return v;
}
HEADWISE_INLINE F to_float(I v) { return __builtin_convertvector(v, F); }
HEADWISE_INLINE F max_magnitude(F a, F b) {
  F v;
  for (int lane = 0; lane < kLanes; ++lane) v[lane] = std::fmax(std::fabs(a[lane]), std::fabs(b[lane]));
  return v;
}
HEADWISE_INLINE std::int32_t reduce_add(I v) { return (v[0] + v[1]) + (v[2] + v[3]); }
HEADWISE_INLINE void reduce_max(const F (&rows)[4], float (&out)[4]) {
  for (int r = 0; r < 4; ++r) out[r] = reduce_max(rows[r]);
}
HEADWISE_INLINE void reduce_add(const I (&rows)[4], std::int32_t (&out)[4]) {
  for (int r = 0; r < 4; ++r) out[r] = reduce_add(rows[r]);
}
HEADWISE_INLINE I store_digits(void* p, const F (&x)[32 / kLanes], F inverse) {
  I sum{};
  for (int i = 0; i < 32; ++i) {
    const double scaled = std::nearbyint(double{x[i / kLanes][i % kLanes]} * double{inverse[0]});
    const int v = std::fabs(scaled) <= 32639 ? static_cast<int>(scaled) : 0;
    const int upper = (v + 128) >> 8, lower = v - 256 * upper;
    auto* group = static_cast<std::int8_t*>(p) + i / 4 * 8;
    group[i % 4] = static_cast<std::int8_t>(upper);
    group[4 + i % 4] = static_cast<std::int8_t>(lower);
    sum[0] += v + 128;
  }
  return sum;
}

#include "headwise/kernel/digit_dot_kernels.inl.hpp"

/// The rest of the table is that of the vectors above, which is the last choice on every CPU.
const TileKernels& kernels() {
  static const TileKernels table = with_digit_dot(*detail::runnable_kernels().back(), kIsa);
  return table;
}
}  // namespace headwise::emulated_digit_dot
