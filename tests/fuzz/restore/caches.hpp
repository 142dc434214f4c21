// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "headwise/headwise.hpp"

namespace headwise::fuzz {

inline constexpr int kCaches = 9;

/// A cache of two sequences that differ in how a file may fit it.
struct CacheKind {
  std::vector<LayerShape> layers;
  KvSharing sharing = KvSharing::none(1);
  Storage keys = Storage::int4, values = Storage::int4;
  Index max_tokens = 200;
  bool paged = false, growing = false, key_norms = false, hadamard = false, channel_scales = false;
};

inline CacheKind cache_kind(int number) {
  switch (number) {
    case 0:
      return {.layers = {{1, 8}}};
    case 1:
      return {.layers = {{2, 4, 12}}, .keys = Storage::int8, .max_tokens = 1, .growing = true, .key_norms = true};
    case 2:
      return {.layers = {{1, 8}, {1, 8}, {2, 3, 5}},
              .sharing = KvSharing::from_sources(std::vector<Index>{0, 0, 2}),
              .keys = Storage::e4m3};
    case 3:
      return {.layers = {{1, 8, 0, 70, 4}, {1, 8}}, .sharing = KvSharing::none(2), .growing = true};
    case 4:
      return {.layers = {{1, 8}}, .paged = true};
    case 5:
      return {.layers = {{1, 8}, {1, 6, 4}},
              .sharing = KvSharing::none(2),
              .keys = Storage::bf16,
              .values = Storage::e5m2,
              .paged = true,
              .hadamard = true,
              .channel_scales = true};
    case 7:
      return {.layers = {{1, 8, 6, 0, 0, true}}, .keys = Storage::int8, .growing = true};
    case 8:
      return {.layers = {{1, 8}, {1, 5, 5, 0, 0, true}},
              .sharing = KvSharing::none(2),
              .keys = Storage::bf16,
              .paged = true};
    default:
      return {.layers = {{1, 5, 3, 30}},
              .keys = Storage::f16,
              .values = Storage::f32,
              .hadamard = true,
              .channel_scales = true};
  }
}

template <class Options>
Options options_of(const CacheKind& kind) {
  Options options;
  options.key_storage = kind.keys;
  options.value_storage = kind.values;
  options.hadamard_keys = kind.hadamard;
  if (kind.channel_scales)
    for (const LayerShape& layer : kind.layers)
      options.key_channel_scales.emplace_back(static_cast<std::size_t>(layer.num_kv_heads * layer.head_dim), 1.5f);
  return options;
}

/// f(cache, sequences) for a cache of a kind, where sequences[i] names one as save, restore and append_tokens know it.
template <class F>
void with_cache(const CacheKind& kind, F f) {
  constexpr Index kPages = 5;
  if (kind.paged) {
    PagedOptions options = options_of<PagedOptions>(kind);
    options.max_sequences = 2;
    PagedCache<> cache(kind.layers, kind.sharing, kPages, options);
    const std::vector<SequenceId> ids{cache.create(), cache.create()};
    f(std::move(cache), ids);
  } else {
    CacheOptions options = options_of<CacheOptions>(kind);
    options.num_sequences = 2;
    options.growing = kind.growing;
    options.key_norms = kind.key_norms;
    KvCache<> cache(kind.layers, kind.sharing, kind.max_tokens, options);
    f(std::move(cache), std::vector<Index>{0, 1});
  }
}

/// Appends to every layer of a sequence that stores.
template <class C, class Id>
void append_tokens(C& cache, const Id& id, Index tokens, float first) {
  for (const Index layer : cache.sharing().producers()) {
    const LayerShape shape = cache.layer_shape(layer);
    std::vector<float> rows(
        static_cast<std::size_t>(tokens * shape.num_kv_heads * std::max(shape.head_dim, shape.value_dim)));
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = first + 0.125f * static_cast<float>(i % 19);
    const View<const float> k(rows.data(), tokens, shape.num_kv_heads, shape.head_dim);
    if (shape.values_in_keys)
      cache.append(layer, id, k);
    else
      cache.append(layer, id, k, View<const float>(rows.data(), tokens, shape.num_kv_heads, shape.value_dim));
  }
}

}  // namespace headwise::fuzz
