// SPDX-License-Identifier: MIT
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "headwise/core/head_map.hpp"
#include "headwise/core/kv_sharing.hpp"
#include "headwise/position/rope.hpp"
#include "llama/file/gguf.hpp"

namespace llama {

/// The architectures that are read: the same model, with more said about its heads from one to the next.
namespace architecture {

inline constexpr std::string_view kLlama = "llama";        // as many KV heads in every layer
inline constexpr std::string_view kDeci = "deci";          // KV heads per layer; llama.cpp's name for it
inline constexpr std::string_view kHeadwise = "headwise";  // besides: head maps and layers that share keys and values

// The keys that only the last has:
inline constexpr std::string_view kHeadMap = "headwise.attention.head_map";    // i32 [layer][query head] → KV head
inline constexpr std::string_view kKvSource = "headwise.attention.kv_source";  // i32 [layer] → layer

}  // namespace architecture

/// The key/value heads of a layer.
struct KvHeads {
  Index count = 0;                       // of a borrower: those of the layer it reads
  std::optional<headwise::HeadMap> map;  // unset: consecutive query heads share one
};

/// The sizes and settings of a Llama-architecture model, as its file states them.
struct ModelShape {
  Index num_layers = 0;
  Index hidden_size = 0;
  Index feed_forward_size = 0;
  Index num_heads = 0;
  std::vector<KvHeads> kv_heads;  // [layer]
  headwise::KvSharing sharing = headwise::KvSharing::none(1);
  Index head_dim = 0;
  Index value_dim = 0;
  Index context_length = 0;  // tokens the model was trained for
  double norm_epsilon = 0;
  headwise::RopeOptions rope;

  /// The KV heads of a layer, with their map.
  const KvHeads& kv_heads_of(Index layer) const { return kv_heads[static_cast<std::size_t>(layer)]; }

  /// Throws GgufError if the file is of another architecture, if a setting is missing or impossible, or if it asks for
  /// something that is not done here (experts, YaRN, layers without attention): never a silently wrong model.
  explicit ModelShape(const Gguf& file);
};

}  // namespace llama
