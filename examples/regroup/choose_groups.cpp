// SPDX-License-Identifier: MIT
#include "choose_groups.hpp"

#include <charconv>
#include <iomanip>
#include <iostream>
#include <sstream>

#include "headwise/regroup/qcqa/layer.hpp"
#include "headwise/regroup/qcqa/layers.hpp"
#include "headwise/regroup/search/asym_gqa.hpp"
#include "headwise/regroup/qcqa/weight_sharing_error.hpp"
#include "llama/file/new_file.hpp"

namespace regroup_tool {

namespace {

using namespace headwise::regroup;

/// "0 2 | 1" as groups of KV heads.
Partition parse_groups(const std::string& text, Index num_heads) {
  std::vector<std::vector<Index>> groups(1);
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    if (word == "|") {
      groups.emplace_back();
      continue;
    }
    Index head = -1;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), head);
    headwise::require(
        error == std::errc() && end == word.data() + word.size(), "--groups (", text,
        ") must be neighbours, symmetric, asymmetric, qcqa, or KV heads in groups such as \"0 2 | 1\"; it "
        "holds '",
        word, "'");
    groups.back().push_back(head);
  }
  return Partition::from_groups(num_heads, groups);
}

void check_count(Index kv_heads, const AttentionWeights& weights) {
  headwise::require(kv_heads <= weights.num_kv_heads, "--kv-heads (", kv_heads, ") must be at most the ",
                    weights.num_kv_heads, " that there are; --degroup makes more");
}

std::vector<Grouping> by_activations(const CommandLine& line, std::span<const AttentionWeights> layers,
                                     const Calibrate& calibrate) {
  for (const AttentionWeights& weights : layers) check_count(*line.kv_heads, weights);
  const auto statistics = calibrate();
  std::vector<Grouping> result;
  for (std::size_t l = 0; l < layers.size(); ++l) {
    // keys and values of one layer are of different lengths; each counts by its own
    const auto gram = statistics[l].gram().balanced();
    const SearchOptions options{.seed = line.seed + l};
    const auto found = line.groups == Groups::symmetric ? symmetric_search(gram, *line.kv_heads, options)
                                                        : asymmetric_search(gram, *line.kv_heads, options);
    result.push_back({found.partition, found.error});
  }
  return result;
}

std::vector<LayerFront> layer_fronts(const CommandLine& line, std::span<const AttentionWeights> layers) {
  std::vector<LayerFront> fronts;
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const WeightDistances distances(layers[l]);
    QcqaOptions options;
    options.evolution.seed = line.seed + l;
    fronts.push_back(distances.num_heads() <= 8 ? exhaustive_front(distances) : qcqa_front(distances, options));
  }
  return fronts;
}

/// KV heads of each layer at a point of the front: "3 1 3 …".
std::string groups_text(const MixedFront::Point& point, std::span<const LayerFront> layers) {
  std::string text;
  for (std::size_t l = 0; l < layers.size(); ++l) {
    if (l > 0) text += ' ';
    text += std::to_string(layers[l][point.solution[l]].solution.num_groups());
  }
  return text;
}

void write_front(const std::string& path, const MixedFront& front, std::span<const LayerFront> layers) {
  std::ostringstream csv;
  csv.precision(9);
  csv << "capacity,error,groups_per_layer\n";
  for (const auto& point : front)
    csv << point.objectives[kCapacity] << ',' << point.objectives[kSharingError] << ',' << groups_text(point, layers)
        << '\n';
  const std::string text = csv.str();
  llama::NewFile file(path);
  file.write(std::as_bytes(std::span(text)));
  file.commit();
}

void print_front(std::ostream& out, const MixedFront& front, std::span<const LayerFront> layers) {
  const auto flags = out.flags();
  out << "capacity         error  KV heads of each layer\n" << std::fixed;
  for (const auto& point : front)
    out << std::setprecision(4) << std::setw(8) << point.objectives[kCapacity] << std::setprecision(2) << std::setw(14)
        << point.objectives[kSharingError] << "  " << groups_text(point, layers) << '\n';
  out.flags(flags);
}

std::vector<Grouping> by_weights(const CommandLine& line, std::span<const AttentionWeights> layers) {
  const std::vector<LayerFront> fronts = layer_fronts(line, layers);
  std::vector<const LayerFront::Point*> chosen;
  if (line.kv_heads) {
    for (std::size_t l = 0; l < layers.size(); ++l) {
      check_count(*line.kv_heads, layers[l]);
      chosen.push_back(&best_within(fronts[l], *line.kv_heads));
    }
  } else {
    const MixedFront front = mixed_layers_front(fronts);
    if (!line.front.empty()) {
      write_front(line.front, front, fronts);
      print_front(std::cout, front, fronts);
    }
    const MixedFront::Point* best = nullptr;  // errors fall as capacity rises
    const double capacity = line.capacity.value_or(1);
    for (const auto& point : front)
      if (point.objectives[kCapacity] <= capacity) best = &point;
    headwise::require(best != nullptr, "--capacity (", capacity, ") must be at least ", front[0].objectives[kCapacity],
                      ", one KV head per layer");
    for (std::size_t l = 0; l < layers.size(); ++l) chosen.push_back(&fronts[l][best->solution[l]]);
  }
  std::vector<Grouping> result;
  for (const LayerFront::Point* point : chosen) result.push_back({point->solution, point->objectives[kSharingError]});
  return result;
}

}  // namespace

std::vector<Grouping> choose_groups(const CommandLine& line, std::span<const AttentionWeights> layers,
                                    const Calibrate& calibrate) {
  if (line.groups == Groups::symmetric || line.groups == Groups::asymmetric)
    return by_activations(line, layers, calibrate);
  if (line.groups == Groups::qcqa) return by_weights(line, layers);
  std::vector<Grouping> result;
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const Index heads = layers[l].num_kv_heads;
    if (line.kv_heads) check_count(*line.kv_heads, layers[l]);
    const Partition partition = line.groups == Groups::written
                                    ? parse_groups(line.written_groups, heads)
                                    : Partition::neighbours(heads, line.kv_heads.value_or(heads));
    result.push_back({partition, WeightDistances(layers[l]).error(partition)});
  }
  return result;
}

}  // namespace regroup_tool
