// SPDX-License-Identifier: MIT
// Models whose layers have different numbers of KV heads, as DeciLM: one cache holds each layer at its own size, and
// attention over it is that over a cache in which every layer has as many as the largest.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "headwise/attention/attention.hpp"
#include "headwise/cache/kv_cache.hpp"
#include "tests/cache/cache_contents.hpp"

namespace headwise {
namespace {

using testing::random_numbers;

constexpr Index kHeads = 32;

/// runs of {layers, KV heads} → KV heads per layer
std::vector<Index> per_layer(const std::vector<std::pair<Index, Index>>& runs) {
  std::vector<Index> result;
  for (const auto& [count, kv_heads] : runs) result.insert(result.end(), static_cast<std::size_t>(count), kv_heads);
  return result;
}
const std::vector<Index> kDeciLm7B = per_layer({{5, 4}, {5, 2}, {1, 4}, {9, 2}, {11, 1}, {1, 4}});
const std::vector<Index> kDeciLm6B = per_layer({{1, 4}, {9, 2}, {20, 1}, {1, 4}, {1, 4}});

std::vector<LayerShape> shapes_of(const std::vector<Index>& kv_heads, Index head_dim) {
  std::vector<LayerShape> result;
  for (const Index g : kv_heads) result.push_back({g, head_dim});
  return result;
}

TEST(PerLayerHeads, OfDeciLmTakeExactlyTheirBytes) {
  EXPECT_EQ(kDeciLm7B.size(), 32u);
  EXPECT_EQ(std::reduce(kDeciLm7B.begin(), kDeciLm7B.end()), 67);
  const KvCache<bf16> seven(shapes_of(kDeciLm7B, 128), 64);
  EXPECT_EQ(seven.bytes_per_token(), 34304);
  EXPECT_EQ(seven.bytes(), 34304 * 64);

  EXPECT_EQ(kDeciLm6B.size(), 32u);
  const KvCache<f16> six(shapes_of(kDeciLm6B, 128), 128, {.num_sequences = 3});
  EXPECT_EQ(six.bytes_per_token(), 25600);
  EXPECT_EQ(six.bytes(), Index{25600} * 128 * 3);

  // every layer at the largest count
  EXPECT_EQ(KvCache<bf16>(shapes_of(std::vector<Index>(32, 4), 128), 64).bytes_per_token(), 65536);
}

/// rows [token][kv_heads][dim] → [token][largest][dim], each head repeated
std::vector<float> repeated(const std::vector<float>& rows, Index kv_heads, Index largest, Index dim) {
  std::vector<float> result;
  const Index tokens = std::ssize(rows) / (kv_heads * dim), copies = largest / kv_heads;
  for (Index t = 0; t < tokens; ++t)
    for (Index g = 0; g < largest; ++g) {
      const auto head = rows.begin() + (t * kv_heads + g / copies) * dim;
      result.insert(result.end(), head, head + dim);
    }
  return result;
}

/// Appends a prompt and two single tokens to each layer of both caches and expects the same outputs, bit for bit.
template <class T>
void expect_same_as_degrouped(const std::vector<Index>& kv_heads, Index head_dim, Index prompt) {
  const Index largest = *std::max_element(kv_heads.begin(), kv_heads.end()), tokens = prompt + 2;
  KvCache<T> ragged(shapes_of(kv_heads, head_dim), tokens);
  KvCache<T> degrouped(shapes_of(std::vector<Index>(kv_heads.size(), largest), head_dim), tokens);
  for (Index layer = 0; layer < ragged.num_layers(); ++layer) {
    const Index G = kv_heads[static_cast<std::size_t>(layer)];
    const auto seed = static_cast<unsigned>(3 * layer);
    const auto q = random_numbers(tokens * kHeads * head_dim, seed + 1);
    const auto k = random_numbers(tokens * G * head_dim, seed + 2), v = random_numbers(tokens * G * head_dim, seed + 3);
    const auto all_k = repeated(k, G, largest, head_dim), all_v = repeated(v, G, largest, head_dim);
    const Attention<Heads<>> few(Heads<>(kHeads, G, head_dim)), many(Heads<>(kHeads, largest, head_dim));
    for (const auto& [from, count] : {std::pair<Index, Index>{0, prompt}, {prompt, 1}, {prompt + 1, 1}}) {
      const auto rows = [&, first = from, number = count](const std::vector<float>& all, Index heads) {
        return View<const float>(all.data() + first * heads * head_dim, number, heads, head_dim);
      };
      ragged.append(layer, rows(k, G), rows(v, G));
      degrouped.append(layer, rows(all_k, largest), rows(all_v, largest));
      std::vector<float> a(static_cast<std::size_t>(count * kHeads * head_dim)), b(a.size());
      few(rows(q, kHeads), ragged.layer(layer), View<float>(a.data(), count, kHeads, head_dim));
      many(rows(q, kHeads), degrouped.layer(layer), View<float>(b.data(), count, kHeads, head_dim));
      ASSERT_EQ(a, b) << "layer " << layer << " of " << G << " KV heads, token " << from;
    }
  }
}

TEST(PerLayerHeads, GiveTheOutputsOfACacheDegroupedToTheLargest) {
  for (const auto& kv_heads : {kDeciLm7B, kDeciLm6B}) {
    expect_same_as_degrouped<float>(kv_heads, 16, 70);
    expect_same_as_degrouped<f16>(kv_heads, 16, 70);
    expect_same_as_degrouped<bf16>(kv_heads, 16, 70);
  }
}

TEST(PerLayerHeads, GiveThemAtFullSizeToo) {
  expect_same_as_degrouped<float>({1, 2, 4}, 128, 200);
  expect_same_as_degrouped<bf16>({1, 2, 4}, 128, 200);
}

}  // namespace
}  // namespace headwise
