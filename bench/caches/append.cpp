// SPDX-License-Identifier: MIT
#include <memory>

#include "caches/groups.hpp"
#include "caches/layers.hpp"
#include "headwise/cache/kv_cache.hpp"
#include "headwise/position/rope.hpp"

namespace caches {

namespace {

constexpr Index kKvHeads = 8, kTokens = 256;

/// kTokens tokens, one at a time, into a cache that holds some, which then forgets them.
template <class T>
Timed append_of(const Numbers& numbers, const headwise::Rope* rope) {
  auto cache = std::make_shared<headwise::KvCache<T>>(numbers.heads(), 4 * kTokens);
  numbers.for_each_piece(kTokens, [&](View<const float> k, View<const float> v) { cache->append(k, v); });
  Timed timed{.name = std::string(headwise::name_of(headwise::Stored<T>::storage)) + (rope ? " with RoPE" : ""),
              .run = {},
              .units = kTokens * kKvHeads};
  timed.run = [=, &numbers] {
    for (Index t = 0; t < kTokens; ++t)
      if (rope)
        cache->append(0, numbers.keys(t, 1), numbers.values(t, 1), *rope);
      else
        cache->append(numbers.keys(t, 1), numbers.values(t, 1));
    cache->truncate(kTokens);
  };
  return timed;
}

}  // namespace

void measure_append(const Sizes& sizes, const Done& done) {
  using namespace headwise;
  const Numbers numbers(kKvHeads, kKvHeads, sizes.head_dim, 1);
  const Rope rope(sizes.head_dim);
  Group group{"append one token, " + std::to_string(sizes.head_dim) + " dims from f32", "KV head", {}};
  group.ways.push_back(append_of<float>(numbers, nullptr));
  for (const Rope* with : {static_cast<const Rope*>(nullptr), &rope}) {
    if (with) group.ways.push_back(append_of<float>(numbers, with));
    group.ways.push_back(append_of<bf16>(numbers, with));
    group.ways.push_back(append_of<f16>(numbers, with));
    group.ways.push_back(append_of<e4m3>(numbers, with));
    group.ways.push_back(append_of<e5m2>(numbers, with));
    group.ways.push_back(append_of<int8>(numbers, with));
    group.ways.push_back(append_of<int4>(numbers, with));
  }
  group.measure(sizes.rounds);
  done(group);
}

}  // namespace caches
