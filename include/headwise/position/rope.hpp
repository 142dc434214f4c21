// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "headwise/core/heads.hpp"
#include "headwise/core/view.hpp"
#include "headwise/parallel/executor.hpp"
#include "headwise/parallel/serial.hpp"
#include "headwise/position/rope_scaling.hpp"
#include "headwise/position/token_positions.hpp"
#include "headwise/position/turn_pairs.hpp"

namespace headwise {

/// Which two of the dimensions that turn make pair i of n = rotary_dim / 2.
enum class RopeStyle {
  interleaved,  // 2i and 2i + 1: GPT-J, and Llama in the files of llama.cpp
  half_split,   // i and i + n: GPT-NeoX, and Llama in the files of transformers
};

/// How the pairs of M-RoPE are shared out among time (t), height (h) and width (w).
enum class RopeSectionOrder {
  consecutive,  // t … t h … h w … w: Qwen2-VL, Qwen2.5-VL, GLM-4.1V
  interleaved,  // t h w t h w …, and t for what remains: Qwen3-VL
};

/// Settings of rotary position embedding.
struct RopeOptions {
  RopeStyle style = RopeStyle::half_split;
  /// theta; above 0.
  double base = 10000.0;
  /// Dimensions that turn, the first of each head from rotary_begin on; even, 2 … head_dim − rotary_begin. 0: all of these.
  /// The rest passes unchanged.
  Index rotary_dim = 0;
  /// Dimensions before those that turn (multi-head latent attention: the latent ones).
  Index rotary_begin = 0;
  RopeScaling scaling{};
  /// M-RoPE (Qwen2-VL, arXiv 2409.12191): how many pairs turn by a token's temporal, height and width positions, e.g.
  /// {16, 24, 24}; together rotary_dim / 2. A token then has three positions; of text they are equal, and it turns bit for
  /// bit as without sections. All 0: none.
  std::array<Index, 3> sections{};
  RopeSectionOrder section_order = RopeSectionOrder::consecutive;
  friend bool operator==(const RopeOptions&, const RopeOptions&) = default;
};

/// cos and sin of one position, for all pairs of a Rope.
struct RopeTurn {
  std::array<float, kMaxHeadDim / 2> cosines, sines;
};

/// Rotary position embedding of queries and keys: at position p, pair i of every head turns by the angle p·f_i,
///   (x, y) → a·(x·cos − y·sin, y·cos + x·sin),
/// with the frequencies f and the factor a of position/rope_scaling.hpp. Angles are computed in double, so positions of any
/// size lose nothing; cos and sin are rounded to float. A token's result depends on its position alone (where
/// depends_on_length also on the sequence's length), never on what is rotated with it or on threads.
class Rope {
 public:
  /// Throws std::invalid_argument on a head_dim outside 1 … 576, an odd or too large rotary_dim and impossible settings.
  explicit Rope(Index head_dim, const RopeOptions& options = {}) : options_(options), head_dim_(head_dim) {
    require(head_dim >= 1 && head_dim <= kMaxHeadDim, "head_dim (", head_dim, ") of RoPE must be 1 to ", kMaxHeadDim);
    const Index begin = options_.rotary_begin;
    require(begin >= 0 && begin < head_dim, "rotary_begin (", begin, ") must be 0 to head_dim - 1 (", head_dim - 1,
            ")");
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
    num_pairs_ = detail::turning_pairs(options_.scaling, rotary / 2);
    depends_on_length_ = detail::depends_on_length(options_.scaling);
    share_out_pairs();
  }

  Index head_dim() const { return head_dim_; }
  Index rotary_dim() const { return options_.rotary_dim; }
  /// The settings, with rotary_dim resolved.
  const RopeOptions& options() const { return options_; }
  /// Radians per token of each pair; where depends_on_length, in sequences up to original_max_position.
  std::span<const double> frequencies() const { return frequencies_; }
  /// The factor a on cos and sin.
  double attention_factor() const { return attention_factor_; }
  /// Pairs that turn: rotary_dim / 2, or less with ProportionalScaling.
  Index num_pairs() const { return num_pairs_; }
  /// Numbers that say where a token stands: 1, or 3 with sections.
  Index num_axes() const { return axes_.empty() ? 1 : 3; }
  /// Whether turns depend on the sequence's length: with dynamic NTK, and with LongRoPE of two lists of factors.
  bool depends_on_length() const { return depends_on_length_; }

  /// The turns of a sequence of `length` tokens. Allocates nothing: decode comes here for every layer.
  class Angles {
   public:
    Angles(const Rope& rope, Index length) : rope_(rope), frequencies_(rope.frequencies_) {
      if (!rope.depends_on_length()) return;
      const auto mine = std::span(stretched_).first(rope.frequencies_.size());
      detail::rope_frequencies(rope.options_.scaling, rope.options_.base, length, mine);
      frequencies_ = mine;
    }
    Angles(const Angles&) = delete;
    Angles& operator=(const Angles&) = delete;

    /// cos and sin [num_pairs] of a token. Unchecked.
    void turn_at(const RopePosition& position, float* cosines, float* sines) const {
      for (std::size_t i = 0; i < static_cast<std::size_t>(rope_.num_pairs_); ++i) {
        const Index p = rope_.axes_.empty() ? position.temporal : position.on(rope_.axes_[i]);
        const double angle = static_cast<double>(p) * frequencies_[i];
        cosines[i] = static_cast<float>(rope_.attention_factor_ * std::cos(angle));
        sines[i] = static_cast<float>(rope_.attention_factor_ * std::sin(angle));
      }
    }

   private:
    const Rope& rope_;
    std::span<const double> frequencies_;
    std::array<double, kMaxHeadDim / 2> stretched_;
  };

  /// The turn of a token at `position` of a sequence of `length` tokens (of account where depends_on_length). Unchecked.
  RopeTurn turn_at(const RopePosition& position, Index length) const {
    RopeTurn turn;
    Angles(*this, length).turn_at(position, turn.cosines.data(), turn.sines.data());
    return turn;
  }
  /// The turn that takes a key from one position to another, `distance` tokens on all axes on (back where negative); its
  /// length was scaled by attention_factor when it was stored and is not again. Throws std::invalid_argument where
  /// depends_on_length: such turns do not add up.
  RopeTurn turn_between(Index distance) const {
    require(!depends_on_length(), "scaling (",
            std::holds_alternative<LongRopeScaling>(options_.scaling) ? "LongRoPE of two lists" : "dynamic NTK",
            ") of a Rope that moves keys must be another: its angles are not in proportion to positions");
    RopeTurn turn;
    for (std::size_t i = 0; i < static_cast<std::size_t>(num_pairs_); ++i) {
      const double angle = static_cast<double>(distance) * frequencies_[i];
      turn.cosines[i] = static_cast<float>(std::cos(angle));
      turn.sines[i] = static_cast<float>(std::sin(angle));
    }
    return turn;
  }
  /// Turns one head, head_dim consecutive floats.
  void apply(const RopeTurn& turn, float* head) const { apply(turn.cosines.data(), turn.sines.data(), head); }
  /// The same by cos and sin [num_pairs].
  void apply(const float* cosines, const float* sines, float* head) const { turn_head(cosines, sines, head, 1); }

  /// Turns x [sequence][token][head][head_dim] in place; token t of each sequence stands at first_position + t.
  template <Executor E = Serial>
  void apply(View<float> x, Index first_position, E&& executor = Serial{}) const {
    check(x);
    require(first_position >= 0 && first_position <= detail::kMaxPosition - x.tokens(), "first_position (",
            first_position, ") must be 0 to ", detail::kMaxPosition - x.tokens());
    turn(x, ExecutorRef(executor), [&](Index) { return detail::TokenPositions{first_position}; });
  }

  /// Turns x in place; positions [sequence][token], or [sequence][token][3] with sections, each 0 … 2^53.
  template <Executor E = Serial>
  void apply(View<float> x, std::span<const Index> positions, E&& executor = Serial{}) const {
    check(x);
    detail::check_positions("positions", positions, x.sequences() * x.tokens(), num_axes());
    turn(x, ExecutorRef(executor), [&](Index b) {
      const auto count = static_cast<std::size_t>(x.tokens() * num_axes());
      return detail::TokenPositions{0, positions.subspan(static_cast<std::size_t>(b) * count, count), num_axes()};
    });
  }

 private:
  void check(const View<float>& x) const {
    require(x.dim() == head_dim_, "dim (", x.dim(), ") of x must be the head_dim (", head_dim_, ") of the Rope");
  }

  /// Which axis each pair turns by.
  void share_out_pairs() {
    const auto& [t, h, w] = options_.sections;
    const Index pairs = options_.rotary_dim / 2;
    const bool mixed = options_.section_order == RopeSectionOrder::interleaved;
    if (t == 0 && h == 0 && w == 0) return;
    require(t >= 0 && h >= 0 && w >= 0 && t <= pairs && h <= pairs && w <= pairs && t + h + w == pairs, "sections (", t,
            ", ", h, ", ", w, ") of RoPE must be at least 0 and together the pairs that turn, rotary_dim / 2 (", pairs,
            ")");
    require(!mixed || (3 * h <= pairs + 1 && 3 * w <= pairs), "sections (", t, ", ", h, ", ", w,
            ") of RoPE, interleaved, must leave every third pair of the ", pairs, " to time, height and width in turn");
    for (Index i = 0; i < pairs; ++i) {
      const Index turn = mixed ? i % 3 : i < t ? 0 : i < t + h ? 1 : 2;
      const bool lasts = !mixed || i < 3 * options_.sections[static_cast<std::size_t>(turn)];
      axes_.push_back(static_cast<std::uint8_t>(lasts ? turn : 0));
    }
  }

  template <class PositionsOf>
  void turn(const View<float>& x, ExecutorRef executor, PositionsOf positions_of) const {
    if (x.sequences() * x.tokens() == 0) return;
    for (Index b = 0; b < x.sequences(); ++b) {
      const detail::TokenPositions positions = positions_of(b);
      const Angles angles(*this, depends_on_length() ? positions.length(x.tokens()) : 0);
      executor.parallel_for(x.tokens(), [&](Index t) {
        RopeTurn turn;
        angles.turn_at(positions.of(t), turn.cosines.data(), turn.sines.data());
        const Index dim = x.strides().dim;
        for (Index h = 0; h < x.heads(); ++h) turn_head(turn.cosines.data(), turn.sines.data(), &x(b, t, h, 0), dim);
      });
    }
  }

  /// Elements `stride` apart.
  void turn_head(const float* cosines, const float* sines, float* x, Index stride) const {
    const bool interleaved = options_.style == RopeStyle::interleaved;
    detail::turn_pairs(cosines, sines, num_pairs_, x + options_.rotary_begin * stride, (interleaved ? 2 : 1) * stride,
                       (interleaved ? 1 : options_.rotary_dim / 2) * stride);
  }

  RopeOptions options_;
  Index head_dim_, num_pairs_ = 0;
  double attention_factor_ = 1.0;
  bool depends_on_length_ = false;
  std::vector<double> frequencies_;  // [rotary_dim / 2]
  std::vector<std::uint8_t> axes_;   // [rotary_dim / 2]: 0 time, 1 height, 2 width; empty without sections
};

}  // namespace headwise
