// SPDX-License-Identifier: MIT
//
// What converting a real model's attention, or storing its keys and values in fewer bits, costs in quality, without any
// training: perplexity, and the divergence from the original model, on texts. Prints JSON lines; regroup_quality/run.py runs it with a progress bar and keeps the
// results, regroup_quality/draw.py draws them.
//
//   events.hpp        the JSON lines
//   evaluator.hpp     texts, the original's predictions, how a changed model compares
//   conversions.hpp   the ways to change layers
//   experiments.hpp   what is measured
//   check.hpp         what must hold, as a test (--check)

#include <CLI/CLI.hpp>
#include <cmath>
#include <exception>
#include <iostream>
#include <string>
#include <vector>

#include "headwise/kernel/dispatch.hpp"
#include "llama/file/mapped_file.hpp"
#include "llama/text/tokenizer.hpp"
#include "regroup_quality/check.hpp"
#include "regroup_quality/events.hpp"
#include "regroup_quality/experiments.hpp"

namespace {

using quality::Index;
using quality::TokenId;

struct Arguments {
  std::string model;
  std::vector<std::string> texts;  // NAME=PATH
  std::vector<std::string> experiments;
  Index tokens = 1024, context = 512, calibration_tokens = 1024, threads = 0;
  std::uint64_t seed = 1;
  bool check = false;
};

void declare(CLI::App& app, Arguments& args) {
  std::vector<std::string> names;
  for (const std::string_view name : quality::experiment_names()) names.emplace_back(name);
  app.add_option("--model", args.model, "GGUF file of a Llama-architecture model")->required();
  app.add_option("--text", args.texts, "NAME=PATH of a text; may be given again")->required();
  app.add_option("--experiments", args.experiments, "comma-separated; unset: all")
      ->delimiter(',')
      ->check(CLI::IsMember(names));
  app.add_option("--tokens", args.tokens, "tokens measured of each text")
      ->check(CLI::Range(2, 1 << 20))
      ->capture_default_str();
  app.add_option("--context", args.context, "tokens read together, from an empty cache")
      ->check(CLI::Range(2, 1 << 20))
      ->capture_default_str();
  app.add_option("--calibration-tokens", args.calibration_tokens,
                 "tokens of the beginning of each text, not measured, whose activations choose groups")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--seed", args.seed, "of random projections, shuffles and searches")->capture_default_str();
  app.add_option("--threads", args.threads, "threads; 0: all CPUs the process may use")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  app.add_flag("--check", args.check, "measure only what must hold; exit with 1 where it does not");
}

/// The first `count` tokens of what follows the first white space from `begin` on; none where there are too few.
std::vector<TokenId> tokens_from(std::string_view text, std::size_t begin, Index count,
                                 const llama::Tokenizer& tokenizer) {
  begin = std::min(text.find_first_of(" \n", begin), text.size());
  constexpr std::size_t most_bytes = 32;  // more than so many tokens of prose have on average
  auto tokens = tokenizer.encode(text.substr(begin, static_cast<std::size_t>(count) * most_bytes), false).ids;
  if (std::ssize(tokens) < count) return {};
  tokens.resize(static_cast<std::size_t>(count));
  return tokens;
}

/// Windows from places spread evenly over the text, the first of which goes to `calibration` alone.
quality::Text read_text(const std::string& argument, const llama::Tokenizer& tokenizer, const Arguments& args,
                        std::vector<TokenId>& calibration) {
  const std::size_t equals = argument.find('=');
  headwise::require(equals != std::string::npos && equals > 0, "--text (", argument, ") must be NAME=PATH");
  const llama::MappedFile file(argument.substr(equals + 1));
  const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  quality::Text result{argument.substr(0, equals), {}};
  const Index windows = headwise::ceil_div(args.tokens, args.context);
  for (Index i = 0; i <= windows; ++i) {
    const Index wanted =
        i == 0 ? args.calibration_tokens : std::min(args.context, args.tokens - (i - 1) * args.context);
    const std::size_t begin = text.size() / static_cast<std::size_t>(windows + 1) * static_cast<std::size_t>(i);
    const auto tokens = tokens_from(text, begin, wanted, tokenizer);
    // a token has at least a byte: nothing of the first place may be measured, nor anything twice
    const bool fits = text.size() / static_cast<std::size_t>(windows + 1) >= static_cast<std::size_t>(wanted) * 6;
    headwise::require(!tokens.empty() && fits, "--text (", argument, ", ", text.size(), " bytes) must be longer for ",
                      args.tokens, " tokens to measure and ", args.calibration_tokens, " for calibration");
    if (i == 0)
      calibration.insert(calibration.end(), tokens.begin(), tokens.end());
    else if (wanted >= 2)
      result.windows.push_back(tokens);
  }
  return result;
}

nlohmann::json result_fields(const quality::Measured& measured, const quality::Evaluator& evaluator) {
  nlohmann::json fields = measured.job->fields;
  fields.update({{"experiment", measured.job->experiment},
                 {"text", evaluator.texts()[measured.text].name},
                 {"name", measured.job->name},
                 {"cross_entropy", measured.quality.cross_entropy},
                 {"perplexity", std::exp(measured.quality.cross_entropy)},
                 {"kl", measured.quality.kl},
                 {"kv_bytes_per_token", measured.kv_bytes_per_token}});
  return fields;
}

int run(const Arguments& args) {
  const llama::MappedFile mapped(args.model);
  const llama::Gguf file(mapped.bytes(), args.model);
  const llama::Tokenizer tokenizer(file);
  const llama::ModelShape shape(file);
  headwise::ThreadPool pool(args.threads);
  quality::ExperimentOptions options{.seed = args.seed, .calibration = {}};
  std::vector<quality::Text> texts;
  for (const std::string& text : args.texts) texts.push_back(read_text(text, tokenizer, args, options.calibration));

  llama::Model model(file, shape, pool);
  std::vector<quality::AttentionWeights> attention;
  for (Index l = 0; l < shape.num_layers; ++l) attention.push_back(llama::read_attention(file, shape, l, pool));
  quality::Evaluator evaluator(model, std::move(attention), std::move(texts), pool);
  if (args.check) return quality::check_evidence(evaluator, options, std::cout) ? 0 : 1;

  std::vector<quality::Job> jobs;
  for (const std::string_view name : quality::experiment_names()) {
    if (!args.experiments.empty() && std::ranges::find(args.experiments, name) == args.experiments.end()) continue;
    for (quality::Job& job : quality::jobs_of(name, evaluator, options)) jobs.push_back(std::move(job));
  }
  quality::Events events;
  events.start({{"model", args.model.substr(args.model.rfind('/') + 1)},
                {"tokens", args.tokens},
                {"context", args.context},
                {"calibration_tokens", args.calibration_tokens},
                {"seed", args.seed},
                {"threads", pool.concurrency()},
                {"isa", std::string(headwise::name_of(headwise::current_isa()))}},
               static_cast<int>(jobs.size() * evaluator.texts().size()));
  quality::run(jobs, evaluator, [&](const quality::Measured& one) { events.result(result_fields(one, evaluator)); });
  events.done();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Measures what conversions of a model's attention cost in quality, without training.",
               "regroup_quality");
  Arguments args;
  declare(app, args);
  CLI11_PARSE(app, argc, argv);
  try {
    return run(args);
  } catch (const std::exception& error) {
    std::cerr << "regroup_quality: " << error.what() << "\n";
    return 1;
  }
}
