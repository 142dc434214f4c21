// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"
#include "headwise/regroup/key_driven/allocation.hpp"

namespace headwise::regroup {

/// What importance is made of the norms n of the keys. `kept` are the norms at the update before, 0 before the first.
enum class KeyDrivenDynamics : std::uint8_t {
  none,  ///< n: KDGQA
  diff,  ///< |kept − n|: DGQA, by what has changed
  ema,   ///< 0.9·n + 0.1·kept: DGQA, smoothed
};

enum class KeyDrivenScope : std::uint8_t {
  batch,         ///< one grouping for all sequences, by the sum of their norms, as the authors' code has it
  per_sequence,  ///< each sequence its own: the same as alone
  frozen,        ///< one for all, decided by the first update and kept
};

struct KeyDrivenOptions {
  KeyDrivenMode mode = KeyDrivenMode::ratio;
  KeyDrivenDynamics dynamics = KeyDrivenDynamics::none;
  /// Groups are decided anew at every window-th call; in between they stay.
  Index window = 1;
  KeyDrivenScope scope = KeyDrivenScope::batch;
};

/// Key-driven groups of one attention layer: how many consecutive query heads read each KV head, decided while decoding by
/// the Frobenius norms of the cached keys (KDGQA and DGQA; Khan et al. 2024, arXiv 2408.08454). Keep one for each layer
/// and pass what it returns as Options::group_boundaries, or the object itself as nn::ForwardOptions::groups.
/// Allocates when it is made and never again.
class KeyDrivenGroups {
 public:
  KeyDrivenGroups(Index num_heads, Index num_kv_heads, Index num_sequences = 1, KeyDrivenOptions options = {})
      : num_heads_(num_heads), num_kv_heads_(num_kv_heads), num_sequences_(num_sequences), options_(options) {
    constexpr Index kMostHeads = Index{1} << 20, kMostSequences = Index{1} << 40;
    require(num_heads >= 1 && num_heads <= kMostHeads, "num_heads (", num_heads, ") must be 1 to ", kMostHeads);
    require(num_kv_heads >= 1 && num_kv_heads <= num_heads, "num_kv_heads (", num_kv_heads,
            ") must be 1 to num_heads (", num_heads, ")");
    require(num_sequences >= 1 && num_sequences <= kMostSequences, "num_sequences (", num_sequences, ") must be 1 to ",
            kMostSequences);
    require(options.window >= 1, "window (", options.window, ") of KeyDrivenGroups must be at least 1");
    const auto size = [](Index n) { return static_cast<std::size_t>(n); };
    measured_.resize(size(num_sequences * num_kv_heads));
    kept_.resize(size(num_groupings() * num_kv_heads));
    norms_.resize(kept_.size());
    importance_.resize(kept_.size());
    boundaries_.resize(size(num_groupings() * (num_kv_heads + 1)));
    next_.resize(boundaries_.size());
    reset();
  }

  const KeyDrivenOptions& options() const { return options_; }

  /// The boundaries of the groups: num_kv_heads + 1 numbers, or as many for each sequence where the scope is
  /// per_sequence. Equal groups before the first update. Refers to this object until it is destroyed or changed.
  std::span<const Index> boundaries() const { return boundaries_; }

  /// One step: takes the norms of all keys so far, [num_sequences][num_kv_heads], decides the groups if it is time to,
  /// and returns boundaries(). Throws std::invalid_argument, changing nothing, where there are more or fewer norms or one
  /// is NaN, infinite or negative.
  std::span<const Index> update(std::span<const double> norms) {
    require(std::ssize(norms) == num_sequences_ * num_kv_heads_, "norms (", norms.size(),
            " numbers) of KeyDrivenGroups must hold num_sequences x num_kv_heads (", num_sequences_, " x ",
            num_kv_heads_, ") numbers");
    for (std::size_t i = 0; i < norms.size(); ++i)
      require(std::isfinite(norms[i]) && norms[i] >= 0, "norms[", i, "] (", norms[i],
              ") of KeyDrivenGroups must be finite and at least 0");
    if (is_due()) decide(norms);
    ++calls_;
    return boundaries();
  }

  /// The same with the norms that a cache keeps of a layer (CacheOptions::key_norms), after its keys were appended. Always
  /// to be called with the same layer: norms of the update before are compared with those of this one.
  template <class Cache>
  std::span<const Index> operator()(const Cache& cache, Index layer) {
    require(cache.num_sequences() == num_sequences_, "num_sequences of the cache (", cache.num_sequences(),
            ") must equal num_sequences of KeyDrivenGroups (", num_sequences_, ")");
    const Index kv_heads = cache.layer_shape(layer).num_kv_heads;
    require(kv_heads == num_kv_heads_, "num_kv_heads of layer ", layer, " of the cache (", kv_heads,
            ") must equal num_kv_heads of KeyDrivenGroups (", num_kv_heads_, ")");
    require(calls_ == 0 || layer == layer_, "layer (", layer, ") must be ", layer_,
            ", with which these KeyDrivenGroups were called before; keep one for each layer");
    for (Index b = 0; b < num_sequences_; ++b)
      for (Index g = 0; g < num_kv_heads_; ++g)
        measured_[static_cast<std::size_t>(b * num_kv_heads_ + g)] = std::sqrt(cache.key_norm_squares(layer, b, g));
    update(measured_);
    layer_ = layer;
    return boundaries();
  }

  /// Forgets what it has seen, as for a new batch of sequences.
  void reset() {
    calls_ = 0;
    std::ranges::fill(kept_, 0.0);
    allocate_all(kept_, boundaries_);
  }

 private:
  static constexpr double kNew = 0.9;  // of an ema, as in the authors' code

  Index num_groupings() const { return options_.scope == KeyDrivenScope::per_sequence ? num_sequences_ : 1; }

  bool is_due() const {
    if (options_.scope == KeyDrivenScope::frozen) return calls_ == 0;
    return calls_ % options_.window == 0;
  }

  void decide(std::span<const double> measured) {
    // all sequences of a batch are summed; otherwise each is a grouping of its own
    std::ranges::fill(norms_, 0.0);
    for (std::size_t i = 0; i < measured.size(); ++i) norms_[i % norms_.size()] += measured[i];
    for (std::size_t i = 0; i < norms_.size(); ++i) importance_[i] = importance(norms_[i], kept_[i]);
    allocate_all(importance_, next_);
    boundaries_.swap(next_);
    kept_.swap(norms_);
  }

  double importance(double norm, double kept) const {
    switch (options_.dynamics) {
      case KeyDrivenDynamics::diff:
        return std::abs(kept - norm);
      case KeyDrivenDynamics::ema:
        return kNew * norm + (1 - kNew) * kept;
      default:
        return norm;
    }
  }

  void allocate_all(std::span<const double> importance, std::span<Index> boundaries) const {
    const auto count = static_cast<std::size_t>(num_kv_heads_);
    for (std::size_t i = 0; i < static_cast<std::size_t>(num_groupings()); ++i)
      allocate(importance.subspan(i * count, count), num_heads_, options_.mode,
               boundaries.subspan(i * (count + 1), count + 1));
  }

  Index num_heads_, num_kv_heads_, num_sequences_;
  KeyDrivenOptions options_;
  Index calls_ = 0, layer_ = 0;
  std::vector<double> measured_;          // [sequence][kv_head]
  std::vector<double> kept_, norms_;      // [grouping][kv_head]: at the update before, and at this one
  std::vector<double> importance_;        // [grouping][kv_head]
  std::vector<Index> boundaries_, next_;  // [grouping][kv_head + 1]
};

}  // namespace headwise::regroup
