// SPDX-License-Identifier: MIT
#include "command_line.hpp"

#include <CLI/CLI.hpp>

#include "llama/model/cache_storage.hpp"

namespace serve {

std::optional<CommandLine> read_command_line(int argc, char** argv, int& exit_code) {
  constexpr Index most = Index{1} << 40;
  CommandLine line;
  CLI::App app{
      "Continues many prompts together with a Llama-architecture model from a GGUF file: continuous batching on a "
      "paged "
      "cache with prefix sharing. Each text is the one that generate gives for its prompt alone."};
  app.add_option("model", line.model, "GGUF file (version 3), or folder of a Hugging Face model")->required();
  app.add_option("--prompts", line.prompts,
                 "file of prompts: one a line, as text or as JSON with \"prompt\" and \"max_tokens\"")
      ->required();
  app.add_option("--output", line.output, "file for the results, JSON lines in the order of the prompts; else stdout");
  app.add_option("--tokens", line.tokens, "tokens to generate at most for a prompt that does not say")
      ->check(CLI::Range(Index{0}, most))
      ->capture_default_str();
  auto* pages = app.add_option("--pages", line.pages, "pages of the cache")->check(CLI::Range(Index{1}, most));
  app.add_option("--cache-mib", line.cache_mib, "memory for pages in MiB, where --pages does not say")
      ->check(CLI::Range(Index{1}, Index{1} << 30))
      ->excludes(pages)
      ->capture_default_str();
  app.add_option("--page-tokens", line.page_tokens, "tokens of a page; a multiple of 64")
      ->check(CLI::Range(Index{64}, Index{1} << 20))
      ->capture_default_str();
  const auto storages = llama::cache_storages();
  std::string keys = "f32", values;
  app.add_option("--cache", keys, "how keys and values are stored")
      ->check(CLI::IsMember(storages))
      ->capture_default_str();
  app.add_option("--cache-values", values, "how values are stored, where not as keys")->check(CLI::IsMember(storages));
  app.add_flag("--no-prefix-cache{false}", line.prefix_cache,
               "read every prompt whole, even where its beginning was read");
  app.add_option("--max-batch", line.max_batch, "sequences at once at most")
      ->check(CLI::Range(Index{1}, Index{1} << 20))
      ->capture_default_str();
  app.add_option("--chunk", line.chunk, "prompt tokens read in a step at most")
      ->check(CLI::Range(Index{1}, most))
      ->capture_default_str();
  app.add_option("--context", line.context,
                 "prompt and generated tokens of a text together at most; 0: what the model was trained for")
      ->check(CLI::Range(Index{0}, most))
      ->capture_default_str();
  auto* temperature = app.add_option("--temperature", line.sampling.temperature,
                                     "draw tokens at random, above 1 boldly, below 1 surely; 0: the most probable ones")
                          ->check(CLI::Range(0.0, 1e6))
                          ->capture_default_str();
  app.add_option("--top-p", line.sampling.top_p,
                 "draw from the most probable tokens that have this probability together")
      ->check(CLI::Range(1e-9, 1.0))
      ->needs(temperature)
      ->capture_default_str();
  app.add_option("--seed", line.sampling.seed, "every prompt draws with this seed, as alone")
      ->needs(temperature)
      ->capture_default_str();
  app.add_flag("--ignore-eos", line.ignore_eos, "go on past the end-of-text token");
  app.add_flag("--special", line.special,
               "read control tokens such as <|im_start|> in prompts, and show those generated");
  app.add_option("--threads", line.threads, "threads; 0: all CPUs the process may use")
      ->check(CLI::Range(Index{0}, Index{4096}))
      ->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    exit_code = app.exit(error);
    return std::nullopt;
  }
  line.cache = storages.at(keys);
  line.cache_values = values.empty() ? line.cache : storages.at(values);
  return line;
}

}  // namespace serve
