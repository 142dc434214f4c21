// SPDX-License-Identifier: MIT
#include <algorithm>
#include <memory>
#include <random>

#include "caches/groups.hpp"
#include "caches/layers.hpp"
#include "headwise/cache/kv_cache.hpp"
#include "headwise/cache/paged_cache.hpp"

namespace caches {

namespace {

/// The error of the last layer's output, of sequence 0.
template <class Cache, class Sequence>
void verify(Timed& timed, Numbers& numbers, const Cache& cache, Sequence sequence, Index tokens) {
  timed.run();
  timed.error = numbers.error_of(0, tokens, [&](Index t, Index g, std::span<float> key, std::span<float> value) {
    cache.read_key(0, sequence, t, g, key);
    cache.read_value(0, sequence, t, g, value);
  });
  timed.error_limit = 0x1p-7;
}

template <class T>
Timed contiguous(std::shared_ptr<Numbers> numbers, const Sizes& sizes, ExecutorRef executor) {
  auto cache = std::make_shared<headwise::KvCache<T>>(numbers->shapes(sizes.layers), sizes.paged_tokens);
  for (Index l = 0; l < sizes.layers; ++l)
    numbers->for_each_piece(sizes.paged_tokens,
                            [&](View<const float> k, View<const float> v) { cache->append(l, k, v); });
  Timed timed{.name = "contiguous", .run = {}, .units = sizes.layers, .bytes = cache->bytes()};
  timed.run = [=] {
    for (Index l = 0; l < sizes.layers; ++l) numbers->decode(cache->layer(l), {}, executor);
  };
  verify(timed, *numbers, *cache, Index{0}, sizes.paged_tokens);
  return timed;
}

/// A sequence whose pages lie in any order: the pool was used and given back by others in between.
template <class T>
Timed paged(std::shared_ptr<Numbers> numbers, const Sizes& sizes, Index page_tokens, ExecutorRef executor) {
  const Index pages = headwise::ceil_div(sizes.paged_tokens, page_tokens);
  auto cache = std::make_shared<headwise::PagedCache<T>>(
      numbers->shapes(sizes.layers), 2 * pages,
      headwise::PagedOptions{.page_tokens = page_tokens, .max_sequences = 2 * pages + 1});
  // one page for each of many sequences, half of which give it back in random order
  std::vector<headwise::SequenceId> others;
  for (Index i = 0; i < 2 * pages; ++i) {
    others.push_back(cache->create());
    cache->append(0, others.back(), numbers->keys(0, 1), numbers->values(0, 1));
  }
  std::shuffle(others.begin(), others.end(), std::mt19937(3));
  for (Index i = 0; i < pages; ++i) cache->release(others[static_cast<std::size_t>(i)]);
  auto id = std::make_shared<headwise::SequenceId>(cache->create());
  for (Index l = 0; l < sizes.layers; ++l)
    numbers->for_each_piece(sizes.paged_tokens,
                            [&](View<const float> k, View<const float> v) { cache->append(l, *id, k, v); });
  Timed timed{.name = "pages of " + std::to_string(page_tokens) + " tokens, shuffled",
              .run = {},
              .units = sizes.layers,
              .bytes = sizes.layers * numbers->heads().num_kv_heads() * headwise::ceil_div(sizes.paged_tokens, 64) *
                       headwise::tile_bytes(headwise::Stored<T>::storage, sizes.head_dim, sizes.head_dim)};
  timed.run = [=] {
    for (Index l = 0; l < sizes.layers; ++l) numbers->decode(cache->layer(l, std::span(id.get(), 1)), {}, executor);
  };
  verify(timed, *numbers, *cache, *id, sizes.paged_tokens);
  return timed;
}

template <class T>
void measure(const Sizes& sizes, ExecutorRef executor, const Done& done) {
  const auto numbers = std::make_shared<Numbers>(32, 8, sizes.head_dim, 1);
  Group group{"decode 32:8 of " + std::string(headwise::name_of(headwise::Stored<T>::storage)) + ", " +
                  std::to_string(sizes.paged_tokens) + " tokens",
              "layer",
              {}};
  group.ways.push_back(contiguous<T>(numbers, sizes, executor));
  for (const Index page_tokens : {64, 128, 256}) group.ways.push_back(paged<T>(numbers, sizes, page_tokens, executor));
  group.measure(3 * sizes.rounds);
  done(group);
}

}  // namespace

void measure_pages(const Sizes& sizes, ExecutorRef executor, const Done& done) {
  Sizes cold = sizes;
  cold.layers *= 8;  // of so much shorter a sequence
  measure<headwise::bf16>(cold, executor, done);
  measure<float>(cold, executor, done);
}

}  // namespace caches
