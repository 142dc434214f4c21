// SPDX-License-Identifier: MIT
#include "command_line.hpp"

#include <CLI/CLI.hpp>

#include "llama/file/mapped_file.hpp"
#include "llama/model/cache_storage.hpp"

namespace generate {

std::optional<CommandLine> read_command_line(int argc, char** argv, int& exit_code) {
  constexpr Index most = Index{1} << 40;
  CommandLine line;
  std::string prompt_file;
  CLI::App app{"Continues a text with a Llama-architecture model from a GGUF file, on headwise's attention."};
  app.add_option("model", line.model, "GGUF file (version 3), or folder of a Hugging Face model")->required();
  auto* prompt = app.add_option("--prompt", line.prompt, "text to continue");
  auto* file =
      app.add_option("--prompt-file", prompt_file, "file that holds the text to continue, taken byte for byte");
  prompt->excludes(file);
  app.add_option("--tokens", line.tokens, "tokens to generate at most")
      ->check(CLI::Range(Index{0}, most))
      ->capture_default_str();
  auto* greedy = app.add_flag("--greedy", line.greedy, "take the most probable token each time");
  app.add_option("--temperature", line.sampler.temperature, "above 1 is bolder, below 1 is surer, 0 is --greedy")
      ->check(CLI::Range(0.0, 1e6))
      ->excludes(greedy)
      ->capture_default_str();
  app.add_option("--top-p", line.sampler.top_p,
                 "draw from the most probable tokens that have this probability together")
      ->check(CLI::Range(1e-9, 1.0))
      ->excludes(greedy)
      ->capture_default_str();
  app.add_option("--seed", line.sampler.seed, "the same seed draws the same tokens")
      ->excludes(greedy)
      ->capture_default_str();
  app.add_flag("--ignore-eos", line.ignore_eos, "go on past the end-of-text token");
  app.add_flag("--special", line.special,
               "read control tokens such as <|im_start|> in the prompt, and show those generated");
  app.add_flag("--print-ids", line.print_ids, "print the token ids of the prompt and of what was generated");
  app.add_option("--threads", line.threads, "threads; 0: all CPUs the process may use")
      ->check(CLI::Range(Index{0}, Index{4096}))
      ->capture_default_str();
  const auto storages = llama::cache_storages();
  std::string keys = "f32", values;
  app.add_option("--cache", keys, "how keys and values are stored")
      ->check(CLI::IsMember(storages))
      ->capture_default_str();
  app.add_option("--cache-values", values, "how values are stored, where not as keys")->check(CLI::IsMember(storages));
  app.add_option("--chunk", line.chunk, "prompt tokens read at a time; 0: all at once")
      ->check(CLI::Range(Index{0}, most))
      ->capture_default_str();
  app.add_option("--context", line.context,
                 "prompt and generated tokens together at most; 0: what the model was trained for")
      ->check(CLI::Range(Index{0}, most))
      ->capture_default_str();
  auto* draft = app.add_option("--draft", line.draft,
                               "tokens drafted at most in each step by looking up what followed the last ones before; "
                               "the text is the same as without; 0: none")
                    ->check(CLI::Range(Index{0}, Index{4096}))
                    ->capture_default_str();
  app.add_option("--ngram", line.ngram, "last tokens looked up at most for a draft")
      ->check(CLI::Range(Index{1}, Index{4096}))
      ->needs(draft)
      ->capture_default_str();
  try {
    app.parse(argc, argv);
    if (prompt->count() + file->count() == 0) throw CLI::RequiredError("--prompt or --prompt-file");
  } catch (const CLI::ParseError& error) {
    exit_code = app.exit(error);
    return std::nullopt;
  }
  line.cache = storages.at(keys);
  line.cache_values = values.empty() ? line.cache : storages.at(values);
  if (file->count() > 0) {
    const llama::MappedFile text(prompt_file);
    line.prompt.assign(reinterpret_cast<const char*>(text.bytes().data()), text.bytes().size());
  }
  return line;
}

}  // namespace generate
