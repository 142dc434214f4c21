// SPDX-License-Identifier: MIT
#include "scores/variants.hpp"

namespace scores {

namespace {

using headwise::MassOutput;
using headwise::ScoreOutput;
using headwise::ScoreStage;
using headwise::reference::Result;

std::vector<float>& numbers(Call& c, Index count) {
  return c.keep(std::vector<float>(static_cast<std::size_t>(count)));
}

void ask_for_lse(Call& c) {
  std::vector<float>& lse = numbers(c, c.shape.queries * c.shape.num_heads);
  c.outputs.lse = View<float>(lse.data(), c.shape.queries, c.shape.num_heads, 1).array();
  c.outputs.has_lse = true;
  c.error_beside = [&lse](const Result& expected) { return difference_of(lse, expected.lse); };
}

void ask_for_scores(Call& c) {
  const auto [H, G, D, Tq, Tk] = c.shape;
  std::vector<float>& weights = numbers(c, Tq * H * Tk);
  c.outputs.scores = ScoreOutput(View<float>(weights.data(), Tq, H, Tk), ScoreStage::weights);
  c.error_beside = [&weights](const Result& expected) { return difference_of(weights, expected.weights); };
}

/// Per KV head, or per query head; of the last queries, or, 0, of all.
void ask_for_mass(Call& c, bool by_query_head, Index last_queries) {
  const auto [H, G, D, Tq, Tk] = c.shape;
  const Index heads = by_query_head ? H : G;
  std::vector<float>& mass = numbers(c, Tk * heads);
  c.outputs.mass = MassOutput(View<float>(mass.data(), Tk, heads, 1));
  if (last_queries > 0) c.outputs.mass->last_queries = last_queries;
  c.error_beside = [&mass, heads, last_queries, shape = c.shape](const Result& result) {
    const Index from = last_queries > 0 ? std::max<Index>(0, shape.queries - last_queries) : 0;
    std::vector<double> expected(mass.size());
    for (Index i = from; i < shape.queries; ++i)
      for (Index h = 0; h < shape.num_heads; ++h)
        for (Index t = 0; t < shape.keys; ++t)
          expected[static_cast<std::size_t>(t * heads + h / (shape.num_heads / heads))] +=
              result.weights[static_cast<std::size_t>((i * shape.num_heads + h) * shape.keys + t)];
    return difference_of(mass, expected);
  };
}

void define_weights(Definition& d) { d.parameters.keep_scores = true; }

}  // namespace

std::vector<Variant> output_variants(const Shape&) {
  return {
      {"causal"},
      {"log-sum-exp", ask_for_lse, [](Definition&) {}, kBuiltIn},
      {"mass of each KV head", [](Call& c) { ask_for_mass(c, false, 0); }, define_weights, kMass},
      {"mass of each query head", [](Call& c) { ask_for_mass(c, true, 0); }, define_weights, kMass},
      // 2 of the few that are checked
      {"mass by the last 32 queries", [](Call& c) { ask_for_mass(c, false, c.shape.queries > 3 ? 32 : 2); },
       define_weights, kMass},
      {"scores as weights", ask_for_scores, define_weights},
  };
}

}  // namespace scores
