// SPDX-License-Identifier: MIT
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "headwise/cost.hpp"

namespace example {

using headwise::Index;
namespace cost = headwise::cost;

enum class Task { print_model, list_models, print_shazeer };

/// What the user asks for.
struct CommandLine {
  Task task = Task::print_model;
  cost::ModelShape model;
  bool published = false;       // a known model, sharing keys and values as published
  std::vector<Index> kv_heads;  // of the siblings to show; empty: every divisor of the query heads
  Index context = 0;            // keys that a decoded token sees
  Index source_tokens = 0;      // for cross-attention
  Index batch = 1;
  std::string kv_name, weights_name;  // as given
  cost::Formats formats;
  std::optional<Index> memory_bytes;
  cost::WindowCaches windows = cost::WindowCaches::hold_all;
  cost::Machine machine;
};

/// Reads the arguments. Nothing if there is no more to do: then `exit_code` is set, and help, or what is wrong, has been
/// printed. Throws std::invalid_argument on a model that cannot be.
std::optional<CommandLine> read_command_line(int argc, char** argv, int& exit_code);

}  // namespace example
