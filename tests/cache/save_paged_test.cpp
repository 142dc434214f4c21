// SPDX-License-Identifier: MIT
// Sequences of a PagedCache, saved and restored from and into caches of every kind.
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "headwise/cache/paged_cache.hpp"
#include "tests/cache/saving_cache.hpp"
#include "tests/support/errors.hpp"

namespace headwise::testing {
namespace {

/// A sequence of a PagedCache.
class SavingPagedCache : public SavingCache {
 public:
  SavingPagedCache(const SavedModel& model, Index pages, Index page_tokens)
      : cache(model.layers, model.sharing, pages, with(model, page_tokens)), id(cache.create()) {}

  void append(Index layer, View<const float> k, View<const float> v) override { cache.append(layer, id, k, v); }
  std::string saved() const override {
    std::ostringstream stream;
    save(cache, id, stream);
    return std::move(stream).str();
  }
  void restore(const std::string& bytes) override {
    std::istringstream stream(bytes);
    headwise::restore(cache, id, stream);
  }
  TokenRange kept(Index storage) const override { return cache.store(std::span(&id, 1)).kept(storage, 0); }
  void read(Index layer, Index token, Index kv_head, std::span<float> key, std::span<float> value) const override {
    cache.read_key(layer, id, token, kv_head, key);
    cache.read_value(layer, id, token, kv_head, value);
  }
  std::vector<float> attend(Index layer, const std::vector<float>& q, const Options& options) const override {
    return attend_one(cache.layer(layer, std::span(&id, 1)), 0, q, options);
  }

  mutable PagedCache<> cache;
  SequenceId id;

 private:
  static PagedOptions with(const SavedModel& model, Index page_tokens) {
    PagedOptions options{.page_tokens = page_tokens};
    options.key_storage = model.keys;
    options.value_storage = model.values;
    options.hadamard_keys = model.hadamard;
    return options;
  }
};

TEST(SavePaged, RestoresTheBitsOfEveryStorageTypeFromAndIntoPagesOfAnySizeAndAContiguousCache) {
  for (int k = 0; k < kStorages; ++k)
    for (const int v : {k, (k + 3) % kStorages}) {
      const SavedModel model{.keys = static_cast<Storage>(k), .values = static_cast<Storage>(v), .hadamard = v == k};
      for (const Index length : {0, 1, 63, 64, 65, 200}) {
        SCOPED_TRACE(::testing::Message() << name_of(model.keys) << " " << name_of(model.values) << " " << length);
        SavingKvCache whole(model, 200, {});
        SavingPagedCache source(model, 4, 64);
        append_tokens(whole, model, 0, length);
        append_tokens(source, model, 0, length, 30);
        const std::string bytes = source.saved();
        EXPECT_TRUE(bytes == whole.saved());

        SavingPagedCache other(model, 3, 192);
        append_tokens(other, model, 7, 70);  // it held other tokens
        other.restore(bytes);
        EXPECT_TRUE(other.saved() == bytes);
        EXPECT_EQ(other.cache.num_pages(other.id), ceil_div(length, 192));
        EXPECT_EQ(numbers_of(other, model, 0, length), numbers_of(whole, model, 0, length));
        EXPECT_EQ(attention_over(other, model, {}), attention_over(whole, model, {}));
        SavingKvCache contiguous(model, 300, {});
        contiguous.restore(bytes);
        EXPECT_TRUE(contiguous.saved() == bytes);
      }
    }
}

TEST(SavePaged, RestoresIntoWhateverPagesAreFree) {
  const SavedModel model{.keys = Storage::int8, .values = Storage::bf16};
  SavingPagedCache source(model, 4, 64);
  append_tokens(source, model, 0, 200);
  // every other page of a full pool becomes free
  SavingPagedCache pool(model, 8, 64);
  std::vector<SequenceId> ids;
  for (int i = 0; i < 8; ++i) {
    ids.push_back(pool.cache.create());
    pool.id = ids.back();
    append_tokens(pool, model, 10 * i, 64);
  }
  for (std::size_t i = 0; i < 8; i += 2) pool.cache.release(ids[i]);
  pool.id = ids[3];
  const std::string neighbour = pool.saved();
  pool.id = pool.cache.create();
  pool.restore(source.saved());
  EXPECT_TRUE(pool.saved() == source.saved());
  EXPECT_EQ(attention_over(pool, model, {}), attention_over(source, model, {}));
  pool.id = ids[3];
  EXPECT_TRUE(pool.saved() == neighbour);
}

TEST(SavePaged, ChangesNothingWhereThereAreTooFewPages) {
  const SavedModel model;
  SavingPagedCache source(model, 4, 64), pool(model, 3, 64);
  append_tokens(source, model, 0, 200);
  append_tokens(pool, model, 5, 70);
  const std::string before = pool.saved();
  const PageCounts counts = pool.cache.pages();
  EXPECT_THROW(pool.restore(source.saved()), OutOfPages);
  EXPECT_TRUE(pool.saved() == before);
  EXPECT_EQ(pool.cache.pages().free, counts.free);
}

TEST(SavePaged, LeavesTheSequencesAloneThatSharePagesWithTheRestoredOne) {
  const SavedModel model{.keys = Storage::f16, .values = Storage::f16};
  SavingPagedCache source(model, 4, 64), pool(model, 8, 64);
  append_tokens(source, model, 20, 100);
  append_tokens(pool, model, 0, 150);
  const std::string before = pool.saved();
  const SequenceId parent = pool.id;
  pool.id = pool.cache.fork(parent);
  pool.restore(source.saved());
  EXPECT_TRUE(pool.saved() == source.saved());
  pool.id = parent;
  EXPECT_TRUE(pool.saved() == before);
}

TEST(SavePaged, SavesASequenceToAFileAndBack) {
  const SavedModel model;
  SavingPagedCache source(model, 4, 64), other(model, 4, 64);
  append_tokens(source, model, 0, 100);
  const TemporaryPath temporary;
  const std::filesystem::path path = temporary.string();
  save(source.cache, source.id, path);
  restore(other.cache, other.id, path);
  EXPECT_TRUE(other.saved() == source.saved());
}

TEST(SavePaged, RefusesASequenceThatARingHadForgottenSomeOf) {
  const SavedModel model;
  SavingKvCache ring(model.with_window(70, 4), 1, {.max_append = 16});
  append_tokens(ring, model, 0, 300, 16);
  SavingPagedCache pool(model, 8, 64);
  append_tokens(pool, model, 0, 20);
  const std::string before = pool.saved();
  expect_error([&] { pool.restore(ring.saved()); }, {"must have no gap"});
  EXPECT_TRUE(pool.saved() == before);
}

TEST(SavePaged, RefusesASequenceThatWasReleased) {
  const SavedModel model;
  SavingPagedCache pool(model, 4, 64);
  const std::string bytes = pool.saved();
  pool.cache.release(pool.id);
  expect_error([&] { pool.restore(bytes); }, {"sequence"});
  expect_error([&] { pool.saved(); }, {"sequence"});
}

TEST(SavePaged, GivesARingWhatItKeepsOfPages) {
  const SavedModel model;
  SavingPagedCache source(model, 8, 64);
  append_tokens(source, model, 0, 300);
  SavingKvCache ring(model.with_window(70, 4), 1, {.max_append = 16});
  ring.restore(source.saved());
  EXPECT_EQ(attention_over(ring, model, {.window = 70}), attention_over(source, model, {.window = 70}));
}

}  // namespace
}  // namespace headwise::testing
