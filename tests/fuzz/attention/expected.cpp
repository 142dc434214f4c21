// SPDX-License-Identifier: MIT
#include "tests/fuzz/attention/expected.hpp"

#include <algorithm>
#include <cmath>

namespace headwise::fuzz {

namespace {

double norm(const auto* row, Index dim) {
  double sum = 0;
  for (Index d = 0; d < dim; ++d) sum += static_cast<double>(row[d]) * static_cast<double>(row[d]);
  return std::sqrt(sum);
}

std::vector<Index> kv_heads_of(const Call& call, Index b) {
  std::vector<Index> result;
  const HeadMap* const map = call.map_of_call ? &*call.map_of_call : call.map ? &*call.map : nullptr;
  const Index count = call.num_kv_heads + 1;
  for (Index h = 0; h < call.num_heads; ++h) {
    if (!call.boundaries.empty()) {
      const Index first = std::ssize(call.boundaries) == count ? 0 : b * count;
      Index g = 0;
      while (call.boundaries[static_cast<std::size_t>(first + g + 1)] <= h) ++g;
      result.push_back(g);
    } else {
      result.push_back(map ? map->kv_head_of(h) : h / (call.num_heads / call.num_kv_heads));
    }
  }
  return result;
}

/// One head, x · weight / sqrt(mean(x²) + ε).
void norm_head(const QkNorm& qk_norm, double* x) {
  const Index dim = qk_norm.head_dim();
  double sum = 0;
  for (Index d = 0; d < dim; ++d) sum += x[d] * x[d];
  const double size = std::sqrt(sum / static_cast<double>(dim) + static_cast<double>(qk_norm.epsilon()));
  for (Index d = 0; d < dim; ++d)
    x[d] *=
        (qk_norm.weight().empty() ? 1.0 : static_cast<double>(qk_norm.weight()[static_cast<std::size_t>(d)])) / size;
}

/// One head by the rope's cos and sin.
void turn_head(const Rope& rope, const RopeTurn& turn, double* x) {
  const Index half = rope.rotary_dim() / 2;
  const bool neighbours = rope.options().style == RopeStyle::interleaved;
  x += rope.options().rotary_begin;
  for (Index i = 0; i < rope.num_pairs(); ++i) {
    double &a = x[neighbours ? 2 * i : i], &b = x[neighbours ? 2 * i + 1 : i + half];
    const auto cos = static_cast<double>(turn.cosines[static_cast<std::size_t>(i)]),
               sin = static_cast<double>(turn.sines[static_cast<std::size_t>(i)]);
    const double old = a;
    a = old * cos - b * sin;
    b = b * cos + old * sin;
  }
}

}  // namespace

Rounding::Rounding(const Call& call) {
  const TileKernels& kernels = detail::tile_kernels();
  const auto met_as = [&](Storage storage) { return kernels.operand[static_cast<int>(storage)]; };
  const Storage values = call.values_in_keys ? kernels.values_made_of(call.keys) : call.values;
  const bool dots = call.isa == Isa::avx512bf16;
  bf16_rows = dots && (call.keys == Storage::bf16 || values == Storage::bf16);
  digit_scores = met_as(call.keys) == Operand::digits;
  digit_weights = met_as(values) == Operand::digits;
}

Expected::Expected(const Call& call, Index b)
    : call_(call),
      s_(call.sequence(b)),
      b_(b),
      q_(s_.q.begin(), s_.q.end()),
      kv_head_of_(kv_heads_of(call, b)),
      sink_logits_(call.sink_logits.begin(), call.sink_logits.end()),
      rounding_(call) {
  change_queries(b);
  reference::Parameters parameters = call.parameters;
  parameters.kv_head_of = kv_head_of_;
  parameters.sink_logits = sink_logits_;
  const auto at = static_cast<std::size_t>(b);
  if (!call.key_lengths.empty()) parameters.key_length = call.key_lengths[at];
  if (!call.query_lengths.empty()) parameters.query_length = call.query_lengths[at];
  if (!call.key_starts.empty()) parameters.key_start = call.key_starts[at];
  if (!call.prefix_lengths.empty()) parameters.prefix_length = call.prefix_lengths[at];
  set_masks(parameters, b);
  parameters.keep_scores = call.scores || call.mass || (call.mask && call.mask->additive());

  // |v| beside v: its weighted sum is the size that errors are relative to
  std::vector<double> both;
  const auto dim = static_cast<std::size_t>(call.value_dim);
  for (std::size_t row = 0; row < s_.v.size(); row += dim)
    for (const bool absolute : {false, true})
      for (std::size_t d = row; d < row + dim; ++d) {
        const double x = static_cast<double>(s_.v[d]);
        both.push_back(absolute ? std::abs(x) : x);
      }
  result_ =
      reference::attend({s_.queries, s_.keys, call.num_heads, call.num_kv_heads, call.head_dim, 2 * call.value_dim}, q_,
                        std::vector<double>(s_.k.begin(), s_.k.end()), both, parameters);
  for (Index g = 0; g < call.num_kv_heads; ++g) {
    longest_key_.push_back(0);
    largest_value_.push_back(0);
    for (Index t = 0; t < s_.keys; ++t) {
      const double key =
          norm(&s_.k[static_cast<std::size_t>((t * call.num_kv_heads + g) * call.head_dim)], call.head_dim);
      if (std::isfinite(key)) longest_key_.back() = std::max(longest_key_.back(), key);
      for (Index d = 0; d < call.value_dim; ++d) {
        const double x = std::abs(
            static_cast<double>(s_.v[static_cast<std::size_t>((t * call.num_kv_heads + g) * call.value_dim + d)]));
        if (std::isfinite(x)) largest_value_.back() = std::max(largest_value_.back(), x);
      }
    }
  }
}

void Expected::change_queries(Index b) {
  if (!call_.query_norm && !call_.query_rope) return;
  const Index queries = call_.queries_of_sequence(b), keys = call_.keys_of(b);
  const std::vector<Index>& positions = call_.query_positions;
  const Index axes = call_.query_rope ? call_.query_rope->num_axes() : 1;
  const auto [sequence, first] = call_.queries_of(b);
  const auto listed = [&](Index i, Index axis) {
    return positions[static_cast<std::size_t>(((sequence * call_.query_tokens() + first + i) * axes) + axis)];
  };
  Index length = keys;  // of the sequence
  for (Index i = 0; i < queries && !positions.empty(); ++i)
    for (Index axis = 0; axis < axes; ++axis)
      length = i == 0 && axis == 0 ? listed(0, 0) + 1 : std::max(length, listed(i, axis) + 1);
  for (Index i = 0; i < queries; ++i) {
    RopePosition position(keys - queries + i);
    if (!positions.empty())
      position = axes == 1 ? RopePosition(listed(i, 0)) : RopePosition(listed(i, 0), listed(i, 1), listed(i, 2));
    std::optional<RopeTurn> turn;
    if (call_.query_rope) turn = call_.query_rope->turn_at(position, length);
    for (Index h = 0; h < call_.num_heads; ++h) {
      double* const head = &q_[static_cast<std::size_t>((i * call_.num_heads + h) * call_.head_dim)];
      if (call_.query_norm) norm_head(*call_.query_norm, head);
      if (turn) turn_head(*call_.query_rope, *turn, head);
    }
  }
}

void Expected::set_masks(reference::Parameters& parameters, Index b) const {
  const Call& call = call_;
  if (call.mask)
    parameters.added = [&call, b](Index h, Index i, Index t) {
      return static_cast<double>(call.mask->get(b, h, i, t));
    };
  const Index shift = call.keys_of(b) - call.queries_of_sequence(b);
  if (call.tree || call.tile_set || call.function_sees) {
    // which tree a sequence has: one for all, or its own behind those before it
    Index tree_begin = 0;
    const Index all = call.ragged ? call.query_tokens() : call.num_sequences() * call.query_tokens();
    if (call.tree && call.tree->mask().rows() == all)
      tree_begin = call.ragged ? call.queries_of(b).second : b * call.query_tokens();
    parameters.visible = [this, &call, b, shift, tree_begin](Index h, Index i, Index t) {
      if (call.tree && t >= shift && !call.tree->sees(tree_begin + i, tree_begin, t - shift)) return false;
      if (call.tile_set && !call.lists_tile(b, kv_head_of(h), i, t / 64)) return false;
      return !call.function_sees || call.function_sees(b, h, shift + i, t);
    };
  }
  const Change* change = nullptr;
  if (const auto* const one = std::get_if<ChangesScore>(&call.score_function)) change = &one->change;
  if (const auto* const row = std::get_if<ChangesRow>(&call.score_function)) change = &row->change;
  if (change)
    parameters.transform = [change, b](double score, Index head, Index p, Index t) {
      return change->changed(score, b, head, p, t);
    };
}

double Expected::score(ScoreStage stage, Index i, Index h, Index t) const {
  const std::vector<double>& all = stage == ScoreStage::scaled       ? result_.scaled
                                   : stage == ScoreStage::softcapped ? result_.softcapped
                                   : stage == ScoreStage::biased     ? result_.scores
                                                                     : result_.weights;
  return all[static_cast<std::size_t>((i * call_.num_heads + h) * s_.keys + t)];
}

/// Of the keys that have a weight: of the others only that they are far below counts.
double Expected::largest_added(Index i, Index h) const {
  constexpr double kFarBelow = 200;
  double top = -std::numeric_limits<double>::infinity(), largest = 0;
  for (const bool second : {false, true})
    for (Index t = 0; t < s_.keys; ++t) {
      const double score = this->score(ScoreStage::biased, i, h, t),
                   added = static_cast<double>(call_.mask->get(b_, h, i, t));
      if (!second)
        top = std::max(top, score);
      else if (std::isfinite(added) && !(score < top - kFarBelow))
        largest = std::max(largest, std::abs(added));
    }
  return largest;
}

double Expected::query_norm(Index i, Index h) const {
  return norm(&q_[static_cast<std::size_t>((i * call_.num_heads + h) * call_.head_dim)], call_.head_dim);
}

double Expected::score_error(Index i, Index h) const {
  const double dim = static_cast<double>(call_.head_dim);
  const double query = query_norm(i, h);
  const double key = longest_key_[static_cast<std::size_t>(kv_head_of(h))];
  const double scale = std::abs(call_.parameters.scale.value_or(1 / std::sqrt(dim))) * call_.temperature;
  if (!std::isfinite(query)) return 0;  // what is not finite has no error
  const double size = scale * query * key * (call_.channel_scales ? 4 : 1);
  double relative = (dim + 64) * kRoundoff;
  if (rounding_.bf16_rows) relative += epsilon_of(Storage::bf16);
  if (rounding_.digit_scores) relative += dim * 0.5 / 32639;
  double added = call_.added;
  if (call_.mask && call_.mask->additive()) added += largest_added(i, h);
  // products below the least float count for nothing
  double error = size * relative + dim * 0x1p-100 + call_.softcap * 0x1p-21 + added * 4 * kRoundoff +
                 (size + added > 1e30 ? 1 : 0);
  const Change* change = nullptr;
  if (const auto* const one = std::get_if<ChangesScore>(&call_.score_function)) change = &one->change;
  if (const auto* const row = std::get_if<ChangesRow>(&call_.score_function)) change = &row->change;
  if (change) {
    const double factor = std::abs(static_cast<double>(change->factor)),
                 terms = std::abs(static_cast<double>(change->term)) * Change::kTerms;
    error = factor * error + (factor * (size + added) + terms) * 8 * kRoundoff;
  }
  if (!sink_logits_.empty()) {
    const double sink = std::abs(sink_logits_[static_cast<std::size_t>(h)]);
    if (std::isfinite(sink)) error += sink * 4 * kRoundoff;
  }
  return error;
}

void compare(float got, double expected, double tolerance, const char* what, Index i, Index h, Index at) {
  const double actual = static_cast<double>(got);
  if (std::isnan(tolerance)) tolerance = 0;
  const bool same =
      std::isfinite(expected) ? std::abs(actual - expected) <= tolerance : actual == expected || std::isnan(actual);
  if (same) return;
  fault(std::string(what) + " of token " + std::to_string(i) + " head " + std::to_string(h) + " at " +
        std::to_string(at) + ": " + std::to_string(actual) + ", expected " + std::to_string(expected) + " within " +
        std::to_string(tolerance));
}

}  // namespace headwise::fuzz
