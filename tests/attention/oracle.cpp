// SPDX-License-Identifier: MIT
#include "tests/attention/oracle.hpp"

#include <cmath>
#include <limits>
#include <utility>

#include "tests/attention/mask_oracle.hpp"

namespace headwise::testing {

namespace {

constexpr double kRoundoff = 0x1p-24, kSafety = 4;

double largest_norm(const std::vector<double>& rows, Index dim) {
  double largest = 0;
  for (std::size_t at = 0; at < rows.size(); at += static_cast<std::size_t>(dim)) {
    double sum = 0;
    for (std::size_t d = at; d < at + static_cast<std::size_t>(dim); ++d) sum += rows[d] * rows[d];
    if (std::isfinite(sum)) largest = std::max(largest, sum);  // poison has no error of its own
  }
  return std::sqrt(largest);
}

/// bf16 keys and values meet rows of bf16 on the one ISA that multiplies those.
bool rounds_rows(const Route& route) { return route.storage == Storage::bf16 && current_isa() == Isa::avx512bf16; }

bool near(double actual, double expected, double tolerance) {
  if (std::isnan(expected)) return std::isnan(actual);
  return actual == expected || std::abs(actual - expected) <= tolerance;
}

}  // namespace

reference::Parameters parameters_of(const Options& options) {
  reference::Parameters parameters;
  if (options.scale) parameters.scale = static_cast<double>(*options.scale);
  parameters.causal = options.causal;
  parameters.window = options.window;
  parameters.num_sink_tokens = options.num_sink_tokens;
  parameters.window_right = options.window_right;
  parameters.chunk_size = options.chunk_size;
  if (options.temperature)  // as the model's authors write it: attn_scale and floor_scale
    parameters.temperature = [t = *options.temperature](Index position) {
      const double steps = std::floor(static_cast<double>(position + 1) / static_cast<double>(t.floor_scale));
      return position < 0 ? 1.0 : 1.0 + static_cast<double>(t.strength) * std::log(1.0 + steps);
    };
  parameters.softcap = static_cast<double>(options.softcap);
  parameters.alibi_slopes = options.alibi_slopes;
  if (options.relative_bias)
    parameters.bias = [bias = options.relative_bias](Index head, Index distance) {
      return static_cast<double>((*bias)(head, distance));
    };
  return parameters;
}

Expected::Expected(const Inputs& in, const Options& options, const HeadMap* map, ExactFunction function)
    : options_(options),
      function_(std::move(function)),
      sink_logits_(options.sink_logits.begin(), options.sink_logits.end()),
      shape_{in.query_tokens,         in.key_tokens,       in.heads.num_heads(),
             in.heads.num_kv_heads(), in.heads.head_dim(), in.heads.value_dim()} {
  const HeadMap* used = options.head_map ? options.head_map : map;
  for (Index b = 0; b < in.sequences; ++b) add_sequence(in, b, kv_heads_of(b, used));
}

void Expected::check(const Results& actual, const Route& route, std::string_view what) const {
  const Index dim = shape_.value_dim;
  ASSERT_EQ(actual.output.size(), output_.size());
  ASSERT_EQ(actual.lse.size(), rows_.size());
  for (std::size_t i = 0; i < output_.size(); ++i) {
    const Row& row = rows_[i / static_cast<std::size_t>(dim)];
    ASSERT_TRUE(near(static_cast<double>(actual.output[i]), output_[i], output_tolerance(row, i, route)))
        << describe(route, what) << "\noutput of " << place(static_cast<Index>(i) / dim) << " dim "
        << static_cast<Index>(i) % dim << ": " << actual.output[i] << ", expected " << output_[i] << " ± "
        << output_tolerance(row, i, route);
  }
  for (std::size_t r = 0; r < rows_.size(); ++r)
    ASSERT_TRUE(near(static_cast<double>(actual.lse[r]), rows_[r].lse, lse_tolerance(rows_[r], route)))
        << describe(route, what) << "\nlse of " << place(static_cast<Index>(r)) << ": " << actual.lse[r]
        << ", expected " << rows_[r].lse << " ± " << lse_tolerance(rows_[r], route);
}

std::vector<Index> Expected::kv_heads_of(Index sequence, const HeadMap* map) const {
  std::vector<Index> result;
  const std::span<const Index> all = options_.group_boundaries;
  const Index groups = shape_.num_kv_heads;
  for (Index h = 0; h < shape_.num_heads; ++h) {
    if (!all.empty()) {
      const auto own =
          all.subspan(std::ssize(all) == groups + 1 ? 0 : static_cast<std::size_t>(sequence * (groups + 1)));
      Index g = 0;
      while (own[static_cast<std::size_t>(g) + 1] <= h) ++g;
      result.push_back(g);
    } else if (map) {
      result.push_back(map->kv_head_of(h));
    }
  }
  return result;
}

void Expected::add_sequence(const Inputs& in, Index b, const std::vector<Index>& kv_head_of) {
  const auto [Tq, Tk, H, G, D, DV] = shape_;
  const auto slice = [b](const std::vector<float>& x, Index size) {
    return std::vector<double>(x.begin() + b * size, x.begin() + (b + 1) * size);
  };
  const std::vector<double> q = slice(in.q, Tq * H * D), k = slice(in.k, Tk * G * D), v = slice(in.v, Tk * G * DV);
  reference::Parameters parameters = parameters_of(options_);
  parameters.kv_head_of = kv_head_of;
  parameters.sink_logits = sink_logits_;
  if (function_.value)
    parameters.transform = [this, b](double score, Index head, Index p, Index t) {
      return function_.value(score, b, head, p, t);
    };
  if (!options_.key_lengths.empty()) parameters.key_length = options_.key_lengths[static_cast<std::size_t>(b)];
  if (!options_.key_starts.empty()) parameters.key_start = options_.key_starts[static_cast<std::size_t>(b)];
  if (!options_.prefix_lengths.empty()) parameters.prefix_length = options_.prefix_lengths[static_cast<std::size_t>(b)];
  if (!options_.query_lengths.empty()) parameters.query_length = options_.query_lengths[static_cast<std::size_t>(b)];

  const bool one_tree = options_.tree_mask && options_.tree_mask->rows() == Tq;
  add_masks(parameters, options_, shape_, b, one_tree ? 0 : b * Tq);

  // |v| beside v: its weighted sum is the size that errors are relative to
  std::vector<double> both;
  for (std::size_t row = 0; row * static_cast<std::size_t>(DV) < v.size(); ++row)
    for (const bool absolute : {false, true})
      for (std::size_t d = 0; d < static_cast<std::size_t>(DV); ++d) {
        const double x = v[row * static_cast<std::size_t>(DV) + d];
        both.push_back(absolute ? std::abs(x) : x);
      }
  const reference::Result result = reference::attend({Tq, Tk, H, G, D, 2 * DV}, q, k, both, parameters);

  double scale = std::abs(parameters.scale.value_or(1 / std::sqrt(static_cast<double>(D))));
  if (parameters.temperature) scale *= std::max(1.0, std::abs(parameters.temperature(Tk)));
  const double largest_key = largest_norm(k, D), largest_query = largest_norm(q, D),
               added = largest_added(options_, shape_, b);
  for (Index i = 0; i < Tq; ++i)
    for (Index h = 0; h < H; ++h) {
      const std::size_t r = static_cast<std::size_t>(i * H + h);
      for (Index d = 0; d < 2 * DV; ++d)
        (d < DV ? output_ : spread_)
            .push_back(result.output[r * static_cast<std::size_t>(2 * DV) + static_cast<std::size_t>(d)]);
      const double slope = options_.alibi_slopes.empty()
                               ? 0
                               : std::abs(static_cast<double>(options_.alibi_slopes[static_cast<std::size_t>(h)]));
      const double furthest = static_cast<double>(std::max(Tq, Tk));
      const double sink = sink_logits_.empty() ? 0 : std::abs(sink_logits_[static_cast<std::size_t>(h)]);
      rows_.push_back({result.lse[r], scale * largest_query * largest_key,
                       slope * furthest + largest_bias(h, Tq, Tk) + added + (std::isinf(sink) ? 0 : sink)});
    }
}

double Expected::largest_bias(Index head, Index queries, Index keys) const {
  double largest = 0;
  for (Index d = -keys - queries; options_.relative_bias && d <= keys + queries; ++d)
    largest = std::max(largest, std::abs(static_cast<double>((*options_.relative_bias)(head, d))));
  return largest;
}

double Expected::score_error(const Row& row, const Route& route) const {
  double error = row.score_size * kSafety * kRoundoff;
  if (rounds_rows(route)) error += row.score_size * epsilon_of(Storage::bf16);
  if (options_.temperature) error += row.score_size * 2 * kRoundoff;
  error += static_cast<double>(options_.softcap) * 0x1p-21 + row.added_size * 4 * kRoundoff;
  return function_.value ? function_.slope * error + function_.size * 8 * kRoundoff : error;
}

double Expected::output_tolerance(const Row& row, std::size_t i, const Route& route) const {
  double relative = 2 * score_error(row, route) + 8 * kRoundoff;
  if (rounds_rows(route)) relative += 2 * epsilon_of(Storage::bf16);
  relative += sum_error();
  const double smallest_step = route.outputs == Storage::f16 ? 0x1p-25 : 0x1p-126;
  const double size = std::abs(output_[i]) + relative * spread_[i];
  return relative * spread_[i] + epsilon_of(route.outputs) * size + smallest_step;
}

double Expected::lse_tolerance(const Row& row, const Route& route) const {
  if (std::isinf(row.lse)) return 0;
  double error = score_error(row, route) + 8 * kRoundoff * (1 + std::abs(row.lse));
  if (rounds_rows(route)) error += epsilon_of(Storage::bf16);
  return error + sum_error();
}

double Expected::sum_error() const {
  return kSafety * kRoundoff * std::sqrt(static_cast<double>(shape_.key_tokens) / 8 + 1);
}

std::string Expected::place(Index row) const {
  const Index head = row % shape_.num_heads, token = row / shape_.num_heads % std::max<Index>(1, shape_.query_tokens);
  return "sequence " + std::to_string(row / shape_.num_heads / std::max<Index>(1, shape_.query_tokens)) + " token " +
         std::to_string(token) + " head " + std::to_string(head);
}

std::string Expected::describe(const Route& route, std::string_view what) const {
  std::string text(what);
  return text.append(what.empty() ? "" : ": ")
      .append(std::to_string(shape_.num_heads) + ":" + std::to_string(shape_.num_kv_heads) + " heads of " +
              std::to_string(shape_.head_dim) + " and " + std::to_string(shape_.value_dim) + ", " +
              std::to_string(shape_.query_tokens) + " queries, " + std::to_string(shape_.key_tokens) + " keys, " +
              name_of(route.source) + " of ")
      .append(headwise::name_of(route.storage))
      .append(", queries ")
      .append(headwise::name_of(route.queries))
      .append(", outputs ")
      .append(headwise::name_of(route.outputs))
      .append(" on ")
      .append(headwise::name_of(current_isa()));
}

void expect_defined(const Inputs& in, const Route& route, const Options& options, const HeadMap* map,
                    std::string_view what, ExactFunction function) {
  Expected(in, options, map, std::move(function)).check(run(in, route, options, Serial{}, map), route, what);
}

void expect_defined_for_every_storage(const Inputs& in, const Options& options, std::string_view what) {
  const Expected expected(in, options);
  for (const Storage storage : kAllStorages)
    for (const Source source : {Source::cache, Source::packed_rows}) {
      const Route route{.source = source, .storage = storage};
      expected.check(run(in, route, options), route, what);
      if (::testing::Test::HasFatalFailure()) return;
    }
}

}  // namespace headwise::testing
