// SPDX-License-Identifier: MIT
//
// Shows what Cross-Layer Attention saves: one decode step of a model's attention layers with each layer its own keys
// and values, and with layers that share them: bytes of the cache, bytes written and read by a step, and its time. A
// shared layer is read by each that shares it, so sharing saves capacity and writes, not reads. See --help.
//
//   sharing/step.hpp   the step that is timed
//   ../compare/        data, reference and machine, shared with that program

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "compare/figures.hpp"
#include "compare/json.hpp"
#include "compare/machine.hpp"
#include "headwise/kernel/dispatch.hpp"
#include "headwise/parallel/thread_pool.hpp"
#include "sharing/step.hpp"

namespace {

using headwise::Index;

struct Arguments {
  std::vector<std::string> names{"none", "cla2", "cla3"};
  Index layers = 12, heads = 32, kv_heads = 8, head_dim = 128, tokens = 4096, threads = 0;
  std::string storage = "bf16", json;
  int rounds = 15;
  bool smoke = false;
};

void declare(CLI::App& app, Arguments& args) {
  app.add_flag("--smoke", args.smoke, "tiny layers, a second: a test of this program");
  app.add_option("--sharing", args.names,
                 "none, cla<n>, keep-ends, dense-front, dense-back; the first is compared with")
      ->delimiter(',')
      ->capture_default_str();
  const CLI::Range up_to_4096(1, 4096);
  app.add_option("--layers", args.layers, "attention layers")->check(up_to_4096)->capture_default_str();
  app.add_option("--heads", args.heads, "query heads")->check(up_to_4096)->capture_default_str();
  app.add_option("--kv-heads", args.kv_heads, "KV heads")->check(up_to_4096)->capture_default_str();
  app.add_option("--head-dim", args.head_dim, "dimensions of a head")->check(CLI::Range(1, 576))->capture_default_str();
  app.add_option("--kv", args.tokens, "tokens in the cache")->check(CLI::Range(1, 1 << 22))->capture_default_str();
  app.add_option("--storage", args.storage, "storage type of the cache")
      ->check(CLI::IsMember({"f32", "f16", "bf16"}))
      ->capture_default_str();
  app.add_option("--threads", args.threads, "threads; unset: all")->check(up_to_4096);
  app.add_option("--rounds", args.rounds, "steps of each sharing, in turns")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  app.add_option("--json", args.json, "write every figure to this file");
}

struct Case {
  std::string name;
  headwise::KvSharing sharing;
  std::unique_ptr<sharing::Step> step;
  compare::Check check;
  std::vector<sharing::Times> samples;

  double median_of(double (*part)(const sharing::Times&)) const {
    std::vector<double> values;
    for (const sharing::Times& sample : samples) values.push_back(part(sample));
    return compare::median(std::move(values));
  }
  double append() const {
    return median_of([](const sharing::Times& t) { return t.append; });
  }
  double attend() const {
    return median_of([](const sharing::Times& t) { return t.attend; });
  }
  double seconds() const {
    return median_of([](const sharing::Times& t) { return t.step(); });
  }
};

std::unique_ptr<sharing::Step> make_step(const std::string& storage, compare::Workload& model,
                                         const headwise::KvSharing& layers, Index tokens) {
  if (storage == "f32") return std::make_unique<sharing::StepOf<float>>(model, layers, tokens);
  if (storage == "f16") return std::make_unique<sharing::StepOf<headwise::f16>>(model, layers, tokens);
  return std::make_unique<sharing::StepOf<headwise::bf16>>(model, layers, tokens);
}

headwise::Storage storage_named(const std::string& name) {
  return name == "f32" ? headwise::Storage::f32 : name == "f16" ? headwise::Storage::f16 : headwise::Storage::bf16;
}

void print_table(const std::vector<Case>& cases) {
  std::printf("%-12s %9s %11s %12s %12s %11s %11s %9s %8s\n", "sharing", "KV layers", "cache MiB", "written B",
              "read MiB", "append us", "attend ms", "step ms", "speed-up");
  for (const Case& c : cases)
    std::printf("%-12s %9td %11.1f %12td %12.1f %11.1f %11.3f %9.3f %8.2f\n", c.name.c_str(), c.sharing.num_producers(),
                static_cast<double>(c.step->cache_bytes()) / (1 << 20), c.step->bytes_written(),
                static_cast<double>(c.step->bytes_read()) / (1 << 20), c.append() * 1e6, c.attend() * 1e3,
                c.seconds() * 1e3, cases.front().seconds() / c.seconds());
}

void write_json(const Arguments& args, Index threads, const std::vector<Case>& cases) {
  using nlohmann::json;
  json document;
  document["headwise"] = compare::version_text();
  document["machine"] = compare::json_of(compare::this_machine(), threads);
  document["settings"] = {{"layers", args.layers},     {"num_heads", args.heads}, {"num_kv_heads", args.kv_heads},
                          {"head_dim", args.head_dim}, {"tokens", args.tokens},   {"storage", args.storage},
                          {"rounds", args.rounds}};
  document["cases"] = json::array();
  for (const Case& c : cases) {
    json samples = json::array();
    for (const sharing::Times& t : c.samples) samples.push_back({{"append", t.append}, {"attend", t.attend}});
    document["cases"].push_back({{"sharing", c.name},
                                 {"producers", c.sharing.num_producers()},
                                 {"cache_bytes", c.step->cache_bytes()},
                                 {"bytes_written_per_step", c.step->bytes_written()},
                                 {"bytes_read_per_step", c.step->bytes_read()},
                                 {"append_seconds", c.append()},
                                 {"attend_seconds", c.attend()},
                                 {"seconds", c.seconds()},
                                 {"error", c.check.error},
                                 {"error_limit", c.check.limit},
                                 {"samples", std::move(samples)}});
  }
  compare::write_file(args.json, document);
}

int run(Arguments& args) {
#if !defined(__OPTIMIZE__)
  std::cerr << "sharing: compiled without optimization; the times mean nothing\n";
#endif
  const Index threads = args.threads > 0 ? args.threads : headwise::usable_cpus();
  headwise::ThreadPool pool(threads);
  const compare::Model shape{"", "", args.heads, args.head_dim, args.kv_heads, {args.kv_heads}};
  compare::Workload model(shape, args.kv_heads, storage_named(args.storage), args.tokens + 1, 1, 1);
  std::vector<Case> cases;
  bool verified = true;
  for (const std::string& name : args.names) {
    const auto sharing = headwise::KvSharing::by_name(name, args.layers);
    Case c{name, sharing, make_step(args.storage, model, sharing, args.tokens), {}, {}};
    c.check = c.step->check(pool);
    verified = verified && c.check.passed();
    cases.push_back(std::move(c));
  }
  for (int round = 0; round < args.rounds; ++round)
    for (Case& c : cases) c.samples.push_back(c.step->run(pool));
  print_table(cases);
  if (!args.json.empty()) write_json(args, threads, cases);
  if (!verified) std::cerr << "sharing: some outputs differ from the reference\n";
  return verified ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Shows what layers that share keys and values save in a decode step on this CPU.", "sharing");
  Arguments args;
  declare(app, args);
  CLI11_PARSE(app, argc, argv);
  const auto preset = [&](const char* option, auto& value, auto tiny) {
    if (args.smoke && app.count(option) == 0) value = tiny;
  };
  preset("--layers", args.layers, Index{6});
  preset("--heads", args.heads, Index{4});
  preset("--kv-heads", args.kv_heads, Index{2});
  preset("--head-dim", args.head_dim, Index{64});
  preset("--kv", args.tokens, Index{200});
  preset("--rounds", args.rounds, 3);
  try {
    return run(args);
  } catch (const std::exception& error) {
    std::cerr << "sharing: " << error.what() << "\n";
    return 1;
  }
}
