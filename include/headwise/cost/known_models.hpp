// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cctype>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"
#include "headwise/core/kv_sharing.hpp"
#include "headwise/cost/model_shape.hpp"

namespace headwise::cost {

namespace detail {

/// The family that most open models follow: RMS norms before attention and the gated network, and at the end; no biases.
struct LlamaLike {
  std::string_view name;
  Index num_layers, hidden_size, num_heads, num_kv_heads, feed_forward, vocabulary, context;
  bool tied = false;
};

inline ModelShape shape_of(const LlamaLike& m) {
  ModelShape shape = ModelShape::uniform(
      std::string(m.name), m.num_layers,
      {.attention = {.hidden_size = m.hidden_size, .num_heads = m.num_heads, .num_kv_heads = m.num_kv_heads},
       .feed_forward = {.size = m.feed_forward},
       .norm_parameters = 2 * m.hidden_size});
  shape.vocabulary = {.size = m.vocabulary, .tied = m.tied};
  shape.other_parameters = m.hidden_size;
  shape.context = m.context;
  return shape;
}

/// DeciLM: the KV heads of its layers as runs of {KV heads, layers}.
inline ModelShape with_runs(ModelShape shape, std::initializer_list<std::pair<Index, Index>> runs) {
  auto layer = shape.layers.begin();
  for (const auto& [kv_heads, layers] : runs)
    for (Index i = 0; i < layers; ++i) (layer++)->attention.num_kv_heads = kv_heads;
  return shape;
}

inline ModelShape mistral_7b() {
  ModelShape shape = shape_of({"Mistral-7B", 32, 4096, 32, 8, 14336, 32000, 32768});
  for (LayerShape& layer : shape.layers) layer.window = 4096;
  return shape;
}

/// One norm with a bias per layer, since attention and network stand side by side; two plain matrices in the network.
inline ModelShape falcon_7b() {
  ModelShape shape = ModelShape::uniform("Falcon-7B", 32,
                                         {.attention = {.hidden_size = 4544, .num_heads = 71, .num_kv_heads = 1},
                                          .feed_forward = {.size = 4 * 4544, .gated = false},
                                          .norm_parameters = 2 * 4544});
  shape.vocabulary = {.size = 65024, .tied = true};
  shape.other_parameters = 2 * 4544;
  shape.context = 2048;
  return shape;
}

/// Norms before and after both halves of a layer, of queries and of keys; every sixth layer sees all, the rest 512 keys.
inline ModelShape gemma3_1b() {
  constexpr Index kHidden = 1152, kHeadDim = 256;
  ModelShape shape = ModelShape::uniform(
      "Gemma-3-1B", 26,
      {.attention = {.hidden_size = kHidden, .num_heads = 4, .num_kv_heads = 1, .head_dim = kHeadDim},
       .window = 512,
       .feed_forward = {.size = 6912},
       .norm_parameters = 4 * kHidden + 2 * kHeadDim});
  for (std::size_t l = 5; l < shape.layers.size(); l += 6) shape.layers[l].window.reset();
  shape.vocabulary = {.size = 262144, .tied = true};
  shape.other_parameters = kHidden;
  shape.context = 32768;
  return shape;
}

/// T5 v1.1, as converted in the GQA paper (arXiv 2305.13245). Relative positions: 32 buckets for each head of encoder and
/// of decoder, shared by the layers.
inline ModelShape t5_xxl() {
  constexpr Index kHidden = 4096, kHeads = 64;
  const AttentionShape attention{.hidden_size = kHidden, .num_heads = kHeads};
  const FeedForward network{.size = 10240};
  ModelShape shape = ModelShape::uniform(
      "T5-XXL", 24,
      {.attention = attention, .cross_attention = attention, .feed_forward = network, .norm_parameters = 3 * kHidden});
  shape.encoder_layers.assign(24, {.attention = attention, .feed_forward = network, .norm_parameters = 2 * kHidden});
  shape.vocabulary = {.size = 32128, .tied = false};
  shape.other_parameters = 2 * kHidden + 2 * 32 * kHeads;
  shape.context = 512;
  return shape;
}

/// The attention of the 1B models of Cross-Layer Attention (arXiv 2405.12981): 20 layers of hidden size 2048.
inline ModelShape cla(std::string_view name, Index head_dim, Index num_kv_heads, KvSharing sharing) {
  return ModelShape::uniform(std::string(name), 20,
                             {.attention = {.hidden_size = 2048,
                                            .num_heads = 2048 / head_dim,
                                            .num_kv_heads = num_kv_heads,
                                            .head_dim = head_dim}})
      .with_sharing(std::move(sharing));
}

inline std::vector<ModelShape> make_known_models() {
  using S = KvSharing;
  return {
      shape_of({"Llama-2-7B", 32, 4096, 32, 32, 11008, 32000, 4096}),
      shape_of({"Llama-3-8B", 32, 4096, 32, 8, 14336, 128256, 8192}),
      shape_of({"Llama-3-70B", 80, 8192, 64, 8, 28672, 128256, 8192}),
      shape_of({"Llama-3-405B", 126, 16384, 128, 8, 53248, 128256, 131072}),
      with_runs(shape_of({"DeciLM-6B", 32, 4096, 32, 1, 11008, 32000, 4096}), {{4, 1}, {2, 9}, {1, 20}, {4, 2}}),
      with_runs(shape_of({"DeciLM-7B", 32, 4096, 32, 1, 14336, 32000, 8192}),
                {{4, 5}, {2, 5}, {4, 1}, {2, 9}, {1, 11}, {4, 1}}),
      mistral_7b(),
      falcon_7b(),
      shape_of({"SmolLM2-135M", 30, 576, 9, 3, 1536, 49152, 8192, true}),
      gemma3_1b(),
      t5_xxl(),
      cla("CLA-H128-MHA", 128, 16, S::none(20)),
      cla("CLA-H128-GQA4", 128, 4, S::none(20)),
      cla("CLA-H128-GQA2", 128, 2, S::none(20)),
      cla("CLA-H128-MQA", 128, 1, S::none(20)),
      cla("CLA-H128-MQA-CLA2", 128, 1, S::every(20, 2)),
      cla("CLA-H128-MQA-CLA3", 128, 1, S::every(20, 3)),
      cla("CLA-H128-MQA-CLA4", 128, 1, S::every(20, 4)),
      cla("CLA-H128-MQA-CLA2-keep-ends", 128, 1, S::keep_ends(20, 2)),
      cla("CLA-H128-MQA-dense-front", 128, 1, S::dense_front(20, 10)),
      cla("CLA-H128-MQA-dense-back", 128, 1, S::dense_back(20, 10)),
      cla("CLA-H64-MQA-CLA2", 64, 1, S::every(20, 2)),
  };
}

}  // namespace detail

/// Published models, from their published configurations. Parameters are those of the whole model, but for the names
/// that begin with CLA-, which hold the attention layers alone.
inline const std::vector<ModelShape>& known_models() {
  static const std::vector<ModelShape> models = detail::make_known_models();
  return models;
}

/// The model of this name, in any case. Throws std::invalid_argument that lists the names where there is none.
inline const ModelShape& known_model(std::string_view name) {
  const auto same = [](char a, char b) {
    return std::tolower(static_cast<unsigned char>(a)) == std::tolower(static_cast<unsigned char>(b));
  };
  std::string names;
  for (const ModelShape& model : known_models()) {
    if (std::ranges::equal(model.name, name, same)) return model;
    names += (names.empty() ? "" : ", ") + model.name;
  }
  fail("model (", name, ") must be one of ", names);
}

}  // namespace headwise::cost
