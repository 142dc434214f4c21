// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include "headwise/cache/layer_ropes.hpp"
#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"
#include "headwise/core/view.hpp"

// Which tokens of a cache to keep, by the attention that they were paid (Outputs::mass). Caches keep a token in all heads
// and layers or in none, so masses are summed over heads (and by the caller over layers) before a choice.

namespace headwise {

namespace detail {

/// Positions 0 … masses − 1 of the `count` largest numbers, the earlier ones of equals; ascending.
inline std::vector<Index> heaviest(std::span<const float> masses, Index count) {
  std::vector<Index> order(masses.size());
  std::iota(order.begin(), order.end(), Index{0});
  const auto mass = [&](Index i) { return masses[static_cast<std::size_t>(i)]; };
  const auto middle = order.begin() + std::clamp<Index>(count, 0, std::ssize(order));
  std::partial_sort(order.begin(), middle, order.end(),
                    [&](Index a, Index b) { return mass(a) > mass(b) || (mass(a) == mass(b) && a < b); });
  order.erase(middle, order.end());
  std::sort(order.begin(), order.end());
  return order;
}

inline void check_masses(std::span<const float> mass) {
  for (std::size_t t = 0; t < mass.size(); ++t) require(!std::isnan(mass[t]), "mass[", t, "] (NaN) must be a number");
}

/// The `chosen` tokens of those before the last `recent` of `tokens`, and these.
inline std::vector<Index> with_recent(std::vector<Index> chosen, Index tokens, Index recent) {
  for (Index t = tokens - recent; t < tokens; ++t) chosen.push_back(t);
  return chosen;
}

}  // namespace detail

/// The masses of the first `tokens` tokens of a sequence, mass [sequence][key][head][1], summed over the heads.
inline std::vector<float> mass_of_tokens(View<const float> mass, Index sequence, Index tokens) {
  require(sequence >= 0 && sequence < mass.sequences(), "sequence (", sequence, ") must be 0 to ",
          mass.sequences() - 1);
  require(tokens >= 0 && tokens <= mass.tokens(), "tokens (", tokens, ") must be 0 to those of the mass (",
          mass.tokens(), ")");
  require(mass.dim() == 1, "dim of the mass (", mass.dim(), ") must be 1");
  std::vector<float> sums;
  sums.reserve(static_cast<std::size_t>(tokens));
  for (Index t = 0; t < tokens; ++t) {
    double sum = 0;
    for (Index h = 0; h < mass.heads(); ++h) sum += static_cast<double>(mass(sequence, t, h, 0));
    sums.push_back(static_cast<float>(sum));
  }
  return sums;
}

/// H2O (Zhang et al., H2O: Heavy-Hitter Oracle for Efficient Generative Inference of Large Language Models, 2023, arXiv
/// 2306.14048): of the tokens whose accumulated masses these are, the `recent` last ones and those before that were paid most,
/// `budget` in all; all tokens where there are no more. Ascending positions; of equal masses the earlier is kept. `recent` is at most
/// `budget`. Throws std::invalid_argument on these and on NaN.
inline std::vector<Index> keep_heavy_hitters(std::span<const float> mass, Index budget, Index recent) {
  require(recent >= 0, "recent (", recent, ") must be at least 0");
  require(budget >= recent, "budget (", budget, ") must be at least recent (", recent, ")");
  detail::check_masses(mass);
  const Index tokens = std::ssize(mass), last = std::min(recent, tokens);
  return detail::with_recent(detail::heaviest(mass.first(static_cast<std::size_t>(tokens - last)), budget - recent),
                             tokens, last);
}

enum class Pooling : std::uint8_t { average, max };

/// How SnapKV looks at masses: of each token's `kernel` neighbours, itself in the middle, those beyond the ends 0.
struct ObservedOptions {
  Index window = 32;  // the last tokens, which observe (MassOutput::last_queries) and are kept
  Index kernel = 5;   // odd; 1: no pooling
  Pooling pooling = Pooling::average;
};

/// SnapKV (Li et al., SnapKV: LLM Knows What You are Looking for Before Generation, 2024, arXiv 2404.14469): of a prompt's tokens,
/// with the masses that the last `window` queries paid them, the window and those before it with the largest pooled masses,
/// `budget` in all; all tokens where there are no more. Pooling sees the tokens before the window alone. Ascending positions; of
/// equals the earlier is kept. Throws std::invalid_argument on impossible options and on NaN.
inline std::vector<Index> keep_observed(std::span<const float> mass, Index budget,
                                        const ObservedOptions& options = {}) {
  require(options.window >= 0, "window (", options.window, ") must be at least 0");
  require(options.kernel >= 1 && options.kernel % 2 == 1, "kernel (", options.kernel, ") must be odd and at least 1");
  require(budget >= options.window, "budget (", budget, ") must be at least the window (", options.window, ")");
  detail::check_masses(mass);
  const Index tokens = std::ssize(mass), last = std::min(options.window, tokens), before = tokens - last;
  std::vector<float> pooled;
  pooled.reserve(static_cast<std::size_t>(before));
  for (Index t = 0; t < before; ++t) {
    const Index reach = options.kernel / 2;
    double sum = 0;
    float most = 0;
    for (Index i = std::max<Index>(0, t - reach); i < std::min(before, t + reach + 1); ++i) {
      const float x = mass[static_cast<std::size_t>(i)];
      sum += static_cast<double>(x);
      most = std::max(most, x);
    }
    pooled.push_back(options.pooling == Pooling::max ? most
                                                     : static_cast<float>(sum / static_cast<double>(options.kernel)));
  }
  return detail::with_recent(detail::heaviest(pooled, budget - options.window), tokens, last);
}

/// Appends the tokens `kept` (ascending positions) of one sequence of a cache to another, in every layer, one behind another:
/// what choosing leads to. Of a KvCache, followed by fork or reorder; of a PagedCache, sequences are ids. With ropes, keys
/// are turned to their new positions, each once. Cost: these tokens.
/// Throws std::invalid_argument, before anything is changed, unless the positions ascend and are below the sequence's tokens.
template <class Cache, class Sequence>
void copy_tokens(Cache& cache, const Sequence& from, std::span<const Index> kept, const Sequence& to,
                 LayerRopes ropes = {}) {
  const Index tokens = cache.num_tokens(0, from);
  for (std::size_t i = 0; i < kept.size(); ++i)
    require(kept[i] >= (i == 0 ? 0 : kept[i - 1] + 1) && kept[i] < tokens, "kept[", i, "] (", kept[i],
            ") must be above those before it and below the tokens of the sequence (", tokens, ")");
  for (std::size_t i = 0, end; i < kept.size(); i = end) {
    for (end = i + 1; end < kept.size() && kept[end] == kept[end - 1] + 1;) ++end;
    cache.copy_range(from, kept[i], kept[end - 1] + 1, to, ropes);
  }
}

}  // namespace headwise
