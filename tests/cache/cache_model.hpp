// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "headwise/cache/kv_cache.hpp"
#include "tests/cache/cache_contents.hpp"

// What a KvCache should hold, as plain vectors.

namespace headwise::testing {

/// One token of a layer: keys [kv_head][head_dim] and values [kv_head][value_dim] as they are read back, and whether a
/// ring may have forgotten it.
struct ModelToken {
  std::vector<float> key, value;
};
using ModelSequence = std::vector<ModelToken>;

/// Rows as a cache of the same storage and transform reads them back when it holds nothing else.
class Rounding {
 public:
  Rounding(const LayerShape& shape, const CacheOptions& options)
      : shape_{shape.num_kv_heads, shape.head_dim, shape.value_dim == 0 ? shape.head_dim : shape.value_dim},
        cache_(std::span<const LayerShape>(&shape_, 1), 1, only(options)) {}

  ModelToken operator()(const std::vector<float>& key, const std::vector<float>& value) {
    cache_.clear();
    cache_.append(View<const float>(key.data(), 1, shape_.num_kv_heads, shape_.head_dim),
                  View<const float>(value.data(), 1, shape_.num_kv_heads, shape_.value_dim));
    ModelToken token{key, value};
    for (Index g = 0; g < shape_.num_kv_heads; ++g) {
      cache_.read_key(0, 0, 0, g, std::span(token.key).subspan(at(g * shape_.head_dim), at(shape_.head_dim)));
      cache_.read_value(0, 0, 0, g, std::span(token.value).subspan(at(g * shape_.value_dim), at(shape_.value_dim)));
    }
    return token;
  }

 private:
  static std::size_t at(Index i) { return static_cast<std::size_t>(i); }
  static CacheOptions only(const CacheOptions& options) {
    CacheOptions result;
    result.key_storage = options.key_storage;
    result.value_storage = options.value_storage;
    return result;
  }
  LayerShape shape_;
  KvCache<> cache_;
};

/// A cache without a transform, and its model: operations are done to both.
class ModelledCache {
 public:
  ModelledCache(std::vector<LayerShape> layers, Index max_tokens, CacheOptions options)
      : cache(layers, max_tokens, options),
        sequences(layers.size(), std::vector<ModelSequence>(size(options.num_sequences))) {
    for (const LayerShape& shape : layers) rounding_.emplace_back(shape, options);
    bytes_ = cache.bytes();
  }

  static std::size_t size(Index i) { return static_cast<std::size_t>(i); }
  ModelSequence& at(Index layer, Index b) { return sequences[size(layer)][size(b)]; }

  /// Random rows, [token][kv_head][dim].
  void append(Index layer, Index b, Index count) {
    const LayerShape s = cache.layer_shape(layer);
    const auto k = random_numbers(count * s.num_kv_heads * s.head_dim, ++seed_);
    const auto v = random_numbers(count * s.num_kv_heads * s.value_dim, ++seed_);
    cache.append(layer, b, View<const float>(k.data(), count, s.num_kv_heads, s.head_dim),
                 View<const float>(v.data(), count, s.num_kv_heads, s.value_dim));
    remember(layer, b, k, v, count);
  }
  void remember(Index layer, Index b, const std::vector<float>& k, const std::vector<float>& v, Index count) {
    const LayerShape s = cache.layer_shape(layer);
    const auto key_size = s.num_kv_heads * s.head_dim, value_size = s.num_kv_heads * s.value_dim;
    for (Index t = 0; t < count; ++t)
      at(layer, b).push_back(rounding_[size(layer)]({k.begin() + t * key_size, k.begin() + (t + 1) * key_size},
                                                    {v.begin() + t * value_size, v.begin() + (t + 1) * value_size}));
  }

  /// Keys of [first, end) of a model sequence, turned by `distance` tokens and stored anew.
  void turn(Index layer, ModelSequence& tokens, Index first, Index distance, const Rope& rope) {
    const LayerShape s = cache.layer_shape(layer);
    const RopeTurn turn = rope.turn_between(distance);
    for (Index t = first; t < std::ssize(tokens); ++t) {
      ModelToken& token = tokens[size(t)];
      for (Index g = 0; g < s.num_kv_heads; ++g) rope.apply(turn, token.key.data() + g * s.head_dim);
      token.key = rounding_[size(layer)](token.key, token.value).key;
    }
  }
  void evict(Index b, Index first, Index last, const Rope* rope = nullptr) {
    if (rope)
      cache.evict(b, first, last, *rope);
    else
      cache.evict(b, first, last);
    for (Index layer = 0; layer < cache.num_layers(); ++layer) {
      ModelSequence& tokens = at(layer, b);
      tokens.erase(tokens.begin() + first, tokens.begin() + last);
      if (rope && first < last) turn(layer, tokens, first, first - last, *rope);
    }
  }
  void copy_range(Index from, Index first, Index last, Index to, const Rope* rope = nullptr) {
    if (rope)
      cache.copy_range(from, first, last, to, *rope);
    else
      cache.copy_range(from, first, last, to);
    for (Index layer = 0; layer < cache.num_layers(); ++layer) {
      const ModelSequence& source = at(layer, from);
      ModelSequence& target = at(layer, to);
      const Index stored = std::ssize(target);
      target.insert(target.end(), source.begin() + first, source.begin() + last);
      if (rope) turn(layer, target, stored, stored - first, *rope);
    }
  }
  void fork(Index from, Index to) {
    cache.fork(from, to);
    for (auto& layer : sequences) layer[size(to)] = ModelSequence(layer[size(from)]);
  }
  void truncate(Index b, Index tokens) {
    cache.truncate(b, tokens);
    for (auto& layer : sequences) layer[size(b)].resize(std::min(layer[size(b)].size(), size(tokens)));
  }

  /// Every token that is kept, and that what must be kept is; that other slots of its tiles are zero; norms and counters.
  void expect() {
    Index used = 0;
    for (Index layer = 0; layer < cache.num_layers(); ++layer)
      for (Index b = 0; b < cache.num_sequences(); ++b) {
        SCOPED_TRACE("layer " + std::to_string(layer) + ", sequence " + std::to_string(b));
        expect_sequence(layer, b);
        if (::testing::Test::HasFatalFailure()) return;
        for_each_tile(cache.layer(layer).kept(b), [&](Index) {
          used += cache.layer_shape(layer).num_kv_heads * cache.layer(layer).format().bytes();
        });
      }
    EXPECT_EQ(cache.bytes_used(), used);
    if (cache.layer_shape(0).window > 0) {
      EXPECT_EQ(cache.bytes(), bytes_);
    }
  }

  KvCache<> cache;
  std::vector<std::vector<ModelSequence>> sequences;  // [layer][sequence][token]

 private:
  void expect_sequence(Index layer, Index b) {
    const LayerShape s = cache.layer_shape(layer);
    const ModelSequence& tokens = at(layer, b);
    ASSERT_EQ(cache.num_tokens(layer, b), std::ssize(tokens));
    const TokenRange kept = cache.layer(layer).kept(b);
    ASSERT_EQ(kept.end, std::ssize(tokens));
    ASSERT_TRUE(0 <= kept.sinks && kept.sinks <= kept.begin && kept.begin <= kept.end);
    const Index must = s.window > 0 ? std::max<Index>(0, kept.end - s.window) : 0;
    ASSERT_LE(kept.begin, must);
    if (kept.begin > 0) {
      ASSERT_GE(kept.sinks, s.num_sink_tokens);
    }
    std::vector<float> key(size(s.head_dim)), value(size(s.value_dim));
    const auto source = cache.layer(layer);
    for_each_tile(kept, [&](Index i) {
      for (Index g = 0; g < s.num_kv_heads; ++g) {
        const TilePointers tile = source.tile(b, g, i);
        for (Index slot = 0; slot < kTileTokens; ++slot) {
          const Index t = i * kTileTokens + slot;
          if (t < kept.sinks || (t >= kept.begin && t < kept.end)) {
            cache.read_key(layer, b, t, g, key);
            cache.read_value(layer, b, t, g, value);
            const ModelToken& want = tokens[size(t)];
            ASSERT_TRUE(std::equal(key.begin(), key.end(), want.key.begin() + g * s.head_dim)) << t;
            ASSERT_TRUE(std::equal(value.begin(), value.end(), want.value.begin() + g * s.value_dim)) << t;
          } else {
            detail::read_stored_key(source.format(), static_cast<const std::byte*>(tile.keys), slot, key.data());
            detail::read_stored_value(source.format(), static_cast<const std::byte*>(tile.keys), slot, value.data());
            for (const float x : key) ASSERT_EQ(x, 0.0f) << "slot of no token " << t;
            for (const float x : value) ASSERT_EQ(x, 0.0f) << "slot of no token " << t;
          }
        }
      }
    });
  }

  std::vector<Rounding> rounding_;  // [layer]
  unsigned seed_ = 0;
  Index bytes_ = 0;
};

}  // namespace headwise::testing
