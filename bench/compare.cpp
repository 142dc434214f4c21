// SPDX-License-Identifier: MIT
//
// Compares MHA, GQA and MQA on this CPU: times attention of the shapes of well-known models and of their siblings (the
// same query heads sharing more or fewer KV heads), and prints one table. See --help.
//
//   models.hpp, cases.hpp   what is timed
//   workload.hpp            caches, queries, and the comparison with the reference
//   roofline.hpp            what the machine can do, probed next to every timing
//   runner.hpp              the timing, by Google Benchmark
//   report.hpp              the table and the JSON file; ../plot.py draws it

#include <benchmark/benchmark.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <exception>
#include <iostream>
#include <regex>
#include <string>
#include <vector>

#include "compare/cases.hpp"
#include "compare/machine.hpp"
#include "compare/report.hpp"
#include "compare/runner.hpp"
#include "headwise/kernel/dispatch.hpp"
#include "headwise/parallel/thread_pool.hpp"

namespace {

using compare::Index;

struct Arguments {
  compare::Axes axes;
  compare::RunOptions run;
  bool quick = false, smoke = false, full = false, list = false;
  std::string isa, json, filter;
  Index memory_mib = 0;
};

void declare(CLI::App& app, Arguments& args) {
  std::vector<std::string> keys;
  for (const compare::Model& model : compare::models()) keys.emplace_back(model.key);
  auto* quick = app.add_flag("--quick", args.quick, "a few cases, less than half a minute");
  auto* full = app.add_flag("--full", args.full, "every model, storage, phase and length; takes long");
  auto* smoke = app.add_flag("--smoke", args.smoke, "tiny cases, a few seconds: a test of this program");
  quick->excludes(full)->excludes(smoke);
  full->excludes(smoke);

  // any of these gives every combination of what they name
  const std::string product = "Choosing cases by comma-separated lists (default: decode of llama3-8b at kv 4096)";
  const auto choosing = [&](CLI::Option* option) {
    return option->group(product)->excludes(quick)->excludes(full)->excludes(smoke);
  };
  const auto axis = [&](const char* name, auto& values, const char* text) {
    return choosing(app.add_option(name, values, text)->delimiter(','));
  };
  axis("--models", args.axes.models, "models")->check(CLI::IsMember(keys));
  axis("--storages", args.axes.storages, "storage types of the cache")->check(CLI::IsMember({"f32", "f16", "bf16"}));
  axis("--phases", args.axes.phases, "phases")->check(CLI::IsMember({"decode", "append", "prefill"}));
  axis("--kv", args.axes.kv_tokens, "tokens in the cache")->check(CLI::Range(1, 1 << 24));
  choosing(app.add_flag("--unequal", args.axes.unequal,
                        "beside them unequal groups of query heads on as many KV heads (llama3-8b, smollm2-135m)"));
  choosing(app.add_flag("--warm", args.axes.warm, "the same cache every time instead of one after another"));

  app.add_option("--filter", args.filter, "only cases whose name (see --list) matches this regular expression");
  app.add_option("--threads", args.axes.threads, "threads; unset: 1 and all")
      ->delimiter(',')
      ->check(CLI::Range(1, 4096));
  app.add_option("--isa", args.isa, "instruction set; unset: the best this CPU has")
      ->check(CLI::IsMember({"baseline", "avx2", "avx512", "avx512vnni", "avx512bf16", "neon"}));
  app.add_option("--repetitions", args.run.repetitions, "repetitions of each case")->check(CLI::Range(1, 1000));
  app.add_option("--min-time", args.run.min_time, "seconds of each repetition")->check(CLI::Range(0.001, 100.0));
  app.add_option("--memory", args.memory_mib, "MiB of caches at most; unset: 4096, or a quarter of the memory")
      ->check(CLI::Range(16, 1 << 24));
  app.add_option("--json", args.json, "write every figure to this file, for plot.py");
  app.add_flag("--list", args.list, "name the cases and run nothing");
}

std::vector<compare::Case> choose_cases(const Arguments& args, Index all_threads) {
  const auto choose = args.smoke        ? compare::smoke_cases
                      : args.quick      ? compare::quick_cases
                      : args.full       ? compare::full_cases
                      : args.axes.any() ? compare::product_of
                                        : compare::default_cases;
  std::vector<compare::Case> cases = choose(args.axes, all_threads);
  const std::regex filter(args.filter);
  std::erase_if(cases, [&](const compare::Case& c) { return !std::regex_search(c.name(), filter); });
  return cases;
}

void use_isa(const std::string& name) {
  for (const headwise::Isa isa : headwise::available_isas())
    if (name_of(isa) == name) return headwise::set_isa(isa);
  headwise::fail("--isa (", name, ") must be one that this CPU has");
}

void set_memory(const compare::Machine& machine, Arguments& args) {
  args.run.memory_bytes = args.memory_mib > 0 ? args.memory_mib << 20 : machine.default_memory();
  args.run.cold_bytes = std::min(machine.cold_bytes(), args.run.memory_bytes / 4);
  if (args.smoke) args.run.cold_bytes = Index{4} << 20;  // nothing a test needs to be cold for
}

int run(Arguments& args) {
  if (!args.isa.empty()) use_isa(args.isa);
  compare::RunInfo info;
  info.all_threads = headwise::usable_cpus();
  const std::vector<compare::Case> cases = choose_cases(args, info.all_threads);
  if (args.list || cases.empty()) {
    for (const compare::Case& c : cases) std::cout << c.name() << "\n";
    if (cases.empty()) std::cerr << "compare: no case is left by these options\n";
    return cases.empty() ? 2 : 0;
  }
#if !defined(__OPTIMIZE__)
  std::cerr << "compare: compiled without optimization; the figures mean nothing\n";
#endif
  info.machine = compare::this_machine();
  set_memory(info.machine, args);
  info.isa = name_of(headwise::current_isa());
  info.cold_bytes = args.run.cold_bytes;
  info.repetitions = args.run.repetitions;
  info.min_time = args.run.min_time;

  compare::Runner runner(args.run);
  const std::vector<compare::Result> results = runner.run(cases);
  if (!results.empty()) print_table(std::cout, info, results);
  if (!args.json.empty()) write_json(args.json, info, results);
  if (!runner.all_verified()) std::cerr << "compare: some outputs differ from the reference\n";
  return runner.all_verified() && !results.empty() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Compares multi-head, grouped-query and multi-query attention on this CPU.", "compare");
  Arguments args;
  declare(app, args);
  CLI11_PARSE(app, argc, argv);
  if (args.smoke) args.run = {.repetitions = 2, .min_time = 0.002};

  char program[] = "compare", interleave[] = "--benchmark_enable_random_interleaving=true";
  char* benchmark_argv[] = {program, interleave, nullptr};
  int benchmark_argc = 2;
  benchmark::Initialize(&benchmark_argc, benchmark_argv);
  try {
    return run(args);
  } catch (const std::exception& error) {
    std::cerr << "compare: " << error.what() << "\n";
    return 1;
  }
}
