// SPDX-License-Identifier: MIT
#pragma once

#include <span>
#include <vector>

#include "headwise/core/error.hpp"
#include "headwise/position/rope.hpp"

namespace headwise {

/// The RoPE of each layer of a cache, for operations that move keys to other positions: none, one for all layers, or one
/// per layer, null where a layer turns nothing. Refers to the ropes.
class LayerRopes {
 public:
  LayerRopes() = default;
  LayerRopes(const Rope& rope) : ropes_(&rope, 1) {}                       // NOLINT: converts on purpose
  LayerRopes(std::span<const Rope> ropes) : ropes_(ropes) {}               // NOLINT: [layer]
  LayerRopes(const std::vector<Rope>& ropes) : ropes_(ropes) {}            // NOLINT: [layer]
  LayerRopes(std::span<const Rope* const> ropes) : pointers_(ropes) {}     // NOLINT: [layer]
  LayerRopes(const std::vector<const Rope*>& ropes) : pointers_(ropes) {}  // NOLINT: [layer]

  bool any() const { return !ropes_.empty() || !pointers_.empty(); }

  /// That of a layer; null: none. Unchecked.
  const Rope* of(Index layer) const {
    const auto i = static_cast<std::size_t>(layer);
    if (!pointers_.empty()) return pointers_[i];
    return ropes_.empty() ? nullptr : &ropes_[ropes_.size() == 1 ? 0 : i];
  }

  /// Throws std::invalid_argument unless there is none, one or one per layer.
  void check(Index num_layers) const {
    const bool fits = pointers_.empty() ? std::ssize(ropes_) <= 1 || std::ssize(ropes_) == num_layers
                                        : std::ssize(pointers_) == num_layers;
    require(fits, "ropes (", pointers_.empty() ? ropes_.size() : pointers_.size(),
            ") must be none, one for all layers or one per layer (", num_layers, ")");
  }

 private:
  std::span<const Rope> ropes_;            // [1] or [layer]
  std::span<const Rope* const> pointers_;  // [layer]
};

}  // namespace headwise
