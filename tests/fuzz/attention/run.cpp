// SPDX-License-Identifier: MIT
#include <algorithm>
#include <numeric>

#include "tests/fuzz/attention/call.hpp"

namespace headwise::fuzz {

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

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
    std::fill(rows.begin(), rows.end(), kNan);
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
  read(s.k, call.head_dim, read_keys);
  read(s.v, call.value_dim, read_values);
}

template <class F>
auto with_cache(Call& call, F f) {
  const bool ring = call.source == Source::ring;
  const Index layers = call.two_layers ? 2 : 1, layer = layers - 1;
  CacheOptions options = storage_options<CacheOptions>(call, layers);
  options.num_sequences = call.num_sequences();
  options.growing = call.chunk % 2 == 1;
  options.max_append = call.chunk == 0 ? std::max<Index>(1, call.most_keys()) : call.chunk;
  const std::vector<LayerShape> shapes(
      static_cast<std::size_t>(layers),
      {call.num_kv_heads, call.head_dim, call.value_dim, ring ? call.window : 0, ring ? call.sinks : 0});
  KvCache<> cache(shapes, options.growing ? 1 : std::max<Index>(1, call.most_keys()), options);
  for (Index b = 0; b < call.num_sequences(); ++b) {
    Sequence& s = call.sequence(b);
    for_chunks(call, 0, s.keys, [&](Index first, Index tokens) {
      cache.append(layer, b, rows_of(s.k, first, tokens, call.num_kv_heads, call.head_dim),
                   rows_of(s.v, first, tokens, call.num_kv_heads, call.value_dim));
    });
    read_back(
        call, cache.kept(layer, b), s,
        [&](Index first, Index count, Index g, auto out) { cache.read_keys(layer, b, first, count, g, out); },
        [&](Index first, Index count, Index g, auto out) { cache.read_values(layer, b, first, count, g, out); });
  }
  return f(cache.layer(layer));
}

template <class F>
auto with_pages(Call& call, F f) {
  const Index layers = call.two_layers ? 2 : 1, layer = layers - 1, page = call.size * kTileTokens;
  PagedOptions options = storage_options<PagedOptions>(call, layers);
  options.page_tokens = page;
  options.max_sequences = call.num_sequences();
  const std::vector<LayerShape> shapes(static_cast<std::size_t>(layers),
                                       {call.num_kv_heads, call.head_dim, call.value_dim});
  Index pages = 1;
  for (const Sequence& s : call.sequences) pages += ceil_div(s.keys, page) + 1;
  PagedCache<> cache(shapes, pages, options);
  std::vector<SequenceId> ids;
  for (Index b = 0; b < call.num_sequences(); ++b) {
    Sequence &s = call.sequence(b), &first_one = call.sequence(0);
    const Index shared = b == 0 ? 0 : std::min({call.shared, s.keys, first_one.keys});
    ids.push_back(shared == 0 ? cache.create() : cache.fork(ids[0]));
    const SequenceId id = ids.back();
    if (shared > 0) cache.truncate(id, shared);
    for_chunks(call, shared, s.keys, [&](Index first, Index tokens) {
      cache.append(layer, id, rows_of(s.k, first, tokens, call.num_kv_heads, call.head_dim),
                   rows_of(s.v, first, tokens, call.num_kv_heads, call.value_dim));
    });
  }
  for (Index b = 0; b < call.num_sequences(); ++b) {
    const SequenceId id = ids[static_cast<std::size_t>(b)];
    read_back(
        call, {0, 0, call.sequence(b).keys}, call.sequence(b),
        [&](Index first, Index count, Index g, auto out) { cache.read_keys(layer, id, first, count, g, out); },
        [&](Index first, Index count, Index g, auto out) { cache.read_values(layer, id, first, count, g, out); });
  }
  return f(cache.layer(layer, ids));
}

/// Puts rows [token][head][dim] into an array and takes them out as it stores them; place(t) is {sequence, token} there.
template <class Place>
void store(std::vector<float>& rows, Index tokens, Index heads, Index dim, Array& array, Place place) {
  for (Index t = 0, i = 0; t < tokens; ++t) {
    const auto [b, at] = place(t);
    for (Index h = 0; h < heads; ++h)
      for (Index d = 0; d < dim; ++d, ++i) {
        float& x = rows[static_cast<std::size_t>(i)];
        array.set(b, at, h, d, x);
        x = array.get(b, at, h, d);
      }
  }
}

template <class F>
auto with_views(Call& call, Array& k, Array& v, F f) {
  return with_type(call.keys, [&]<class K>() {
    return with_type(call.values, [&]<class V>() { return f(k.view<const K>(), v.view<const V>()); });
  });
}

template <class F>
auto with_rows(Call& call, F f) {
  const Index tokens = call.sequence(0).keys;
  Array k(call.keys, call.num_sequences(), tokens, call.num_kv_heads, call.head_dim, call.key_layout);
  Array v(call.values, call.num_sequences(), tokens, call.num_kv_heads, call.value_dim, call.value_layout);
  for (Index b = 0; b < call.num_sequences(); ++b) {
    const auto place = [&](Index t) { return std::pair(b, t); };
    store(call.sequence(b).k, tokens, call.num_kv_heads, call.head_dim, k, place);
    store(call.sequence(b).v, tokens, call.num_kv_heads, call.value_dim, v, place);
  }
  return with_views(call, k, v, [&](auto keys, auto values) { return f(KvRows(keys, values)); });
}

template <class Id, class F>
auto with_blocks(Call& call, F f) {
  constexpr Id kNoBlock = -1;
  Index blocks = 1, longest = 0;
  std::vector<Id> lengths;
  for (const Sequence& s : call.sequences) {
    blocks += ceil_div(s.keys, call.size);
    longest = std::max(longest, ceil_div(s.keys, call.size));
    lengths.push_back(static_cast<Id>(s.keys));
  }
  Array k(call.keys, blocks, call.size, call.num_kv_heads, call.head_dim, call.key_layout);
  Array v(call.values, blocks, call.size, call.num_kv_heads, call.value_dim, call.value_layout);
  std::vector<Id> table(static_cast<std::size_t>(call.num_sequences() * (longest + 1)), kNoBlock);
  Index next = blocks;  // the last one first
  for (Index b = 0; b < call.num_sequences(); ++b) {
    Sequence& s = call.sequence(b);
    for (Index j = 0; j < ceil_div(s.keys, call.size); ++j)
      table[static_cast<std::size_t>(b * (longest + 1) + j)] = static_cast<Id>(--next);
    const auto place = [&](Index t) {
      const Id block = table[static_cast<std::size_t>(b * (longest + 1) + t / call.size)];
      return std::pair(Index{block}, t % call.size);
    };
    store(s.k, s.keys, call.num_kv_heads, call.head_dim, k, place);
    store(s.v, s.keys, call.num_kv_heads, call.value_dim, v, place);
  }
  return with_views(call, k, v, [&](auto keys, auto values) {
    return f(KvBlocks(keys, values, BlockTable(table.data(), call.num_sequences(), longest + 1), lengths));
  });
}

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

Array make_queries(Call& call) {
  Array q(call.queries, call.ragged ? 1 : call.num_sequences(), call.query_tokens(), call.num_heads, call.head_dim,
          call.query_layout);
  for (Index b = 0; b < call.num_sequences(); ++b) {
    const std::pair<Index, Index> place = call.queries_of(b);
    Sequence& s = call.sequence(b);
    store(s.q, s.queries, call.num_heads, call.head_dim, q,
          [&](Index t) { return std::pair(place.first, place.second + t); });
  }
  if (call.wrong_argument == 1) q.claim(call.wrong_size, call.wrong_by);
  return q;
}

template <class S>
void attend(const Call& call, const S& source, Array& q, Results& results, bool planned, ExecutorRef executor) {
  const Heads<> heads =
      call.other_heads.value_or(Heads<>(call.num_heads, call.num_kv_heads, call.head_dim, call.value_dim));
  const Attention<> attention = call.map ? Attention<>(heads, *call.map) : Attention<>(heads);
  const Outputs outputs = with_type(call.outputs, [&]<class O>() {
    return call.lse ? Outputs(results.output.view<O>(), results.lse.view<float>()) : Outputs(results.output.view<O>());
  });
  with_type(call.queries, [&]<class Q>() {
    const View<const Q> queries = q.view<const Q>();
    if (!planned) return attention(queries, source, outputs, call.options, executor);
    const AttentionPlan plan =
        attention.plan(call.query_tokens() + call.planned_tokens, source, call.options, executor);
    attention(plan, queries, source, outputs, executor);
  });
}

template <class S>
Results run_over(const Call& call, const S& source, Array& q, bool planned, bool threads) {
  static ThreadPool pool(3);
  static const Serial serial;
  const Index sequences = call.ragged ? 1 : call.num_sequences(), tokens = call.query_tokens();
  Results results{Array(call.outputs, sequences, tokens, call.num_heads, call.value_dim, call.output_layout),
                  Array(Storage::f32, sequences, tokens, call.num_heads, 1, call.output_layout)};
  if (call.wrong_argument == 2) results.output.claim(call.wrong_size, call.wrong_by);
  if (call.wrong_argument == 3) results.lse.claim(call.wrong_size, call.wrong_by);
  try {
    attend(call, source, q, results, planned, threads ? ExecutorRef(pool) : ExecutorRef(serial));
  } catch (const std::invalid_argument&) {
    expect(results.output.untouched() && results.lse.untouched(), "a call that was refused wrote something");
    throw;
  }
  expect(results.output.gaps_untouched(), "a call wrote beside its outputs");
  expect(call.lse ? results.lse.gaps_untouched() : results.lse.untouched(), "a call wrote beside its lse");
  return results;
}

}  // namespace

Results run(Call& call) {
  set_isa(call.isa);
  return with_source(call, [&](const auto& source) {
    Array q = make_queries(call);
    Results results = run_over(call, source, q, call.planned, call.threads);
    if (call.planned || call.threads)
      expect(results == run_over(call, source, q, false, false), "other bits with a plan, or on threads");
    return results;
  });
}

}  // namespace headwise::fuzz
