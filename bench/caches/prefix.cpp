// SPDX-License-Identifier: MIT
#include <memory>

#include "caches/groups.hpp"
#include "caches/layers.hpp"
#include "headwise/cache/paged_cache.hpp"

namespace caches {

namespace {

/// Sequences that begin with the same pages and go on alone.
template <class T>
struct Batch {
  Batch(std::shared_ptr<Numbers> given, const Sizes& sizes)
      : numbers(std::move(given)),
        layers(headwise::ceil_div(sizes.layers, 2)),
        cache(numbers->shapes(layers),
              headwise::ceil_div(sizes.prefix_tokens, 64) + sizes.sequences * (sizes.own_tokens / 64 + 2),
              {.page_tokens = 64, .max_sequences = sizes.sequences + 1}) {
    const headwise::SequenceId prefix = cache.create();
    for (Index l = 0; l < layers; ++l)
      numbers->for_each_piece(sizes.prefix_tokens,
                              [&](View<const float> k, View<const float> v) { cache.append(l, prefix, k, v); });
    for (Index b = 0; b < sizes.sequences; ++b) {
      ids.push_back(cache.fork(prefix));
      for (Index l = 0; l < layers; ++l)
        cache.append(l, ids.back(), numbers->keys(b, sizes.own_tokens), numbers->values(b, sizes.own_tokens));
    }
  }

  std::shared_ptr<Numbers> numbers;
  Index layers;
  headwise::PagedCache<T> cache;
  std::vector<headwise::SequenceId> ids;
};

template <class T>
void measure(Index kv_heads, const Sizes& sizes, ExecutorRef executor, const Done& done) {
  const auto numbers = std::make_shared<Numbers>(32, kv_heads, sizes.head_dim, sizes.sequences);
  const auto batch = std::make_shared<Batch<T>>(numbers, sizes);
  Group group{"decode 32:" + std::to_string(kv_heads) + " of " +
                  std::string(headwise::name_of(headwise::Stored<T>::storage)) + ", " +
                  std::to_string(sizes.sequences) + " sequences that share " + std::to_string(sizes.prefix_tokens) +
                  " tokens",
              "layer",
              {}};
  for (const auto& [name, shares] :
       {std::pair{"read for each", std::optional(false)}, std::pair{"read once", std::optional(true)},
        std::pair{"as the plan decides", std::optional<bool>()}}) {
    Timed timed{.name = name, .run = {}, .units = batch->layers};
    timed.run = [=] {
      for (Index l = 0; l < batch->layers; ++l)
        numbers->decode(batch->cache.layer(l, batch->ids), {.share_prefix = shares}, executor);
    };
    timed.run();
    const Index last = sizes.sequences - 1, tokens = sizes.prefix_tokens + sizes.own_tokens;
    timed.error = numbers->error_of(last, tokens, [&](Index t, Index g, std::span<float> key, std::span<float> value) {
      batch->cache.read_key(0, batch->ids.back(), t, g, key);
      batch->cache.read_value(0, batch->ids.back(), t, g, value);
    });
    timed.error_limit = 0x1p-7;
    group.ways.push_back(std::move(timed));
  }
  group.measure(sizes.rounds);
  done(group);
}

}  // namespace

void measure_prefix(const Sizes& sizes, ExecutorRef executor, const Done& done) {
  measure<headwise::bf16>(8, sizes, executor, done);
  measure<float>(8, sizes, executor, done);
  measure<headwise::bf16>(32, sizes, executor, done);
}

}  // namespace caches
