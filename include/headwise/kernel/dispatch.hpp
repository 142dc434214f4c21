// SPDX-License-Identifier: MIT
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "headwise/core/error.hpp"
#include "headwise/core/linkage.hpp"
#include "headwise/kernel/table.hpp"

// Which kernels run. The best ISA of the CPU is chosen at first use; the environment variable HEADWISE_ISA (baseline,
// avx2, avx512, avx512vnni, avx512bf16, neon) or set_isa() overrides. A program that links headwise::compiled sees declarations only.

namespace headwise {

namespace detail {

/// The tables this program holds that this CPU can run, best first. Never empty.
std::span<const TileKernels* const> runnable_kernels();

/// The table in use. Throws std::invalid_argument when HEADWISE_ISA names an unknown ISA or one the CPU lacks.
const TileKernels& tile_kernels();

/// Makes later calls use `kernels`, from this program or from a test.
void use_kernels(const TileKernels& kernels);

}  // namespace detail

/// The ISAs that set_isa accepts here, best first.
std::vector<Isa> available_isas();

/// The ISA in use.
Isa current_isa();

/// Makes every later call use this ISA. Throws std::invalid_argument when the CPU lacks it or the program was built
/// without it. Not to be called while another thread runs attention.
void set_isa(Isa isa);

}  // namespace headwise

#if !defined(HEADWISE_DECLARE_ONLY)

#include <atomic>
#include <cstdlib>
#include <string>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "headwise/kernel/isa.hpp"

namespace headwise {

namespace detail {

#if defined(__x86_64__)
/// F16C by CPUID: clang 16's __builtin_cpu_supports does not know the name.
inline bool cpu_has_f16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);
}
#endif

inline bool cpu_runs(Isa isa) {
#if defined(__aarch64__)
  return isa == Isa::neon;
#else
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && cpu_has_f16c();
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  switch (isa) {
    case Isa::baseline:
      return true;
    case Isa::avx2:
      return avx2;
    case Isa::avx512:
      return avx512;
    case Isa::avx512vnni:
      return avx512 && __builtin_cpu_supports("avx512vnni");
    case Isa::avx512bf16:
      return avx512 && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni");
    default:
      return false;
  }
#endif
}

/// Tables compiled in, best first.
inline constexpr const TileKernels* kTables[] = {
#if defined(HEADWISE_HAS_AVX512BF16)
    &avx512bf16::kernels,
#endif
#if defined(HEADWISE_HAS_AVX512VNNI)
    &avx512vnni::kernels,
#endif
#if defined(HEADWISE_HAS_AVX512)
    &avx512::kernels,
#endif
#if defined(HEADWISE_HAS_AVX2)
    &avx2::kernels,
#endif
#if defined(HEADWISE_HAS_BASELINE)
    &baseline::kernels,
#endif
#if defined(HEADWISE_HAS_NEON)
    &neon::kernels,
#endif
};

HEADWISE_API std::span<const TileKernels* const> runnable_kernels() {
  static const std::vector<const TileKernels*> tables = [] {
    std::vector<const TileKernels*> runnable;
    for (const TileKernels* table : kTables)
      if (cpu_runs(table->isa)) runnable.push_back(table);
    require(!runnable.empty(), "HEADWISE_NATIVE_ONLY compiled kernels for ", name_of(kTables[0]->isa),
            ", which this CPU lacks; expected a CPU that has it, or a build without HEADWISE_NATIVE_ONLY");
    return runnable;
  }();
  return tables;
}

inline const TileKernels& find_kernels(std::string_view argument, std::string_view name) {
  std::string expected;
  for (const TileKernels* table : runnable_kernels()) {
    if (name_of(table->isa) == name) return *table;
    expected.append(expected.empty() ? "" : ", ").append(name_of(table->isa));
  }
  fail(argument, " (", name, ") must be one of the instruction sets that this CPU and this build have: ", expected);
}

/// Null until first use.
inline std::atomic<const TileKernels*>& chosen_kernels() {
  static std::atomic<const TileKernels*> chosen{nullptr};
  return chosen;
}

HEADWISE_API void use_kernels(const TileKernels& kernels) {
  chosen_kernels().store(&kernels, std::memory_order_release);
}

HEADWISE_API const TileKernels& tile_kernels() {
  if (const TileKernels* chosen = chosen_kernels().load(std::memory_order_acquire)) [[likely]]
    return *chosen;
  const char* name = std::getenv("HEADWISE_ISA");
  const TileKernels& table = name && *name ? find_kernels("HEADWISE_ISA", name) : *runnable_kernels().front();
  use_kernels(table);
  return table;
}

}  // namespace detail

HEADWISE_API std::vector<Isa> available_isas() {
  std::vector<Isa> isas;
  for (const TileKernels* table : detail::runnable_kernels()) isas.push_back(table->isa);
  return isas;
}

HEADWISE_API Isa current_isa() { return detail::tile_kernels().isa; }

HEADWISE_API void set_isa(Isa isa) { detail::use_kernels(detail::find_kernels("isa", name_of(isa))); }

}  // namespace headwise

#endif  // !HEADWISE_DECLARE_ONLY
