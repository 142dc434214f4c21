// SPDX-License-Identifier: MIT
// What is done to keys as they are appended: norm, RoPE at any positions, then the cache's own transform.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "headwise/cache/kv_cache.hpp"
#include "headwise/cache/paged_cache.hpp"
#include "tests/cache/cache_contents.hpp"
#include "tests/cache/paged_fixture.hpp"
#include "tests/support/errors.hpp"

namespace headwise {
namespace {

using testing::contents_of;
using testing::expect_error;
using testing::PagedSnapshot;
using testing::random_numbers;
using testing::Snapshot;
using testing::tile_bytes_of;

constexpr Index kDim = 26, kHeads = 3, kTokens = 83, kSequences = 2;
const LayerShape kShape{kHeads, kDim, 18};

CacheOptions options_of(Storage storage) {
  return {.num_sequences = kSequences,
          .growing = true,
          .key_storage = storage,
          .value_storage = Storage::f16,
          .hadamard_keys = true};
}

/// Positions of no order, the edges among them: [token][axes].
std::vector<Index> positions_of(Index tokens, Index axes) {
  std::vector<Index> result;
  for (Index i = 0; i < tokens * axes; ++i) result.push_back(i * 7919 % 1000);
  const Index edges[] = {0, Index{1} << 31, Index{1} << 53, 5, 5};
  std::copy(std::begin(edges), std::end(edges), result.begin() + 3);
  return result;
}

/// Keys of type T, as they are and normed and turned as floats.
template <class T>
struct Keys {
  std::vector<T> raw;
  std::vector<float> changed;
  std::vector<float> v = random_numbers(kSequences * kTokens * kHeads * 18, 2);

  explicit Keys(const AppendOptions& options) {
    for (const float x : random_numbers(kSequences * kTokens * kHeads * kDim, 1)) {
      raw.push_back(T(x));
      changed.push_back(static_cast<float>(raw.back()));
    }
    const View<float> all(changed.data(), kSequences, kTokens, kHeads, kDim);
    if (options.key_norm) options.key_norm->apply(all);
    if (options.rope && options.positions.empty()) options.rope->apply(all, 0);
    if (options.rope && !options.positions.empty()) options.rope->apply(all, options.positions);
  }
  View<const T> as_is() const { return {raw.data(), kSequences, kTokens, kHeads, kDim}; }
  View<const float> normed_and_turned() const { return {changed.data(), kSequences, kTokens, kHeads, kDim}; }
  View<const float> values() const { return {v.data(), kSequences, kTokens, kHeads, 18}; }
};

template <class T>
void expect_same_bits(Storage storage, const AppendOptions& options) {
  const Keys<T> keys(options);
  KvCache<> fused(std::span(&kShape, 1), 1, options_of(storage)), apart(std::span(&kShape, 1), 1, options_of(storage));
  fused.append(keys.as_is(), keys.values(), options);
  apart.append(keys.normed_and_turned(), keys.values());
  EXPECT_EQ(tile_bytes_of(fused), tile_bytes_of(apart)) << name_of(storage);

  // the same as one packed sequence, to a paged cache
  const PagedOptions paged_options{.key_storage = storage, .value_storage = Storage::f16, .hadamard_keys = true};
  PagedCache<> paged(std::span(&kShape, 1), 8, paged_options), paged_apart(std::span(&kShape, 1), 8, paged_options);
  const std::vector<Index> offsets{0, kTokens, kSequences * kTokens};
  const auto append = [&](PagedCache<>& cache, const auto& k, const AppendOptions& how) {
    using Element = std::remove_cvref_t<decltype(k(0, 0, 0, 0))>;
    const std::vector<SequenceId> ids{cache.create(), cache.create()};
    cache.append_ragged(0, ids, offsets, View<const Element>(k.data(), kSequences * kTokens, kHeads, kDim),
                        View<const float>(keys.v.data(), kSequences * kTokens, kHeads, 18), how);
    auto contents = contents_of(cache, ids[0]);
    const auto second = contents_of(cache, ids[1]);
    contents.insert(contents.end(), second.begin(), second.end());
    return contents;
  };
  EXPECT_EQ(append(paged, keys.as_is(), options), append(paged_apart, keys.normed_and_turned(), {}));
}

class AppendChanges : public ::testing::TestWithParam<Storage> {};
INSTANTIATE_TEST_SUITE_P(Storages, AppendChanges,
                         ::testing::Values(Storage::f32, Storage::f16, Storage::bf16, Storage::e4m3, Storage::e5m2,
                                           Storage::int8, Storage::int4),
                         [](const auto& of) { return std::string(name_of(of.param)); });

TEST_P(AppendChanges, AreTheBitsOfNormingAndTurningFirst) {
  const auto weight = random_numbers(kDim, 4);
  const QkNorm norm(kDim, weight, 1e-5f), plain_norm(kDim);
  const Rope rope(kDim), partial(kDim, {.style = RopeStyle::interleaved, .rotary_dim = 12, .rotary_begin = 4});
  const Rope sections(kDim, {.rotary_dim = 16, .sections = {4, 2, 2}});
  const auto ones = positions_of(kSequences * kTokens, 1), threes = positions_of(kSequences * kTokens, 3);
  expect_same_bits<float>(GetParam(), {.key_norm = &norm});
  expect_same_bits<float>(GetParam(), {.key_norm = &norm, .rope = &rope});
  expect_same_bits<f16>(GetParam(), {.key_norm = &plain_norm, .rope = &partial, .positions = ones});
  expect_same_bits<bf16>(GetParam(), {.rope = &rope, .positions = ones});
  expect_same_bits<float>(GetParam(), {.key_norm = &norm, .rope = &sections, .positions = threes});
  expect_same_bits<f16>(GetParam(), {.rope = &sections});
}

TEST(AppendChange, OfTwoLengthsIsOfTheLargestPositionOfEachSequence) {
  // the long factors serve sequences beyond 300 tokens: the second one only
  std::vector<double> ones(kDim / 2, 1.0), twos(kDim / 2, 2.0);
  const Rope rope(
      kDim, {.scaling = LongRopeScaling{.short_factors = ones, .long_factors = twos, .original_max_position = 300}});
  std::vector<Index> positions;
  for (Index i = 0; i < kSequences * kTokens; ++i)
    positions.push_back(i % kTokens * 3 + (i == 2 * kTokens - 1 ? 99 : 0));
  expect_same_bits<float>(Storage::f32, {.rope = &rope, .positions = positions});
}

TEST(AppendChange, OfARaggedAppendTakesPositionsAsItsRows) {
  const Rope rope(kDim, {.sections = {5, 4, 4}});
  const QkNorm norm(kDim);
  const auto positions = positions_of(kTokens, 3);
  const auto k = random_numbers(kTokens * kHeads * kDim, 1), v = random_numbers(kTokens * kHeads * 18, 2);
  const std::vector<Index> offsets{0, 30, kTokens};
  KvCache<> together(std::span(&kShape, 1), 1, options_of(Storage::bf16)), apart = together.copy();
  together.append_ragged(0, offsets, View<const float>(k.data(), kTokens, kHeads, kDim),
                         View<const float>(v.data(), kTokens, kHeads, 18),
                         {.key_norm = &norm, .rope = &rope, .positions = positions});
  for (Index b = 0; b < 2; ++b) {
    const Index first = offsets[static_cast<std::size_t>(b)], count = offsets[static_cast<std::size_t>(b + 1)] - first;
    for (Index t = first; t < first + count; ++t)  // one by one
      apart.append(0, b, View<const float>(k.data() + t * kHeads * kDim, 1, kHeads, kDim),
                   View<const float>(v.data() + t * kHeads * 18, 1, kHeads, 18),
                   {.key_norm = &norm,
                    .rope = &rope,
                    .positions = std::span(positions).subspan(static_cast<std::size_t>(3 * t), 3)});
  }
  EXPECT_EQ(tile_bytes_of(together), tile_bytes_of(apart));
}

TEST(AppendChange, MistakesAreNamedAndChangeNothing) {
  KvCache<> cache(std::span(&kShape, 1), 1, options_of(Storage::f32));
  PagedCache<float> paged(std::span(&kShape, 1), 4);
  const SequenceId id = paged.create();
  const auto k = random_numbers(2 * 2 * kHeads * kDim, 1), v = random_numbers(2 * 2 * kHeads * 18, 1);
  const Rope rope(kDim), sections(kDim, {.sections = {5, 4, 4}}), other(8);
  const QkNorm narrow(8);
  const Snapshot before(cache);
  const PagedSnapshot paged_before(paged);
  const auto expect_refused = [&](const AppendOptions& options, std::initializer_list<std::string_view> parts) {
    expect_error(
        [&] {
          cache.append(0, 0, View<const float>(k.data(), 2, kHeads, kDim), View<const float>(v.data(), 2, kHeads, 18),
                       options);
        },
        parts);
    expect_error(
        [&] {
          paged.append(0, id, View<const float>(k.data(), 2, kHeads, kDim), View<const float>(v.data(), 2, kHeads, 18),
                       options);
        },
        parts);
  };
  const std::vector<Index> one{1}, two{1, 2}, negative{1, -2}, large{(Index{1} << 53) + 1, 0};
  expect_refused({.key_norm = &narrow}, {"head_dim (8) of the QkNorm", "(26)"});
  expect_refused({.rope = &other}, {"head_dim (8) of the Rope", "(26)"});
  expect_refused({.positions = two}, {"positions (2)", "empty without a rope"});
  expect_refused({.rope = &rope, .positions = one}, {"positions (1)", "one position per token (2)"});
  expect_refused({.rope = &sections, .positions = two}, {"positions (2)", "three positions", "(6)"});
  expect_refused({.rope = &rope, .positions = negative}, {"positions[1] (-2)", "0 to 9007199254740992"});
  expect_refused({.rope = &rope, .positions = large}, {"positions[0] (9007199254740993)"});
  EXPECT_EQ(Snapshot(cache), before);
  EXPECT_TRUE(PagedSnapshot(paged) == paged_before);
}

}  // namespace
}  // namespace headwise
