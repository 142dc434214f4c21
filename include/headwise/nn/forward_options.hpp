// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <memory>
#include <optional>
#include <span>
#include <type_traits>

#include "headwise/cache/kv_cache.hpp"
#include "headwise/core/index.hpp"
#include "headwise/score/mask.hpp"
#include "headwise/score/mask_function.hpp"
#include "headwise/score/tile_set.hpp"
#include "headwise/score/tree_mask.hpp"

namespace headwise::nn {

/// What decides in a call which query heads share a KV head, when the cache holds the call's tokens and before they attend:
///   std::span<const Index> groups(const KvCache<>& cache, Index layer)  →  Options::group_boundaries
/// whose numbers must last for the call, as those of regroup::KeyDrivenGroups do. Refers to the callable.
class KvGroups {
 public:
  /// None: the groups of the layer's head map.
  KvGroups() = default;
  template <class G>
    requires(!std::same_as<std::remove_const_t<G>, KvGroups>) && requires(G& groups, const KvCache<>& cache) {
      { groups(cache, Index{0}) } -> std::same_as<std::span<const Index>>;
    }
  KvGroups(G& groups)  // NOLINT: converts on purpose
      : object_(std::addressof(groups)), call_([](const void* object, const KvCache<>& cache, Index layer) {
          return (*static_cast<G*>(const_cast<void*>(object)))(cache, layer);
        }) {}

  explicit operator bool() const { return call_ != nullptr; }
  std::span<const Index> operator()(const KvCache<>& cache, Index layer) const { return call_(object_, cache, layer); }

 private:
  const void* object_ = nullptr;
  std::span<const Index> (*call_)(const void*, const KvCache<>&, Index) = nullptr;
};

/// What a forward pass is told of its tokens beside x. The same may be given to all layers of a model. What it refers to must
/// live during the call; in a RaggedBatch, until that is cleared.
struct ForwardOptions {
  /// Where RoPE takes the tokens to stand, each number 0 … 2^53: [token], as the rows of x, or [token][3] of a rope with
  /// sections: temporal, height and width. For images, drafts in a tree and padding on the left. Layers without RoPE have no
  /// use for them, and nothing else looks at them: masks, windows and biases count tokens. Empty: a token's number in its
  /// sequence.
  std::span<const Index> positions{};

  // As in headwise::Options, beside what the layer's own options hide:
  std::span<const Index> prefix_lengths{};
  std::span<const Index> key_starts{};
  std::optional<Mask> mask{};
  /// The rows of x are the nodes of draft trees, which are appended like any tokens. Their positions: the tokens before
  /// plus DraftTree::depths().
  std::optional<TreeMask> tree_mask{};
  const TileSet* tile_set = nullptr;
  std::optional<MaskFunction> mask_function{};

  /// Of a KvCache alone.
  KvGroups groups{};
};

}  // namespace headwise::nn
