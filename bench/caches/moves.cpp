// SPDX-License-Identifier: MIT
#include <memory>

#include "caches/groups.hpp"
#include "caches/layers.hpp"
#include "headwise/cache/paged_cache.hpp"

namespace caches {

namespace {

using Cache = headwise::PagedCache<headwise::bf16>;

/// A pool with a sequence of `tokens` tokens.
struct Pool {
  Pool(const Numbers& numbers, Index tokens)
      : cache(numbers.heads(), headwise::ceil_div(tokens, 64) + 64, {.page_tokens = 64, .max_sequences = 4}),
        id(cache.create()) {
    numbers.for_each_piece(tokens, [&](View<const float> k, View<const float> v) { cache.append(0, id, k, v); });
  }
  Cache cache;
  headwise::SequenceId id;
};

}  // namespace

void measure_moves(const Sizes& sizes, const Done& done) {
  const auto numbers = std::make_shared<Numbers>(8, 8, sizes.head_dim, 1);
  const Index repeats = 64 * sizes.steps;
  Group forks{"fork and release", "fork", {}}, rollbacks{"roll back 8 tokens that were appended", "rollback", {}};
  for (const Index tokens : {Index{1000}, sizes.kv_tokens}) {
    auto pool = std::make_shared<Pool>(*numbers, tokens);
    const std::string name = std::to_string(tokens) + " tokens";
    forks.ways.push_back({.name = name,
                          .run =
                              [=] {
                                for (Index i = 0; i < repeats; ++i) pool->cache.release(pool->cache.fork(pool->id));
                              },
                          .units = repeats});
    rollbacks.ways.push_back({.name = name,
                              .run =
                                  [=] {
                                    for (Index i = 0; i < repeats; ++i) {
                                      pool->cache.append(0, pool->id, numbers->keys(0, 8), numbers->values(0, 8));
                                      pool->cache.truncate(pool->id, tokens);
                                    }
                                  },
                              .units = repeats});
  }
  for (Group* group : {&forks, &rollbacks}) {
    group->measure(sizes.rounds);
    done(*group);
  }
}

}  // namespace caches
