// SPDX-License-Identifier: MIT
#pragma once

#include <optional>
#include <string>

#include "generate/sampler.hpp"
#include "headwise/core/index.hpp"
#include "headwise/core/storage.hpp"

namespace serve {

using headwise::Index;

/// What the user asks for.
struct CommandLine {
  std::string model;
  std::string prompts;  // file
  std::string output;   // file; empty: stdout
  Index tokens = 128;   // to generate at most, where a prompt says nothing else
  Index pages = 0;      // of the pool; 0: as many as fit in cache_mib
  Index cache_mib = 512;
  Index page_tokens = 64;
  Index max_batch = 16;  // sequences at once
  Index chunk = 256;     // prompt tokens read in a step
  Index context = 0;     // tokens of a sequence at most; 0: what the model was trained for
  Index threads = 0;     // 0: all the process may use
  bool prefix_cache = true;
  bool ignore_eos = false;
  bool special = false;
  headwise::Storage cache = headwise::Storage::f32, cache_values = headwise::Storage::f32;
  generate::SamplerOptions sampling{.temperature = 0};
};

/// Reads the arguments. Nothing if there is no more to do: then `exit_code` is set, and help, or what is wrong, has been
/// printed.
std::optional<CommandLine> read_command_line(int argc, char** argv, int& exit_code);

}  // namespace serve
