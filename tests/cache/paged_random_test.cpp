// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <cstdio>

#include "headwise/cache/paged_cache.hpp"
#include "tests/cache/paged_operations.hpp"

namespace headwise {
namespace {

const LayerShape kLayers[] = {{2, 6, 3}, {1, 4, 2}, {2, 6, 3}};
const Index kSources[] = {0, 1, 0};

void run(AnyPagedCache& cache, Index operations, unsigned seed) {
  testing::PagedOperations twins(cache, seed);
  for (Index i = 0; i < operations; ++i) {
    twins.step();
    if (i % 500 == 0) twins.check();
    ASSERT_FALSE(::testing::Test::HasFailure()) << "operation " << i;
  }
  twins.check();
  twins.release_all();
  EXPECT_EQ(cache.pages().used, 0);
  EXPECT_EQ(cache.pages().shared, 0);
  cache.clear_prefixes();
  EXPECT_EQ(cache.pages().free, cache.num_pages());
  for (const auto& [name, count] : twins.done) std::printf("%8td  %s\n", count, name.c_str());
  EXPECT_GT(twins.done["match_prefix: found"], 0);
}

TEST(PagedRandom, HundredThousandOperationsGiveWhatVectorsOfRowsGive) {
  PagedCache<float, bf16> cache(kLayers, KvSharing::from_sources(kSources), 24, {.max_sequences = 8});
  run(cache, 100000, 1);
}

TEST(PagedRandom, PagesOfTwoTilesGiveWhatVectorsOfRowsGive) {
  PagedCache<float, f16> cache(kLayers, KvSharing::from_sources(kSources), 12,
                               {.page_tokens = 128, .max_sequences = 9});
  run(cache, 20000, 2);
}

}  // namespace
}  // namespace headwise
