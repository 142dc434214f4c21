// SPDX-License-Identifier: MIT
#include "requests.hpp"

#include <span>

#include "llama/file/json.hpp"

namespace serve {

namespace {

PromptLine read_object(std::string_view line, const std::string& place) {
  const auto json = llama::parse_json(std::as_bytes(std::span(line)), place);
  const llama::JsonObject object(json, place);
  for (const auto& item : json.items())
    if (item.key() != "prompt" && item.key() != "max_tokens")
      object.fail(item.key(), "must be 'prompt' or 'max_tokens': there are no other settings");
  PromptLine result{object.text("prompt"), {}};
  if (object.has("max_tokens")) result.max_tokens = object.integer("max_tokens", 0, Index{1} << 40);
  return result;
}

}  // namespace

std::vector<PromptLine> read_prompt_lines(std::string_view text, const std::string& file) {
  std::vector<PromptLine> lines;
  for (Index number = 1; !text.empty(); ++number) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    if (line.front() == '{')
      lines.push_back(read_object(line, file + ":" + std::to_string(number)));
    else
      lines.push_back({std::string(line), {}});
  }
  return lines;
}

}  // namespace serve
