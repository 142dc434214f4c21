// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "headwise/attention/attention.hpp"
#include "headwise/cache/kv_cache.hpp"
#include "headwise/cache/save.hpp"
#include "tests/cache/cache_contents.hpp"
#include "tests/cache/saved_bytes.hpp"

namespace headwise::testing {

/// A model of layers that differ, of which one borrows.
struct SavedModel {
  std::vector<LayerShape> layers{{2, 24, 17}, {1, 16, 40}, {1, 16, 40}};
  KvSharing sharing = KvSharing::from_sources(std::vector<Index>{0, 1, 1});
  Storage keys = Storage::f32, values = Storage::f32;
  bool hadamard = false;

  SavedModel with_window(Index window, Index sinks) const {
    SavedModel result = *this;
    for (LayerShape& layer : result.layers) layer.window = window, layer.num_sink_tokens = sinks;
    return result;
  }
  LayerShape producer(Index layer) const { return layers[static_cast<std::size_t>(sharing.source(layer))]; }
};

/// One sequence of a cache of some kind.
class SavingCache {
 public:
  virtual ~SavingCache() = default;
  virtual void append(Index layer, View<const float> k, View<const float> v) = 0;
  virtual std::string saved() const = 0;
  virtual void restore(const std::string& bytes) = 0;
  virtual TokenRange kept(Index storage) const = 0;
  virtual void read(Index layer, Index token, Index kv_head, std::span<float> key, std::span<float> value) const = 0;
  /// Attention of one query over a layer: q [head][head_dim] → [head][value_dim], two query heads for each KV head.
  virtual std::vector<float> attend(Index layer, const std::vector<float>& q, const Options& options) const = 0;
};

/// attend() where the sequence is number `sequence` of the source.
template <class Source>
std::vector<float> attend_one(const Source& source, Index sequence, const std::vector<float>& q,
                              const Options& options) {
  const TileFormat format = source.format();
  const Index heads = 2 * format.num_kv_heads, count = source.num_sequences();
  std::vector<float> all(static_cast<std::size_t>(count) * q.size(), 0.5f);
  std::copy(q.begin(), q.end(), all.begin() + sequence * std::ssize(q));
  std::vector<float> out(static_cast<std::size_t>(count * heads * format.value_dim));
  const Attention<Heads<>> attention(Heads<>{heads, format.num_kv_heads, format.head_dim, format.value_dim});
  attention(View<const float>(all.data(), count, 1, heads, format.head_dim), source,
            View<float>(out.data(), count, 1, heads, format.value_dim), options);
  const auto begin = out.begin() + sequence * heads * format.value_dim;
  return {begin, begin + heads * format.value_dim};
}

/// The last sequence of a KvCache.
class SavingKvCache : public SavingCache {
 public:
  SavingKvCache(const SavedModel& model, Index max_tokens, CacheOptions options)
      : cache(model.layers, model.sharing, max_tokens, with(model, std::move(options))),
        sequence(cache.num_sequences() - 1) {}

  void append(Index layer, View<const float> k, View<const float> v) override { cache.append(layer, sequence, k, v); }
  std::string saved() const override { return testing::saved(cache, sequence); }
  void restore(const std::string& bytes) override { restore_bytes(cache, sequence, bytes); }
  TokenRange kept(Index storage) const override { return cache.kept(storage, sequence); }
  void read(Index layer, Index token, Index kv_head, std::span<float> key, std::span<float> value) const override {
    cache.read_key(layer, sequence, token, kv_head, key);
    cache.read_value(layer, sequence, token, kv_head, value);
  }
  std::vector<float> attend(Index layer, const std::vector<float>& q, const Options& options) const override {
    return attend_one(cache.layer(layer), sequence, q, options);
  }

  KvCache<> cache;
  Index sequence;

 private:
  static CacheOptions with(const SavedModel& model, CacheOptions options) {
    options.key_storage = model.keys;
    options.value_storage = model.values;
    options.hadamard_keys = model.hadamard;
    return options;
  }
};

/// Appends random tokens [first, first + count) of a stream of them, `piece` at a time.
inline void append_tokens(SavingCache& cache, const SavedModel& model, Index first, Index count, Index piece = 1000) {
  for (Index layer = 0; layer < std::ssize(model.layers); ++layer) {
    if (!model.sharing.is_producer(layer)) continue;
    const auto [heads, dim, value_dim, window, sinks, values_in_keys] = model.producer(layer);
    const auto seed = static_cast<unsigned>(layer);
    const auto k = random_numbers((first + count) * heads * dim, 1 + seed);
    const auto v = random_numbers((first + count) * heads * value_dim, 100 + seed);
    for (Index done = first; done < first + count;) {
      const Index tokens = std::min(piece, first + count - done);
      cache.append(layer, View<const float>(k.data() + done * heads * dim, 1, tokens, heads, dim),
                   View<const float>(v.data() + done * heads * value_dim, 1, tokens, heads, value_dim));
      done += tokens;
    }
  }
}

/// All numbers that a cache holds of tokens first … last − 1, as they are read back.
inline std::vector<float> numbers_of(const SavingCache& cache, const SavedModel& model, Index first, Index last) {
  std::vector<float> result;
  for (Index layer = 0; layer < std::ssize(model.layers); ++layer) {
    const auto [heads, dim, value_dim, window, sinks, values_in_keys] = model.producer(layer);
    std::vector<float> key(static_cast<std::size_t>(dim)), value(static_cast<std::size_t>(value_dim));
    for (Index token = first; token < last; ++token)
      for (Index g = 0; g < heads; ++g) {
        cache.read(layer, token, g, key, value);
        result.insert(result.end(), key.begin(), key.end());
        result.insert(result.end(), value.begin(), value.end());
      }
  }
  return result;
}

/// Attention over every layer, with the same queries for every cache.
inline std::vector<float> attention_over(const SavingCache& cache, const SavedModel& model, const Options& options) {
  std::vector<float> result;
  for (Index layer = 0; layer < std::ssize(model.layers); ++layer) {
    const LayerShape shape = model.producer(layer);
    const auto out = cache.attend(layer, random_numbers(2 * shape.num_kv_heads * shape.head_dim, 7), options);
    result.insert(result.end(), out.begin(), out.end());
  }
  return result;
}

}  // namespace headwise::testing
