// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "headwise/core/index.hpp"

namespace compare {

using headwise::Index;

/// The attention shape of a published model, and its siblings: the same query heads with other numbers of KV heads.
struct Model {
  std::string_view key;   // what the command line calls it
  std::string_view name;  // what the table calls it
  Index num_heads;
  Index head_dim;
  Index own_kv_heads;                   // as published
  std::vector<Index> kv_heads;          // the siblings, descending: MHA first, MQA last
  std::vector<Index> unequal_groups{};  // query heads of each of own_kv_heads, for the case of unequal groups
};

inline const std::vector<Model>& models() {
  static const std::vector<Model> list = {
      {"llama3-8b", "Llama-3-8B", 32, 128, 8, {32, 8, 1}, {1, 1, 2, 2, 4, 6, 8, 8}},
      {"llama3-70b", "Llama-3-70B", 64, 128, 8, {64, 8, 1}},
      {"falcon-7b", "Falcon-7B", 71, 64, 1, {71, 1}},
      {"smollm2-135m", "SmolLM2-135M", 9, 64, 3, {9, 3, 1}, {1, 2, 6}},
      {"gemma3-1b", "Gemma-3-1B", 4, 256, 1, {4, 2, 1}},
      {"t5-xxl", "T5-XXL", 64, 64, 64, {64, 32, 16, 8, 4, 1}},
  };
  return list;
}

/// The model of this key, or null.
inline const Model* find_model(std::string_view key) {
  const auto found = std::ranges::find(models(), key, &Model::key);
  return found == models().end() ? nullptr : &*found;
}

/// MHA, GQA or MQA.
inline std::string_view kind_of_heads(Index num_heads, Index num_kv_heads) {
  return num_kv_heads == num_heads ? "MHA" : num_kv_heads == 1 ? "MQA" : "GQA";
}

}  // namespace compare
