// SPDX-License-Identifier: MIT
#include "runner.hpp"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdio>
#include <tuple>

namespace compare {

namespace {

/// What shares caches, and so one turn: everything but head counts, phase and threads.
auto group_of(const Case& c) { return std::tuple(c.model, c.storage, c.kv_tokens); }

/// Where the model's unequal groups begin and end; empty for equal ones.
std::vector<Index> boundaries_of(const Case& c) {
  if (!c.unequal) return {};
  std::vector<Index> boundaries{0};
  for (const Index size : c.model->unequal_groups) boundaries.push_back(boundaries.back() + size);
  return boundaries;
}

Limits mean(const Limits& a, const Limits& b) {
  return {2 / (1 / a.read_bandwidth + 1 / b.read_bandwidth), 2 / (1 / a.peak_flops + 1 / b.peak_flops)};
}

}  // namespace

/// Keeps every repetition, prints nothing: the table at the end is the report.
class Collector : public benchmark::BenchmarkReporter {
 public:
  bool ReportContext(const Context&) override { return true; }
  void ReportRuns(const std::vector<Run>& runs) override {
    for (const Run& run : runs)
      if (run.run_type == Run::RT_Iteration)
        samples_[run.run_name.function_name].push_back(
            {run.real_accumulated_time / static_cast<double>(run.iterations),
             {run.counters.at("read_bandwidth"), run.counters.at("peak_flops")}});
  }
  std::vector<Sample> samples_of(const Case& c) const {
    const auto found = samples_.find(c.name());
    return found == samples_.end() ? std::vector<Sample>{} : found->second;
  }

 private:
  std::map<std::string, std::vector<Sample>> samples_;
};

ExecutorRef Runner::executor(Index threads) {
  if (threads == 1) return ExecutorRef(serial_);
  auto& pool = pools_[threads];
  if (!pool) pool = std::make_unique<headwise::ThreadPool>(threads);
  return ExecutorRef(*pool);
}

Limits Runner::probe(const Case& c) {
  const ExecutorRef threads = executor(c.threads);
  return {
      c.warm ? roofline_.warm_bandwidth(threads, static_cast<Index>(c.kv_bytes())) : roofline_.cold_bandwidth(threads),
      roofline_.peak_flops(threads, c.storage)};
}

// Enough layers that a cycle through them exceeds the last-level cache, within this head count's share of the memory.
Index Runner::layers_for(const Case& c, Index siblings, bool cold) const {
  const auto bytes = static_cast<Index>(c.kv_bytes());
  const Index wanted = cold ? headwise::ceil_div(options_.cold_bytes, bytes) : 1;
  return std::clamp<Index>(options_.memory_bytes / siblings / bytes, 1, wanted);
}

void Runner::register_case(const Case& c, Workload& workload) {
  const Index layers = c.warm || c.phase == Phase::prefill ? 1 : workload.num_layers();
  const ExecutorRef threads = executor(c.threads);
  const auto body = [this, c, layers, threads, &workload, groups = boundaries_of(c),
                     next = Index{0}](benchmark::State& state) mutable {
    const Limits before = probe(c);
    for ([[maybe_unused]] auto _ : state) {
      workload.attend(next, c.new_tokens, threads, groups);
      next = next + 1 < layers ? next + 1 : 0;
    }
    const Limits limits = mean(before, probe(c));
    using benchmark::Counter;
    state.counters["read_bandwidth"] = limits.read_bandwidth;
    state.counters["peak_flops"] = limits.peak_flops;
    state.counters["kv_bytes_per_token"] = static_cast<double>(c.kv_bytes_per_token());
    state.counters["kv_bytes/s"] = Counter(c.kv_bytes(), Counter::kIsIterationInvariantRate);
    state.counters["flop/s"] = Counter(c.flops(), Counter::kIsIterationInvariantRate);
    state.counters["roofline"] = Counter(limits.seconds(c.kv_bytes(), c.flops()), Counter::kIsIterationInvariantRate);
  };
  benchmark::RegisterBenchmark(c.name().c_str(), body)
      ->UseRealTime()
      ->MinTime(options_.min_time)
      ->Repetitions(options_.repetitions);
}

std::vector<Result> Runner::run_group(std::span<const Case> group) {
  const auto is_cold = [](const Case& c) { return !c.warm && c.phase != Phase::prefill; };
  std::map<Index, std::unique_ptr<Workload>> workloads;  // by number of KV heads
  for (const Case& c : group) workloads[c.kv_heads];

  Index needed = 0;
  for (auto& [kv_heads, workload] : workloads) {
    Case c = group.front();
    c.kv_heads = kv_heads;
    needed +=
        layers_for(c, std::ssize(workloads), std::ranges::any_of(group, is_cold)) * static_cast<Index>(c.kv_bytes());
  }
  if (needed > options_.memory_bytes) {
    std::fprintf(stderr, "  left out: the caches take %lld MiB, more than the %lld MiB allowed (--memory)\n",
                 static_cast<long long>(needed >> 20), static_cast<long long>(options_.memory_bytes >> 20));
    return {};
  }

  std::vector<Result> results;
  Collector collector;
  for (const Case& c : group) {
    auto& workload = workloads[c.kv_heads];
    if (!workload) {
      Index new_tokens = 1;
      for (const Case& other : group) new_tokens = std::max(new_tokens, other.new_tokens);
      workload = std::make_unique<Workload>(*c.model, c.kv_heads, c.storage, c.kv_tokens,
                                            layers_for(c, std::ssize(workloads), std::ranges::any_of(group, is_cold)),
                                            new_tokens);
    }
    const Check check = workload->check(c.new_tokens, executor(c.threads), boundaries_of(c));
    if (!check.passed()) {
      std::fprintf(stderr, "  WRONG: %s is off by %.2e of the reference, at most %.2e expected\n", c.name().c_str(),
                   check.error, check.limit);
      all_verified_ = false;
      continue;
    }
    results.push_back({c, check, is_cold(c) ? workload->bytes() : workload->bytes() / workload->num_layers(), {}});
    register_case(c, *workload);
  }
  if (results.empty()) return results;
  benchmark::RunSpecifiedBenchmarks(&collector, "all");
  benchmark::ClearRegisteredBenchmarks();
  for (Result& result : results) result.samples = collector.samples_of(result.timed);
  return results;
}

std::vector<Result> Runner::run(std::span<const Case> cases) {
  std::vector<std::vector<Case>> groups;  // in order of first appearance
  for (const Case& c : cases) {
    const auto same = [&](const auto& group) { return group_of(group.front()) == group_of(c); };
    auto group = std::ranges::find_if(groups, same);
    if (group == groups.end()) group = groups.insert(groups.end(), std::vector<Case>{});
    group->push_back(c);
  }
  std::map<std::string, Result> by_name;
  std::size_t number = 0;
  for (const auto& group : groups) {
    const Case& first = group.front();
    std::fprintf(stderr, "[%zu/%zu] %s, %s, kv %lld: %zu cases\n", ++number, groups.size(),
                 std::string(first.model->name).c_str(), std::string(name_of(first.storage)).c_str(),
                 static_cast<long long>(first.kv_tokens), group.size());
    for (Result& result : run_group(group)) by_name.emplace(result.timed.name(), std::move(result));
  }
  std::vector<Result> results;
  for (const Case& c : cases)
    if (auto node = by_name.extract(c.name()); !node.empty()) results.push_back(std::move(node.mapped()));
  return results;
}

}  // namespace compare
