// SPDX-License-Identifier: MIT
#include "headwise/cost/step.hpp"

#include <algorithm>
#include <limits>
#include <set>

#include "tests/support/errors.hpp"

namespace headwise::cost {
namespace {

using testing::expect_error;

TEST(CausalPairs, AreThoseThatAMaskOfEveryPairLeaves) {
  for (Index tokens = 1; tokens <= 9; ++tokens)
    for (Index past = 0; past <= 9; ++past)
      for (Index window = 0; window <= 20; ++window) {
        Index in_window = 0, all = 0;
        std::set<Index> keys_in_window;
        for (Index query = past; query < past + tokens; ++query)
          for (Index key = 0; key < past + tokens; ++key) {
            if (key > query) continue;
            ++all;
            if (key <= query - window) continue;
            ++in_window;
            keys_in_window.insert(key);
          }
        ASSERT_EQ(causal_pairs(tokens, past), all) << tokens << " " << past;
        ASSERT_EQ(causal_pairs(tokens, past, window), in_window) << tokens << " " << past << " " << window;
        ASSERT_EQ(visible_keys(tokens, past), past + tokens);
        ASSERT_EQ(visible_keys(tokens, past, window), std::ssize(keys_in_window))
            << tokens << " " << past << " " << window;
      }
}

TEST(CausalPairs, AreExactNextToTheLargestIndex) {
  constexpr Index kTokens = 4'294'967'295;  // 2³² − 1: its triangle is 2⁶³ − 2³¹
  EXPECT_EQ(causal_pairs(kTokens, 0), std::numeric_limits<Index>::max() - 2'147'483'647);
  expect_error([] { causal_pairs(kTokens + 1, 0); }, {"pairs", "below 2^63"});
  EXPECT_EQ(causal_pairs(1, std::numeric_limits<Index>::max() - 1, 7), 7);
  EXPECT_EQ(visible_keys(1, 5, std::numeric_limits<Index>::max()), 6);
}

}  // namespace
}  // namespace headwise::cost
