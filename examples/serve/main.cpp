// SPDX-License-Identifier: MIT
// Continues many prompts together with a real model: continuous batching on a paged cache.
//
//   serve MODEL.gguf --prompts prompts.txt --tokens 64 --pages 200 --output results.jsonl
//
// Results are JSON lines {"prompt", "text", "tokens"} in the order of the prompts; figures, progress and errors go to
// stderr.
#include <cstdio>
#include <exception>
#include <fstream>
#include <iostream>
#include <new>
#include <nlohmann/json.hpp>

#include "command_line.hpp"
#include "generate/status_line.hpp"
#include "generate/stopwatch.hpp"
#include "llama/file/mapped_file.hpp"
#include "llama/file/model_file.hpp"
#include "llama/text/tokenizer.hpp"
#include "llama/text/utf8.hpp"
#include "progress.hpp"
#include "requests.hpp"
#include "server.hpp"

namespace serve {

namespace {

using llama::Gguf;
using llama::Model;
using llama::ModelShape;
using llama::Tokenizer;

/// The results of requests, written in their order as soon as all before are finished.
class Results {
 public:
  Results(const std::string& path, const Tokenizer& tokenizer, bool special)
      : tokenizer_(tokenizer), special_(special), path_(path) {
    if (path.empty()) return;
    file_.open(path, std::ios::binary);
    if (!file_) throw std::runtime_error(path + ": cannot be written");
  }

  void write_finished(const Server& server, std::span<const PromptLine> lines) {
    for (; next_ < server.num_requests() && server.is_finished(next_); ++next_) {
      nlohmann::ordered_json line;
      line["prompt"] = lines[static_cast<std::size_t>(next_)].prompt;
      line["text"] = text_of(server.generated(next_));
      line["tokens"] = server.generated(next_);
      // bytes of a prompt that are no UTF-8 cannot be JSON
      out() << line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) << "\n" << std::flush;
    }
    if (!out()) throw std::runtime_error((path_.empty() ? "stdout" : path_) + ": cannot be written");
  }

 private:
  std::ostream& out() { return path_.empty() ? std::cout : file_; }
  std::string text_of(std::span<const TokenId> tokens) const {
    llama::Utf8Stream stream;
    std::string text;
    for (const TokenId token : tokens)
      if (special_ || !tokenizer_.is_control(token)) text += stream.push(tokenizer_.bytes(token));
    return text + std::string(stream.finish());
  }

  const Tokenizer& tokenizer_;
  bool special_;
  std::string path_;
  std::ofstream file_;
  Index next_ = 0;
};

void print_figures(const Figures& figures, const headwise::AnyPagedCache& cache, Index prompt_tokens, double seconds) {
  const auto per = [](Index a, double b) { return static_cast<double>(a) / std::max(b, 1e-9); };
  const headwise::PageCounts pages = cache.pages();
  std::fprintf(stderr, "prompts: %td of %td tokens, %td tokens found in the prefix cache, %td read again\n",
               figures.finished, prompt_tokens, figures.prefix_tokens, figures.read_again);
  std::fprintf(stderr, "generation: %td tokens in %.2f s, %.1f tokens/s; with the prompts %.1f tokens/s\n",
               figures.generated, seconds, per(figures.generated, seconds),
               per(figures.generated + prompt_tokens, seconds));
  std::fprintf(stderr, "steps: %td of %.1f sequences and %.1f tokens; preemptions: %td\n", figures.steps,
               per(figures.parts, static_cast<double>(figures.steps)),
               per(figures.read, static_cast<double>(figures.steps)), figures.preemptions);
  std::fprintf(stderr, "pages: at most %td of %td used at a time\n", pages.peak, pages.total);
}

void run(const CommandLine& line, const Gguf& file, const Tokenizer& tokenizer, headwise::ThreadPool& pool) {
  // what the user got wrong is found before the weights are read
  const llama::MappedFile text(line.prompts);
  const auto prompts =
      read_prompt_lines({reinterpret_cast<const char*>(text.bytes().data()), text.bytes().size()}, line.prompts);
  headwise::require(!prompts.empty(), "prompts (0 in '", line.prompts, "') must be at least 1");
  Results results(line.output, tokenizer, line.special);
  const ModelShape shape(file);

  const Model model(file, shape, pool);
  if (model.vocabulary_size() != tokenizer.vocabulary_size())
    file.fail("tensor 'token_embd.weight' has " + std::to_string(model.vocabulary_size()) +
              " rows and must have one for each of the " + std::to_string(tokenizer.vocabulary_size()) + " tokens");
  const headwise::PagedOptions options{.page_tokens = line.page_tokens,
                                       .max_sequences = line.max_batch,
                                       .key_storage = line.cache,
                                       .value_storage = line.cache_values};
  const Index page_bytes = model.make_paged_cache(1, options).bytes();
  const Index num_pages = line.pages > 0 ? line.pages : (line.cache_mib << 20) / page_bytes;
  headwise::require(num_pages >= 1, "--cache-mib (", line.cache_mib, ") must hold at least one page of ", page_bytes,
                    " bytes");
  auto cache = model.make_paged_cache(num_pages, options);
  ServerOptions how{.max_batch = line.max_batch,
                    .chunk = line.chunk,
                    .context = line.context,
                    .prefix_cache = line.prefix_cache,
                    .sampling = line.sampling};
  if (!line.ignore_eos) how.ends_text = [&](TokenId token) { return tokenizer.ends_text(token); };
  Server server(model, cache, std::move(how), pool);
  Index prompt_tokens = 0;
  for (const PromptLine& prompt : prompts) {
    const auto encoded = tokenizer.encode(prompt.prompt, line.special);
    if (encoded.dropped_bytes > 0)
      std::fprintf(stderr, "left out %td bytes of a prompt for which the vocabulary has no token\n",
                   encoded.dropped_bytes);
    prompt_tokens += std::ssize(encoded.ids);
    server.add({encoded.ids, prompt.max_tokens.value_or(line.tokens)});
  }
  std::fprintf(stderr, "model: %td layers of %td query heads; %td threads, %s\n", shape.num_layers, shape.num_heads,
               pool.concurrency(), std::string(headwise::name_of(headwise::current_isa())).c_str());
  const std::string keys(headwise::name_of(line.cache)), values(headwise::name_of(line.cache_values));
  std::fprintf(stderr, "cache: %td pages of %td tokens, %.1f MiB (%s)\n", num_pages, cache.page_tokens(),
               static_cast<double>(cache.bytes()) / 1048576.0,
               (keys == values ? keys : keys + " keys, " + values + " values").c_str());

  const generate::Stopwatch time;
  generate::StatusLine status;
  Progress progress(server.num_requests(), status.interval());
  results.write_finished(server, prompts);
  while (server.step()) {
    results.write_finished(server, prompts);
    const Figures& figures = server.figures();
    if (const auto shown = progress.at(time.seconds(), figures.finished, figures.generated, server.num_running(),
                                       cache.pages().used, num_pages))
      status.show(*shown);
  }
  status.end();
  print_figures(server.figures(), cache, prompt_tokens, time.seconds());
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

}  // namespace serve

int main(int argc, char** argv) {
  try {
    return serve::run(argc, argv);
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "serve: out of memory\n");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "serve: %s\n", error.what());
  }
  return 1;
}
