// SPDX-License-Identifier: MIT
// Faults of caches: of room, of moves, of what windows forget.
#include <sstream>

#include "tests/attention/run.hpp"

namespace headwise {
namespace {

using namespace testing;

const Heads<> kHeads(4, 2, 16);

template <class Cache, class Id>
void append(Cache& cache, const Id& id, const Inputs& in, Index first, Index tokens) {
  cache.append(0, id, View<const float>(in.k.data() + first * 32, tokens, 2, 16),
               View<const float>(in.v.data() + first * 32, tokens, 2, 16));
}

/// The last token's results.
template <class Source>
std::vector<float> last_of(const Source& source, const Inputs& in, Index token, const Options& options = {}) {
  std::vector<float> out(64);
  Attention<>{kHeads}(View<const float>(in.q.data() + token * 64, 1, 4, 16), source, View<float>(out.data(), 1, 4, 16),
                      options);
  return out;
}

/// A pool of 8 pages in which each second page is free.
struct Fragmented {
  PagedCache<> cache;
  std::vector<SequenceId> ids;

  explicit Fragmented(const Inputs& in, Storage storage = Storage::f32)
      : cache(kHeads, 8, {.key_storage = storage, .value_storage = storage}) {
    for (int i = 0; i < 8; ++i) {
      ids.push_back(cache.create());
      append(cache, ids.back(), in, 64 * i, 64);
    }
    for (const int i : {6, 4, 2, 0}) {
      cache.release(ids[static_cast<std::size_t>(i)]);
      ids.erase(ids.begin() + i);
    }
  }
};

// llama.cpp 10873: no slot was found for a batch, though as many cells were free, because they did not lie together
TEST(CacheFaults, FreePagesServeAPromptWhereverTheyLie) {
  const Inputs in(kHeads, 1, 512, 512);
  Fragmented pool(in);
  const SequenceId id = pool.cache.create();
  append(pool.cache, id, in, 0, 256);
  EXPECT_EQ(pool.cache.pages().free, 0);
  KvCache<float> contiguous(kHeads, 256, {});
  append(contiguous, 0, in, 0, 256);
  EXPECT_EQ(last_of(pool.cache.layer(0, std::span(&id, 1)), in, 255), last_of(contiguous, in, 255));
}

// llama.cpp 9201: a saved sequence could not be restored where free cells did not lie together
TEST(CacheFaults, ASequenceIsRestoredIntoAFragmentedCache) {
  const Inputs in(kHeads, 1, 512, 512);
  KvCache<float> contiguous(kHeads, 256, {});
  append(contiguous, 0, in, 256, 256);
  std::stringstream file;
  save(contiguous, 0, file);
  Fragmented pool(in);
  const SequenceId id = pool.cache.create();
  restore(pool.cache, id, file);
  EXPECT_EQ(pool.cache.num_tokens(0, id), 256);
  EXPECT_EQ(last_of(pool.cache.layer(0, std::span(&id, 1)), in, 511), last_of(contiguous, in, 511));
}

// llama.cpp 12253: garbage from quantized keys and values once the cache had been defragmented
TEST(CacheFaults, QuantizedSequencesAreTheSameAfterDefragmentation) {
  const Inputs in(kHeads, 1, 512, 512);
  for (const Storage storage : {Storage::int8, Storage::int4, Storage::e4m3, Storage::f16}) {
    Fragmented pool(in, storage);
    append(pool.cache, pool.ids[0], in, 100, 120);  // pages that are apart
    const auto all = [&] {
      std::vector<std::vector<float>> results;
      for (const SequenceId& id : pool.ids) results.push_back(last_of(pool.cache.layer(0, std::span(&id, 1)), in, 300));
      return results;
    };
    const auto before = all();
    EXPECT_GT(pool.cache.defragment(), 0);
    EXPECT_EQ(all(), before) << name_of(storage);
  }
}

/// A ring of a window of 100 after 600 tokens, and a full cache of the same.
struct Windowed {
  KvCache<> ring, full;
  explicit Windowed(const Inputs& in)
      : ring(std::span(&kShape, 1), 1, {.max_append = 50, .key_storage = Storage::f32}),
        full(kHeads, 700, {.key_storage = Storage::f32}) {
    for (Index t = 0; t < 600; t += 50)
      for (KvCache<>* cache : {&ring, &full}) append(*cache, 0, in, t, 50);
  }
  static constexpr LayerShape kShape{2, 16, 16, 100};
};

// llama.cpp 14157: the same request again computed its whole prompt anew, because the window's cache had forgotten it
TEST(CacheFaults, ARingGoesBackWithinWhatItKeepsWithoutTheTextBeforeIt) {
  const Inputs in(kHeads, 1, 700, 700);
  Windowed caches(in);
  const Options window{.window = 100};
  for (const Index back : {1, 17, 50})
    for (KvCache<>* cache : {&caches.ring, &caches.full}) {
      const Index kept = cache->num_tokens() - back;
      cache->truncate(kept);
      append(*cache, 0, in, kept, back);
      EXPECT_EQ(last_of(*cache, in, 599, window), last_of(caches.full, in, 599, window)) << back;
    }
}

// llama.cpp 15082: a part of an old prompt that comes again, elsewhere, was no longer reused
TEST(CacheFaults, APartOfAPromptIsReusedAtItsNewPlace) {
  const Inputs in(kHeads, 1, 300, 300);
  const Rope rope(16);
  KvCache<> cache(kHeads, 300, {.num_sequences = 2, .key_storage = Storage::f32});
  cache.append(0, 0, View<const float>(in.k.data(), 300, 2, 16), View<const float>(in.v.data(), 300, 2, 16), rope);
  KvCache<> anew(kHeads, 300, {.key_storage = Storage::f32});
  cache.copy_range(0, 130, 260, 1, LayerRopes(rope));
  anew.append(0, 0, View<const float>(in.k.data() + 130 * 32, 130, 2, 16),
              View<const float>(in.v.data() + 130 * 32, 130, 2, 16), rope);
  std::vector<float> moved(16), computed(16);
  for (Index t = 0; t < 130; ++t) {
    cache.read_key(0, 1, t, 1, moved);
    anew.read_key(0, 0, t, 1, computed);
    for (std::size_t d = 0; d < 16; ++d) ASSERT_NEAR(moved[d], computed[d], 1e-5) << t;  // turned twice, in f32
    cache.read_value(0, 1, t, 1, moved);
    anew.read_value(0, 0, t, 1, computed);
    ASSERT_EQ(moved, computed);
  }
}

}  // namespace
}  // namespace headwise
