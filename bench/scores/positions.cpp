// SPDX-License-Identifier: MIT
#include <cmath>
#include <span>
#include <tuple>

#include "headwise/position/qk_norm.hpp"
#include "headwise/position/rope.hpp"
#include "scores/variants.hpp"

namespace scores {

namespace {

using headwise::QkNorm;
using headwise::Rope;

/// Signs: queries that are normed in place, call after call, keep their size.
std::vector<float> norm_weight(Index head_dim) {
  std::vector<float> weight;
  for (Index d = 0; d < head_dim; ++d) weight.push_back(d % 3 == 0 ? -1.0f : 1.0f);
  return weight;
}

Rope rope_of(const Call& c) { return Rope(c.shape.head_dim, {.rotary_dim = c.shape.head_dim / 2 * 2}); }
QkNorm norm_of(const Call& c) { return QkNorm(c.shape.head_dim, norm_weight(c.shape.head_dim)); }

/// Every second position from a token's own number on.
Index listed_position(const Shape& shape, Index token) { return shape.keys - shape.queries + 2 * token; }

// --- in the call ---

void ask_for_norm(Call& c) { c.options.query_norm = &c.keep(norm_of(c)); }
void ask_for_rope(Call& c) { c.options.query_rope = &c.keep(rope_of(c)); }
void ask_for_rope_at_positions(Call& c) {
  ask_for_rope(c);
  std::vector<Index>& positions = c.keep(std::vector<Index>());
  for (Index i = 0; i < c.shape.queries; ++i) positions.push_back(listed_position(c.shape, i));
  c.options.query_positions = positions;
}
void ask_for_both(Call& c) {
  ask_for_norm(c);
  ask_for_rope(c);
}

// --- before the call, over queries of its own: a pass that reads and writes them ---

void ask_for_both_apart(Call& c) {
  const auto [queries, heads, dim] = std::tuple(c.shape.queries, c.shape.num_heads, c.shape.head_dim);
  std::vector<float>& own =
      c.keep(std::vector<float>(&c.queries(0, 0, 0, 0), &c.queries(0, 0, 0, 0) + queries * heads * dim));
  const View<float> x(own.data(), queries, heads, dim);
  c.queries = x;
  c.before = [x, first = c.shape.keys - queries, &norm = c.keep(norm_of(c)),
              &rope = c.keep(rope_of(c))](ExecutorRef executor) {
    norm.apply(x, executor);
    rope.apply(x, first, executor);
  };
}

// --- what they mean ---

/// f(token, one head of it) of all queries.
template <class F>
void change_queries(Definition& d, F f) {
  const auto [H, G, D, Tq, Tk] = d.call.shape;
  for (Index i = 0; i < Tq; ++i)
    for (Index h = 0; h < H; ++h)
      f(i, std::span(d.queries).subspan(static_cast<std::size_t>((i * H + h) * D), static_cast<std::size_t>(D)));
}

void norm_exactly(Definition& d) {
  const std::vector<float> weight = norm_weight(d.call.shape.head_dim);
  change_queries(d, [&](Index, std::span<double> q) {
    double squares = 0;
    for (const double x : q) squares += x * x;
    for (std::size_t j = 0; j < q.size(); ++j)
      q[j] *= static_cast<double>(weight[j]) / std::sqrt(squares / static_cast<double>(q.size()) + 1e-6);
  });
}

template <class PositionOf>
void turn_exactly(Definition& d, PositionOf position_of) {
  const std::size_t pairs = static_cast<std::size_t>(d.call.shape.head_dim / 2);
  change_queries(d, [&](Index i, std::span<double> q) {
    for (std::size_t j = 0; j < pairs; ++j) {
      const double angle =
          static_cast<double>(position_of(i)) * std::pow(10000.0, -static_cast<double>(j) / static_cast<double>(pairs));
      const double x = q[j], y = q[j + pairs];
      q[j] = x * std::cos(angle) - y * std::sin(angle);
      q[j + pairs] = y * std::cos(angle) + x * std::sin(angle);
    }
  });
}
void turn_in_order(Definition& d) {
  turn_exactly(d, [&](Index i) { return d.call.shape.keys - d.call.shape.queries + i; });
}
void norm_and_turn(Definition& d) {
  norm_exactly(d);
  turn_in_order(d);
}

}  // namespace

std::vector<Variant> position_variants(const Shape&) {
  return {
      {"causal"},
      {"norm of queries", ask_for_norm, norm_exactly, kBuiltIn},
      {"RoPE of queries", ask_for_rope, turn_in_order, kBuiltIn},
      {"RoPE at listed positions", ask_for_rope_at_positions,
       [](Definition& d) { turn_exactly(d, [&](Index i) { return listed_position(d.call.shape, i); }); }, kBuiltIn},
      {"norm and RoPE", ask_for_both, norm_and_turn, kBuiltIn},
      {"norm and RoPE before the call", ask_for_both_apart, norm_and_turn},
  };
}

}  // namespace scores
