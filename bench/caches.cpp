// SPDX-License-Identifier: MIT
//
// What a KV cache costs: decode by storage type, over pages, over a shared prefix; appending, forking, rolling back. Every
// figure is a ratio within one run, in turns. See --help.
//
//   caches/timing.hpp    ways to be compared
//   caches/groups.hpp    what is measured; one .cpp for each
//   caches/layers.hpp    data and the check against the definition
//   ../compare/          machine, shared with that program

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "caches/groups.hpp"
#include "compare/json.hpp"
#include "compare/machine.hpp"
#include "headwise/kernel/dispatch.hpp"
#include "headwise/parallel/thread_pool.hpp"

namespace {

using caches::Index;

struct Arguments {
  caches::Sizes sizes;
  std::vector<std::string> groups{"storage", "pages", "append", "moves", "prefix"};
  Index threads = 0;
  std::string json;
  bool smoke = false;
};

void declare(CLI::App& app, Arguments& args) {
  caches::Sizes& sizes = args.sizes;
  const CLI::Range tokens(1, 1 << 22), count(1, 4096);
  app.add_flag("--smoke", args.smoke, "tiny caches, seconds: a test of this program");
  app.add_option("--groups", args.groups, "what to measure")
      ->delimiter(',')
      ->check(CLI::IsMember({"storage", "pages", "append", "moves", "prefix"}))
      ->capture_default_str();
  app.add_option("--head-dim", sizes.head_dim, "dimensions of a head")
      ->check(CLI::Range(1, 576))
      ->capture_default_str();
  app.add_option("--kv", sizes.kv_tokens, "tokens of the sequence that is decoded by storage type")
      ->check(tokens)
      ->capture_default_str();
  app.add_option("--layers", sizes.layers, "layers a decode step goes through")->check(count)->capture_default_str();
  app.add_option("--paged-kv", sizes.paged_tokens, "tokens of the sequences in pages")
      ->check(tokens)
      ->capture_default_str();
  app.add_option("--prefix", sizes.prefix_tokens, "tokens of the shared prefix")->check(tokens)->capture_default_str();
  app.add_option("--sequences", sizes.sequences, "sequences that share it")->check(count)->capture_default_str();
  app.add_option("--rounds", sizes.rounds, "runs of each way, in turns")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  app.add_option("--threads", args.threads, "threads; unset: all")->check(count);
  app.add_option("--json", args.json, "write every figure to this file");
}

void print(const caches::Group& group) {
  std::printf("\n%s\n%-34s %14s %9s %9s %10s\n", group.name.c_str(), "", ("us per " + group.unit).c_str(), "speed-up",
              "GB/s", "error");
  for (const caches::Timed& way : group.ways) {
    const double seconds = way.median();
    std::printf("%-34s %14.3f %9.2f", way.name.c_str(), seconds * 1e6 / static_cast<double>(way.units),
                group.speed_up(way));
    if (way.bytes > 0)
      std::printf(" %9.1f", static_cast<double>(way.bytes) / seconds * 1e-9);
    else
      std::printf(" %9s", "");
    if (way.error_limit > 0) std::printf(" %10.1e", way.error);
    std::printf("\n");
  }
  std::fflush(stdout);
}

nlohmann::json json_of(const caches::Group& group) {
  nlohmann::json ways = nlohmann::json::array();
  for (const caches::Timed& way : group.ways)
    ways.push_back({{"name", way.name},
                    {"seconds", way.median()},
                    {"units", way.units},
                    {"bytes", way.bytes},
                    {"speed_up", group.speed_up(way)},
                    {"error", way.error},
                    {"error_limit", way.error_limit},
                    {"samples", way.seconds}});
  return {{"name", group.name}, {"unit", group.unit}, {"ways", std::move(ways)}};
}

int run(const Arguments& args) {
#if !defined(__OPTIMIZE__)
  std::cerr << "caches: compiled without optimization; the times mean nothing\n";
#endif
  const Index threads = args.threads > 0 ? args.threads : headwise::usable_cpus();
  headwise::ThreadPool pool(threads);
  bool verified = true;
  nlohmann::json document{{"headwise", compare::version_text()},
                          {"machine", compare::json_of(compare::this_machine(), threads)},
                          {"groups", nlohmann::json::array()}};
  const auto done = [&](const caches::Group& group) {
    print(group);
    document["groups"].push_back(json_of(group));
    for (const caches::Timed& way : group.ways) {
      if (way.verified()) continue;
      verified = false;
      std::cerr << "caches: " << group.name << ", " << way.name << ": error " << way.error << " is above "
                << way.error_limit << "\n";
    }
  };
  std::printf("%s, %td threads\n", std::string(name_of(headwise::current_isa())).c_str(), threads);
  const std::map<std::string, std::function<void()>> measures{
      {"storage", [&] { measure_storage(args.sizes, pool, done); }},
      {"pages", [&] { measure_pages(args.sizes, pool, done); }},
      {"append", [&] { measure_append(args.sizes, done); }},
      {"moves", [&] { measure_moves(args.sizes, done); }},
      {"prefix", [&] { measure_prefix(args.sizes, pool, done); }},
  };
  for (const std::string& name : args.groups) measures.at(name)();
  if (!args.json.empty()) compare::write_file(args.json, document);
  return verified ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Shows what a KV cache costs on this CPU: storage types, pages, prefixes, operations.", "caches");
  Arguments args;
  declare(app, args);
  CLI11_PARSE(app, argc, argv);
  const auto preset = [&](const char* option, auto& value, auto tiny) {
    if (args.smoke && app.count(option) == 0) value = tiny;
  };
  preset("--head-dim", args.sizes.head_dim, Index{64});
  preset("--kv", args.sizes.kv_tokens, Index{1200});
  preset("--layers", args.sizes.layers, Index{2});
  preset("--paged-kv", args.sizes.paged_tokens, Index{300});
  preset("--prefix", args.sizes.prefix_tokens, Index{1024});
  preset("--sequences", args.sizes.sequences, Index{4});
  preset("--rounds", args.sizes.rounds, 2);
  try {
    return run(args);
  } catch (const std::exception& error) {
    std::cerr << "caches: " << error.what() << "\n";
    return 1;
  }
}
