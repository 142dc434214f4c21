// SPDX-License-Identifier: MIT
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"
#include "headwise/core/kv_sharing.hpp"
#include "headwise/cost/attention_layer.hpp"
#include "headwise/cost/checked.hpp"

namespace headwise::cost {

/// The position-wise network beside attention: hidden → size → hidden, two matrices, or three where it is gated
/// (SwiGLU, GEGLU). size 0: none.
struct FeedForward {
  Index size = 0;
  bool gated = true;
  bool biases = false;

  Index weights(Index hidden_size) const {
    require(size >= 0, "feed_forward size (", size, ") must be at least 0");
    return detail::product("parameters of feed_forward", {gated ? 3 : 2, hidden_size, size});
  }
  Index parameters(Index hidden_size) const {
    const Index matrices = weights(hidden_size);
    if (!biases || size == 0) return matrices;
    return detail::sum("parameters of feed_forward", {matrices, gated ? 2 * size : size, hidden_size});
  }
};

struct LayerShape {
  AttentionShape attention;
  /// Keys that a query sees at most, as in headwise::Options; unset: all.
  std::optional<Index> window{};
  /// Attention to an encoder's output, between self-attention and feed_forward.
  std::optional<AttentionShape> cross_attention{};
  FeedForward feed_forward{};
  /// Of all the layer's norms together.
  Index norm_parameters = 0;
};

/// Token embeddings. Tied: the output matrix is the input's embedding, counted once. size 0: none.
struct Vocabulary {
  Index size = 0;
  bool tied = true;
};

/// What a model is made of. A shape may leave out what is not known: its cost is then that of the rest.
struct ModelShape {
  std::string name;
  /// Of the decoder. Head counts may differ from layer to layer, hidden_size may not.
  std::vector<LayerShape> layers;
  /// Whose keys and values each layer reads; unset: its own.
  std::optional<KvSharing> sharing{};
  Vocabulary vocabulary{};
  std::vector<LayerShape> encoder_layers{};
  /// What else there is: final norms, tables of relative positions.
  Index other_parameters = 0;
  /// Tokens that the model was trained for; 0: not stated.
  Index context = 0;

  /// A model of `num_layers` equal layers.
  static ModelShape uniform(std::string name, Index num_layers, const LayerShape& layer) {
    require(num_layers >= 1 && num_layers <= kMaxLayers, "num_layers (", num_layers, ") must be 1 to ", kMaxLayers);
    return {.name = std::move(name), .layers = std::vector<LayerShape>(static_cast<std::size_t>(num_layers), layer)};
  }

  /// Its sibling: `num_kv_heads` KV heads in every self- and cross-attention of the decoder, all else the same. An
  /// encoder, which decodes nothing, is left alone, as in the GQA paper (Ainslie et al. 2023, arXiv 2305.13245).
  ModelShape with_kv_heads(Index num_kv_heads) const {
    ModelShape sibling = *this;
    for (LayerShape& layer : sibling.layers) {
      layer.attention.num_kv_heads = num_kv_heads;
      if (layer.cross_attention) layer.cross_attention->num_kv_heads = num_kv_heads;
    }
    return sibling;
  }

  /// The same where the layers share keys and values in another way.
  ModelShape with_sharing(KvSharing other) const {
    ModelShape result = *this;
    result.sharing = std::move(other);
    return result;
  }

  static constexpr Index kMaxLayers = 1 << 20;
};

}  // namespace headwise::cost
