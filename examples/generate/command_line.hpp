// SPDX-License-Identifier: MIT
#pragma once

#include <optional>
#include <string>

#include "headwise/core/index.hpp"
#include "headwise/core/storage.hpp"
#include "sampler.hpp"

namespace generate {

using headwise::Index;

/// What the user asks for.
struct CommandLine {
  std::string model;
  std::string prompt;
  Index tokens = 128;  // to generate at most
  bool greedy = false;
  bool print_ids = false;
  bool ignore_eos = false;
  bool special = false;
  SamplerOptions sampler;
  Index threads = 0;  // 0: all the process may use
  headwise::Storage cache = headwise::Storage::f32, cache_values = headwise::Storage::f32;
  Index chunk = 256;  // prompt tokens read at a time; 0: all
  Index draft = 0;    // most tokens drafted at a time; 0: none
  Index ngram = 3;    // last tokens that are looked up at most to find a draft
  Index context = 0;  // tokens to hold at most; 0: what the model was trained for
};

/// Reads the arguments, and the prompt if it is in a file. Nothing if there is no more to do: then `exit_code` is set,
/// and help, or what is wrong, has been printed. Throws std::runtime_error if the prompt's file cannot be read.
std::optional<CommandLine> read_command_line(int argc, char** argv, int& exit_code);

}  // namespace generate
