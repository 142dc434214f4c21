// SPDX-License-Identifier: MIT
// Prints the mode it is compiled in and a checksum of what each of many calls gives: every kind of cache and storage, masks,
// outputs, threads. Compiled in both modes.
#include <cstdio>

#include "headwise/core/xxh64.hpp"
#include "tests/attention/inputs.hpp"

using namespace headwise;
using headwise::testing::Inputs;

namespace {

/// A call with everything it can give, and what it gives, as one line.
template <class S>
void print(const char* what, const S& source, const Inputs& in, const Options& options = {}) {
  const Index b = in.sequences, t = in.query_tokens, h = in.heads.num_heads(), dv = in.heads.value_dim(),
              keys = in.key_tokens, g = in.heads.num_kv_heads();
  const auto memory = [](Index count) { return std::vector<float>(static_cast<std::size_t>(count)); };
  ThreadPool pool(3);
  Xxh64 sum;
  const auto add = [&](const std::vector<float>& numbers) { sum.update(std::as_bytes(std::span(numbers))); };
  for (const bool threads : {false, true}) {
    std::vector<float> out = memory(b * t * h * dv), lse = memory(b * t * h), scores = memory(b * t * h * keys),
                       mass = memory(b * keys * g);
    Outputs outputs(View<float>(out.data(), b, t, h, dv), View<float>(lse.data(), b, t, h, 1));
    outputs.scores = {View<float>(scores.data(), b, t, h, keys), ScoreStage::biased};
    outputs.mass = MassOutput(View<float>(mass.data(), b, keys, g, 1));
    const Attention<> attend(in.heads);
    const View<const float> q(in.q.data(), b, t, h, in.heads.head_dim());
    if (threads)
      attend(attend.plan(t, source, options, pool), q, source, outputs, pool);
    else
      attend(q, source, outputs, options);
    for (const auto* numbers : {&out, &lse, &scores, &mass}) add(*numbers);
  }
  std::printf("%s %016llx\n", what, static_cast<unsigned long long>(sum.digest()));
}

template <class T>
KvCache<T> cache_of(const Inputs& in) {
  KvCache<T> cache(in.heads, in.key_tokens, {.num_sequences = in.sequences});
  cache.append(
      View<const float>(in.k.data(), in.sequences, in.key_tokens, in.heads.num_kv_heads(), in.heads.head_dim()),
      View<const float>(in.v.data(), in.sequences, in.key_tokens, in.heads.num_kv_heads(), in.heads.value_dim()));
  return cache;
}

void print_caches(const char* what, const Inputs& in) {
  std::puts(what);
  print("f32", cache_of<float>(in), in);
  print("bf16", cache_of<bf16>(in), in);
  print("int8", cache_of<int8>(in), in);
  print("int4", cache_of<int4>(in), in);
  print("e4m3", cache_of<e4m3>(in), in);
  const Index kv = in.heads.num_kv_heads(), d = in.heads.head_dim(), dv = in.heads.value_dim();
  const View<const float> k(in.k.data(), in.sequences, in.key_tokens, kv, d),
      v(in.v.data(), in.sequences, in.key_tokens, kv, dv);
  print("rows", KvRows(k, v), in);
  std::vector<Index> table, lengths(static_cast<std::size_t>(in.sequences), in.key_tokens);
  for (Index b = 0; b < in.sequences; ++b) table.push_back(b);
  print("blocks", KvBlocks(k, v, BlockTable(table.data(), in.sequences, 1), lengths), in);
  PagedCache<float> pages(in.heads, 64);
  std::vector<SequenceId> ids;
  for (Index b = 0; b < in.sequences; ++b) {
    ids.push_back(pages.create());
    pages.append(0, ids.back(), View<const float>(&k(b, 0, 0, 0), in.key_tokens, kv, d),
                 View<const float>(&v(b, 0, 0, 0), in.key_tokens, kv, dv));
  }
  print("pages", pages.layer(0, ids), in);
}

}  // namespace

int main() {
  std::puts(kChecked ? "checked" : "plain");
  print_caches("decode", Inputs({8, 2, 64}, 2, 1, 1100));
  print_caches("prefill", Inputs({4, 2, 24, 40}, 2, 150, 150));
  print_caches("a few", Inputs({3, 1, 13}, 1, 5, 70));
  const Inputs in({4, 2, 24}, 2, 40, 200);
  const auto cache = cache_of<float>(in);
  const std::vector<float> added(2 * 4 * 40 * 200, 0.5f), slopes(4, 0.25f), sinks(4, 1.0f);
  const std::vector<Index> lengths{70, 200}, starts{3, 64}, boundaries{0, 1, 4};
  const auto odd = [](Index, Index, Index key) { return key % 2 == 1; };
  const RelativeBias bias(std::vector<float>(4 * 32, 0.125f), 4);
  TileSet tiles({.tiles = 4});
  for (const Index tile : {0, 2}) tiles.insert(0, 0, 0, tile);
  const Rope rope(24);
  print("lengths", cache, in, {.key_starts = starts, .key_lengths = lengths});
  print("mask", cache, in, {.mask = Mask(added.data(), 2, 4, 40, 200)});
  print("tiles", cache, in, {.tile_set = &tiles});
  print("function", cache, in, {.mask_function = MaskFunction(odd)});
  print("scores", cache, in, {.softcap = 5.0f, .alibi_slopes = slopes, .relative_bias = &bias, .sink_logits = sinks});
  print("rope", cache, in, {.query_rope = &rope});
  print("boundaries", cache, in, {.group_boundaries = boundaries});
}
