// SPDX-License-Identifier: MIT
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "headwise/core/kv_sharing.hpp"
#include "headwise/regroup/attention_weights.hpp"
#include "llama/model/model_shape.hpp"

namespace regroup_tool {

using headwise::Index;

/// A model with other attention: the rest is that of `file`, byte for byte.
struct NewModel {
  const llama::Gguf& file;
  std::span<const headwise::regroup::AttentionWeights> before, after;  // [layer]
  const headwise::KvSharing& sharing;
  llama::TensorType store;  // of the tensors that change
};

/// The architecture that says what the layers are: as plain a one as will do.
std::string_view architecture_of(const NewModel& model);

/// Writes the model as a GGUF file, which appears whole or not at all. Throws std::runtime_error.
void write_model(const NewModel& model, const std::string& path);

}  // namespace regroup_tool
