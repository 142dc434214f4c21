// SPDX-License-Identifier: MIT
#include "scores/variants.hpp"

#include <cmath>
#include <map>
#include <memory>
#include <random>

#include "headwise/score/alibi.hpp"

namespace scores {

namespace {

using headwise::RelativeBias;
using headwise::ScoreRow;
using headwise::Temperature;

/// What variants of so many query heads refer to.
struct Tables {
  explicit Tables(Index num_heads) : slopes(headwise::alibi_slopes(num_heads)) {
    std::mt19937 generator(5);
    std::normal_distribution<float> normal;
    std::vector<float> biases(static_cast<std::size_t>(32 * num_heads));
    for (float& x : biases) x = normal(generator);
    bias = std::make_unique<RelativeBias>(biases, num_heads, headwise::RelativeBiasOptions{.bidirectional = false});
    for (Index h = 0; h < num_heads; ++h) sinks.push_back(0.25f * static_cast<float>(h % 9 - 4));
    exact_sinks.assign(sinks.begin(), sinks.end());
  }
  std::vector<float> slopes, sinks;
  std::vector<double> exact_sinks;
  std::unique_ptr<RelativeBias> bias;
};

const Tables& tables_of(Index num_heads) {
  static std::map<Index, Tables> all;
  return all.try_emplace(num_heads, num_heads).first->second;
}

/// Slopes of the user's own, score by score.
constexpr auto kOwnSlope = [](auto score, Index, Index head, Index query, Index key) {
  using T = decltype(score);
  return score - static_cast<T>(0.001) * static_cast<T>(static_cast<int>((head + 1) * (query - key)));
};
/// A window without an edge: scores fall from 1024 tokens' distance on.
constexpr auto kSoftWindow = [](auto score, Index, Index, Index query, Index key) {
  using T = decltype(score);
  const T beyond = static_cast<T>(static_cast<int>(query - key - 1024));
  return score - static_cast<T>(0.01) * (beyond > 0 ? beyond : T{0});
};
constexpr auto kSoftWindowOfARow = [](ScoreRow row, Index sequence, Index head, Index query, Index first_key) {
  for (Index j = 0; j < std::ssize(row); ++j)
    row[static_cast<std::size_t>(j)] =
        kSoftWindow(row[static_cast<std::size_t>(j)], sequence, head, query, first_key + j);
};

template <class F>
auto exactly(F function) {
  return [function](Parameters& p) {
    p.transform = [function](double score, Index head, Index query, Index key) {
      return function(score, Index{0}, head, query, key);
    };
  };
}

}  // namespace

std::vector<Variant> score_variants(Index num_heads) {
  const Tables& tables = tables_of(num_heads);
  const auto bias = [&tables](Parameters& p) {
    p.bias = [&](Index head, Index distance) { return static_cast<double>((*tables.bias)(head, distance)); };
  };
  const auto warm = [](Parameters& p) {
    p.temperature = [](Index position) {
      return 1 + 0.1 * std::log(1 + std::floor(static_cast<double>(position + 1) / 128));
    };
  };
  // one line each: name, what to ask, what it means, limits
  return {
      {"causal"},
      {"softcap 50", [](Options& o) { o.softcap = 50; }, [](Parameters& p) { p.softcap = 50; }, 2, 5},
      {"softcap 5", [](Options& o) { o.softcap = 5; }, [](Parameters& p) { p.softcap = 5; }},
      {"ALiBi", [&](Options& o) { o.alibi_slopes = tables.slopes; },
       [&](Parameters& p) { p.alibi_slopes = tables.slopes; }, 2, 5},
      {"relative bias", [&](Options& o) { o.relative_bias = tables.bias.get(); }, bias, 2, 5},
      {"sink logits", [&](Options& o) { o.sink_logits = tables.sinks; },
       [&](Parameters& p) { p.sink_logits = tables.exact_sinks; }, 2, 5},
      {"temperature",
       [](Options& o) {
         o.temperature = Temperature{128, 0.1f};
       },
       warm, 2, 5},
      {"function: own slopes", [](Options& o) { o.score_function = kOwnSlope; }, exactly(kOwnSlope), 0, 15},
      {"function: soft window", [](Options& o) { o.score_function = kSoftWindow; }, exactly(kSoftWindow), 0, 15},
      {"function of rows", [](Options& o) { o.score_function = kSoftWindowOfARow; }, exactly(kSoftWindow), 0, 15},
  };
}

std::vector<Variant> window_variants() {
  return {
      {"causal"},
      {.name = "1152 keys", .keys = 1152},
      {"window 1024", [](Options& o) { o.window = 1024; }, [](Parameters& p) { p.window = 1024; }, 0, 0, "1152 keys"},
      {"window 1024 and 4 sink tokens",
       [](Options& o) {
         o.window = 1024;
         o.num_sink_tokens = 4;
       },
       [](Parameters& p) {
         p.window = 1024;
         p.num_sink_tokens = 4;
       },
       0, 0, "1152 keys"},
  };
}

}  // namespace scores
