// SPDX-License-Identifier: MIT
#include "command_line.hpp"

#include <CLI/CLI.hpp>
#include <map>

namespace regroup_tool {

namespace {

using headwise::regroup::PoolMethod;
using headwise::regroup::PoolScale;
using llama::TensorType;

void check(const CommandLine& line) {
  const auto refuse = [](const char* text) { throw CLI::ValidationError(text); };
  if (line.out.empty() && line.front.empty()) refuse("--out or --front is required");
  if (!line.out.empty() && !line.kv_heads && !line.capacity && !line.degroup && !line.share &&
      line.written_groups.empty())
    refuse("--out needs --kv-heads, --capacity, --groups of your own, --degroup or --share: something to change");
  if ((line.capacity || !line.front.empty()) && line.groups != Groups::qcqa)
    refuse("--capacity and --front need --groups qcqa");
  const bool by_activations = line.groups == Groups::symmetric || line.groups == Groups::asymmetric;
  if (by_activations && line.calibration.empty()) refuse("--groups symmetric and asymmetric need --calibration TEXT");
  if (!by_activations && !line.calibration.empty())
    refuse("--calibration is for --groups symmetric and asymmetric alone");
  if (by_activations && !line.kv_heads) refuse("--groups symmetric and asymmetric need --kv-heads");
  if (line.groups == Groups::written && line.kv_heads)
    refuse("--kv-heads follows from the groups where they are written out");
}

}  // namespace

std::optional<CommandLine> read_command_line(int argc, char** argv, int& exit_code) {
  CommandLine line;
  std::string groups = "neighbours", pool = "mean", scale = "none", store = "f32", share;
  CLI::App app{
      "Converts the attention of a Llama-architecture model: fewer KV heads (MHA to GQA to MQA), other groups, layers "
      "that "
      "share keys and values.",
      "regroup"};
  app.add_option("model", line.model, "GGUF file, or folder of a Hugging Face model")->required();
  app.add_option("--out", line.out, "GGUF file to write");

  const std::string choosing = "Choosing groups", making = "Making them", writing = "Writing";
  app.add_option("--kv-heads", line.kv_heads, "KV heads of each converted layer")
      ->check(CLI::Range(Index{1}, Index{1} << 20))
      ->group(choosing);
  app.add_option("--layers", line.layers,
                 "layers to convert: all, a list such as 0,3,5-9, or lowest:8, highest:8 by the error of their groups")
      ->capture_default_str()
      ->group(choosing);
  app.add_option("--groups", groups,
                 "neighbours; symmetric, asymmetric (AsymGQA, by activations); qcqa (by weights); or KV heads such as "
                 "\"0 2 | 1\"")
      ->capture_default_str()
      ->group(choosing);
  app.add_option("--capacity", line.capacity,
                 "QCQA over all layers: the share of KV heads that may be left, 0 to 1, instead of --kv-heads")
      ->check(CLI::Range(1e-9, 1.0))
      ->excludes("--kv-heads")
      ->group(choosing);
  app.add_option("--front", line.front, "write the front of QCQA over layers to this CSV file, and print it")
      ->group(choosing);
  app.add_option("--calibration", line.calibration, "text whose activations choose the groups")
      ->check(CLI::ExistingFile)
      ->group(choosing);
  app.add_option("--calibration-tokens", line.calibration_tokens, "tokens of it that are read")
      ->check(CLI::Range(Index{1}, Index{1} << 30))
      ->capture_default_str()
      ->group(choosing);
  app.add_option("--degroup", line.degroup, "first repeat KV heads up to this many: the model stays the same")
      ->check(CLI::Range(Index{1}, Index{1} << 20))
      ->group(choosing);

  const std::map<std::string, PoolMethod> methods = {{"mean", PoolMethod::mean},
                                                     {"first", PoolMethod::first},
                                                     {"medoid", PoolMethod::medoid},
                                                     {"random", PoolMethod::random}};
  const std::map<std::string, PoolScale> scales = {
      {"none", PoolScale::none}, {"renorm", PoolScale::renorm}, {"sqrt-size", PoolScale::sqrt_size}};
  app.add_option("--pool", pool, "what a group's K and V projections become")
      ->check(CLI::IsMember(methods))
      ->capture_default_str()
      ->group(making);
  app.add_option("--scale", scale, "how long they are made")
      ->check(CLI::IsMember(scales))
      ->capture_default_str()
      ->group(making);
  app.add_flag("--align", line.align, "turn the heads of a group towards each other first (Procrustes)")->group(making);
  auto* sharing = app.add_option("--share", share, "layers that share keys and values: cla2, cla3, …, keep-ends, none")
                      ->group(making);
  app.add_option("--seed", line.seed, "of random projections and of searches")->capture_default_str()->group(making);

  const std::map<std::string, TensorType> stores = {
      {"f32", TensorType::f32}, {"f16", TensorType::f16}, {"bf16", TensorType::bf16}};
  app.add_option("--store", store, "type of the tensors that change; the others stay as they are")
      ->check(CLI::IsMember(stores))
      ->capture_default_str()
      ->group(writing);
  app.add_flag("--compatible", line.compatible,
               "repeat KV heads until groups are equal, so that other readers of GGUF take the file")
      ->group(writing);
  app.add_option("--threads", line.threads, "threads; 0: all CPUs the process may use")
      ->check(CLI::Range(Index{0}, Index{4096}))
      ->capture_default_str();
  try {
    app.parse(argc, argv);
    const std::map<std::string, Groups> known = {{"neighbours", Groups::neighbours},
                                                 {"symmetric", Groups::symmetric},
                                                 {"asymmetric", Groups::asymmetric},
                                                 {"qcqa", Groups::qcqa}};
    const auto found = known.find(groups);
    line.groups = found == known.end() ? Groups::written : found->second;
    if (line.groups == Groups::written) line.written_groups = groups;
    line.pooling = {methods.at(pool), scales.at(scale), line.seed};
    line.store = stores.at(store);
    if (sharing->count() > 0) line.share = share;
    check(line);
  } catch (const CLI::ParseError& error) {
    exit_code = app.exit(error);
    return std::nullopt;
  }
  return line;
}

}  // namespace regroup_tool
