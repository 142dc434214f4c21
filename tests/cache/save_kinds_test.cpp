// SPDX-License-Identifier: MIT
// Real caches, saved and restored from any kind into any other.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/cache/saving_cache.hpp"
#include "tests/support/errors.hpp"

namespace headwise::testing {
namespace {

constexpr Index kLengths[] = {0, 1, 63, 64, 65, 200};

/// A cache of each kind that has room for 200 tokens, none of which it would forget.
std::vector<std::unique_ptr<SavingCache>> every_kind(const SavedModel& model) {
  std::vector<std::unique_ptr<SavingCache>> kinds;
  kinds.push_back(std::make_unique<SavingKvCache>(model, 200, CacheOptions{}));
  kinds.push_back(std::make_unique<SavingKvCache>(model, 1000, CacheOptions{.num_sequences = 2}));
  kinds.push_back(std::make_unique<SavingKvCache>(model, 10, CacheOptions{.num_sequences = 3, .growing = true}));
  kinds.push_back(std::make_unique<SavingKvCache>(model.with_window(150, 4), 200, CacheOptions{.max_append = 256}));
  return kinds;
}

void expect_round_trips(const SavedModel& model) {
  for (const Index length : kLengths) {
    SCOPED_TRACE(::testing::Message() << name_of(model.keys) << " " << name_of(model.values) << " " << length);
    std::string bytes;
    std::vector<float> numbers, attention;
    for (const auto& cache : every_kind(model)) {
      append_tokens(*cache, model, 0, length, 40);
      if (bytes.empty()) {
        bytes = cache->saved();
        numbers = numbers_of(*cache, model, 0, length);
        attention = attention_over(*cache, model, {.window = 100});
      }
      EXPECT_TRUE(cache->saved() == bytes);
    }
    for (const auto& cache : every_kind(model)) {
      append_tokens(*cache, model, 7, 70);  // it held other tokens
      cache->restore(bytes);
      EXPECT_EQ(cache->kept(0).end, length);
      EXPECT_TRUE(cache->saved() == bytes);
      EXPECT_EQ(numbers_of(*cache, model, 0, length), numbers);
      EXPECT_EQ(attention_over(*cache, model, {.window = 100}), attention);
    }
  }
}

TEST(SaveKinds, RestoresTheBitsOfEveryStorageTypeFromEveryKindIntoEveryOther) {
  for (int k = 0; k < kStorages; ++k)
    for (const int v : {k, (k + 3) % kStorages}) {
      SavedModel model;
      model.keys = static_cast<Storage>(k);
      model.values = static_cast<Storage>(v);
      model.hadamard = k % 2 == 1;
      expect_round_trips(model);
    }
}

TEST(SaveKinds, GoesOnAfterARestoreAsIfNothingHadHappened) {
  const SavedModel model{.keys = Storage::int8, .values = Storage::bf16};
  for (std::size_t kind = 0; kind < every_kind(model).size(); ++kind)
    for (const Index length : {0, 10, 64, 127}) {
      const auto whole = std::move(every_kind(model)[kind]), first = std::move(every_kind(model)[kind]),
                 second = std::move(every_kind(model)[kind]);
      append_tokens(*whole, model, 0, 200);
      append_tokens(*first, model, 0, length);
      append_tokens(*second, model, 50, 100);
      second->restore(first->saved());
      append_tokens(*second, model, length, 200 - length);
      EXPECT_TRUE(second->saved() == whole->saved());
    }
}

TEST(SaveKinds, LeavesOtherSequencesAlone) {
  const SavedModel model{.keys = Storage::f16, .values = Storage::int4};
  SavingKvCache cache(model, 10, {.num_sequences = 3, .growing = true});
  for (const Index b : {0, 1}) {
    cache.sequence = b;
    append_tokens(cache, model, 10 * b, 50);
  }
  const std::string first = saved(cache.cache, 0), second = saved(cache.cache, 1);
  SavingKvCache other(model, 200, {});
  append_tokens(other, model, 0, 190);
  restore_bytes(cache.cache, 2, other.saved());
  EXPECT_TRUE(saved(cache.cache, 0) == first);
  EXPECT_TRUE(saved(cache.cache, 1) == second);
  EXPECT_TRUE(saved(cache.cache, 2) == other.saved());
}

TEST(SaveKinds, MakesKeyNormsAnew) {
  const SavedModel model{.keys = Storage::int8, .values = Storage::bf16};
  SavingKvCache cache(model, 200, {.key_norms = true}), plain(model, 200, {}), other(model, 200, {.key_norms = true});
  append_tokens(cache, model, 0, 150, 11);
  append_tokens(plain, model, 0, 150);
  append_tokens(other, model, 30, 60);
  other.restore(plain.saved());
  for (const Index layer : {0, 1, 2})
    for (Index g = 0; g < cache.cache.layer_shape(layer).num_kv_heads; ++g)
      EXPECT_EQ(other.cache.key_norm_squares(layer, 0, g), cache.cache.key_norm_squares(layer, 0, g));
}

TEST(SaveKinds, RefusesWhatHasNoRoomAndChangesNothing) {
  const SavedModel model;
  SavingKvCache source(model, 200, {}), cache(model, 64, {});
  append_tokens(source, model, 0, 65);
  append_tokens(cache, model, 3, 20);
  const std::string before = cache.saved(), bytes = source.saved();
  expect_error([&] { cache.restore(bytes); }, {"65", "max_tokens is 64"});
  EXPECT_TRUE(cache.saved() == before);
}

TEST(SaveKinds, RefusesACacheOfOtherKeyTransforms) {
  SavedModel model{.keys = Storage::int8, .values = Storage::int8}, rotated = model;
  rotated.hadamard = true;
  SavingKvCache plain(model, 100, {}), turned(rotated, 100, {}),
      scaled(model, 100, {.key_channel_scales = {std::vector<float>(48, 2.0f), std::vector<float>(16, 3.0f), {}}});
  for (SavingKvCache* cache : {&plain, &turned, &scaled}) append_tokens(*cache, model, 0, 30);
  const std::string before = plain.saved();
  expect_error([&] { plain.restore(turned.saved()); }, {"Hadamard", "layer 0"});
  expect_error([&] { plain.restore(scaled.saved()); }, {"channel scales", "layer 0"});
  EXPECT_TRUE(plain.saved() == before);
  SavingKvCache same(model, 300,
                     {.key_channel_scales = {std::vector<float>(48, 2.0f), std::vector<float>(16, 3.0f), {}}});
  same.restore(scaled.saved());
  EXPECT_TRUE(same.saved() == scaled.saved());
  EXPECT_EQ(numbers_of(same, model, 0, 30), numbers_of(scaled, model, 0, 30));
}

/// A ring that has forgotten tokens between its sinks and its window.
struct Forgotten {
  SavedModel model = SavedModel{.keys = Storage::int8, .values = Storage::f16}, ring_model = model.with_window(70, 4);
  SavingKvCache ring{ring_model, 1, {.max_append = 16}}, whole{model, 300, {}};

  Forgotten() {
    append_tokens(ring, model, 0, 300, 16);
    append_tokens(whole, model, 0, 300);
  }
};

TEST(SaveKinds, RestoresWhatARingKeptIntoARing) {
  Forgotten forgotten;
  const TokenRange kept = forgotten.ring.kept(0);
  ASSERT_GT(kept.begin, kept.sinks);
  ASSERT_EQ(kept.end, 300);
  const std::string bytes = forgotten.ring.saved();
  EXPECT_LT(bytes.size(), forgotten.whole.saved().size());
  SavingKvCache other(forgotten.ring_model, 1, {.num_sequences = 2, .max_append = 16});
  append_tokens(other, forgotten.model, 5, 90, 16);
  other.restore(bytes);
  EXPECT_EQ(other.kept(0), kept);
  EXPECT_TRUE(other.saved() == bytes);
  const Options window{.window = 70};
  EXPECT_EQ(attention_over(other, forgotten.model, window), attention_over(forgotten.whole, forgotten.model, window));
  // and goes on
  append_tokens(other, forgotten.model, 300, 40, 16);
  append_tokens(forgotten.ring, forgotten.model, 300, 40, 16);
  EXPECT_TRUE(other.saved() == forgotten.ring.saved());
}

TEST(SaveKinds, GivesARingWhatItKeepsOfALongerSequence) {
  Forgotten forgotten;
  for (const Index window : {20, 64, 70, 100}) {
    SavingKvCache ring(forgotten.model.with_window(window, 4), 1, {.max_append = 16});
    ring.restore(forgotten.whole.saved());
    const TokenRange kept = ring.kept(0);
    EXPECT_GT(kept.begin, 0);
    EXPECT_LE(kept.begin, 300 - window);
    EXPECT_GE(kept.sinks, 4);
    EXPECT_EQ(numbers_of(ring, forgotten.model, kept.begin, 300),
              numbers_of(forgotten.whole, forgotten.model, kept.begin, 300));
    EXPECT_EQ(numbers_of(ring, forgotten.model, 0, kept.sinks),
              numbers_of(forgotten.whole, forgotten.model, 0, kept.sinks));
    EXPECT_EQ(attention_over(ring, forgotten.model, {.window = window}),
              attention_over(forgotten.whole, forgotten.model, {.window = window}));
  }
}

TEST(SaveKinds, RefusesARingThatWantsMoreThanIsLeft) {
  Forgotten forgotten;
  SavingKvCache longer(forgotten.model.with_window(200, 4), 1, {.max_append = 16}),
      more_sinks(forgotten.model.with_window(70, 100), 1, {.max_append = 16}),
      norms(forgotten.model, 400, {.key_norms = true});
  const std::string bytes = forgotten.ring.saved();
  for (SavingKvCache* cache : {&longer, &more_sinks, &norms}) {
    append_tokens(*cache, forgotten.model, 3, 20, 16);
    const std::string before = cache->saved();
    expect_error([&] { cache->restore(bytes); }, {"begin"});
    EXPECT_TRUE(cache->saved() == before);
  }
}

TEST(SaveKinds, LetsAContiguousCacheHoldWhatARingHadLeftAndNoMore) {
  Forgotten forgotten;
  SavingKvCache cache(forgotten.model, 320, {});
  cache.restore(forgotten.ring.saved());
  EXPECT_EQ(cache.kept(0), forgotten.ring.kept(0));
  EXPECT_TRUE(cache.saved() == forgotten.ring.saved());
  std::vector<float> key(24);
  expect_error([&] { cache.cache.read_key(0, 0, cache.kept(0).begin - 1, 0, key); }, {"token"});
}

}  // namespace
}  // namespace headwise::testing
