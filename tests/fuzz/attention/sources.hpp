// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "tests/fuzz/attention/call.hpp"

// The caches and arrays that calls read their keys and values from.

namespace headwise::fuzz {

template <class V>
auto rows_of(V& numbers, Index first, Index tokens, Index heads, Index dim) {
  return View<const float>(numbers.data() + first * heads * dim, tokens, heads, dim);
}

/// f(first, tokens) for each part of a sequence that is appended at a time.
template <class F>
void for_chunks(const Call& call, Index first, Index last, F f) {
  const Index most = call.chunk == 0 ? std::max<Index>(1, last) : call.chunk;
  for (; first < last; first += most) f(first, std::min(most, last - first));
}

template <class Options>
Options storage_options(const Call& call, Index layers) {
  Options options;
  options.key_storage = call.keys;
  options.value_storage = call.values;
  options.hadamard_keys = call.hadamard;
  if (call.channel_scales) {
    std::vector<float> scales(static_cast<std::size_t>(call.num_kv_heads * call.head_dim));
    for (std::size_t i = 0; i < scales.size(); ++i) scales[i] = 0.5f + static_cast<float>(i % 7) / 4;
    options.key_channel_scales.assign(static_cast<std::size_t>(layers), scales);
  }
  return options;
}

/// What a cache holds of each token, NaN where it has forgotten.
template <class ReadKeys, class ReadValues>
void read_back(const Call& call, const TokenRange& kept, Sequence& s, ReadKeys read_keys, ReadValues read_values) {
  const auto read = [&](std::vector<float>& rows, Index dim, auto read_rows) {
    std::fill(rows.begin(), rows.end(), std::numeric_limits<float>::quiet_NaN());
    std::vector<float> one;
    const Index sinks = kept.begin <= kept.sinks ? 0 : kept.sinks;
    for (const auto& [first, last] :
         {Interval{0, sinks}, Interval{kept.begin <= kept.sinks ? 0 : kept.begin, kept.end}})
      for (Index g = 0; g < call.num_kv_heads && first < last; ++g) {
        one.resize(static_cast<std::size_t>((last - first) * dim));
        read_rows(first, last - first, g, std::span<float>(one));
        for (Index t = first; t < last; ++t)
          std::copy_n(one.begin() + (t - first) * dim, dim, rows.begin() + (t * call.num_kv_heads + g) * dim);
      }
  };
  s.kept = kept;
  read(s.k, call.head_dim, read_keys);
  read(s.v, call.value_dim, read_values);
}

/// Of tokens [first, first + tokens) of sequence b; empty: their numbers in the sequence.
inline std::span<const Index> positions_of(const Appending& appending, Index b, Index first, Index tokens) {
  if (appending.positions.empty()) return {};
  const Index axes = appending.rope ? appending.rope->num_axes() : 1;
  return std::span(appending.positions[static_cast<std::size_t>(b)])
      .subspan(static_cast<std::size_t>(first * axes), static_cast<std::size_t>(tokens * axes));
}

/// Tokens of sequence b of a paged cache that are those of the first.
inline Index shared_of(const Call& call, Index b) {
  return b == 0 || call.source != Source::pages ? 0
                                                : std::min({call.shared, call.sequence(b).keys, call.sequence(0).keys});
}

/// Appends the tokens of sequence b that it does not share by append(keys, values or nothing, options). Keys that are
/// `changed` have gone through what options would do.
template <class Append>
void append_tokens(const Call& call, Index b, const Sequence& s, bool changed, Append append) {
  const Appending& appending = call.appending;
  for_chunks(call, shared_of(call, b), s.keys, [&](Index first, Index tokens) {
    const auto k = rows_of(s.k, first, tokens, call.num_kv_heads, call.head_dim);
    AppendOptions options;
    if (!changed && appending.norm) options.key_norm = &*appending.norm;
    if (!changed && appending.rope) options.rope = &*appending.rope;
    if (!changed) options.positions = positions_of(appending, b, first, tokens);
    if (call.values_in_keys)
      append(k, options);
    else
      append(k, rows_of(s.v, first, tokens, call.num_kv_heads, call.value_dim), options);
  });
}

/// Does to the keys of sequence b what the options of appending them do.
inline void change_keys(const Call& call, Index b, Sequence& s) {
  const Appending& appending = call.appending;
  for_chunks(call, shared_of(call, b), s.keys, [&](Index first, Index tokens) {
    float* const keys = s.k.data() + first * call.num_kv_heads * call.head_dim;
    const View<float> k(keys, tokens, call.num_kv_heads, call.head_dim);
    if (appending.norm) appending.norm->apply(k);
    if (!appending.rope) return;
    if (appending.positions.empty())
      appending.rope->apply(k, first);
    else
      appending.rope->apply(k, positions_of(appending, b, first, tokens));
  });
}

/// The cache that fill(sequences, changed) makes of the call's sequences, in which it leaves what the cache holds. Appending
/// keys under options must store the bits of keys that were changed before.
template <class Fill>
auto filled(Call& call, Fill fill) {
  std::vector<Sequence> others;
  if (call.appending.any()) others = call.sequences;
  auto cache = fill(call.sequences, false);
  if (others.empty()) return cache;
  for (Index b = 0; b < call.num_sequences(); ++b) change_keys(call, b, others[static_cast<std::size_t>(b)]);
  fill(others, true);
  for (Index b = 0; b < call.num_sequences(); ++b) {
    const std::vector<float>&k = call.sequence(b).k, &other = others[static_cast<std::size_t>(b)].k;
    const auto same = [](float x, float y) {
      return std::bit_cast<std::uint32_t>(x) == std::bit_cast<std::uint32_t>(y) || (std::isnan(x) && std::isnan(y));
    };
    expect(std::ranges::equal(k, other, same),
           "keys that were appended with a norm or RoPE have other bits than those changed before");
  }
  return cache;
}

template <class F>
auto with_cache(Call& call, F f) {
  const bool ring = call.source == Source::ring;
  const Index layers = call.two_layers ? 2 : 1, layer = layers - 1;
  CacheOptions options = storage_options<CacheOptions>(call, layers);
  options.num_sequences = call.num_sequences();
  options.growing = call.chunk % 2 == 1;
  options.max_append = call.chunk == 0 ? std::max<Index>(1, call.most_keys()) : call.chunk;
  const std::vector<LayerShape> shapes(static_cast<std::size_t>(layers),
                                       {call.num_kv_heads, call.head_dim, call.value_dim, ring ? call.window : 0,
                                        ring ? call.sinks : 0, call.values_in_keys});
  const KvCache<> cache = filled(call, [&](std::vector<Sequence>& sequences, bool changed) {
    KvCache<> made(shapes, options.growing ? 1 : std::max<Index>(1, call.most_keys()), options);
    for (Index b = 0; b < call.num_sequences(); ++b) {
      Sequence& s = sequences[static_cast<std::size_t>(b)];
      append_tokens(call, b, s, changed, [&](const auto&... rows) { made.append(layer, b, rows...); });
      read_back(
          call, made.kept(layer, b), s,
          [&](Index first, Index count, Index g, auto out) { made.read_keys(layer, b, first, count, g, out); },
          [&](Index first, Index count, Index g, auto out) { made.read_values(layer, b, first, count, g, out); });
    }
    return made;
  });
  return f(cache.layer(layer));
}

template <class F>
auto with_pages(Call& call, F f) {
  const Index layers = call.two_layers ? 2 : 1, layer = layers - 1, page = call.size * kTileTokens;
  PagedOptions options = storage_options<PagedOptions>(call, layers);
  options.page_tokens = page;
  options.max_sequences = call.num_sequences();
  const std::vector<LayerShape> shapes(static_cast<std::size_t>(layers),
                                       {call.num_kv_heads, call.head_dim, call.value_dim, 0, 0, call.values_in_keys});
  Index pages = 1;
  for (const Sequence& s : call.sequences) pages += ceil_div(s.keys, page) + 1;
  struct Filled {
    PagedCache<> cache;
    std::vector<SequenceId> ids;
  };
  const Filled made = filled(call, [&](std::vector<Sequence>& sequences, bool changed) {
    Filled all{PagedCache<>(shapes, pages, options), {}};
    for (Index b = 0; b < call.num_sequences(); ++b) {
      const Index shared = shared_of(call, b);
      all.ids.push_back(shared == 0 ? all.cache.create() : all.cache.fork(all.ids[0]));
      const SequenceId id = all.ids.back();
      if (shared > 0) all.cache.truncate(id, shared);
      append_tokens(call, b, sequences[static_cast<std::size_t>(b)], changed,
                    [&](const auto&... rows) { all.cache.append(layer, id, rows...); });
    }
    for (Index b = 0; b < call.num_sequences(); ++b) {
      const SequenceId id = all.ids[static_cast<std::size_t>(b)];
      Sequence& s = sequences[static_cast<std::size_t>(b)];
      read_back(
          call, {0, 0, s.keys}, s,
          [&](Index first, Index count, Index g, auto out) { all.cache.read_keys(layer, id, first, count, g, out); },
          [&](Index first, Index count, Index g, auto out) { all.cache.read_values(layer, id, first, count, g, out); });
    }
    return all;
  });
  return f(made.cache.layer(layer, made.ids));
}

/// Puts rows [token][head][dim] into an array, which may have fewer heads for them, and takes them out as it stores them;
/// place(t) is {sequence, token} there.
template <class Place>
void store(std::vector<float>& rows, Index tokens, Index heads, Index array_heads, Index dim, Array& array,
           Place place) {
  for (const bool out : {false, true})
    for (Index t = 0, i = 0; t < tokens; ++t) {
      const auto [b, at] = place(t);
      for (Index h = 0; h < heads; ++h)
        for (Index d = 0; d < dim; ++d, ++i) {
          float& x = rows[static_cast<std::size_t>(i)];
          const Index head = h * array_heads / heads;
          if (out)
            x = array.get(b, at, head, d);
          else
            array.set(b, at, head, d, x);
        }
    }
}

/// The keys and values of a sequence to the caller's arrays.
template <class Place>
void store_sequence(const Call& call, Sequence& s, Array& k, Array& v, Index key_heads, Index value_heads,
                    Place place) {
  s.kept = {0, 0, s.keys};
  store(s.k, s.keys, call.num_kv_heads, key_heads, call.head_dim, k, place);
  store(s.v, s.keys, call.num_kv_heads, value_heads, call.value_dim, v, place);
}

template <class F>
auto with_views(Call& call, Array& k, Array& v, F f) {
  return with_type(call.keys, [&]<class K>() {
    return with_type(call.values, [&]<class V>() { return f(k.view<const K>(), v.view<const V>()); });
  });
}

template <class F>
auto with_rows(Call& call, F f) {
  const Index tokens = call.sequence(0).keys, kv = call.num_kv_heads;
  const Index key_heads = call.key_heads > 0 ? call.key_heads : kv,
              value_heads = call.value_heads > 0 ? call.value_heads : kv;
  Array k(call.keys, call.num_sequences(), tokens, key_heads, call.head_dim, call.key_layout);
  Array v(call.values, call.num_sequences(), tokens, value_heads, call.value_dim, call.value_layout);
  for (Index b = 0; b < call.num_sequences(); ++b)
    store_sequence(call, call.sequence(b), k, v, key_heads, value_heads, [&](Index t) { return std::pair(b, t); });
  return with_views(call, k, v, [&](auto keys, auto values) { return f(KvRows(keys, values)); });
}

template <class Id, class F>
auto with_blocks(Call& call, F f) {
  constexpr Id kNoBlock = -1;
  const Index kv = call.num_kv_heads;
  const Index key_heads = call.key_heads > 0 ? call.key_heads : kv,
              value_heads = call.value_heads > 0 ? call.value_heads : kv;
  Index blocks = 1, longest = 0;
  std::vector<Id> lengths;
  for (const Sequence& s : call.sequences) {
    blocks += ceil_div(s.keys, call.size);
    longest = std::max(longest, ceil_div(s.keys, call.size));
    lengths.push_back(static_cast<Id>(s.keys));
  }
  Array k(call.keys, blocks, call.size, key_heads, call.head_dim, call.key_layout);
  Array v(call.values, blocks, call.size, value_heads, call.value_dim, call.value_layout);
  std::vector<Id> table(static_cast<std::size_t>(call.num_sequences() * (longest + 1)), kNoBlock);
  Index next = blocks;  // the last one first
  for (Index b = 0; b < call.num_sequences(); ++b) {
    Sequence& s = call.sequence(b);
    for (Index j = 0; j < ceil_div(s.keys, call.size); ++j)
      table[static_cast<std::size_t>(b * (longest + 1) + j)] = static_cast<Id>(--next);
    store_sequence(call, s, k, v, key_heads, value_heads, [&](Index t) {
      const Id block = table[static_cast<std::size_t>(b * (longest + 1) + t / call.size)];
      return std::pair(Index{block}, t % call.size);
    });
  }
  return with_views(call, k, v, [&](auto keys, auto values) {
    return f(KvBlocks(keys, values, BlockTable(table.data(), call.num_sequences(), longest + 1), lengths));
  });
}

/// f(source) for the source of a call; leaves in the call's sequences what it holds.
template <class F>
auto with_source(Call& call, F f) {
  switch (call.source) {
    case Source::cache:
    case Source::ring:
      return with_cache(call, f);
    case Source::pages:
      return with_pages(call, f);
    case Source::rows:
      return with_rows(call, f);
    case Source::blocks:
      break;
  }
  return call.wide_table ? with_blocks<Index>(call, f) : with_blocks<std::int32_t>(call, f);
}

}  // namespace headwise::fuzz
