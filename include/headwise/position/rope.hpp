// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <span>
#include <string>
#include <vector>

#include "headwise/core/heads.hpp"
#include "headwise/core/view.hpp"
#include "headwise/position/rope_scaling.hpp"
#include "headwise/parallel/executor.hpp"
#include "headwise/parallel/serial.hpp"

namespace headwise {

/// Which two dimensions make pair i of n = rotary_dim / 2.
enum class RopeStyle {
  interleaved,  // 2i and 2i + 1: GPT-J, and Llama in the files of llama.cpp
  half_split,   // i and i + n: GPT-NeoX, and Llama in the files of transformers
};

/// Settings of rotary position embedding.
struct RopeOptions {
  RopeStyle style = RopeStyle::half_split;
  /// theta; above 0.
  double base = 10000.0;
  /// Dimensions that turn, those from rotary_begin on of each head; even, 2 … head_dim − rotary_begin. 0: all of these. The
  /// rest passes unchanged.
  Index rotary_dim = 0;
  RopeScaling scaling{};
  /// The first dimension that turns; 0 but where the part that turns is the last one, as in multi-head latent attention.
  Index rotary_begin = 0;
  friend bool operator==(const RopeOptions&, const RopeOptions&) = default;
};

/// cos and sin of one position, for all pairs of a Rope.
struct RopeTurn {
  std::array<float, kMaxHeadDim / 2> cosines, sines;
};

/// Rotary position embedding of queries and keys: at position p, pair i of every head turns by the angle p·f_i,
///   (x, y) → a·(x·cos − y·sin, y·cos + x·sin),
/// with the frequencies f and the factor a of position/rope_scaling.hpp. Angles are computed in double, so positions of any
/// size lose nothing; cos and sin are rounded to float. A token's result depends on its position alone (with dynamic NTK
/// also on the sequence's length), never on what is rotated with it or on threads.
class Rope {
 public:
  /// Throws std::invalid_argument on a head_dim outside 1 … 576, an odd or too large rotary_dim and impossible settings.
  explicit Rope(Index head_dim, const RopeOptions& options = {}) : options_(options), head_dim_(head_dim) {
    require(head_dim >= 1 && head_dim <= kMaxHeadDim, "head_dim (", head_dim, ") of RoPE must be 1 to ", kMaxHeadDim);
    const Index begin = options_.rotary_begin;
    require(begin >= 0 && begin <= head_dim, "rotary_begin (", begin, ") must be 0 to head_dim (", head_dim, ")");
    if (options_.rotary_dim == 0) options_.rotary_dim = head_dim - begin;
    const Index rotary = options_.rotary_dim;
    require(rotary >= 2 && rotary <= head_dim - begin && rotary % 2 == 0, "rotary_dim (", rotary,
            ") must be even and 2 to head_dim (", head_dim, ")", begin > 0 ? " less rotary_begin (" : "",
            begin > 0 ? std::to_string(begin) + ")" : "");
    detail::require_positive("base", options_.base);
    detail::check_scaling(options_.scaling, options_.base, rotary);
    frequencies_.resize(static_cast<std::size_t>(rotary / 2));
    detail::rope_frequencies(options_.scaling, options_.base, 0, frequencies_);
    attention_factor_ = detail::rope_attention_factor(options_.scaling);
  }

  Index head_dim() const { return head_dim_; }
  Index rotary_dim() const { return options_.rotary_dim; }
  /// The settings, with rotary_dim resolved.
  const RopeOptions& options() const { return options_; }
  /// Radians per token of each pair; for dynamic NTK, up to original_max_position.
  std::span<const double> frequencies() const { return frequencies_; }
  /// The factor a on cos and sin.
  double attention_factor() const { return attention_factor_; }

  /// The turn of a token at `position` of a sequence of `length` tokens (only dynamic NTK looks at it). Unchecked.
  RopeTurn turn_at(Index position, Index length) const { return turn_by(position, Frequencies(*this, length).all); }
  /// The turn that takes a key from one position to another, `distance` tokens on (back where negative); its length was
  /// scaled by attention_factor when it was stored and is not again. Throws std::invalid_argument with dynamic NTK, whose
  /// turns do not add up.
  RopeTurn turn_between(Index distance) const {
    require(!std::holds_alternative<DynamicNtkScaling>(options_.scaling),
            "scaling (dynamic NTK) of a Rope that moves keys must be another: its angles are not in proportion to "
            "positions");
    RopeTurn turn;
    for (std::size_t i = 0; i < frequencies_.size(); ++i) {
      const double angle = static_cast<double>(distance) * frequencies_[i];
      turn.cosines[i] = static_cast<float>(std::cos(angle));
      turn.sines[i] = static_cast<float>(std::sin(angle));
    }
    return turn;
  }
  /// Turns one head, head_dim consecutive floats.
  void apply(const RopeTurn& turn, float* head) const { turn_head(turn, head, 1); }

  /// Turns x [sequence][token][head][head_dim] in place; token t of each sequence stands at first_position + t.
  template <Executor E = Serial>
  void apply(View<float> x, Index first_position, E&& executor = Serial{}) const {
    check(x);
    require(first_position >= 0 && first_position <= kMaxPosition - x.tokens(), "first_position (", first_position,
            ") must be 0 to ", kMaxPosition - x.tokens());
    turn(
        x, ExecutorRef(executor), [&](Index, Index t) { return first_position + t; },
        [&](Index) { return first_position + x.tokens(); });
  }

  /// Turns x in place; positions [sequence][token], each 0 … 2^53.
  template <Executor E = Serial>
  void apply(View<float> x, std::span<const Index> positions, E&& executor = Serial{}) const {
    check(x);
    require(std::ssize(positions) == x.sequences() * x.tokens(), "positions (", positions.size(),
            ") must hold one position per token (", x.sequences() * x.tokens(), ")");
    for (std::size_t i = 0; i < positions.size(); ++i)
      require(positions[i] >= 0 && positions[i] <= kMaxPosition, "positions[", i, "] (", positions[i],
              ") must be 0 to ", kMaxPosition);
    const auto row = [&](Index b) {
      return positions.subspan(static_cast<std::size_t>(b * x.tokens()), static_cast<std::size_t>(x.tokens()));
    };
    turn(
        x, ExecutorRef(executor), [&](Index b, Index t) { return row(b)[static_cast<std::size_t>(t)]; },
        [&](Index b) { return *std::max_element(row(b).begin(), row(b).end()) + 1; });
  }

 private:
  static constexpr Index kMaxPosition = Index{1} << 53;  // beyond, double does not hold every integer
  static constexpr Index kMaxPairs = kMaxHeadDim / 2;

  void check(const View<float>& x) const {
    require(x.dim() == head_dim_, "dim (", x.dim(), ") of x must be the head_dim (", head_dim_, ") of the Rope");
  }

  template <class PositionOf, class LengthOf>
  void turn(const View<float>& x, ExecutorRef executor, PositionOf position_of, LengthOf length_of) const {
    if (x.sequences() * x.tokens() == 0) return;
    for (Index b = 0; b < x.sequences(); ++b) {
      const Frequencies frequencies(*this, length_of(b));
      executor.parallel_for(x.tokens(), [&](Index t) {
        const RopeTurn turn = turn_by(position_of(b, t), frequencies.all);
        const Index dim = x.strides().dim;
        for (Index h = 0; h < x.heads(); ++h) turn_head(turn, &x(b, t, h, 0), dim);
      });
    }
  }

  /// Those of a sequence of `length` tokens: dynamic NTK has its own for each length; nothing is allocated, decode comes
  /// here for every layer.
  struct Frequencies {
    Frequencies(const Rope& rope, Index length) : all(rope.frequencies_) {
      if (!std::holds_alternative<DynamicNtkScaling>(rope.options_.scaling)) return;
      const auto mine = std::span(stretched).first(rope.frequencies_.size());
      detail::rope_frequencies(rope.options_.scaling, rope.options_.base, length, mine);
      all = mine;
    }
    std::array<double, kMaxPairs> stretched;
    std::span<const double> all;
  };

  RopeTurn turn_by(Index position, std::span<const double> frequencies) const {
    RopeTurn turn;
    for (std::size_t i = 0; i < frequencies.size(); ++i) {
      const double angle = static_cast<double>(position) * frequencies[i];
      turn.cosines[i] = static_cast<float>(attention_factor_ * std::cos(angle));
      turn.sines[i] = static_cast<float>(attention_factor_ * std::sin(angle));
    }
    return turn;
  }

  /// Elements `stride` apart.
  void turn_head(const RopeTurn& turn, float* x, Index stride) const {
    x += options_.rotary_begin * stride;
    const Index pairs = options_.rotary_dim / 2;
    const bool interleaved = options_.style == RopeStyle::interleaved;
    const Index step = (interleaved ? 2 : 1) * stride, partner = (interleaved ? 1 : pairs) * stride;
    for (Index i = 0; i < pairs; ++i) {
      const float c = turn.cosines[static_cast<std::size_t>(i)], s = turn.sines[static_cast<std::size_t>(i)];
      const float x0 = x[i * step], y0 = x[i * step + partner];
      x[i * step] = x0 * c - y0 * s;
      x[i * step + partner] = y0 * c + x0 * s;
    }
  }

  RopeOptions options_;
  Index head_dim_;
  double attention_factor_ = 1.0;
  std::vector<double> frequencies_;  // [rotary_dim / 2]
};

}  // namespace headwise
