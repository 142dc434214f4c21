// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cstdint>
#include <random>

#include "headwise/attention/select_tiles.hpp"
#include "headwise/parallel/serial.hpp"
#include "scores/variants.hpp"
#include "tests/attention/mask_oracle.hpp"

namespace scores {

namespace {

using headwise::Mask;
using headwise::MaskFunction;
using headwise::MaskTile;
using headwise::TileBounds;
using headwise::TileSelection;
using headwise::TileSet;

std::size_t elements(const Call& c, Index heads) {
  return static_cast<std::size_t>(heads * c.shape.queries * c.shape.keys);
}

// --- masks in memory ---

void ask_for_ones(Call& c) {
  const auto& bytes = c.keep(std::vector<std::uint8_t>(elements(c, 1), 1));
  c.options.mask = Mask(bytes.data(), c.shape.queries, c.shape.keys);
}

/// What causal attention sees, said by a mask.
void ask_for_causal_mask(Call& c) {
  const Index queries = c.shape.queries, keys = c.shape.keys;
  std::vector<std::uint8_t> bytes(elements(c, 1));
  for (Index i = 0; i < queries; ++i)
    for (Index t = 0; t <= keys - queries + i; ++t) bytes[static_cast<std::size_t>(i * keys + t)] = 1;
  c.options.mask = Mask(c.keep(std::move(bytes)).data(), queries, keys);
  c.options.causal = false;
}

/// One key in 8 is hidden.
void ask_for_holes(Call& c, Index heads) {
  std::mt19937 generator(7);
  std::vector<std::uint8_t> bytes(elements(c, heads));
  for (std::uint8_t& byte : bytes) byte = generator() % 8 != 0;
  c.options.mask = Mask(c.keep(std::move(bytes)).data(), heads, c.shape.queries, c.shape.keys);
}

void ask_for_holes_in_bits(Call& c) {
  std::mt19937_64 generator(8);
  std::vector<std::uint64_t> words(static_cast<std::size_t>(c.shape.queries * headwise::ceil_div(c.shape.keys, 64)));
  for (std::uint64_t& word : words) word = ~(generator() & generator() & generator());
  c.options.mask = Mask::of_bits(c.keep(std::move(words)).data(), c.shape.queries, c.shape.keys);
}

template <class T>
void ask_for_numbers(Call& c) {
  std::mt19937 generator(9);
  std::uniform_real_distribution<float> numbers(-1, 1);
  std::vector<T> added(elements(c, 1));
  for (T& x : added) x = T(numbers(generator));
  c.options.mask = Mask(c.keep(std::move(added)).data(), c.shape.queries, c.shape.keys);
}

// --- functions: the last 256 keys, and one in 4 of those before ---

constexpr auto kStrided = [](Index, Index query, Index key) { return query - key < 256 || key % 4 == 0; };
constexpr auto kStridedByHead = [](Index, Index head, Index query, Index key) {
  return query - key < 256 || key % 4 == head % 4;
};
constexpr auto kStridedByWord = [](const MaskTile& tile) -> std::uint64_t {
  const Index recent = tile.query - 255 - tile.first_key;  // the first of the tile's keys that is
  const std::uint64_t every_fourth = 0x1111111111111111;
  if (recent >= 64) return every_fourth;
  return recent <= 0 ? ~std::uint64_t{0} : every_fourth | ~std::uint64_t{0} << recent;
};

template <const auto& Function>
void ask_for_function(Call& c) {
  c.options.mask_function = MaskFunction(Function);
}

// --- sets of tiles ---

void ask_for_all_tiles(Call& c) {
  TileSet& set = c.keep(TileSet({.tiles = headwise::ceil_div(c.shape.keys, headwise::kTileTokens)}));
  for (Index tile = 0; tile < set.shape().tiles; ++tile) set.insert(0, 0, 0, tile);
  c.options.tile_set = &set;
}

/// A quarter of the tiles of each KV head, by the last 64 queries: as Quest chooses.
struct Choice {
  TileBounds bounds;
  headwise::HeadMap map;
  TileSelection selection;
  View<const float> queries;
  TileSet set;

  explicit Choice(const Call& c) : map(headwise::HeadMap::contiguous(c.shape.num_heads, c.shape.num_kv_heads)) {
    bounds.update(c.keys);
    selection.tiles = std::max<Index>(2, bounds.num_tiles(0) / 4);
    const Index count = std::min<Index>(64, c.shape.queries);
    queries = {&c.queries(0, c.shape.queries - count, 0, 0), count, c.shape.num_heads, c.shape.head_dim};
  }
  void choose(ExecutorRef executor) { headwise::select_tiles(set, queries, map, bounds, selection, executor); }
};

void ask_for_chosen_tiles(Call& c) {
  Choice& choice = c.keep(Choice(c));
  const headwise::Serial serial;
  choice.choose(ExecutorRef(serial));
  c.options.tile_set = &choice.set;
}
/// And they are chosen in each call.
void ask_for_choosing(Call& c) {
  Choice& choice = c.keep(Choice(c));
  c.options.tile_set = &choice.set;
  c.before = [&choice](ExecutorRef executor) { choice.choose(executor); };
}

// --- intervals ---

Variant prefix(Index length) {
  return {"prefix of " + std::to_string(length),
          [=](Call& c) { c.options.prefix_lengths = c.keep(std::vector<Index>{std::min(length, c.shape.keys)}); },
          [=](Definition& d) { d.parameters.prefix_length = std::min(length, d.call.shape.keys); }, kBuiltIn};
}
Variant padding(Index length) {
  return {"padding of " + std::to_string(length) + " on the left",
          [=](Call& c) { c.options.key_starts = c.keep(std::vector<Index>{std::min(length, c.shape.keys)}); },
          [=](Definition& d) { d.parameters.key_start = std::min(length, d.call.shape.keys); }, kBuiltIn};
}

}  // namespace

void define_masks(Definition& d) {
  const Shape& s = d.call.shape;
  d.parameters.causal = d.call.options.causal;
  headwise::testing::add_masks(d.parameters, d.call.options,
                               {s.queries, s.keys, s.num_heads, s.num_kv_heads, s.head_dim, s.head_dim}, 0, 0);
}

std::vector<Variant> mask_variants(const Shape&) {
  return {
      {"causal"},
      {"window 1024", [](Call& c) { c.options.window = 1024; }, [](Definition& d) { d.parameters.window = 1024; },
       kBuiltIn},
      {"right window of 16",
       [](Call& c) {
         c.options.causal = false;
         c.options.window_right = 16;
       },
       [](Definition& d) {
         d.parameters.causal = false;
         d.parameters.window_right = 16;
       },
       kBuiltIn},
      {"chunks of 1024", [](Call& c) { c.options.chunk_size = 1024; },
       [](Definition& d) { d.parameters.chunk_size = 1024; }, kBuiltIn},
      prefix(64),
      padding(3),
      {"boolean, all seen", ask_for_ones, define_masks, kBuiltIn},
      {"boolean in place of causal", ask_for_causal_mask, define_masks, kBuiltIn},
      {"boolean, holes", [](Call& c) { ask_for_holes(c, 1); }, define_masks, kBuiltIn},
      {"boolean of each head, holes", [](Call& c) { ask_for_holes(c, c.shape.num_heads); }, define_masks, kBuiltIn},
      {"bits, holes", ask_for_holes_in_bits, define_masks, kBuiltIn},
      {"additive f32", ask_for_numbers<float>, define_masks},
      {"additive f16", ask_for_numbers<headwise::f16>, define_masks},
      {"function of keys", ask_for_function<kStrided>, define_masks, kOwnFunction},
      {"function of heads and keys", ask_for_function<kStridedByHead>, define_masks, kOwnFunction},
      {"function of words", ask_for_function<kStridedByWord>, define_masks, kOwnFunction},
      {"set of all tiles", ask_for_all_tiles, define_masks, kBuiltIn},
      {"a quarter of the tiles", ask_for_chosen_tiles, define_masks, kNoLimit, "set of all tiles"},
      {"the same, and choosing them", ask_for_choosing, define_masks, kNoLimit, "set of all tiles"},
  };
}

}  // namespace scores
