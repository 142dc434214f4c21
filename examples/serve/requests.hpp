// SPDX-License-Identifier: MIT
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "headwise/core/index.hpp"

namespace serve {

using headwise::Index;

/// One line of the file of prompts.
struct PromptLine {
  std::string prompt;
  std::optional<Index> max_tokens;  // to generate
};

/// Reads a file of prompts, whose text is `text` and which errors call `file`: one prompt a line; a line that begins with
/// { is a JSON object with "prompt" and, if it likes, "max_tokens" (0 … 2^40). Empty lines are left out. Throws
/// std::runtime_error that names the line.
std::vector<PromptLine> read_prompt_lines(std::string_view text, const std::string& file);

}  // namespace serve
