// SPDX-License-Identifier: MIT
// The results that the definition says, and how far from them arithmetic may come. With u = 2^-24, for a row of n keys,
// all bounds of the worst case:
//   scores    a sum of D products is off by (D + c)·u·Σ|q·k| ≤ (D + c)·u·|q||k|, where c stands for the roundings of q, the
//             scale and the rotation of both; channel scales of 0.5 … 2 let |q·c||k/c| be 4 times that. Queries that enter
//             as bf16 add ε(bf16)·|q||k|, as digits half a unit of 1/32639 of the largest for each of D.
//             Softcap adds 2^-21 of its limit, whatever positions add a few u of it.
//   weights   an error δ of scores changes them by the factor e^δ, in the sum and above it.
//   sums      n·u of Σ p|v|; where weights enter as bf16 or digits, so much more of each.
//   output    one rounding to its type.
#include <cmath>

#include "tests/fuzz/attention/call.hpp"

namespace headwise::fuzz {

namespace {

constexpr double kRoundoff = 0x1p-24;

double norm(const float* row, Index dim) {
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

/// How this CPU's kernels meet stored numbers.
struct Rounding {
  bool bf16_rows = false, digit_scores = false, digit_weights = false;

  explicit Rounding(const Call& call) {
    const TileKernels& kernels = detail::tile_kernels();
    const auto met_as = [&](Storage storage) { return kernels.operand[static_cast<int>(storage)]; };
    const bool dots = call.isa == Isa::avx512bf16;
    bf16_rows = dots && (call.keys == Storage::bf16 || call.values == Storage::bf16);
    digit_scores = met_as(call.keys) == Operand::digits;
    digit_weights = met_as(call.values) == Operand::digits;
  }
};

class Checker {
 public:
  Checker(const Call& call, Index b)
      : call_(call), s_(call.sequence(b)), kv_head_of_(kv_heads_of(call, b)), rounding_(call) {
    const auto wide = [](const std::vector<float>& x) { return std::vector<double>(x.begin(), x.end()); };
    reference::Parameters parameters = call.parameters;
    parameters.kv_head_of = kv_head_of_;
    if (!call.key_lengths.empty()) parameters.key_length = call.key_lengths[static_cast<std::size_t>(b)];
    if (!call.query_lengths.empty()) parameters.query_length = call.query_lengths[static_cast<std::size_t>(b)];
    // |v| beside v: its weighted sum is the size that errors are relative to
    std::vector<double> both;
    const auto dim = static_cast<std::size_t>(call.value_dim);
    for (std::size_t at = 0; at < s_.v.size(); at += dim)
      for (const bool absolute : {false, true})
        for (std::size_t d = at; d < at + dim; ++d) {
          const double x = static_cast<double>(s_.v[d]);
          both.push_back(absolute ? std::abs(x) : x);
        }
    result_ =
        reference::attend({s_.queries, s_.keys, call.num_heads, call.num_kv_heads, call.head_dim, 2 * call.value_dim},
                          wide(s_.q), wide(s_.k), both, parameters);
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

  void check(const Results& results, Index array_sequence, Index first) const {
    for (Index i = 0; i < s_.queries; ++i)
      for (Index h = 0; h < call_.num_heads; ++h) {
        const double score_error = error_of_scores(i, h);
        if (!(score_error < 0.5)) continue;  // the arithmetic says little, or overflows
        const double expected = result_.lse[static_cast<std::size_t>(i * call_.num_heads + h)];
        const double sums = static_cast<double>(s_.keys + 64) * kRoundoff + 2 * weight_error();
        if (call_.lse) {
          const double tolerance = score_error + sums + 16 * kRoundoff * (1 + std::abs(expected));
          compare(results.lse.get(array_sequence, first + i, h, 0), expected, std::isinf(expected) ? 0 : tolerance, i,
                  h, -1);
        }
        for (Index d = 0; d < call_.value_dim; ++d) {
          const Index row = (i * call_.num_heads + h) * 2 * call_.value_dim;
          const double value = result_.output[static_cast<std::size_t>(row + d)],
                       spread = result_.output[static_cast<std::size_t>(row + call_.value_dim + d)];
          const double relative = std::expm1(2 * score_error) + 2 * sums;
          double tolerance = relative * spread;
          if (rounding_.digit_weights)
            tolerance += largest_value_[static_cast<std::size_t>(kv_head_of_[static_cast<std::size_t>(h)])] *
                         (64 * 0.5 / 32639 * 1.01 + 0x1p-90 * static_cast<double>(s_.keys));
          const double step = call_.outputs == Storage::f16 ? 0x1p-25 : 0x1p-126;
          tolerance += epsilon_of(call_.outputs) * (std::abs(value) + tolerance) + step;
          const double most = call_.outputs == Storage::f16 ? 65504.0 : 3e38;
          if (std::isfinite(value) && std::abs(value) + tolerance > most / 4096) continue;  // may overflow
          compare(results.output.get(array_sequence, first + i, h, d), value, tolerance, i, h, d);
        }
      }
  }

 private:
  double weight_error() const { return rounding_.bf16_rows ? epsilon_of(Storage::bf16) : 0; }

  double error_of_scores(Index i, Index h) const {
    const double dim = static_cast<double>(call_.head_dim);
    const double query =
        norm(&s_.q[static_cast<std::size_t>((i * call_.num_heads + h) * call_.head_dim)], call_.head_dim);
    const double key = longest_key_[static_cast<std::size_t>(kv_head_of_[static_cast<std::size_t>(h)])];
    const double scale = std::abs(call_.parameters.scale.value_or(1 / std::sqrt(dim)));
    if (!std::isfinite(query)) return 0;  // what is not finite has no error
    const double size = scale * query * key * (call_.channel_scales ? 4 : 1);
    double relative = (dim + 64) * kRoundoff;
    if (rounding_.bf16_rows) relative += epsilon_of(Storage::bf16);
    if (rounding_.digit_scores) relative += dim * 0.5 / 32639;
    // products below the least float count for nothing
    return size * relative + dim * 0x1p-100 + call_.softcap * 0x1p-21 + call_.added * 4 * kRoundoff +
           (size + call_.added > 1e30 ? 1 : 0);
  }

  void compare(float got, double expected, double tolerance, Index i, Index h, Index d) const {
    const double actual = static_cast<double>(got);
    if (std::isnan(tolerance)) tolerance = 0;
    const bool same =
        std::isfinite(expected) ? std::abs(actual - expected) <= tolerance : actual == expected || std::isnan(actual);
    if (same) return;
    fault("token " + std::to_string(i) + " head " + std::to_string(h) + (d < 0 ? " lse" : " dim " + std::to_string(d)) +
          ": " + std::to_string(actual) + ", expected " + std::to_string(expected) + " within " +
          std::to_string(tolerance));
  }

  const Call& call_;
  const Sequence& s_;
  std::vector<Index> kv_head_of_;
  Rounding rounding_;
  reference::Result result_;
  std::vector<double> longest_key_, largest_value_;  // [KV head]
};

}  // namespace

void check_results(const Call& call, const Results& results) {
  for (Index b = 0; b < call.num_sequences(); ++b) {
    const auto [array_sequence, first] = call.queries_of(b);
    Checker(call, b).check(results, array_sequence, first);
  }
}

}  // namespace headwise::fuzz
