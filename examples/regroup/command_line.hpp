// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "headwise/regroup/convert/pooling.hpp"
#include "llama/file/tensor_type.hpp"

namespace regroup_tool {

using headwise::Index;

/// How the heads of a layer are divided into groups.
enum class Groups {
  neighbours,  // as they lie
  symmetric,   // AsymGQA: equal sizes, by activations
  asymmetric,  // AsymGQA: any sizes, by activations
  qcqa,        // by weights, error against capacity
  written      // by hand
};

/// What the user asks for.
struct CommandLine {
  std::string model, out;

  // which groups
  std::optional<Index> kv_heads;   // of each converted layer; unset: not converted
  std::optional<double> capacity;  // instead, of QCQA over all layers: the share of KV heads that may be left
  std::string layers = "all";
  Groups groups = Groups::neighbours;
  std::string written_groups;  // "0 1 | 2"
  std::optional<Index> degroup;

  // what becomes of their projections
  headwise::regroup::PoolingOptions pooling;
  bool align = false;

  std::optional<std::string> share;  // layers that share keys and values, by the name of a pattern

  // how it is written
  llama::TensorType store = llama::TensorType::f32;
  bool compatible = false;

  std::string calibration;  // a text file
  Index calibration_tokens = 4096;
  std::string front;  // where the front of QCQA is written, as CSV
  std::uint64_t seed = 0;
  Index threads = 0;
};

/// Reads the arguments. Nothing if there is no more to do: then `exit_code` is set, and help, or what is wrong, has been
/// printed.
std::optional<CommandLine> read_command_line(int argc, char** argv, int& exit_code);

}  // namespace regroup_tool
