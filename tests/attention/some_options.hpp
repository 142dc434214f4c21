// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <string>
#include <vector>

#include "headwise/headwise.hpp"
#include "tests/attention/some_masks.hpp"

namespace headwise::testing {

/// Every way to hide keys and to make scores, one at a time and some together, for calls of one sequence of 4 heads over 2
/// KV heads with `queries` query tokens and `keys` keys, at least 200. Owns what the options refer to.
class SomeOptions {
 public:
  struct Case {
    std::string name;
    Options options;
  };

  SomeOptions(Index queries, Index keys)
      : lengths_{keys - 30},
        starts_{70},
        prefix_{100},
        boolean_(MaskElements::boolean, {1, 4, queries, keys}, 11),
        bits_(MaskElements::bits, {1, 1, queries, keys}, 12),
        added_(MaskElements::f32, {1, 4, queries, keys}, 13),
        halves_(MaskElements::f16, {1, 1, queries, keys}, 14),
        tree_words_(static_cast<std::size_t>(queries * ceil_div(queries, 64)), 0x5555555555555555u),
        tiles_({.tiles = ceil_div(keys, 64), .kv_heads = 2}),
        bias_(std::vector<float>(4 * 32, 0.25f), 4) {
    for (Index i = 0; i < queries; ++i)  // every other node and itself
      tree_words_[static_cast<std::size_t>(i * ceil_div(queries, 64) + i / 64)] |= std::uint64_t{1} << (i % 64);
    for (Index tile = 0; tile < ceil_div(keys, 64); ++tile) tiles_.insert(0, tile % 2, 0, tile);
    tiles_.insert(0, 0, 0, ceil_div(keys, 64) - 1);
    const TreeMask tree(tree_words_.data(), queries, ceil_div(queries, 64));
    cases_ = {
        {"causal", {}},
        {"window", {.window = 40}},
        {"both windows", {.causal = false, .window = 50, .window_right = 3}},
        {"window and sinks", {.window = 40, .num_sink_tokens = 3}},
        {"chunks", {.chunk_size = 100}},
        {"prefix", {.window = 60, .prefix_lengths = prefix_}},
        {"key_starts", {.key_starts = starts_}},
        {"key_lengths", {.key_lengths = lengths_}},
        {"boolean mask", {.causal = false, .mask = boolean_.view()}},
        {"mask of bits", {.mask = bits_.view()}},
        {"additive mask", {.causal = false, .mask = added_.view()}},
        {"additive mask of f16", {.mask = halves_.view()}},
        {"tree", {.tree_mask = tree}},
        {"tile set", {.tile_set = &tiles_}},
        {"mask function", {.mask_function = MaskFunction(kThirds)}},
        {"softcap", {.window = 90, .softcap = 4.0f}},
        {"alibi", {.window = 90, .alibi_slopes = slopes_}},
        {"relative bias", {.window = 90, .relative_bias = &bias_}},
        {"score function", {.window = 90, .score_function = ScoreFunction(kHalf)}},
        {"temperature", {.window = 90, .temperature = Temperature{.floor_scale = 32}}},
        {"sink logits", {.window = 90, .sink_logits = sinks_}},
        {"many",
         {.window = 120,
          .temperature = Temperature{.floor_scale = 32},
          .softcap = 4.0f,
          .alibi_slopes = slopes_,
          .relative_bias = &bias_,
          .sink_logits = sinks_,
          .mask = added_.view(),
          .tile_set = &tiles_,
          .key_lengths = lengths_}},
    };
  }
  SomeOptions(const SomeOptions&) = delete;
  SomeOptions& operator=(const SomeOptions&) = delete;

  const std::vector<Case>& cases() const { return cases_; }

 private:
  struct Thirds {
    bool operator()(Index, Index query, Index key) const { return (query + key) % 3 != 0 && key != 64; }
  };
  struct Half {
    float operator()(float score, Index, Index, Index, Index) const { return score / 2; }
  };
  static constexpr Thirds kThirds{};
  static constexpr Half kHalf{};

  std::vector<Index> lengths_, starts_, prefix_;
  std::array<float, 4> slopes_{0.5f, 0.25f, 0.125f, 0.0625f}, sinks_{1.0f, -2.0f, 0.5f, 3.0f};
  SomeMask boolean_, bits_, added_, halves_;
  std::vector<std::uint64_t> tree_words_;
  TileSet tiles_;
  RelativeBias bias_;
  std::vector<Case> cases_;
};

}  // namespace headwise::testing
