// SPDX-License-Identifier: MIT
#include "cases.hpp"

#include <algorithm>
#include <iterator>
#include <sstream>

namespace compare {

namespace {

using headwise::Storage;

constexpr Index kAll = 0;  // threads: all there are

/// A row of a case set: every sibling of one model under these conditions.
struct Sweep {
  std::string_view model;
  std::vector<Storage> storages;
  Phase phase;
  std::vector<Index> new_tokens;  // prefill: unused
  std::vector<Index> kv_tokens;
  std::vector<Index> threads;
  bool warm = false;
  bool unequal = false;  // with the case of unequal groups
};

std::vector<Case> expand(const std::vector<Sweep>& sweeps, const Axes& axes, Index all_threads) {
  std::vector<Case> cases;
  for (const Sweep& sweep : sweeps) {
    std::vector<Index> threads = axes.threads.empty() ? sweep.threads : axes.threads;
    for (Index& n : threads) n = n == kAll ? all_threads : n;
    std::ranges::sort(threads);
    threads.erase(std::ranges::unique(threads).begin(), threads.end());
    const Model* model = find_model(sweep.model);
    for (const Storage storage : sweep.storages)
      for (const Index kv : sweep.kv_tokens)
        for (const Index new_tokens : sweep.phase == Phase::prefill ? std::vector<Index>{kv} : sweep.new_tokens)
          for (const Index n : threads)
            for (const Index kv_heads : model->kv_heads)
              if (new_tokens <= kv) {
                cases.push_back({model, kv_heads, storage, sweep.phase, new_tokens, kv, n, sweep.warm});
                if (!sweep.unequal || kv_heads != model->own_kv_heads || model->unequal_groups.empty()) continue;
                cases.push_back(cases.back());
                cases.back().unequal = true;
              }
  }
  return cases;
}

const std::vector<Storage> kEveryStorage = {Storage::f32, Storage::f16, Storage::bf16};
const std::vector<Index> kAppended = {8, 64};

std::vector<std::string> model_keys() {
  std::vector<std::string> keys;
  for (const Model& model : models()) keys.emplace_back(model.key);
  return keys;
}

}  // namespace

std::string Case::name() const {
  std::ostringstream text;
  text << model->key << "/" << num_heads() << ":" << kv_heads << ":" << head_dim() << "/" << name_of(storage) << "/"
       << name_of(phase) << "/" << new_tokens << "/kv" << kv_tokens << "/threads" << threads << (warm ? "/warm" : "")
       << (unequal ? "/unequal" : "");
  return text.str();
}

// One model in depth (every storage, every length), the others where they differ from it: group sizes, head sizes.
std::vector<Case> default_cases(const Axes& axes, Index all_threads) {
  using enum Storage;
  using enum Phase;
  return expand(
      {
          {"llama3-8b", kEveryStorage, decode, {1}, {512, 4096, 32768}, {1, kAll}},
          {"llama3-8b", {f32, bf16}, decode, {1}, {512}, {1}, true},
          {"llama3-8b", {f32, bf16}, append, kAppended, {4096}, {kAll}},
          {"llama3-8b", {f32, bf16}, prefill, {}, {1024}, {kAll}},
          {"llama3-70b", {bf16}, decode, {1}, {4096}, {kAll}},
          {"falcon-7b", {bf16}, decode, {1}, {4096}, {kAll}},
          {"smollm2-135m", {f32, bf16}, decode, {1}, {2048}, {1, kAll}},
          {"gemma3-1b", {bf16}, decode, {1}, {8192}, {kAll}},
          {"t5-xxl", {f32, bf16}, decode, {1}, {4096}, {kAll}},
      },
      axes, all_threads);
}

std::vector<Case> quick_cases(const Axes& axes, Index all_threads) {
  using enum Storage;
  using enum Phase;
  return expand(
      {
          {"llama3-8b", {f32, bf16}, decode, {1}, {4096, 32768}, {kAll}},
          {"llama3-8b", {bf16}, append, {64}, {4096}, {kAll}},
          {"llama3-8b", {bf16}, prefill, {}, {512}, {kAll}},
      },
      axes, all_threads);
}

// Small shapes that touch every path of the program once.
std::vector<Case> smoke_cases(const Axes& axes, Index all_threads) {
  using enum Storage;
  using enum Phase;
  return expand(
      {
          {"smollm2-135m", kEveryStorage, decode, {1}, {512}, {1, kAll}, true, true},
          {"smollm2-135m", {bf16}, decode, {1}, {512}, {kAll}},
          {"smollm2-135m", {f32}, append, {8}, {512}, {kAll}, true},
          {"gemma3-1b", {f32}, prefill, {}, {128}, {kAll}},
      },
      axes, all_threads);
}

std::vector<Case> product_of(const Axes& axes, Index all_threads) {
  const auto or_default = [](auto values, decltype(values) fallback) { return values.empty() ? fallback : values; };
  std::vector<Storage> storages;
  for (const Storage s : kEveryStorage)
    if (axes.storages.empty() || std::ranges::count(axes.storages, name_of(s)) > 0) storages.push_back(s);

  std::vector<Sweep> sweeps;
  for (const std::string& model : or_default(axes.models, {"llama3-8b"}))
    for (const std::string& phase : or_default(axes.phases, {"decode"})) {
      Sweep sweep{find_model(model)->key, storages, Phase::decode, {1}, or_default(axes.kv_tokens, {4096}), {1, kAll}};
      if (phase == "append") sweep.phase = Phase::append, sweep.new_tokens = kAppended;
      if (phase == "prefill") sweep.phase = Phase::prefill;
      sweep.warm = axes.warm && sweep.phase != Phase::prefill;
      sweep.unequal = axes.unequal;
      sweeps.push_back(sweep);
    }
  return expand(sweeps, axes, all_threads);
}

std::vector<Case> full_cases(const Axes& axes, Index all_threads) {
  Axes each{model_keys(), {},  {"decode", "append"}, {512, 1024, 2048, 4096, 8192, 16384, 32768}, axes.threads,
            false,        true};
  std::vector<Case> cases = product_of(each, all_threads);
  each.phases = {"prefill"};
  each.kv_tokens = {512, 1024, 2048, 4096};
  std::ranges::copy(product_of(each, all_threads), std::back_inserter(cases));
  return cases;
}

}  // namespace compare
