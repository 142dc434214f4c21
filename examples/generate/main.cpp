// SPDX-License-Identifier: MIT
// Continues a text with a real model: GGUF file → weights → tokens → attention over a KV cache → text.
//
//   generate MODEL.gguf --prompt "The capital of France is" --tokens 48 --greedy
//
// The text goes to stdout as it comes; figures, progress and errors go to stderr.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <new>

#include "command_line.hpp"
#include "continuation.hpp"
#include "llama/file/model_file.hpp"
#include "llama/model/model.hpp"
#include "llama/text/tokenizer.hpp"

namespace generate {

namespace {

using llama::Gguf;
using llama::Model;
using llama::ModelShape;
using llama::Tokenizer;

void print_ids(const char* name, std::span<const TokenId> ids) {
  std::string text = std::string(name) + " ids:";
  for (const TokenId id : ids) {
    text += ' ';
    text += std::to_string(id);
  }
  print(text + "\n");
}

/// "3", or "1 to 3" where layers differ.
std::string kv_heads_text(const ModelShape& shape) {
  const auto [least, most] = std::ranges::minmax(shape.kv_heads, {}, &llama::KvHeads::count);
  return least.count == most.count ? std::to_string(most.count)
                                   : std::to_string(least.count) + " to " + std::to_string(most.count);
}

void run(const CommandLine& line, const Gguf& file, const Tokenizer& tokenizer, headwise::ThreadPool& pool) {
  // what the user got wrong is found before the weights are read
  Sampler sampler(line.sampler);
  const ModelShape shape(file);
  headwise::require(line.context <= shape.context_length, "--context (", line.context, ") must be at most ",
                    shape.context_length, ", what the model was trained for");
  const Index context = line.context == 0 ? shape.context_length : line.context;
  const auto prompt = tokenizer.encode(line.prompt, line.special);
  const Index count = std::ssize(prompt.ids);
  headwise::require(count > 0, "prompt (0 tokens) must have at least 1 token to continue");
  headwise::require(count <= context, "prompt (", count, " tokens) must fit in the context (", context, ")");
  if (prompt.dropped_bytes > 0)
    std::fprintf(stderr, "left out %td bytes of the prompt for which the vocabulary has no token\n",
                 prompt.dropped_bytes);

  const Model model(file, shape, pool);
  if (model.vocabulary_size() != tokenizer.vocabulary_size())
    file.fail("tensor 'token_embd.weight' has " + std::to_string(model.vocabulary_size()) +
              " rows and must have one for each of the " + std::to_string(tokenizer.vocabulary_size()) + " tokens");
  Continuation text(model, std::min(context, count + line.tokens), line, pool);
  std::fprintf(stderr, "model: %td layers of %td query heads and %s KV heads of %td; %td threads, %s\n",
               shape.num_layers, shape.num_heads, kv_heads_text(shape).c_str(), shape.head_dim, pool.concurrency(),
               std::string(headwise::name_of(headwise::current_isa())).c_str());
  const std::string keys(headwise::name_of(line.cache)), values(headwise::name_of(line.cache_values));
  std::fprintf(stderr, "KV cache: %td bytes per token (%s)\n", text.kv_bytes_per_token(),
               (keys == values ? keys : keys + " keys, " + values + " values").c_str());
  if (line.print_ids) print_ids("prompt", prompt.ids);
  text.read_prompt(prompt.ids, line.chunk);
  const auto tokens = text.continue_text(tokenizer, line, sampler);
  if (line.print_ids) print_ids("token", tokens);
}

int run(int argc, char** argv) {
  int exit_code = 0;
  const auto line = read_command_line(argc, argv, exit_code);
  if (!line) return exit_code;
  const llama::ModelFile source(line->model);
  const Gguf file(source.bytes(), line->model);
  const Tokenizer tokenizer(file);
  headwise::ThreadPool pool(line->threads);
  run(*line, file, tokenizer, pool);
  return 0;
}

}  // namespace

}  // namespace generate

int main(int argc, char** argv) {
  try {
    return generate::run(argc, argv);
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "generate: out of memory\n");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "generate: %s\n", error.what());
  }
  return 1;
}
