// SPDX-License-Identifier: MIT
// Operations on contiguous, growing and ring caches of every storage type against plain vectors.
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "tests/cache/cache_model.hpp"
#include "tests/support/errors.hpp"

namespace headwise {
namespace {

using testing::expect_error;
using testing::ModelledCache;
using testing::Snapshot;

enum class Kind { contiguous, growing, ring, ring_with_sinks };
constexpr const char* kKindNames[] = {"contiguous", "growing", "ring", "ring_with_sinks"};

std::vector<LayerShape> shapes_of(Kind kind) {
  std::vector<LayerShape> layers{{2, 6, 10}, {1, 20}};
  for (LayerShape& shape : layers)
    if (kind >= Kind::ring) shape.window = 70;
  layers[1].window = kind >= Kind::ring ? 131 : 0;  // another ring
  if (kind == Kind::ring_with_sinks) {
    layers[0].num_sink_tokens = 4;
    layers[1].num_sink_tokens = 70;
  }
  return layers;
}
CacheOptions options_of(Kind kind, Storage keys, Storage values) {
  return {.num_sequences = 3,
          .growing = kind == Kind::growing,
          .max_append = 40,
          .key_storage = keys,
          .value_storage = values};
}
ModelledCache cache_of(Kind kind, Storage keys, Storage values) {
  return ModelledCache(shapes_of(kind), kind == Kind::growing ? 1 : 700, options_of(kind, keys, values));
}

class Operations : public ::testing::TestWithParam<std::tuple<Kind, Storage>> {};

std::string name_of_case(const ::testing::TestParamInfo<std::tuple<Kind, Storage>>& info) {
  return std::string(kKindNames[static_cast<int>(std::get<0>(info.param))]) + "_" +
         std::string(name_of(std::get<1>(info.param)));
}
INSTANTIATE_TEST_SUITE_P(Kinds, Operations,
                         ::testing::Combine(::testing::Values(Kind::contiguous, Kind::growing, Kind::ring,
                                                              Kind::ring_with_sinks),
                                            ::testing::Values(Storage::f32, Storage::f16, Storage::bf16, Storage::e4m3,
                                                              Storage::e5m2, Storage::int8, Storage::int4)),
                         name_of_case);

/// Whether the tokens that a layer must keep of a sequence of `kept`, some of which are held, are.
bool keeps_enough(const std::vector<bool>& held, const LayerShape& shape) {
  const Index count = std::ssize(held), window = shape.window > 0 ? shape.window : count;
  for (Index t = 0; t < count; ++t)
    if ((t < shape.num_sink_tokens || t >= count - window) && !held[static_cast<std::size_t>(t)]) return false;
  return true;
}
std::vector<bool> held_of(const KvCache<>& cache, Index layer, Index b) {
  const TokenRange kept = cache.layer(layer).kept(b);
  std::vector<bool> held;
  for (Index t = 0; t < kept.end; ++t) held.push_back(t < kept.sinks || t >= kept.begin);
  return held;
}

TEST_P(Operations, AgreeWithVectorsInRandomOrder) {
  const auto [kind, storage] = GetParam();
  // values of another type than keys
  const auto values = static_cast<Storage>((static_cast<int>(storage) + 3) % kStorages);
  auto model = cache_of(kind, storage, values);
  KvCache<>& cache = model.cache;
  const auto shapes = shapes_of(kind);
  std::mt19937 random(7);
  const auto below = [&](Index n) {
    return static_cast<Index>(random() % static_cast<unsigned>(std::max<Index>(1, n)));
  };
  int refused = 0, done = 0;
  for (Index b = 0; b < 3; ++b)
    for (Index layer = 0; layer < 2; ++layer)
      for (int i = 0; i < 10; ++i) model.append(layer, b, 40);
  for (int step = 0; step < 300; ++step) {
    const Index b = below(3), other = (b + 1 + below(2)) % 3, count = std::ssize(model.at(0, b));
    const auto check = [&](bool allowed, auto operation) {
      if (allowed) {
        EXPECT_NO_THROW(operation()) << step;
        ++done;
      } else {
        const Snapshot before(cache);
        EXPECT_THROW(operation(), std::invalid_argument) << step;
        EXPECT_EQ(Snapshot(cache), before) << step;
        ++refused;
      }
    };
    const auto all = [&](auto allowed) { return allowed(Index{0}) && allowed(Index{1}); };
    switch (std::max<Index>(0, below(14) - 7)) {
      case 0: {
        const Index n = below(41);
        if (kind == Kind::contiguous && count + n > 700) break;
        for (Index layer = 0; layer < 2; ++layer) model.append(layer, b, n);
        break;
      }
      case 1: {
        const Index keep = std::max<Index>(0, count - below(150));
        check(all([&](Index layer) {
                auto held = held_of(cache, layer, b);
                held.resize(static_cast<std::size_t>(keep));
                return keep == count || keeps_enough(held, shapes[static_cast<std::size_t>(layer)]);
              }),
              [&] { model.truncate(b, keep); });
        break;
      }
      case 2:
      case 3: {
        const Index first = below(3) ? below(count + 1) : std::min(count, below(80));
        const Index last = first + below(below(4) == 0 ? count - first + 1 : std::min<Index>(count - first + 1, 30));
        check(all([&](Index layer) {
                auto held = held_of(cache, layer, b);
                held.erase(held.begin() + first, held.begin() + last);
                return first == last || keeps_enough(held, shapes[static_cast<std::size_t>(layer)]);
              }),
              [&] { model.evict(b, first, last); });
        break;
      }
      case 4: {
        const Index first = below(count + 1), last = first + below(count - first + 1);
        check(all([&](Index layer) {
                const auto held = held_of(cache, layer, b);
                return std::all_of(held.begin() + first, held.begin() + last, [](bool h) { return h; });
              }) &&
                  (kind != Kind::contiguous || std::ssize(model.at(0, other)) + last - first <= 700),
              [&] { model.copy_range(b, first, last, other); });
        break;
      }
      case 5:
        model.fork(b, other);
        break;
      case 6: {
        const std::vector<Index> parents{below(3), below(3), below(3)};
        cache.reorder(parents);
        for (auto& layer : model.sequences) {
          const auto old = layer;
          for (std::size_t i = 0; i < 3; ++i) layer[i] = old[static_cast<std::size_t>(parents[i])];
        }
        break;
      }
    }
    if (std::ssize(model.at(0, b)) > 650) model.truncate(b, 0);
    if (step % 8 == 7 || step > 280) model.expect();
    if (HasFailure()) FAIL() << "step " << step;
  }
  EXPECT_GT(done, 40);
  EXPECT_GE(refused, kind >= Kind::ring ? 6 : 0);
  // a copy goes its own way
  const auto copy = cache.copy();
  EXPECT_EQ(Snapshot(copy), Snapshot(cache));
}

TEST_P(Operations, MovedKeysAreTurnedToTheirNewPositions) {
  const auto [kind, storage] = GetParam();
  auto model = cache_of(kind, storage, Storage::bf16);
  const std::vector<Rope> ropes{Rope(6, {.style = RopeStyle::interleaved}),
                                Rope(20, {.base = 500, .rotary_dim = 12, .scaling = LinearScaling{2.0}})};
  for (Index layer = 0; layer < 2; ++layer)
    for (const Index n : {40, 40, 9, 40}) model.append(layer, 0, n);
  for (Index layer = 0; layer < 2; ++layer) model.append(layer, 1, 33);
  model.cache.evict(0, 3, 20, ropes);
  model.cache.copy_range(0, 70, 100, 1, ropes);
  for (Index layer = 0; layer < 2; ++layer) {
    auto &from = model.at(layer, 0), &to = model.at(layer, 1);
    from.erase(from.begin() + 3, from.begin() + 20);
    model.turn(layer, from, 3, -17, ropes[static_cast<std::size_t>(layer)]);
    to.insert(to.end(), from.begin() + 70, from.begin() + 100);
    model.turn(layer, to, 33, 33 - 70, ropes[static_cast<std::size_t>(layer)]);
  }
  model.expect();
}

TEST(CacheOperations, MistakesAreNamedAndChangeNothing) {
  auto model = cache_of(Kind::ring_with_sinks, Storage::int8, Storage::f16);
  KvCache<>& cache = model.cache;
  for (Index layer = 0; layer < 2; ++layer) {
    for (int i = 0; i < 12; ++i) model.append(layer, 0, 40);
    model.append(layer, 1, 10);
  }
  model.append(1, 1, 3);
  const Snapshot before(cache);
  expect_error([&] { model.append(0, 0, 41); }, {"tokens (41)", "max_append (40)", "layer 0"});
  expect_error([&] { cache.truncate(0, 200); }, {"tokens (200) to keep", "layer 0", "70", "forgotten tokens 64 to"});
  expect_error([&] { cache.evict(3, 0, 1); }, {"sequence (3)", "0 to num_sequences - 1 (2)"});
  expect_error([&] { cache.evict(0, -1, 3); }, {"first (-1)", "0 to last (3)"});
  expect_error([&] { cache.evict(0, 5, 4); }, {"first (5)", "0 to last (4)"});
  expect_error([&] { cache.evict(0, 470, 481); }, {"last (481)", "480 tokens", "layer 0"});
  expect_error([&] { cache.evict(1, 5, 12); }, {"last (12)", "10 tokens", "layer 0"});
  expect_error([&] { cache.evict(0, 0, 100); }, {"tokens 0 to 99 to evict", "first", "forgotten"});
  expect_error([&] { cache.evict(0, 300, 470); }, {"tokens 300 to 469 to evict", "last 70"});
  const Rope rope(6), ntk(6, {.scaling = DynamicNtkScaling{.factor = 2, .original_max_position = 10}});
  expect_error([&] { cache.evict(0, 470, 475, rope); }, {"head_dim (6)", "layer 1", "(20)"});
  expect_error([&] { cache.evict(0, 470, 475, ntk); }, {"dynamic NTK"});
  expect_error([&] { cache.evict(0, 470, 475, std::vector<Rope>{rope, rope, rope}); }, {"ropes (3)", "per layer (2)"});
  expect_error([&] { cache.copy_range(0, 470, 475, 0); }, {"to (0)", "another sequence than from (0)"});
  expect_error([&] { cache.copy_range(0, 470, 475, 7); }, {"to (7)", "0 to num_sequences - 1 (2)"});
  expect_error([&] { cache.copy_range(0, 100, 475, 1); }, {"tokens 100 to 474", "not have been forgotten"});
  expect_error([&] { cache.fork(-1, 1); }, {"from (-1)"});
  expect_error([&] { cache.fork(1, 3); }, {"to (3)"});
  std::vector<float> out(12);
  expect_error([&] { cache.read_key(0, 0, 100, 0, std::span(out).first(6)); }, {"tokens 100 to 100", "forgotten"});
  expect_error([&] { cache.read_keys(0, 0, 479, 2, 0, out); }, {"count (2)", "0 to 1"});
  expect_error([&] { cache.read_keys(0, 0, 470, 3, 0, out); }, {"out (12 floats)", "count x head_dim (18)"});
  EXPECT_EQ(Snapshot(cache), before);

  auto full = cache_of(Kind::contiguous, Storage::f32, Storage::f32);
  for (Index layer = 0; layer < 2; ++layer)
    for (Index b = 0; b < 2; ++b) full.append(layer, b, 400);
  const Snapshot both(full.cache);
  expect_error([&] { full.cache.copy_range(0, 0, 301, 1); }, {"tokens (301)", "400 stored", "max_tokens is 700"});
  EXPECT_EQ(Snapshot(full.cache), both);
}

TEST(CacheOperations, RingsAreMadeOfSensibleNumbers) {
  const auto make = [](LayerShape shape, CacheOptions options) {
    return [=] { KvCache<float>(std::span<const LayerShape>(&shape, 1), 10, options); };
  };
  expect_error(make({1, 8, 8, -1}, {}), {"layers[0].window (-1)"});
  expect_error(make({1, 8, 8, 10, -2}, {}), {"layers[0].num_sink_tokens (-2)"});
  expect_error(make({1, 8, 8, 0, 4}, {}), {"layers[0].num_sink_tokens (4)", "window is 0"});
  expect_error(make({1, 8, 8, 10}, {.key_norms = true}), {"key_norms (true)", "layers[0].window"});
  expect_error(make({1, 8, 8, 10}, {.max_append = 0}), {"max_append (0)"});
  expect_error(make({1, 512, 512, Index{1} << 48}, {.num_sequences = 1 << 20}),
               {"window (281474976710656)", "less than 2^63 bytes"});
}

TEST(CacheOperations, ARingHasRoomForItsWindowAndOneAppend) {
  // 64 + 64 tokens may touch 3 tiles
  const LayerShape ring{3, 16, 32, 64, 1};
  const KvCache<bf16> cache(std::span<const LayerShape>(&ring, 1), 1, {.num_sequences = 2, .max_append = 64});
  EXPECT_EQ(cache.bytes(), 2 * 3 * (1 + 3) * tile_bytes(Storage::bf16, 16, 32));
  EXPECT_EQ(cache.max_tokens(), Index{1} << 48);
  EXPECT_EQ(cache.layer_shape(), ring);
}

TEST(CacheOperations, EvictKeepsKeyNormsToTheBit) {
  const Heads<> heads(2, 2, 24);
  const auto k = testing::random_numbers(300 * 48, 1);
  const auto rows = [&](Index first, Index count) { return View<const float>(k.data() + first * 48, count, 2, 24); };
  for (const auto& [first, last] :
       {std::pair<Index, Index>{0, 300}, {0, 1}, {64, 128}, {63, 65}, {100, 300}, {5, 250}}) {
    KvCache<int8> cache(heads, 300, {.key_norms = true}), expected(heads, 300, {.key_norms = true});
    cache.append(rows(0, 300), rows(0, 300));
    cache.evict(0, first, last);
    expected.append(rows(0, first), rows(0, first));
    expected.append(rows(last, 300 - last), rows(last, 300 - last));
    for (Index g = 0; g < 2; ++g)
      EXPECT_EQ(cache.key_norm_squares(0, 0, g), expected.key_norm_squares(0, 0, g)) << first;
    // and the sums before each tile with them
    cache.truncate(cache.num_tokens() / 2);
    expected.truncate(expected.num_tokens() / 2);
    for (Index g = 0; g < 2; ++g)
      EXPECT_EQ(cache.key_norm_squares(0, 0, g), expected.key_norm_squares(0, 0, g)) << first;
  }
}

TEST(CacheOperations, CopiesAndForksHaveTheirKeyNorms) {
  const Heads<> heads(2, 2, 24);
  const auto k = testing::random_numbers(200 * 48, 1);
  const auto rows = [&](Index first, Index count) { return View<const float>(k.data() + first * 48, count, 2, 24); };
  KvCache<e4m3> cache(heads, 1, {.num_sequences = 3, .growing = true, .key_norms = true});
  KvCache<e4m3> expected(heads, 300, {.key_norms = true});
  cache.append(0, 0, rows(0, 200), rows(0, 200));
  cache.append(0, 1, rows(0, 61), rows(0, 61));
  cache.copy_range(0, 7, 190, 1);
  cache.fork(1, 2);
  expected.append(rows(0, 61), rows(0, 61));
  expected.append(rows(7, 183), rows(7, 183));
  for (Index g = 0; g < 2; ++g) {
    EXPECT_EQ(cache.key_norm_squares(0, 1, g), expected.key_norm_squares(0, 0, g));
    EXPECT_EQ(cache.key_norm_squares(0, 2, g), expected.key_norm_squares(0, 0, g));
  }
}

TEST(CacheOperations, OfLayersThatShareAreDoneOnce) {
  const std::vector<LayerShape> layers(3, LayerShape{1, 8});
  KvCache<float> cache(layers, KvSharing::from_sources(std::vector<Index>{0, 0, 2}), 100, {.num_sequences = 2});
  const auto k = testing::random_numbers(50 * 8, 1);
  const View<const float> rows(k.data(), 50, 1, 8);
  for (const Index layer : {0, 2}) cache.append(layer, 0, rows, rows);
  cache.evict(0, 10, 15);
  cache.copy_range(0, 0, 5, 1);
  for (Index layer = 0; layer < 3; ++layer) {
    EXPECT_EQ(cache.num_tokens(layer, 0), 45);
    EXPECT_EQ(cache.num_tokens(layer, 1), 5);
    std::vector<float> keys(16);
    cache.read_keys(layer, 0, 10, 2, 0, keys);
    EXPECT_EQ(keys, std::vector<float>(k.begin() + 15 * 8, k.begin() + 17 * 8));
  }
}

}  // namespace
}  // namespace headwise
