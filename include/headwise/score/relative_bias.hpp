// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>
#include <vector>

#include "headwise/core/checked.hpp"
#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"
#include "headwise/core/log2_units.hpp"
#include "headwise/core/tile_layout.hpp"

namespace headwise {

/// How RelativeBias puts distances into buckets; the defaults are T5's encoder.
struct RelativeBiasOptions {
  /// Biases of each head: at least 2, or 4 where bidirectional.
  Index num_buckets = 32;
  /// From here on all distances share the last bucket. More than the buckets of one distance each (see bucket).
  Index max_distance = 128;
  /// Whether later keys have buckets of their own, half of them (encoders); otherwise all share bucket 0 (decoders).
  bool bidirectional = true;
};

/// T5's relative position bias (Raffel et al., Exploring the Limits of Transfer Learning with a Unified Text-to-Text
/// Transformer, 2020, section 2.1): a learned number per head and bucket of the distance key − query, added to scores.
/// Options::relative_bias refers to one; all layers of a model may share it. T5's scale is 1.
///
/// The buckets are expanded when it is made, to one value per head and distance (4·(2·max_distance + 127) bytes per
/// head), so that a call adds consecutive numbers.
class RelativeBias {
 public:
  /// table [num_heads][num_buckets]: the biases of a head, bucket by bucket. Throws std::invalid_argument where its size
  /// differs, an option is impossible or a bias is not finite.
  RelativeBias(std::span<const float> table, Index num_heads, RelativeBiasOptions options = {})
      : RelativeBias(table, num_heads, options.num_buckets, 1, options) {}

  /// The same of T5's own layout [num_buckets][num_heads], as `relative_attention_bias.weight` of checkpoints has it.
  static RelativeBias from_t5(std::span<const float> weight, Index num_heads, RelativeBiasOptions options = {}) {
    return RelativeBias(weight, num_heads, 1, num_heads, options);
  }

  Index num_heads() const { return num_heads_; }
  const RelativeBiasOptions& options() const { return options_; }

  /// The bias of a query head for a key `distance` tokens behind the query (before it where negative).
  float operator()(Index head, Index distance) const {
    detail::checked_index(head, num_heads_, "head of the relative bias");
    return table_[static_cast<std::size_t>(head * options_.num_buckets + bucket(distance, options_))];
  }

  /// T5's bucket of a distance. With N buckets (of one direction) and m = N/2, a distance of n < m tokens has bucket n,
  /// a longer one m + floor((N − m)·log(n/m) / log(max_distance/m)), at most N − 1; later keys come after earlier ones.
  static Index bucket(Index distance, const RelativeBiasOptions& options) {
    Index buckets = options.num_buckets, first = 0;
    if (options.bidirectional) {
      buckets /= 2;
      if (distance > 0) first = buckets;
    } else if (distance > 0) {
      return 0;
    }
    const Index n =
        distance < -options.max_distance ? options.max_distance : std::min(std::abs(distance), options.max_distance);
    const Index exact = buckets / 2;
    if (n < exact) return first + n;
    const double m = static_cast<double>(exact);
    const double step = std::log(static_cast<double>(n) / m) / std::log(static_cast<double>(options.max_distance) / m) *
                        static_cast<double>(buckets - exact);
    // whole where n/m is a power of max_distance/m: it must not fall to the bucket before for a rounding of the logarithms
    const double whole = std::round(step);
    const Index beyond = static_cast<Index>(std::abs(step - whole) < 1e-9 ? whole : std::floor(step));
    return first + std::min(exact + beyond, buckets - 1);
  }

  /// The biases of a head for kTileTokens consecutive distances from `distance` on, in units of log2 as kernels keep
  /// scores. One behind another from first_distance() to last_distance(), which stand for those beyond.
  const float* of_tile(Index head, Index distance) const {
    detail::checked_index(head, num_heads_, "head of the relative bias");
    return expanded_.data() + head * width() + std::clamp(distance, first_distance(), last_distance()) + reach();
  }
  Index first_distance() const { return -reach(); }
  Index last_distance() const { return options_.max_distance; }

 private:
  RelativeBias(std::span<const float> table, Index num_heads, Index of_next_head, Index of_next_bucket,
               const RelativeBiasOptions& options)
      : num_heads_(num_heads), options_(options) {
    check(table, num_heads, options);
    for (Index h = 0; h < num_heads; ++h)
      for (Index b = 0; b < options.num_buckets; ++b)
        table_.push_back(table[static_cast<std::size_t>(h * of_next_head + b * of_next_bucket)]);
    expanded_.reserve(static_cast<std::size_t>(num_heads * width()));
    for (Index h = 0; h < num_heads; ++h)
      for (Index d = -reach(); d <= reach(); ++d) expanded_.push_back((*this)(h, d) * detail::kLog2e);
  }

  static void check(std::span<const float> table, Index num_heads, const RelativeBiasOptions& options) {
    constexpr Index kMost = Index{1} << 20;
    const Index least = options.bidirectional ? 4 : 2;
    require(num_heads >= 1 && num_heads <= kMost, "num_heads (", num_heads, ") of a RelativeBias must be 1 to ", kMost);
    require(options.num_buckets >= least && options.num_buckets <= kMost, "num_buckets (", options.num_buckets,
            ") of a RelativeBias must be ", least, " to ", kMost);
    const Index exact = options.num_buckets / least;
    require(options.max_distance > exact && options.max_distance <= kMost, "max_distance (", options.max_distance,
            ") of a RelativeBias must be more than the ", exact, " distances with a bucket of their own, and at most ",
            kMost);
    require(std::ssize(table) == num_heads * options.num_buckets, "table (", table.size(),
            " numbers) of a RelativeBias must hold num_heads x num_buckets (", num_heads, " x ", options.num_buckets,
            ") numbers");
    for (std::size_t i = 0; i < table.size(); ++i)
      require(std::isfinite(table[i]), "table[", i, "] (", table[i], ") of a RelativeBias must be finite");
  }

  /// The farthest distance kept: a tile beyond max_distance is a run of equal values.
  Index reach() const { return options_.max_distance + kTileTokens - 1; }
  Index width() const { return 2 * reach() + 1; }

  Index num_heads_;
  RelativeBiasOptions options_;
  std::vector<float> table_;     // [head][bucket]
  std::vector<float> expanded_;  // [head][reach + distance], times log2 e
};

}  // namespace headwise
