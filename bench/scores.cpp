// SPDX-License-Identifier: MIT
//
// What each mask, score, output and position option costs over plain causal attention, in prefill and in decoding: all of a
// group in turns, in one run. See --help.
//
//   scores/variants.hpp  what is measured, a line for each; a .cpp for each group
//   scores/call.hpp      a call that is made again and again, and what the definition is told of it
//   scores/bed.hpp       the cache, the check against the definition, the timing
//   ../compare/          machine, shared with that program

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <exception>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "compare/json.hpp"
#include "compare/machine.hpp"
#include "headwise/kernel/dispatch.hpp"
#include "headwise/parallel/thread_pool.hpp"
#include "scores/bed.hpp"

namespace {

using headwise::Index;

/// Variants that are measured together.
struct Group {
  std::string name;
  std::vector<scores::Variant> (*variants)(const scores::Shape&);
  bool in_prefill = true;
  Index queries = 1;     // of a call in decoding
  Index least_keys = 0;  // where it is decoded
};

const std::vector<Group>& all_groups() {
  static const std::vector<Group> groups{
      {"masks", scores::mask_variants},
      {"scores", scores::score_variants},
      {"outputs", scores::output_variants},
      {"positions", scores::position_variants},
      {.name = "windows", .variants = scores::window_variants, .in_prefill = false, .least_keys = 4 * 1152},
      {.name = "drafts", .variants = scores::draft_variants, .in_prefill = false, .queries = 64},
  };
  return groups;
}

std::vector<std::string> names_of_groups() {
  std::vector<std::string> names;
  for (const Group& group : all_groups()) names.push_back(group.name);
  return names;
}

struct Arguments {
  std::vector<std::string> groups = names_of_groups();
  std::vector<std::string> storages{"f32", "bf16"};
  std::vector<Index> kv_heads{8, 32}, decode{4096, 32768};
  Index heads = 32, head_dim = 128, prefill = 2048, threads = 0;
  std::string json;
  int rounds = 21, prefill_rounds = 7;
  bool smoke = false;
};

void declare(CLI::App& app, Arguments& args) {
  const CLI::Range tokens(1, 1 << 22), count(1, 4096);
  app.add_flag("--smoke", args.smoke, "tiny calls, seconds: a test of this program");
  app.add_option("--group", args.groups, "what is measured")
      ->delimiter(',')
      ->check(CLI::IsMember(names_of_groups()))
      ->capture_default_str();
  app.add_option("--storage", args.storages, "storage types of the cache")
      ->delimiter(',')
      ->check(CLI::IsMember({"f32", "f16", "bf16"}))
      ->capture_default_str();
  app.add_option("--heads", args.heads, "query heads")->check(count)->capture_default_str();
  app.add_option("--kv-heads", args.kv_heads, "KV heads of decoding; the first also of prefill")
      ->delimiter(',')
      ->check(count)
      ->capture_default_str();
  app.add_option("--head-dim", args.head_dim, "dimensions of a head")->check(CLI::Range(1, 512))->capture_default_str();
  app.add_option("--prefill", args.prefill, "tokens of the prompt")->check(tokens)->capture_default_str();
  app.add_option("--kv", args.decode, "tokens in the cache in decoding")
      ->delimiter(',')
      ->check(tokens)
      ->capture_default_str();
  app.add_option("--rounds", args.rounds, "calls of each option in decoding")->check(count)->capture_default_str();
  app.add_option("--prefill-rounds", args.prefill_rounds, "and in prefill")->check(count)->capture_default_str();
  app.add_option("--threads", args.threads, "threads; unset: all")->check(count);
  app.add_option("--json", args.json, "write every figure to this file");
}

class Report {
 public:
  Report(const Arguments& args, Index threads) {
    document_["headwise"] = compare::version_text();
    document_["machine"] = compare::json_of(compare::this_machine(), threads);
    document_["settings"] = {{"heads", args.heads}, {"head_dim", args.head_dim}};
    document_["groups"] = nlohmann::json::array();
  }

  void add(const std::string& name, bool prefill, const std::vector<scores::Measured>& all) {
    std::printf("\n%s\n%-32s %12s %9s %7s  %-16s %9s\n", name.c_str(), "", "us", "cost %", "limit", "over", "error");
    nlohmann::json ways = nlohmann::json::array();
    for (const scores::Measured& m : all) {
      const std::optional<double> limit = prefill ? m.variant.limits.prefill : m.variant.limits.decode;
      const double seconds = compare::median(m.seconds), cost = cost_of(m, all);
      const std::string limit_text = limit ? compare::format("%.0f", *limit) : "";
      std::printf("%-32s %12.1f %+9.1f %7s  %-16s %9.1e\n", m.variant.name.c_str(), seconds * 1e6, cost,
                  limit_text.c_str(), m.variant.base.c_str(), m.error);
      ways.push_back({{"name", m.variant.name},
                      {"over", m.variant.base},
                      {"seconds", seconds},
                      {"cost_percent", cost},
                      {"limit_percent", limit ? nlohmann::json(*limit) : nlohmann::json()},
                      {"error", m.error},
                      {"error_limit", m.error_limit},
                      {"samples", m.seconds}});
      if (limit && cost > *limit)
        above_.push_back(name + ": " + m.variant.name + compare::format(" %+.1f (%.0f)", cost, *limit));
      if (m.verified()) continue;
      verified_ = false;
      std::cerr << "scores: " << name << ", " << m.variant.name << ": error " << m.error << " is above "
                << m.error_limit << "\n";
    }
    std::fflush(stdout);
    document_["groups"].push_back({{"name", name}, {"ways", std::move(ways)}});
  }

  void print_what_is_above_its_limit() const {
    std::printf("\nabove their limits: %zu\n", above_.size());
    for (const std::string& line : above_) std::printf("  %s\n", line.c_str());
  }

  bool verified() const { return verified_; }
  const nlohmann::json& document() const { return document_; }

 private:
  nlohmann::json document_;
  std::vector<std::string> above_;
  bool verified_ = true;
};

template <class T>
void measure(const Arguments& args, headwise::ExecutorRef executor, Report& report) {
  const std::string storage(headwise::name_of(headwise::Stored<T>::storage));
  const auto name = [&](const Group& group, const char* phase, const scores::Shape& shape) {
    return group.name + " in " + phase + " " + std::to_string(shape.num_heads) + ":" +
           std::to_string(shape.num_kv_heads) + ", " + storage + ", " + std::to_string(shape.keys) + " tokens";
  };
  std::vector<Group> groups;
  for (const Group& group : all_groups())
    if (std::ranges::find(args.groups, group.name) != args.groups.end()) groups.push_back(group);

  {
    const scores::Shape shape{args.heads, args.kv_heads.front(), args.head_dim, args.prefill, args.prefill};
    scores::Bed<T> prompt(shape, 1);
    for (const Group& group : groups)
      if (group.in_prefill)
        report.add(name(group, "prefill", shape), true,
                   prompt.measure(group.variants(shape), shape.queries, args.prefill_rounds, executor));
  }
  const compare::Machine machine = compare::this_machine();
  for (const Index tokens : args.decode)
    for (const Index kv_heads : args.kv_heads) {
      scores::Shape shape{args.heads, kv_heads, args.head_dim, 1, tokens};
      for (const Group& group : groups) shape.queries = std::clamp(group.queries, shape.queries, tokens);
      // as many layers as are cold when they are read again, at most
      const Index bytes = 2 * kv_heads * args.head_dim * headwise::size_of(headwise::Stored<T>::storage) * tokens;
      const Index wanted = std::min(machine.cold_bytes(), machine.default_memory());
      scores::Bed<T> cache(shape, args.smoke ? 2 : std::clamp<Index>(headwise::ceil_div(wanted, bytes), 1, 64));
      for (const Group& group : groups) {
        if (tokens < group.least_keys && !args.smoke) continue;
        shape.queries = std::min(group.queries, tokens);
        report.add(name(group, "decode", shape), false,
                   cache.measure(group.variants(shape), shape.queries, args.rounds, executor));
      }
    }
}

int run(const Arguments& args) {
#if !defined(__OPTIMIZE__)
  std::cerr << "scores: compiled without optimization; the times mean nothing\n";
#endif
  const Index threads = args.threads > 0 ? args.threads : headwise::usable_cpus();
  headwise::ThreadPool pool(threads);
  std::printf("%s, %td threads\n", std::string(name_of(headwise::current_isa())).c_str(), threads);
  Report report(args, threads);
  for (const std::string& storage : args.storages) {
    if (storage == "f32") measure<float>(args, pool, report);
    if (storage == "f16") measure<headwise::f16>(args, pool, report);
    if (storage == "bf16") measure<headwise::bf16>(args, pool, report);
  }
  report.print_what_is_above_its_limit();
  if (!args.json.empty()) compare::write_file(args.json, report.document());
  return report.verified() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Shows what masks, scores, outputs and positions cost over plain causal attention on this CPU.",
               "scores");
  Arguments args;
  declare(app, args);
  CLI11_PARSE(app, argc, argv);
  const auto preset = [&](const char* option, auto& value, auto tiny) {
    if (args.smoke && app.count(option) == 0) value = tiny;
  };
  preset("--heads", args.heads, Index{4});
  preset("--kv-heads", args.kv_heads, std::vector<Index>{2});
  preset("--head-dim", args.head_dim, Index{64});
  preset("--prefill", args.prefill, Index{200});
  preset("--kv", args.decode, std::vector<Index>{1300});
  preset("--rounds", args.rounds, 2);
  preset("--prefill-rounds", args.prefill_rounds, 2);
  try {
    return run(args);
  } catch (const std::exception& error) {
    std::cerr << "scores: " << error.what() << "\n";
    return 1;
  }
}
