// SPDX-License-Identifier: MIT
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "headwise/kernel/dispatch.hpp"
#include "tests/kernel/emulated_bf16_dot.hpp"
#include "tests/kernel/emulated_digit_dot.hpp"

namespace headwise::testing {

/// A test over every table of kernels: each ISA by name, and the emulated products. A CPU without the ISA skips.
class EveryTable : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (GetParam() == "emulated_bf16_dot") {
      kernels = &emulated_bf16_dot::kernels;
      return;
    }
    if (GetParam() == "emulated_digit_dot") {
      kernels = &emulated_digit_dot::kernels();
      return;
    }
    for (const TileKernels* table : detail::runnable_kernels())
      if (name_of(table->isa) == GetParam()) kernels = table;
    if (!kernels) GTEST_SKIP() << "skipped: no " << GetParam();
  }

  const TileKernels* kernels = nullptr;
};

inline std::vector<std::string> table_names() {
#if defined(__aarch64__)
  return {"neon", "emulated_bf16_dot", "emulated_digit_dot"};
#else
  return {"baseline", "avx2", "avx512", "avx512vnni", "avx512bf16", "emulated_bf16_dot", "emulated_digit_dot"};
#endif
}

/// Those that meet int8 and int4 as integers.
inline std::vector<std::string> digit_table_names() {
#if defined(__aarch64__)
  return {"emulated_digit_dot"};
#else
  return {"avx512vnni", "avx512bf16", "emulated_digit_dot"};
#endif
}

#define HEADWISE_FOR_EVERY_TABLE(fixture)                                                 \
  INSTANTIATE_TEST_SUITE_P(Kernels, fixture, ::testing::ValuesIn(testing::table_names()), \
                           [](const auto& table) { return table.param; })

}  // namespace headwise::testing
