// SPDX-License-Identifier: MIT
#include <memory>

#include "caches/groups.hpp"
#include "caches/layers.hpp"
#include "headwise/cache/kv_cache.hpp"

namespace caches {

namespace {

/// A cache of several layers of the same tokens, and the decode step over all of them.
template <class K, class V = K>
Timed decode_of(std::shared_ptr<Numbers> numbers, const Sizes& sizes, ExecutorRef executor) {
  auto cache = std::make_shared<headwise::KvCache<K, V>>(numbers->shapes(sizes.layers), sizes.kv_tokens);
  for (Index l = 0; l < sizes.layers; ++l)
    numbers->for_each_piece(sizes.kv_tokens, [&](View<const float> k, View<const float> v) { cache->append(l, k, v); });

  std::string name(headwise::name_of(headwise::Stored<K>::storage));
  if (!std::is_same_v<K, V>) name.append("+").append(headwise::name_of(headwise::Stored<V>::storage));
  Timed timed{.name = std::move(name), .run = {}, .units = sizes.layers, .bytes = cache->bytes()};
  timed.run = [=] {
    for (Index l = 0; l < sizes.layers; ++l) numbers->decode(cache->layer(l), {}, executor);
  };
  const Index checked[] = {std::min<Index>(sizes.kv_tokens, 1100)};
  numbers->decode(cache->layer(0), {.key_lengths = checked}, executor);
  timed.error = numbers->error_of(0, checked[0], [&](Index t, Index g, std::span<float> key, std::span<float> value) {
    cache->read_key(0, 0, t, g, key);
    cache->read_value(0, 0, t, g, value);
  });
  // f32 arithmetic on what is stored; rows of bf16 pairs, or of two 7-bit digits, where the CPU multiplies those
  timed.error_limit = 0x1p-7;
  return timed;
}

void measure(const std::string& name, Index kv_heads, const Sizes& sizes, ExecutorRef executor, const Done& done) {
  constexpr Index kHeads = 32;
  const auto numbers = std::make_shared<Numbers>(kHeads, kv_heads, sizes.head_dim, 1);
  using namespace headwise;
  Group group{name, "layer", {}};
  group.ways.push_back(decode_of<bf16>(numbers, sizes, executor));
  group.ways.push_back(decode_of<f16>(numbers, sizes, executor));
  group.ways.push_back(decode_of<int8>(numbers, sizes, executor));
  group.ways.push_back(decode_of<int8, int4>(numbers, sizes, executor));
  group.ways.push_back(decode_of<int4>(numbers, sizes, executor));
  group.ways.push_back(decode_of<e4m3>(numbers, sizes, executor));
  group.ways.push_back(decode_of<e5m2>(numbers, sizes, executor));
  group.measure(sizes.rounds);
  done(group);
}

}  // namespace

void measure_storage(const Sizes& sizes, ExecutorRef executor, const Done& done) {
  const std::string tokens = ", " + std::to_string(sizes.kv_tokens) + " tokens";
  measure("decode 32:8" + tokens, 8, sizes, executor, done);
  Sizes fewer = sizes;  // four times the KV heads
  fewer.layers = headwise::ceil_div(sizes.layers, 4);
  measure("decode 32:32" + tokens, 32, fewer, executor, done);
}

}  // namespace caches
