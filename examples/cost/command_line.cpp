// SPDX-License-Identifier: MIT
#include "command_line.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <map>

namespace example {

namespace {

constexpr Index kMost = Index{1} << 40;

const std::map<std::string, cost::ElementFormat>& formats() {
  static const std::map<std::string, cost::ElementFormat> formats = {
      {"f32", headwise::Storage::f32},       {"f16", headwise::Storage::f16},
      {"bf16", headwise::Storage::bf16},     {"fp8", cost::ElementFormat::fp8()},
      {"int8", cost::ElementFormat::int8()}, {"int4", cost::ElementFormat::int4()}};
  return formats;
}

/// Layers of attention alone, as given by numbers.
struct Numbers {
  Index hidden = 0, heads = 0, head_dim = 0, layers = 1;
};

cost::ModelShape model_of(const Numbers& numbers, const std::vector<Index>& kv_heads) {
  cost::AttentionShape attention{.hidden_size = numbers.hidden, .num_heads = numbers.heads};
  if (numbers.head_dim > 0) attention.head_dim = numbers.head_dim;
  if (!kv_heads.empty()) attention.num_kv_heads = kv_heads.front();
  return cost::ModelShape::uniform("attention layers", numbers.layers, {.attention = attention});
}

bool has_cross_attention(const cost::ModelShape& model) {
  return std::ranges::any_of(model.layers, [](const auto& layer) { return layer.cross_attention.has_value(); });
}

}  // namespace

std::optional<CommandLine> read_command_line(int argc, char** argv, int& exit_code) {
  CommandLine line;
  Numbers numbers;
  std::string model, kv_format = "bf16", weight_format = "bf16";
  bool list = false, shazeer = false, hold_window = false;
  Index layers_per_cache = 1;
  double memory_gib = 0, gigabytes = 100, gigaflops = 2000;
  std::vector<std::string> format_names;
  for (const auto& [name, format] : formats()) format_names.push_back(name);

  CLI::App app{"What decoding with a model costs, and what its siblings with other numbers of KV heads would cost.",
               "cost"};
  const auto count = CLI::Range(Index{1}, kMost);
  auto* named = app.add_option("--model", model, "a published model (see --list)");
  auto* listed = app.add_flag("--list", list, "name the published models");
  auto* paper = app.add_flag("--shazeer", shazeer, "memory per multiply-add, as in \"One Write-Head is All You Need\"");
  auto* hidden = app.add_option("--hidden", numbers.hidden, "attention alone: features of a token")->check(count);
  auto* heads = app.add_option("--heads", numbers.heads, "its query heads")
                    ->check(CLI::Range(Index{1}, Index{1} << 20))
                    ->needs(hidden);
  hidden->needs(heads);
  auto* head_dim = app.add_option("--head-dim", numbers.head_dim, "its head dimension; unset: hidden / heads");
  head_dim->check(count)->needs(hidden);
  auto* layers = app.add_option("--layers", numbers.layers, "its layers")->check(CLI::Range(Index{1}, Index{1} << 20));
  layers->needs(hidden)->capture_default_str();
  named->excludes(hidden)->excludes(listed)->excludes(paper);
  hidden->excludes(listed)->excludes(paper);
  listed->excludes(paper);

  app.add_option("--kv-heads", line.kv_heads, "KV heads to compare, comma-separated; unset: every divisor of heads")
      ->delimiter(',')
      ->check(count);
  auto* sharing = app.add_option("--cla", layers_per_cache, "neighbouring layers that share keys and values");
  sharing->check(count);
  app.add_option("--context", line.context, "keys that a token sees; unset: what the model was trained for, or 4096")
      ->check(count);
  app.add_option("--source", line.source_tokens, "encoded tokens, for cross-attention; unset: as --context")
      ->check(count);
  app.add_option("--batch", line.batch, "sequences decoded at the same time")->check(count)->capture_default_str();
  app.add_option("--dtype", kv_format, "how keys and values are stored; int8 and int4: an f16 scale for 32 elements")
      ->check(CLI::IsMember(format_names))
      ->capture_default_str();
  app.add_option("--weights", weight_format, "how weights are stored")
      ->check(CLI::IsMember(format_names))
      ->capture_default_str();
  auto* memory = app.add_option("--memory", memory_gib, "GiB for weights and caches: which context fits?");
  memory->check(CLI::Range(1e-6, 1e9));
  app.add_flag("--hold-window", hold_window, "caches of layers with a window hold no more than that")->needs(memory);
  app.add_option("--bandwidth", gigabytes, "memory bandwidth in GB/s")
      ->check(CLI::Range(1e-6, 1e9))
      ->capture_default_str();
  app.add_option("--flops", gigaflops, "peak GFLOP/s")->check(CLI::Range(1e-6, 1e12))->capture_default_str();
  try {
    app.parse(argc, argv);
    if (named->count() + hidden->count() + listed->count() + paper->count() == 0)
      throw CLI::RequiredError("--model, --hidden with --heads, --list or --shazeer");
  } catch (const CLI::ParseError& error) {
    exit_code = app.exit(error);
    return std::nullopt;
  }
  if (list || shazeer) {
    line.task = list ? Task::list_models : Task::print_shazeer;
    return line;
  }

  const auto check_finite = [](const char* name, double value) {  // NaN passes every range
    headwise::require(std::isfinite(value), name, " (", value, ") must be finite");
  };
  check_finite("--memory", memory_gib);
  check_finite("--bandwidth", gigabytes);
  check_finite("--flops", gigaflops);
  line.published = named->count() > 0 && sharing->count() == 0;
  if (hold_window) line.windows = cost::WindowCaches::hold_window;
  line.model = named->count() > 0 ? cost::known_model(model) : model_of(numbers, line.kv_heads);
  if (sharing->count() > 0)
    line.model.sharing = headwise::KvSharing::every(std::ssize(line.model.layers), layers_per_cache);
  if (line.context == 0) line.context = line.model.context > 0 ? line.model.context : 4096;
  headwise::require(line.source_tokens == 0 || has_cross_attention(line.model), "--source (", line.source_tokens,
                    ") must be unset: ", line.model.name, " has no cross-attention");
  if (line.source_tokens == 0 && has_cross_attention(line.model)) line.source_tokens = line.context;
  line.kv_name = kv_format;
  line.weights_name = weight_format;
  line.formats = {.weights = formats().at(weight_format), .kv = formats().at(kv_format)};
  if (memory->count() > 0) line.memory_bytes = static_cast<Index>(memory_gib * 0x1p30);
  line.machine = {.flops_per_second = gigaflops * 1e9, .bytes_per_second = gigabytes * 1e9};
  return line;
}

}  // namespace example
