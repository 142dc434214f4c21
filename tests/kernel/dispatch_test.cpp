// SPDX-License-Identifier: MIT
#include "headwise/kernel/dispatch.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "tests/support/errors.hpp"

namespace headwise {
namespace {

TEST(Dispatch, TheBaselineOfTheArchitectureAlwaysRuns) {
#if defined(__aarch64__)
  EXPECT_EQ(available_isas().back(), Isa::neon);
#else
  EXPECT_EQ(available_isas().back(), Isa::baseline);
#endif
}

TEST(Dispatch, TheEnvironmentOrElseTheBestIsaIsUsed) {
  const char* name = std::getenv("HEADWISE_ISA");
  if (name && *name)
    EXPECT_EQ(name_of(current_isa()), name);
  else
    EXPECT_EQ(current_isa(), available_isas().front());
}

TEST(Dispatch, SetIsaChangesWhatRuns) {
  const Isa before = current_isa();
  for (const Isa isa : available_isas()) {
    set_isa(isa);
    EXPECT_EQ(current_isa(), isa);
    EXPECT_EQ(detail::tile_kernels().isa, isa);
  }
  set_isa(before);
}

TEST(Dispatch, AnIsaThatTheCpuLacksIsRefusedByNameAndNothingChanges) {
  const Isa before = current_isa();
  const std::vector<Isa> available = available_isas();
  int lacking = 0;
  for (const Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512, Isa::avx512vnni, Isa::avx512bf16, Isa::neon}) {
    if (std::find(available.begin(), available.end(), isa) != available.end()) continue;
    ++lacking;
    testing::expect_error([&] { set_isa(isa); },
                          {"isa (" + std::string(name_of(isa)) + ")", name_of(available.back())});
    EXPECT_EQ(current_isa(), before);
  }
  EXPECT_GE(lacking, 1);  // no CPU has both avx2 and neon
}

TEST(DispatchDeathTest, AnUnknownNameInTheEnvironmentIsAnError) {
#if defined(__aarch64__)
  GTEST_SKIP() << "skipped: starts its own program again, which it cannot under the emulator that runs it";
#endif
  // a fresh process: the variable is read once, at first use
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        setenv("HEADWISE_ISA", "sse9", 1);
        const std::string message = testing::error_of([] { current_isa(); });
        std::exit(message.find("HEADWISE_ISA (sse9)") != std::string::npos ? 0 : 1);
      },
      ::testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace headwise
