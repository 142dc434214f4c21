// SPDX-License-Identifier: MIT
#include "write_model.hpp"

#include <algorithm>
#include <vector>

#include "llama/file/gguf_writer.hpp"

namespace regroup_tool {

namespace {

using headwise::regroup::AttentionWeights;
using llama::GgufWriter;

bool is_attention(std::string_view tensor) {
  for (const std::string_view part : {".attn_q.", ".attn_k.", ".attn_v.", ".attn_output."})
    if (tensor.find(part) != std::string_view::npos) return true;
  return false;
}

/// Keeps a tensor as the file has it where its numbers have not changed.
class AttentionWriter {
 public:
  AttentionWriter(const NewModel& model, GgufWriter& out) : model_(model), out_(out) {}

  void add(Index layer) {
    const auto i = static_cast<std::size_t>(layer);
    const AttentionWeights &before = model_.before[i], &after = model_.after[i];
    prefix_ = "blk." + std::to_string(layer) + ".attn_";
    add("q", before.query, after.query, before.query_bias, after.query_bias);
    if (model_.sharing.is_producer(layer)) {
      add("k", before.key, after.key, before.key_bias, after.key_bias);
      add("v", before.value, after.value, before.value_bias, after.value_bias);
    }
    add("output", before.output, after.output, before.output_bias, after.output_bias);
  }

 private:
  using Matrix = headwise::nn::Matrix;
  using Vector = headwise::nn::Vector;

  void add(const char* name, const Matrix& before, const Matrix& after, const Vector& bias_before, const Vector& bias) {
    const std::string weight = prefix_ + name + ".weight";
    if (same(before, after))
      out_.add(model_.file.tensor(weight));
    else
      out_.add_matrix(weight, after.data(), after.rows(), after.cols(), model_.store);
    if (bias.size() == 0) return;
    if (same(bias_before, bias))
      out_.add(model_.file.tensor(prefix_ + name + ".bias"));
    else
      out_.add_vector(prefix_ + name + ".bias", bias.data(), bias.size());
  }
  template <class M>
  static bool same(const M& a, const M& b) {
    return a.rows() == b.rows() && a.cols() == b.cols() && a == b;
  }

  const NewModel& model_;
  GgufWriter& out_;
  std::string prefix_;
};

/// The file's keys under the new architecture's name, and what it says about heads.
void set_keys(const NewModel& model, GgufWriter& out) {
  const std::string old_prefix = std::string(model.file.text("general.architecture")) + ".";
  const std::string_view architecture = architecture_of(model);
  const std::string prefix = std::string(architecture) + ".";
  for (const llama::GgufEntry& entry : model.file.entries()) {
    const bool renamed = entry.key.starts_with(old_prefix);
    out.set(renamed ? prefix + std::string(entry.key.substr(old_prefix.size())) : std::string(entry.key), entry);
  }
  out.erase(llama::architecture::kHeadMap);
  out.erase(llama::architecture::kKvSource);
  out.set("general.architecture", architecture);

  std::vector<std::int32_t> counts, maps, sources;
  for (std::size_t l = 0; l < model.after.size(); ++l) {
    const AttentionWeights& weights = model.after[l];
    counts.push_back(static_cast<std::int32_t>(weights.num_kv_heads));
    const headwise::HeadMap map = weights.map();
    for (Index h = 0; h < map.num_heads(); ++h) maps.push_back(static_cast<std::int32_t>(map.kv_head_of(h)));
    sources.push_back(static_cast<std::int32_t>(model.sharing.source(static_cast<Index>(l))));
  }
  const std::string count_key = prefix + "attention.head_count_kv";
  if (architecture == llama::architecture::kLlama)
    out.set(count_key, static_cast<std::uint32_t>(counts.front()));
  else
    out.set(count_key, std::span<const std::int32_t>(counts));
  if (architecture != llama::architecture::kHeadwise) return;
  out.set(llama::architecture::kHeadMap, std::span<const std::int32_t>(maps));
  out.set(llama::architecture::kKvSource, std::span<const std::int32_t>(sources));
}

}  // namespace

std::string_view architecture_of(const NewModel& model) {
  const auto maps = std::ranges::any_of(model.after, [](const AttentionWeights& w) { return w.head_map.has_value(); });
  if (maps || model.sharing.num_producers() < model.sharing.num_layers()) return llama::architecture::kHeadwise;
  const auto equal = std::ranges::all_of(
      model.after, [&](const AttentionWeights& w) { return w.num_kv_heads == model.after.front().num_kv_heads; });
  return equal ? llama::architecture::kLlama : llama::architecture::kDeci;
}

void write_model(const NewModel& model, const std::string& path) {
  GgufWriter out(model.file.alignment());
  set_keys(model, out);
  AttentionWriter attention(model, out);
  for (const llama::Tensor& tensor : model.file.tensors())
    if (!is_attention(tensor.name)) out.add(tensor);
  for (Index layer = 0; layer < std::ssize(model.after); ++layer) attention.add(layer);
  out.write(path);
}

}  // namespace regroup_tool
