// SPDX-License-Identifier: MIT
// Bad input to a KvCache is named, and nothing changes.
#include <limits>
#include <vector>

#include "headwise/cache/kv_cache.hpp"
#include "tests/cache/cache_contents.hpp"
#include "tests/support/errors.hpp"

namespace headwise {
namespace {

using testing::expect_error;
using testing::random_numbers;
using testing::Snapshot;

class KvCacheErrors : public ::testing::Test {
 protected:
  KvCacheErrors() {
    for (Index layer = 0; layer < 2; ++layer) cache.append(layer, view(2, 5, 3, 8), view(2, 5, 3, 12));
  }
  View<const float> view(Index sequences, Index tokens, Index heads, Index dim) const {
    return {data.data(), sequences, tokens, heads, dim};
  }
  template <class F>
  void expect_unchanged_error(F&& f, std::initializer_list<std::string_view> parts) {
    const Snapshot before(cache);
    expect_error(f, parts);
    EXPECT_EQ(Snapshot(cache), before);
  }

  std::vector<float> data = random_numbers(4096, 16);
  KvCache<bf16> cache{std::vector<LayerShape>{{3, 8, 12}, {3, 8, 12}}, 20, {.num_sequences = 2}};
};

TEST_F(KvCacheErrors, RowsThatDoNotFitTheLayer) {
  expect_unchanged_error([&] { cache.append(0, view(2, 4, 2, 8), view(2, 4, 3, 12)); },
                         {"heads (2) of k", "num_kv_heads (3)"});
  expect_unchanged_error([&] { cache.append(0, view(2, 4, 3, 8), view(2, 4, 4, 12)); },
                         {"heads (4) of v", "num_kv_heads (3)"});
  expect_unchanged_error([&] { cache.append(0, view(2, 4, 3, 9), view(2, 4, 3, 12)); }, {"dim (9) of k", "must be 8"});
  expect_unchanged_error([&] { cache.append(0, view(2, 4, 3, 8), view(2, 4, 3, 8)); }, {"dim (8) of v", "must be 12"});
  expect_unchanged_error([&] { cache.append(0, view(2, 4, 3, 8), view(2, 3, 3, 12)); },
                         {"tokens (3) of v", "tokens of k (4)"});
  expect_unchanged_error([&] { cache.append(0, view(1, 4, 3, 8), view(2, 4, 3, 12)); },
                         {"sequences (1) of k", "must be 2"});
  expect_unchanged_error([&] { cache.append(0, view(2, 4, 3, 8), view(1, 4, 3, 12)); },
                         {"sequences (1) of v", "must be 2"});
  expect_unchanged_error([&] { cache.append(0, 1, view(2, 4, 3, 8), view(1, 4, 3, 12)); },
                         {"sequences (2) of k", "must be 1"});
}

TEST_F(KvCacheErrors, LayersAndSequencesThatDoNotExist) {
  expect_unchanged_error([&] { cache.append(2, view(2, 1, 3, 8), view(2, 1, 3, 12)); },
                         {"layer (2)", "num_layers - 1 (1)"});
  expect_unchanged_error([&] { cache.append(-1, view(2, 1, 3, 8), view(2, 1, 3, 12)); },
                         {"layer (-1)", "num_layers - 1 (1)"});
  expect_unchanged_error([&] { cache.append(0, 2, view(1, 1, 3, 8), view(1, 1, 3, 12)); },
                         {"sequence (2)", "num_sequences - 1 (1)"});
  expect_unchanged_error([&] { cache.append(0, -1, view(1, 1, 3, 8), view(1, 1, 3, 12)); },
                         {"sequence (-1)", "num_sequences - 1 (1)"});
  expect_unchanged_error([&] { cache.append(view(2, 1, 3, 8), view(2, 1, 3, 12)); }, {"2 layers", "num_layers 1"});
  expect_unchanged_error([&] { (void)cache.layer(); }, {"2 layers", "num_layers 1"});
  expect_unchanged_error([&] { (void)cache.layer(5); }, {"layer (5)"});
  expect_unchanged_error([&] { (void)cache.num_tokens(3); }, {"layer (3)"});
  expect_unchanged_error([&] { (void)cache.num_tokens(0, 3); }, {"sequence (3)"});
  expect_unchanged_error([&] { (void)cache.max_tokens(-4); }, {"layer (-4)"});
}

TEST_F(KvCacheErrors, TokensThatAreNotThere) {
  std::vector<float> key(8), value(12);
  expect_unchanged_error([&] { cache.truncate(6); }, {"tokens (6)", "stored (5)"});
  expect_unchanged_error([&] { cache.truncate(-1); }, {"tokens (-1)", "0 to"});
  expect_unchanged_error([&] { cache.truncate(1, 6); }, {"tokens (6)", "stored (5)"});
  expect_unchanged_error([&] { cache.truncate(2, 1); }, {"sequence (2)"});
  expect_unchanged_error([&] { cache.read_key(0, 0, 5, 0, key); }, {"token (5)", "num_tokens - 1 (4)"});
  expect_unchanged_error([&] { cache.read_key(0, 0, -1, 0, key); }, {"token (-1)"});
  expect_unchanged_error([&] { cache.read_value(0, 0, 0, 3, value); }, {"kv_head (3)", "num_kv_heads - 1 (2)"});
  expect_unchanged_error([&] { cache.read_key(0, 0, 0, 0, value); }, {"out (12 floats)", "head_dim (8)"});
  expect_unchanged_error([&] { cache.read_value(0, 0, 0, 0, key); }, {"out (8 floats)", "value_dim (12)"});
}

TEST(KvCache, ShapesOutOfRangeAreNamed) {
  const auto make = [](LayerShape shape, Index tokens = 1, CacheOptions options = {}) {
    const std::vector<LayerShape> layers{{1, 8}, shape};
    KvCache<float> cache(layers, tokens, options);
  };
  expect_error([] { KvCache<float>(std::vector<LayerShape>{}, 4); }, {"layers (0)", "at least 1"});
  expect_error([&] { make({0, 8}); }, {"layers[1].num_kv_heads (0)", "must be 1 to"});
  expect_error([&] { make({Index{1} << 40, 8}); }, {"layers[1].num_kv_heads (1099511627776)", "must be 1 to"});
  expect_error([&] { make({1, 0}); }, {"layers[1].head_dim (0)", "1 to 576"});
  expect_error([&] { make({1, 577}); }, {"layers[1].head_dim (577)", "1 to 576"});
  expect_error([&] { make({1, 8, -1}); }, {"layers[1].value_dim (-1)", "576"});
  expect_error([&] { make({1, 8, 577}); }, {"layers[1].value_dim (577)", "576"});
  expect_error([&] { make({1, 8}, 0); }, {"max_tokens (0)", "must be 1 to"});
  expect_error([&] { make({1, 8}, -5); }, {"max_tokens (-5)", "must be 1 to"});
  expect_error([&] { make({1, 8}, 5, {.num_sequences = 0}); }, {"num_sequences (0)", "at least 1"});
}

}  // namespace
}  // namespace headwise
