// SPDX-License-Identifier: MIT
#include <cmath>
#include <random>

#include "headwise/score/alibi.hpp"
#include "scores/variants.hpp"

namespace scores {

namespace {

using headwise::RelativeBias;
using headwise::ScoreRow;
using headwise::Temperature;

constexpr Temperature kTemperature{128, 0.1f};

std::vector<float> sinks_of(Index num_heads) {
  std::vector<float> sinks;
  for (Index h = 0; h < num_heads; ++h) sinks.push_back(0.25f * static_cast<float>(h % 9 - 4));
  return sinks;
}

RelativeBias some_bias(Index num_heads) {
  std::mt19937 generator(5);
  std::normal_distribution<float> normal;
  std::vector<float> biases(static_cast<std::size_t>(32 * num_heads));
  for (float& x : biases) x = normal(generator);
  return RelativeBias(biases, num_heads, headwise::RelativeBiasOptions{.bidirectional = false});
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
auto ask(F function) {
  return [function](Call& c) { c.options.score_function = function; };
}
template <class F>
auto exactly(F function) {
  return [function](Definition& d) {
    d.parameters.transform = [function](double score, Index head, Index query, Index key) {
      return function(score, Index{0}, head, query, key);
    };
  };
}

}  // namespace

std::vector<Variant> score_variants(const Shape&) {
  return {
      {"causal"},
      {"softcap 50", [](Call& c) { c.options.softcap = 50; }, [](Definition& d) { d.parameters.softcap = 50; },
       kBuiltIn},
      {"softcap 5", [](Call& c) { c.options.softcap = 5; }, [](Definition& d) { d.parameters.softcap = 5; }, kBuiltIn},
      {"ALiBi", [](Call& c) { c.options.alibi_slopes = c.keep(headwise::alibi_slopes(c.shape.num_heads)); },
       [](Definition& d) { d.parameters.alibi_slopes = d.call.options.alibi_slopes; }, kBuiltIn},
      {"relative bias", [](Call& c) { c.options.relative_bias = &c.keep(some_bias(c.shape.num_heads)); },
       [](Definition& d) {
         d.parameters.bias = [&bias = *d.call.options.relative_bias](Index head, Index distance) {
           return static_cast<double>(bias(head, distance));
         };
       },
       kBuiltIn},
      {"sink logits", [](Call& c) { c.options.sink_logits = c.keep(sinks_of(c.shape.num_heads)); },
       [](Definition& d) {
         d.sinks.assign(d.call.options.sink_logits.begin(), d.call.options.sink_logits.end());
         d.parameters.sink_logits = d.sinks;
       },
       kBuiltIn},
      {"temperature", [](Call& c) { c.options.temperature = kTemperature; },
       [](Definition& d) {
         d.parameters.temperature = [](Index position) {
           return 1 + 0.1 * std::log(1 + std::floor(static_cast<double>(position + 1) / 128));
         };
       },
       kBuiltIn},
      {"function: own slopes", ask(kOwnSlope), exactly(kOwnSlope), kOwnFunction},
      {"function: soft window", ask(kSoftWindow), exactly(kSoftWindow), kOwnFunction},
      {"function of rows", ask(kSoftWindowOfARow), exactly(kSoftWindow), kOwnFunction},
  };
}

}  // namespace scores
