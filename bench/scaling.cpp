// SPDX-License-Identifier: MIT
//
// Shows how the cost of attention grows: time against kv length and prompt length, with and without a window, next to
// what the machine could do; the tiles it asks for; and the memory it takes beside the cache. See --help.
//
//   cases.hpp         what is timed
//   rotated.hpp       one cache as a cold source of every length
//   runner.hpp        counting, verification and timing
//   memory.hpp        heap bytes, counted by operator new
//   curve.hpp         the exponents
//   report.hpp        the tables and the JSON file
//   ../compare/       caches, reference and roofline, shared with that program

#include <CLI/CLI.hpp>
#include <algorithm>
#include <exception>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "compare/machine.hpp"
#include "headwise/kernel/dispatch.hpp"
#include "headwise/parallel/thread_pool.hpp"
#include "scaling/memory.hpp"
#include "scaling/report.hpp"
#include "scaling/runner.hpp"

namespace {

using headwise::Index;

struct Arguments {
  scaling::Curves curves;
  scaling::RunOptions run;
  Index heads = 32, kv_heads = 8, head_dim = 128, memory_mib = 0;
  std::vector<std::string> storages{"bf16", "f32"}, parts{"decode", "prefill", "memory"};
  bool quick = false, smoke = false;
  std::string json;
};

void declare(CLI::App& app, Arguments& args) {
  auto* quick = app.add_flag("--quick", args.quick, "bf16, all threads, kv 16384, prompts of 2048: half a minute");
  app.add_flag("--smoke", args.smoke, "tiny cases, a second: a test of this program")->excludes(quick);
  app.add_option("--show", args.parts, "parts to run")
      ->delimiter(',')
      ->check(CLI::IsMember({"decode", "prefill", "memory"}))
      ->capture_default_str();
  app.add_option("--storage", args.storages, "storage types of the cache")
      ->delimiter(',')
      ->check(CLI::IsMember({"f32", "f16", "bf16"}))
      ->capture_default_str();
  app.add_option("--threads", args.curves.threads, "threads; unset: 1 and all")
      ->delimiter(',')
      ->check(CLI::Range(1, 4096));
  const CLI::Range up_to_4096(1, 4096);
  app.add_option("--heads", args.heads, "query heads")->check(up_to_4096)->capture_default_str();
  app.add_option("--kv-heads", args.kv_heads, "KV heads")->check(up_to_4096)->capture_default_str();
  app.add_option("--head-dim", args.head_dim, "dimensions of a head")->check(CLI::Range(1, 576))->capture_default_str();
  app.add_option("--max-kv", args.curves.max_kv, "tokens in the cache, doubling up to here from 1024")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str();
  app.add_option("--max-prompt", args.curves.max_prompt, "tokens of a prompt, doubling up to here from 512")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--window", args.curves.window, "keys that a query sees in the windowed cases")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str();
  app.add_option("--repetitions", args.run.repetitions, "rounds")->check(CLI::Range(1, 1000))->capture_default_str();
  app.add_option("--min-time", args.run.min_time, "seconds of each timing")
      ->check(CLI::Range(0.0001, 100.0))
      ->capture_default_str();
  app.add_option("--memory", args.memory_mib, "MiB of caches at most; unset: 4096, or a quarter of the memory")
      ->check(CLI::Range(16, 1 << 24));
  app.add_option("--json", args.json, "write every figure to this file");
}

/// --quick and --smoke set what was not named.
void apply_presets(const CLI::App& app, Arguments& args, Index all_threads) {
  const auto preset = [&](const char* option, auto& value, auto preset_value) {
    if (app.count(option) == 0) value = preset_value;
  };
  using Names = std::vector<std::string>;
  if (args.quick) {
    preset("--storage", args.storages, Names{"bf16"});
    preset("--threads", args.curves.threads, std::vector<Index>{all_threads});
    preset("--max-kv", args.curves.max_kv, Index{16384});
    preset("--max-prompt", args.curves.max_prompt, Index{2048});
  } else if (args.smoke) {
    preset("--heads", args.heads, Index{4});
    preset("--kv-heads", args.kv_heads, Index{2});
    preset("--head-dim", args.head_dim, Index{64});
    preset("--max-kv", args.curves.max_kv, Index{4096});
    preset("--max-prompt", args.curves.max_prompt, Index{1024});
    preset("--window", args.curves.window, Index{256});
    preset("--repetitions", args.run.repetitions, 2);
    preset("--min-time", args.run.min_time, 0.0005);
  } else {
    preset("--threads", args.curves.threads, std::vector<Index>{1, all_threads});
  }
  if (args.curves.threads.empty()) args.curves.threads = {1, all_threads};
  std::ranges::sort(args.curves.threads);
  const auto repeated = std::ranges::unique(args.curves.threads);
  args.curves.threads.erase(repeated.begin(), repeated.end());
}

int run(const CLI::App& app, Arguments& args) {
  scaling::RunInfo info;
  info.all_threads = headwise::usable_cpus();
  apply_presets(app, args, info.all_threads);
  scaling::Curves& curves = args.curves;
  headwise::HeadMap::contiguous(args.heads, args.kv_heads);  // says what is wrong with them before any work is done
  curves.heads = {args.heads, args.kv_heads, args.head_dim};
  const auto wanted = [&](const char* part) { return std::ranges::find(args.parts, part) != args.parts.end(); };
  curves.decode = wanted("decode");
  curves.prefill = wanted("prefill");
#if !defined(__OPTIMIZE__)
  std::cerr << "scaling: compiled without optimization; the times mean nothing\n";
#endif
  info.machine = compare::this_machine();
  info.isa = name_of(headwise::current_isa());
  args.run.memory_bytes = args.memory_mib > 0 ? args.memory_mib << 20 : info.machine.default_memory();
  args.run.cold_bytes = args.smoke ? Index{4} << 20 : std::min(info.machine.cold_bytes(), args.run.memory_bytes);
  info.options = args.run;

  std::vector<scaling::Result> results;
  scaling::Runner runner(args.run);
  curves.storages.clear();
  for (const headwise::Storage storage : {headwise::Storage::bf16, headwise::Storage::f32, headwise::Storage::f16})
    if (std::ranges::find(args.storages, name_of(storage)) != args.storages.end()) curves.storages.push_back(storage);
  for (const headwise::Storage storage : curves.storages)
    std::ranges::move(runner.run(curves, storage), std::back_inserter(results));
  std::vector<scaling::MemoryUse> memory;
  if (wanted("memory") && scaling::counts_allocations())
    memory = scaling::measure_memory(curves, curves.threads.back());
  print_tables(std::cout, info, curves, results, memory);
  if (!args.json.empty()) write_json(args.json, info, curves, results, memory);
  if (!runner.all_verified()) std::cerr << "scaling: some outputs differ from the reference\n";
  return runner.all_verified() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Shows how time, tiles read and memory of attention grow with the length on this CPU.", "scaling");
  Arguments args;
  declare(app, args);
  CLI11_PARSE(app, argc, argv);
  try {
    return run(app, args);
  } catch (const std::exception& error) {
    std::cerr << "scaling: " << error.what() << "\n";
    return 1;
  }
}
