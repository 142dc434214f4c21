// SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "headwise/cache/save.hpp"
#include "tests/cache_cells/model.hpp"

// Every kind of cache with the same functions, so that one test of an operation is a test of all. What a kind lacks it
// lacks here, and the test says why.

namespace headwise::testing {

struct Types {
  Storage keys, values;
  std::string name() const {
    const std::string k(name_of(keys)), v(name_of(values));
    return keys == values ? k : k + "+" + v;
  }
};

/// Kinds that are a KvCache.
class InKvCache {
 public:
  InKvCache(const Types& types, std::vector<LayerShape> layers, const KvSharing& sharing, bool growing)
      : layers_(std::move(layers)),
        cache_(layers_, sharing, growing ? 1 : 600,
               {.num_sequences = kSequences,
                .growing = growing,
                .max_append = 300,
                .key_storage = types.keys,
                .value_storage = types.values}) {}

  const std::vector<LayerShape>& layers() const { return layers_; }
  bool makes(Index layer) const { return cache_.sharing().is_producer(layer); }
  template <class T>
  void append(Index layer, Index sequence, View<T> k, View<T> v) {
    if (in_keys(layer))
      cache_.append(layer, sequence, k);
    else
      cache_.append(layer, sequence, k, v);
  }
  void append(Index layer, Index sequence, View<const float> k, View<const float> v, const Rope& rope) {
    if (in_keys(layer))
      cache_.append(layer, sequence, k, rope);
    else
      cache_.append(layer, sequence, k, v, rope);
  }
  void append_ragged(Index layer, std::span<const Index> offsets, View<const float> k, View<const float> v) {
    if (in_keys(layer))
      cache_.append_ragged(layer, offsets, k);
    else
      cache_.append_ragged(layer, offsets, k, v);
  }
  void truncate(Index sequence, Index tokens) { cache_.truncate(sequence, tokens); }
  void clear(Index sequence) { cache_.clear(sequence); }
  void fork(Index from, Index to) { cache_.fork(from, to); }
  void copy_range(Index from, Index first, Index last, Index to) { cache_.copy_range(from, first, last, to); }
  void evict(Index sequence, Index first, Index last, LayerRopes ropes) { cache_.evict(sequence, first, last, ropes); }
  void reorder(std::span<const Index> parents) { cache_.reorder(parents); }
  void save_to(Index sequence, std::ostream& out) const { save(cache_, sequence, out); }
  void restore_from(Index sequence, std::istream& in) { restore(cache_, sequence, in); }
  void read(Index layer, Index sequence, Index token, Index g, std::span<float> key, std::span<float> value) const {
    cache_.read_key(layer, sequence, token, g, key);
    cache_.read_value(layer, sequence, token, g, value);
  }
  Index num_tokens(Index layer, Index sequence) const { return cache_.num_tokens(layer, sequence); }
  bool keeps(Index layer, Index sequence, Index token) const {
    const TokenRange range = cache_.layer(layer).kept(sequence);
    return token < range.sinks || token >= range.begin;
  }
  Index bytes() const { return cache_.bytes(); }
  Index bytes_used() const { return cache_.bytes_used(); }
  template <class F>
  void with_source(Index layer, F f) const {
    f(cache_.layer(layer));
  }

 private:
  bool in_keys(Index layer) const { return layers_[Model::index(layer)].values_in_keys; }

  std::vector<LayerShape> layers_;
  KvCache<> cache_;
};

struct Contiguous : InKvCache {
  static constexpr const char* kName = "contiguous";
  explicit Contiguous(const Types& types) : InKvCache(types, plain_layers(), KvSharing::none(kLayers), false) {}
};

struct Growing : InKvCache {
  static constexpr const char* kName = "growing";
  explicit Growing(const Types& types) : InKvCache(types, plain_layers(), KvSharing::none(kLayers), true) {}
};

/// Both layers forget: one keeps 70 tokens and 3 sinks, the other 150.
struct Ring : InKvCache {
  static constexpr const char* kName = "ring";
  explicit Ring(const Types& types) : InKvCache(types, ring_layers(), KvSharing::none(kLayers), false) {}
  static std::vector<LayerShape> ring_layers() {
    auto layers = plain_layers();
    layers[0].window = 70;
    layers[0].num_sink_tokens = 3;
    layers[1].window = 150;
    return layers;
  }
};

/// The second layer reads the keys and values of the first.
struct Shared : InKvCache {
  static constexpr const char* kName = "shared";
  explicit Shared(const Types& types) : InKvCache(types, equal_layers(), KvSharing::every(kLayers, 2), false) {}
  static std::vector<LayerShape> equal_layers() {
    return std::vector<LayerShape>(static_cast<std::size_t>(kLayers), plain_layers().front());
  }
};

/// Values are the first dimensions of the keys, and stored as these alone.
struct Latent : InKvCache {
  static constexpr const char* kName = "latent";
  explicit Latent(const Types& types) : InKvCache(types, latent_layers(), KvSharing::none(kLayers), false) {}
};

/// A pool of pages, of which sequence b is ids[b].
class InPages {
 public:
  InPages(const Types& types, const std::vector<LayerShape>& layers)
      : layers_(layers),
        cache_(layers_, 64, {.max_sequences = 8, .key_storage = types.keys, .value_storage = types.values}) {
    for (Index b = 0; b < kSequences; ++b) ids_.push_back(cache_.create());
  }

  const std::vector<LayerShape>& layers() const { return layers_; }
  bool makes(Index) const { return true; }
  template <class T>
  void append(Index layer, Index sequence, View<T> k, View<T> v) {
    if (in_keys(layer))
      cache_.append(layer, id(sequence), k);
    else
      cache_.append(layer, id(sequence), k, v);
  }
  void append(Index layer, Index sequence, View<const float> k, View<const float> v, const Rope& rope) {
    if (in_keys(layer))
      cache_.append(layer, id(sequence), k, rope);
    else
      cache_.append(layer, id(sequence), k, v, rope);
  }
  void append_ragged(Index layer, std::span<const Index> offsets, View<const float> k, View<const float> v) {
    if (in_keys(layer))
      cache_.append_ragged(layer, ids_, offsets, k);
    else
      cache_.append_ragged(layer, ids_, offsets, k, v);
  }
  void truncate(Index sequence, Index tokens) { cache_.truncate(id(sequence), tokens); }
  void clear(Index sequence) { cache_.clear(id(sequence)); }
  void fork(Index from, Index to) {
    const SequenceId child = cache_.fork(id(from));
    cache_.release(id(to));
    ids_[Model::index(to)] = child;
  }
  void copy_range(Index from, Index first, Index last, Index to) { cache_.copy_range(id(from), first, last, id(to)); }
  void evict(Index sequence, Index first, Index last, LayerRopes ropes) {
    cache_.evict(id(sequence), first, last, ropes);
  }
  void reorder(std::span<const Index> parents) { cache_.reorder(ids_, parents); }
  void defragment() { cache_.defragment(); }
  void save_to(Index sequence, std::ostream& out) { save(cache_, id(sequence), out); }
  void restore_from(Index sequence, std::istream& in) { restore(cache_, id(sequence), in); }
  void read(Index layer, Index sequence, Index token, Index g, std::span<float> key, std::span<float> value) const {
    cache_.read_key(layer, ids_[Model::index(sequence)], token, g, key);
    cache_.read_value(layer, ids_[Model::index(sequence)], token, g, value);
  }
  Index num_tokens(Index layer, Index sequence) const { return cache_.num_tokens(layer, ids_[Model::index(sequence)]); }
  bool keeps(Index, Index, Index) const { return true; }
  Index bytes() const { return cache_.bytes(); }
  Index bytes_used() const { return cache_.pages().used * cache_.page_bytes(); }
  template <class F>
  void with_source(Index layer, F f) const {
    f(cache_.layer(layer, ids_));
  }

 private:
  bool in_keys(Index layer) const { return layers_[Model::index(layer)].values_in_keys; }
  const SequenceId& id(Index sequence) const { return ids_[Model::index(sequence)]; }

  std::vector<LayerShape> layers_;
  PagedCache<> cache_;
  std::vector<SequenceId> ids_;
};

struct Paged : InPages {
  static constexpr const char* kName = "paged";
  explicit Paged(const Types& types) : InPages(types, plain_layers()) {}
};

struct LatentPaged : InPages {
  static constexpr const char* kName = "latent_paged";
  explicit LatentPaged(const Types& types) : InPages(types, latent_layers()) {}
};

}  // namespace headwise::testing
