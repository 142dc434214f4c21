// SPDX-License-Identifier: MIT
#include "generate/prompt_lookup.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

namespace generate {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::vector<TokenId> draft(const std::vector<TokenId>& text, Index longest_ngram, Index most) {
  return look_up_draft(text, longest_ngram, most);
}

TEST(PromptLookup, DraftsWhatFollowedTheLastTokensBefore) {
  EXPECT_THAT(draft({1, 2, 3, 4, 5, 6, 1, 2}, 2, 3), ElementsAre(3, 4, 5));
}

TEST(PromptLookup, PrefersTheLongestNgram) {
  const std::vector<TokenId> text = {7, 8, 9, 1, 0, 8, 9, 2, 0, 9, 3, 0, 7, 8, 9};
  EXPECT_THAT(draft(text, 3, 1), ElementsAre(1));
  EXPECT_THAT(draft(text, 2, 1), ElementsAre(2));
  EXPECT_THAT(draft(text, 1, 1), ElementsAre(3));
  EXPECT_THAT(draft(text, 100, 1), ElementsAre(1));
}

TEST(PromptLookup, PrefersTheLatestOfEquals) { EXPECT_THAT(draft({5, 1, 0, 5, 2, 0, 5}, 1, 1), ElementsAre(2)); }

TEST(PromptLookup, DraftsNothingWhereNoTokenStoodBefore) {
  EXPECT_THAT(draft({1, 2, 3}, 3, 5), IsEmpty());
  EXPECT_THAT(draft({1}, 3, 5), IsEmpty());
  EXPECT_THAT(draft({}, 3, 5), IsEmpty());
}

TEST(PromptLookup, DraftsNothingWhereNothingIsAskedFor) { EXPECT_THAT(draft({1, 1, 1}, 2, 0), IsEmpty()); }

TEST(PromptLookup, GoesOnWithItsOwnBeginningAtTheEndOfTheText) {
  EXPECT_THAT(draft({9, 1, 2, 3, 1, 2, 3}, 3, 7), ElementsAre(1, 2, 3, 1, 2, 3, 1));
  EXPECT_THAT(draft({4, 4}, 8, 4), ElementsAre(4, 4, 4, 4));
}

TEST(PromptLookup, RefusesImpossibleCounts) {
  EXPECT_THROW(draft({1, 2}, 0, 1), std::invalid_argument);
  EXPECT_THROW(draft({1, 2}, 1, -1), std::invalid_argument);
}

/// By trying every length and place.
std::vector<TokenId> naive_draft(std::vector<TokenId> text, std::size_t longest_ngram, std::size_t most) {
  for (std::size_t length = std::min(longest_ngram, text.size()); length >= 1; --length)
    for (std::size_t begin = text.size(); begin-- > 0;) {
      if (begin + length >= text.size()) continue;
      if (!std::equal(text.end() - static_cast<Index>(length), text.end(), text.begin() + static_cast<Index>(begin)))
        continue;
      const std::size_t before = text.size();
      for (std::size_t i = 0; i < most; ++i) text.push_back(text[begin + length + i]);
      return {text.begin() + static_cast<Index>(before), text.end()};
    }
  return {};
}

TEST(PromptLookup, IsWhatTryingEveryPlaceFinds) {
  std::mt19937 random(5);
  for (int round = 0; round < 3000; ++round) {
    std::vector<TokenId> text(random() % 24);
    for (TokenId& token : text) token = static_cast<TokenId>(random() % 3);
    const std::size_t longest = 1 + random() % 5, most = random() % 9;
    ASSERT_EQ(draft(text, static_cast<Index>(longest), static_cast<Index>(most)), naive_draft(text, longest, most))
        << testing::PrintToString(text);
  }
}

}  // namespace
}  // namespace generate
