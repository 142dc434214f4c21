// SPDX-License-Identifier: MIT
// Attention allocates nothing after the first call of its size, which counted_new.hpp sees for the whole test program,
// except where a sanitizer brings its own operator new.
#include "tests/support/sanitizers.hpp"

#if !defined(HEADWISE_TEST_ASAN) && !defined(HEADWISE_TEST_TSAN)
#include <gtest/gtest.h>

#include <array>

#include "tests/attention/run.hpp"
#include "tests/support/counted_new.hpp"

namespace headwise {
namespace {

using namespace testing;

TEST(Allocation, OfTheFirstCallAreSeenByTheCounter) {
  const long before = allocations;
  const Inputs in({8, 2, 64}, 1, 1, 10);
  EXPECT_GT(allocations, before);
}

TEST(Allocation, DecodingMakesNoneAfterTheFirstCall) {
  const Inputs in({8, 2, 64}, 2, 1, 2100);
  std::vector<float> out(2 * 8 * 64), lse(2 * 8);
  const View<const float> q(in.q.data(), 2, 1, 8, 64);
  const Outputs outputs{View<float>(out.data(), 2, 1, 8, 64), View<float>(lse.data(), 2, 1, 8, 1)};
  const Gqa<8, 2, 64> attend;
  for (const Storage storage : kAllStorages)
    for (const Source source : {Source::cache, Source::packed_rows})
      with_source(in, {.source = source, .storage = storage}, [&](const auto& kv) {
        attend(q, kv, outputs);
        const long before = allocations;
        for (int step = 0; step < 10; ++step) attend(q, kv, outputs, {.window = 100 * step, .softcap = 3.0f});
        attend(q, kv, outputs);
        EXPECT_EQ(allocations, before) << testing::name_of(source) << " of " << headwise::name_of(storage);
      });
}

TEST(Allocation, GroupsThatChangeFromCallToCallMakeNone) {
  const Inputs in({8, 2, 64}, 2, 1, 2100);
  std::vector<float> out(2 * 8 * 64);
  const View<const float> q(in.q.data(), 2, 1, 8, 64);
  const Gqa<8, 2, 64> attend;
  const auto of_both = [](Index a, Index b) { return std::array<Index, 6>{0, a, 8, 0, b, 8}; };
  for (const Source source : {Source::cache, Source::packed_rows})
    with_source(in, {.source = source, .storage = Storage::bf16}, [&](const auto& kv) {
      const auto call = [&](Index a, Index b) {
        const auto boundaries = of_both(a, b);
        attend(q, kv, View<float>(out.data(), 2, 1, 8, 64), {.group_boundaries = boundaries});
      };
      call(0, 8);  // the largest group: all memory that any other needs
      const long before = allocations;
      for (Index first = 0; first <= 8; ++first) call(first, 8 - first);
      EXPECT_EQ(allocations, before) << testing::name_of(source);
    });
}

TEST(Allocation, AppendingATokenMakesNone) {
  KvCache<bf16> cache(Heads<>{8, 2, 64}, 300);
  const std::vector<float> token(2 * 64, 1.0f);
  const View<const float> row(token.data(), 1, 2, 64);
  const long before = allocations;
  for (int t = 0; t < 300; ++t) cache.append(row, row);
  EXPECT_EQ(allocations, before);
}

}  // namespace
}  // namespace headwise
#endif
