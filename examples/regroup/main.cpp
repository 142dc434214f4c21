// SPDX-License-Identifier: MIT
// Converts a model's attention to fewer KV heads, to other groups, or to layers that share keys and values:
//
//   regroup MODEL.gguf --kv-heads 1 --layers lowest:8 --groups qcqa --out NEW.gguf
//
// model file → attention weights → groups of each layer → pooled projections → model file. The report goes to stdout,
// errors to stderr.
#include <cstdio>
#include <exception>
#include <iostream>
#include <new>

#include "choose_groups.hpp"
#include "command_line.hpp"
#include "headwise/parallel/thread_pool.hpp"
#include "headwise/regroup/convert/alignment.hpp"
#include "headwise/regroup/convert/degrouping.hpp"
#include "headwise/regroup/convert/permutation.hpp"
#include "layer_list.hpp"
#include "llama/file/mapped_file.hpp"
#include "llama/file/model_file.hpp"
#include "llama/model/calibration.hpp"
#include "llama/text/tokenizer.hpp"
#include "write_model.hpp"

namespace regroup_tool {

namespace {

using namespace headwise::regroup;
using headwise::ExecutorRef;
using llama::Gguf;
using llama::ModelShape;

std::vector<AttentionWeights> read_layers(const Gguf& file, const ModelShape& shape, ExecutorRef executor) {
  std::vector<AttentionWeights> layers;
  for (Index l = 0; l < shape.num_layers; ++l) layers.push_back(llama::read_attention(file, shape, l, executor));
  return layers;
}

std::vector<ActivationStatistics> calibrate_on(const CommandLine& line, const Gguf& file, const ModelShape& shape,
                                               std::span<const AttentionWeights> layers, ExecutorRef executor) {
  constexpr Index kContext = 512;
  const llama::MappedFile mapped(line.calibration);
  const std::string_view text(reinterpret_cast<const char*>(mapped.bytes().data()), mapped.bytes().size());
  // no token has more bytes than this, so the beginning of a long text is enough
  const auto enough = static_cast<std::size_t>(line.calibration_tokens) * 64;
  auto tokens = llama::Tokenizer(file).encode(text.substr(0, enough), false).ids;
  if (std::ssize(tokens) > line.calibration_tokens) tokens.resize(static_cast<std::size_t>(line.calibration_tokens));
  std::cerr << "calibration: " << tokens.size() << " tokens of " << line.calibration << "\n";
  llama::Model model(file, shape, executor);
  // the statistics are those of the heads that are grouped: repeated ones, if that was asked for
  return llama::calibrate(model, layers, tokens, kContext, executor);
}

/// The layer, reading the keys and values of another.
AttentionWeights with_kv_of(AttentionWeights layer, const AttentionWeights& source) {
  layer.num_kv_heads = source.num_kv_heads;
  layer.key = source.key;
  layer.value = source.value;
  layer.key_bias = source.key_bias;
  layer.value_bias = source.value_bias;
  layer.head_map = source.head_map;
  return layer;
}

AttentionWeights convert(const CommandLine& line, const AttentionWeights& weights, const Partition& partition,
                         const ModelShape& shape, Index layer) {
  PoolingOptions pooling = line.pooling;
  pooling.seed += static_cast<std::uint64_t>(layer);
  return line.align ? pool_aligned(weights, partition, {.rope = shape.rope}, pooling)
                    : pool(weights, partition, pooling);
}

/// What was done to each layer, and what it buys.
void report(std::span<const AttentionWeights> before, std::span<const AttentionWeights> after,
            const headwise::KvSharing& old_sharing, const headwise::KvSharing& sharing,
            std::span<const Grouping> groupings, const std::vector<bool>& chosen) {
  Index floats_before = 0, floats_after = 0;
  const auto floats = [](const AttentionWeights& w) { return w.num_kv_heads * (w.head_dim + w.value_dim); };
  for (std::size_t l = 0; l < after.size(); ++l) {
    const auto layer = static_cast<Index>(l);
    if (old_sharing.is_producer(layer)) floats_before += floats(before[l]);
    if (sharing.is_producer(layer)) floats_after += floats(after[l]);
    std::cout << "layer " << l << ": " << before[l].num_kv_heads << " -> " << after[l].num_kv_heads << " KV heads";
    if (chosen[l]) std::cout << ", groups " << groupings[l].partition.text() << ", error " << groupings[l].error;
    if (after[l].head_map) std::cout << ", unequal groups";
    if (!sharing.is_producer(layer)) std::cout << ", reads layer " << sharing.source(layer);
    std::cout << "\n";
  }
  std::cout << "KV cache: " << 4 * floats_before << " -> " << 4 * floats_after << " bytes per token (f32)\n";
}

int run(const CommandLine& line) {
  const llama::ModelFile model(line.model);
  const Gguf file(model.bytes(), line.model);
  const ModelShape shape(file);
  headwise::ThreadPool pool(line.threads);
  const std::vector<AttentionWeights> before = read_layers(file, shape, pool);

  const headwise::KvSharing sharing =
      line.share ? headwise::KvSharing::by_name(*line.share, shape.num_layers) : shape.sharing;
  std::vector<AttentionWeights> layers = before;
  for (std::size_t l = 0; l < layers.size(); ++l) {  // a borrower's keys and values are its source's, groups too
    const auto& source = before[static_cast<std::size_t>(sharing.source(static_cast<Index>(l)))];
    layers[l] = with_kv_of(layers[l], source);
  }
  if (line.degroup)
    for (AttentionWeights& weights : layers) weights = degroup(weights, *line.degroup);
  const std::vector<Grouping> groupings =
      choose_groups(line, layers, [&] { return calibrate_on(line, file, shape, layers, pool); });
  if (line.out.empty()) return 0;

  std::vector<double> errors;
  for (const Grouping& grouping : groupings) errors.push_back(grouping.error);
  const std::vector<bool> chosen = choose_layers(line.layers, errors);
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const Index source = sharing.source(static_cast<Index>(l));
    const auto s = static_cast<std::size_t>(source);
    if (chosen[s]) layers[l] = convert(line, layers[l], groupings[s].partition, shape, source);
    layers[l] = line.compatible ? to_equal_groups(layers[l]) : make_contiguous(layers[l]);
  }
  write_model({file, before, layers, sharing, line.store}, line.out);
  report(before, layers, shape.sharing, sharing, groupings, chosen);
  return 0;
}

}  // namespace

}  // namespace regroup_tool

int main(int argc, char** argv) {
  try {
    int exit_code = 0;
    const auto line = regroup_tool::read_command_line(argc, argv, exit_code);
    return line ? regroup_tool::run(*line) : exit_code;
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "regroup: out of memory\n");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "regroup: %s\n", error.what());
  }
  return 1;
}
