// SPDX-License-Identifier: MIT
#include "table.hpp"

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

namespace example {

namespace {

/// printf to a string of up to 255 characters.
template <class... Values>
std::string format(const char* pattern, Values... values) {
  char text[256];
  std::snprintf(text, sizeof text, pattern, values...);
  return text;
}

/// "8", or "1-4" where the layers differ.
template <class F>
std::string over_layers(const cost::Model& model, F f) {
  Index least = f(model.attention(0)), most = least;
  for (Index l = 0; l < model.num_layers(); ++l) {
    least = std::min(least, f(model.attention(l)));
    most = std::max(most, f(model.attention(l)));
  }
  return least == most ? std::to_string(most) : std::to_string(least) + "-" + std::to_string(most);
}

template <class F>
Index sum_over_layers(const cost::Model& model, F f) {
  Index sum = 0;
  for (Index l = 0; l < model.num_layers(); ++l) sum += f(model.attention(l));
  return sum;
}
Index kv_heads_of(const cost::Model& m) {
  return sum_over_layers(m, [](const cost::AttentionLayer& a) { return a.num_kv_heads(); });
}
Index heads_of(const cost::Model& m) {
  return sum_over_layers(m, [](const cost::AttentionLayer& a) { return a.num_heads(); });
}

std::string heads_text(const cost::Model& model) {
  const Index layers = model.num_layers();
  const char* kind = kv_heads_of(model) == heads_of(model) ? "MHA" : kv_heads_of(model) == layers ? "MQA" : "GQA";
  return format("%s %s:%s", kind, over_layers(model, [](const auto& a) { return a.num_heads(); }).c_str(),
                over_layers(model, [](const auto& a) { return a.num_kv_heads(); }).c_str());
}

struct Row {
  cost::Model model;
  bool published;
};

/// MHA without sharing is what all are compared with; then the siblings, by falling number of KV heads.
std::vector<Row> rows_of(const CommandLine& line, const cost::Model& mha) {
  const cost::Model given(line.model);
  std::vector<Index> kv_heads = line.kv_heads;
  const Index heads = given.attention(0).num_heads();
  if (kv_heads.empty())
    for (Index g = 1; g <= heads; ++g)
      if (heads % g == 0) kv_heads.push_back(g);
  std::vector<Row> rows;
  const auto add = [&](const cost::Model& model, bool published) {
    const auto same = [&](const Row& row) {
      return kv_heads_of(row.model) == kv_heads_of(model) && row.model.sharing() == model.sharing() &&
             heads_text(row.model) == heads_text(model);
    };
    if (std::ranges::none_of(rows, same)) rows.push_back({model, published});
  };
  add(given, line.published);
  add(mha, false);
  for (const Index g : kv_heads) add(cost::Model(line.model.with_kv_heads(g)), false);
  std::ranges::stable_sort(rows, [&](const Row& a, const Row& b) {
    const Index left = kv_heads_of(a.model), right = kv_heads_of(b.model);
    return left != right ? left > right : a.model.sharing().num_producers() > b.model.sharing().num_producers();
  });
  return rows;
}

std::string context_text(const CommandLine& line, const cost::Model& model) {
  if (!line.memory_bytes) return "-";
  const Index context = model.longest_context({.bytes = *line.memory_bytes,
                                               .batch = line.batch,
                                               .kv = line.formats.kv,
                                               .weights = line.formats.weights,
                                               .windows = line.windows,
                                               .source_tokens = line.source_tokens});
  return context == cost::kUnboundedContext ? "any" : std::to_string(context);
}

void print_header(std::ostream& out, const CommandLine& line, const cost::Model& given) {
  const bool whole = line.model.vocabulary.size > 0;
  out << given.name() << ": " << given.num_layers() << (given.num_layers() == 1 ? " layer" : " layers")
      << " of hidden size " << given.hidden_size() << ", head dimension "
      << over_layers(given, [](const auto& a) { return a.head_dim(); }) << "; "
      << (whole ? "the whole model" : "attention alone") << "\n";
  const double key_bytes = static_cast<double>(line.formats.kv.key.bytes(given.attention(0).head_dim())) /
                           static_cast<double>(given.attention(0).head_dim());
  out << "decoding at context " << line.context << ", batch " << line.batch << "; K/V in " << line.kv_name
      << ", weights in " << line.weights_name;
  if (line.source_tokens > 0) out << "; " << line.source_tokens << " encoded tokens";
  out << format("\n%g GB/s, %g GFLOP/s: arithmetic limits attention from %.1f query heads per KV head on\n\n",
                line.machine.bytes_per_second * 1e-9, line.machine.flops_per_second * 1e-9,
                cost::ridge_group_size(key_bytes, line.machine));
}

void print_notes(std::ostream& out, const CommandLine& line) {
  out << "\nKV B/token: of one layer, and of all that store their own (KV layers). ";
  if (line.memory_bytes)
    out << "context: that fits " << format("%g", static_cast<double>(*line.memory_bytes) * 0x1p-30)
        << " GiB with the weights" << (line.batch > 1 ? ", for each sequence" : "") << ". ";
  out << "FLOP/B: of q.k and p.v per byte of K/V.\n"
         "ms: least time of a step, each part max(FLOPs/peak, bytes/bandwidth). vs MHA: ratio of those times; by K/V: "
         "1/(1 - (1 - G/H) f),\nf the part of K/V in the bytes of MHA, where memory sets the time.";
  if (line.source_tokens > 0) out << " The encoder is not counted, nor in K/V per token what cross-attention reads.";
  out << (line.published ? " * as published.\n" : "\n");
}

}  // namespace

void print_model(std::ostream& out, const CommandLine& line) {
  const cost::Model given(line.model);
  cost::ModelShape baseline = line.model.with_sharing(headwise::KvSharing::none(given.num_layers()));
  const cost::Model mha(baseline.with_kv_heads(given.attention(0).num_heads()));
  cost::Step step = cost::Step::decode(line.context, line.batch);
  step.source_tokens = line.source_tokens;
  const cost::StepCost mha_cost = mha.cost(step, line.formats);
  const double mha_seconds = mha.seconds(step, line.formats, line.machine);

  const std::vector<Row> rows = rows_of(line, mha);  // before anything is printed, so that errors come alone
  print_header(out, line, given);
  out << format("%-11s %9s %14s %10s %10s %9s %11s %10s %7s %9s %7s %7s\n", "heads", "KV layers", "parameters",
                "KV B/token", "of model", "context", "MFLOP/token", "MB/token", "FLOP/B", "ms", "vs MHA", "by K/V");
  for (const auto& [model, published] : rows) {
    const cost::StepCost all = model.cost(step, line.formats);
    const double tokens = static_cast<double>(line.batch), seconds = model.seconds(step, line.formats, line.machine);
    const double by_bytes =
        cost::decode_speedup(kv_heads_of(model), heads_of(model), mha_cost.kv_bytes / mha_cost.bytes());
    const auto per_layer = [&](const auto& a) { return a.kv_bytes_per_token(line.formats.kv); };
    out << format("%-11s %9td %14td %10s %10td %9s %11.2f %10.2f %7.2f %9.3f %7s %7s\n",
                  (heads_text(model) + (published ? "*" : "")).c_str(), model.sharing().num_producers(),
                  model.parameters(), over_layers(model, per_layer).c_str(),
                  model.kv_bytes_stored_per_token(line.formats.kv), context_text(line, model).c_str(),
                  all.flops() / tokens * 1e-6, all.bytes() / tokens * 1e-6, all.core_flops / all.kv_bytes,
                  seconds * 1e3, format("%.2fx", mha_seconds / seconds).c_str(), format("%.2fx", by_bytes).c_str());
  }
  print_notes(out, line);
}

void print_list(std::ostream& out) {
  out << format("%-28s %6s %6s %-12s %8s %14s %18s\n", "model", "layers", "hidden", "heads", "head dim", "parameters",
                "KV B/token (bf16)");
  for (const cost::ModelShape& shape : cost::known_models()) {
    const cost::Model model(shape);
    out << format("%-28s %6td %6td %-12s %8s %14td %18td\n", model.name().c_str(), model.num_layers(),
                  model.hidden_size(), heads_text(model).c_str(),
                  over_layers(model, [](const auto& a) { return a.head_dim(); }).c_str(), model.parameters(),
                  model.kv_bytes_stored_per_token(headwise::Storage::bf16));
  }
  out << "\nParameters of the whole model; of models named CLA- of the attention layers alone.\n";
}

void print_shazeer(std::ostream& out) {
  namespace paper = cost::shazeer;
  out << "Elements of memory accessed per multiply-add by one attention layer (Shazeer 2019, arXiv 1911.02150):\n"
         "exact for n steps of decoding and for training on n tokens; \"order\" is n/d + 1/b for MHA, n/(dh) + 1/b for "
         "MQA, for n <= d.\n\n";
  out << format("%6s %6s %4s %5s %10s %10s %10s %10s %10s %10s\n", "n", "d", "h", "b", "MHA", "order", "MQA", "order",
                "train MHA", "train MQA");
  const Index settings[][4] = {{128, 1024, 8, 128},  {256, 1024, 8, 128},  {1024, 1024, 8, 128},
                               {8192, 1024, 8, 128}, {4096, 4096, 32, 64}, {4096, 4096, 32, 1}};
  for (const auto& [n, d, h, b] : settings) {
    const paper::Setting mha{.batch = b, .tokens = n, .hidden_size = d, .num_heads = h, .num_kv_heads = h};
    paper::Setting mqa = mha;
    mqa.num_kv_heads = 1;
    const auto order = [d = d](const paper::Setting& s) {
      return s.tokens <= d ? format("%.5f", paper::decoding_asymptotic(s)) : std::string("-");
    };
    out << format("%6td %6td %4td %5td %10.5f %10s %10.5f %10s %10.5f %10.5f\n", n, d, h, b,
                  paper::decoding(mha).elements_per_multiply_add(), order(mha).c_str(),
                  paper::decoding(mqa).elements_per_multiply_add(), order(mqa).c_str(),
                  paper::training(mha).elements_per_multiply_add(), paper::training(mqa).elements_per_multiply_add());
  }
  out << "\nHis encoder-decoders for translation, of equal parameters:\n\n"
      << format("%-9s %8s %12s %12s\n", "heads", "head dim", "feed-forward", "parameters");
  const Index rows[][4] = {{8, 8, 128, 4096}, {8, 1, 128, 5440}, {1, 1, 128, 6784},
                           {2, 2, 64, 6784},  {4, 4, 32, 6784},  {8, 8, 16, 6784}};
  for (const auto& [heads, kv_heads, head_dim, feed_forward] : rows) {
    const cost::Model model(paper::translation_model(heads, kv_heads, head_dim, feed_forward));
    out << format("%-9s %8td %12td %12td\n", heads_text(model).c_str(), head_dim, feed_forward, model.parameters());
  }
}

}  // namespace example
