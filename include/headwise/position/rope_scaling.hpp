// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>
#include <optional>
#include <span>
#include <variant>
#include <vector>

#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"

// How rotary positions are stretched beyond the context a model was trained on. The formulas are those of Hugging Face
// transformers, src/transformers/modeling_rope_utils.py, whose field names and defaults are kept; frequencies are
// computed in double here and in float there, so the two agree to about 1e-7 of a frequency.
//
// Without scaling, pair i of rotary_dim / 2 pairs turns by f_i = base^(−2i / rotary_dim) radians per token.

namespace headwise {

/// Position interpolation: f_i / factor.
struct LinearScaling {
  double factor = 1.0;
  friend bool operator==(const LinearScaling&, const LinearScaling&) = default;
};

/// NTK-aware scaling that follows the length L of the sequence (largest position + 1): beyond original_max_position the
/// base grows to base·(factor·L / original_max_position − (factor − 1))^(n / (n − 2)), n = rotary_dim; up to there
/// nothing changes. Needs rotary_dim of at least 4.
///
/// L is that of the call which rotates: keys that are already in a cache keep the rotation of the length at which they
/// were appended, as in transformers. So beyond original_max_position a prompt read in pieces differs from one read at
/// once; that is the method's nature. Each sequence of a batch has its own L.
struct DynamicNtkScaling {
  double factor = 1.0;
  Index original_max_position = 0;
  friend bool operator==(const DynamicNtkScaling&, const DynamicNtkScaling&) = default;
};

/// YaRN (arXiv 2309.00071): high frequencies stay, low ones are divided by factor, a linear ramp between them over the
/// pairs that make beta_fast … beta_slow turns within original_max_position.
struct YarnScaling {
  double factor = 1.0;
  Index original_max_position = 0;
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  /// Multiplies cos and sin. Unset: g(mscale) / g(mscale_all_dim) where both are set, else g(1), with
  /// g(m) = 0.1·m·ln(factor) + 1.
  std::optional<double> attention_factor{};
  std::optional<double> mscale{};          // DeepSeek's pair of settings
  std::optional<double> mscale_all_dim{};  //
  /// Whether the ends of the ramp are rounded outwards to whole pairs (gpt-oss: false).
  bool truncate = true;
  friend bool operator==(const YarnScaling&, const YarnScaling&) = default;
};

/// Llama 3.1: wavelengths below original_max_position / high_freq_factor stay, those above original_max_position /
/// low_freq_factor are stretched by factor, a blend of both between.
struct Llama3Scaling {
  double factor = 1.0;
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  Index original_max_position = 0;
  friend bool operator==(const Llama3Scaling&, const Llama3Scaling&) = default;
};

/// LongRoPE (Phi-3; Ding et al. 2024, arXiv 2402.13753): f_i / short_factors[i] in a sequence of up to
/// original_max_position tokens, f_i / long_factors[i] in a longer one, whose length is that of the call as with dynamic
/// NTK. The same factors in both lists serve every length (engines that choose by the context they are set up for).
struct LongRopeScaling {
  std::vector<double> short_factors{}, long_factors{};  // [rotary_dim / 2], each above 0
  Index original_max_position = 0;                      // at least 2
  /// The context it is stretched to over the original one: Phi-3's max_position_embeddings / original_max_position.
  double factor = 1.0;
  /// Multiplies cos and sin. Unset: sqrt(1 + ln(factor) / ln(original_max_position)).
  std::optional<double> attention_factor{};
  friend bool operator==(const LongRopeScaling&, const LongRopeScaling&) = default;
};

/// Proportional RoPE (Gemma 4): the first floor(proportion · pairs) pairs turn by f_i / factor, with f_i of the whole
/// rotary_dim; the other pairs pass unchanged. (RopeOptions::rotary_dim, the other partial RoPE, pairs and spaces the
/// frequencies over the dimensions that turn.)
struct ProportionalScaling {
  double proportion = 1.0;  // 0 to 1
  double factor = 1.0;
  friend bool operator==(const ProportionalScaling&, const ProportionalScaling&) = default;
};

/// One of the above, or none.
using RopeScaling = std::variant<std::monostate, LinearScaling, DynamicNtkScaling, YarnScaling, Llama3Scaling,
                                 LongRopeScaling, ProportionalScaling>;

namespace detail {

inline void require_positive(const char* name, double value) {
  require(std::isfinite(value) && value > 0, name, " (", value, ") of RoPE must be finite and above 0");
}

inline void require_context(Index original_max_position) {
  require(original_max_position >= 1, "original_max_position (", original_max_position,
          ") of the RoPE scaling must be at least 1: the context the model was trained on");
}

/// Throws std::invalid_argument that names the first impossible setting.
inline void check_scaling(const RopeScaling& scaling, double base, Index rotary_dim) {
  const auto check_factor = [](double factor) {
    require(std::isfinite(factor) && factor >= 1, "factor (", factor,
            ") of the RoPE scaling must be finite and at least 1");
  };
  if (const auto* linear = std::get_if<LinearScaling>(&scaling)) {
    check_factor(linear->factor);
  } else if (const auto* ntk = std::get_if<DynamicNtkScaling>(&scaling)) {
    check_factor(ntk->factor);
    require_context(ntk->original_max_position);
    require(rotary_dim >= 4, "rotary_dim (", rotary_dim, ") must be at least 4 with dynamic NTK scaling");
  } else if (const auto* yarn = std::get_if<YarnScaling>(&scaling)) {
    check_factor(yarn->factor);
    require_context(yarn->original_max_position);
    require(base > 1, "base (", base, ") of RoPE must be above 1 with YaRN scaling");
    require_positive("beta_slow", yarn->beta_slow);
    require(std::isfinite(yarn->beta_fast) && yarn->beta_fast >= yarn->beta_slow, "beta_fast (", yarn->beta_fast,
            ") of RoPE must be finite and at least beta_slow (", yarn->beta_slow, ")");
    if (yarn->attention_factor) require_positive("attention_factor", *yarn->attention_factor);
    if (yarn->mscale) require_positive("mscale", *yarn->mscale);
    if (yarn->mscale_all_dim) require_positive("mscale_all_dim", *yarn->mscale_all_dim);
  } else if (const auto* llama = std::get_if<Llama3Scaling>(&scaling)) {
    check_factor(llama->factor);
    require_context(llama->original_max_position);
    require_positive("low_freq_factor", llama->low_freq_factor);
    require(std::isfinite(llama->high_freq_factor) && llama->high_freq_factor > llama->low_freq_factor,
            "high_freq_factor (", llama->high_freq_factor, ") of RoPE must be finite and above low_freq_factor (",
            llama->low_freq_factor, ")");
  } else if (const auto* longer = std::get_if<LongRopeScaling>(&scaling)) {
    check_factor(longer->factor);
    require(longer->original_max_position >= 2, "original_max_position (", longer->original_max_position,
            ") of the RoPE scaling must be at least 2: the context the model was trained on");
    if (longer->attention_factor) require_positive("attention_factor", *longer->attention_factor);
    const auto check_factors = [&](const char* name, const std::vector<double>& factors) {
      require(std::ssize(factors) == rotary_dim / 2, name, " (", factors.size(),
              " numbers) of LongRoPE must hold one per pair, rotary_dim / 2 (", rotary_dim / 2, ")");
      for (std::size_t i = 0; i < factors.size(); ++i)
        require(std::isfinite(factors[i]) && factors[i] > 0, name, "[", i, "] (", factors[i],
                ") of LongRoPE must be finite and above 0");
    };
    check_factors("short_factors", longer->short_factors);
    check_factors("long_factors", longer->long_factors);
  } else if (const auto* part = std::get_if<ProportionalScaling>(&scaling)) {
    check_factor(part->factor);
    require(part->proportion >= 0 && part->proportion <= 1, "proportion (", part->proportion,
            ") of proportional RoPE must be 0 to 1");
  }
}

/// Whether frequencies depend on the length of the sequence.
inline bool depends_on_length(const RopeScaling& scaling) {
  const auto* longer = std::get_if<LongRopeScaling>(&scaling);
  return std::holds_alternative<DynamicNtkScaling>(scaling) ||
         (longer && longer->short_factors != longer->long_factors);
}

/// Pairs that turn, the first of `pairs`.
inline Index turning_pairs(const RopeScaling& scaling, Index pairs) {
  const auto* part = std::get_if<ProportionalScaling>(&scaling);
  return part ? static_cast<Index>(part->proportion * static_cast<double>(pairs)) : pairs;
}

/// f_i of plain RoPE for the pairs of `frequencies`: base^(−2i / rotary_dim).
inline void plain_frequencies(double base, std::span<double> frequencies) {
  const auto pairs = static_cast<double>(frequencies.size());
  for (std::size_t i = 0; i < frequencies.size(); ++i) frequencies[i] = std::pow(base, -static_cast<double>(i) / pairs);
}

inline void scale_yarn(const YarnScaling& s, double base, std::span<double> frequencies) {
  const auto pairs = static_cast<double>(frequencies.size());
  // the (real-valued) pair that makes `turns` turns within the original context
  const auto pair_of = [&](double turns) {
    const double wavelength = static_cast<double>(s.original_max_position) / turns;
    return pairs * std::log(wavelength / (2 * std::numbers::pi)) / std::log(base);
  };
  double low = pair_of(s.beta_fast), high = pair_of(s.beta_slow);
  if (s.truncate) low = std::floor(low), high = std::ceil(high);
  low = std::max(low, 0.0);
  high = std::min(high, 2 * pairs - 1);  // rotary_dim − 1, not the last pair: as in transformers
  if (low == high) high += 0.001;
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    frequencies[i] = frequencies[i] / s.factor * ramp + frequencies[i] * (1 - ramp);
  }
}

inline void scale_llama3(const Llama3Scaling& s, std::span<double> frequencies) {
  const auto context = static_cast<double>(s.original_max_position);
  for (double& f : frequencies) {
    const double turns = context * f / (2 * std::numbers::pi);  // within the original context
    if (turns > s.high_freq_factor) continue;
    const double keep = (turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
    f = keep < 0 ? f / s.factor : (1 - keep) * f / s.factor + keep * f;
  }
}

inline void scale_long(const LongRopeScaling& s, Index length, std::span<double> frequencies) {
  const std::vector<double>& factors = length > s.original_max_position ? s.long_factors : s.short_factors;
  for (std::size_t i = 0; i < frequencies.size(); ++i) frequencies[i] /= factors[i];
}

inline void scale_proportional(const ProportionalScaling& s, std::span<double> frequencies) {
  for (double& f : frequencies) f /= s.factor;
  const auto turning = static_cast<std::size_t>(turning_pairs(s, std::ssize(frequencies)));
  for (std::size_t i = turning; i < frequencies.size(); ++i) frequencies[i] = 0;
}

/// Radians per token of every pair, for a sequence of `length` tokens (where that matters: depends_on_length).
inline void rope_frequencies(const RopeScaling& scaling, double base, Index length, std::span<double> frequencies) {
  if (const auto* ntk = std::get_if<DynamicNtkScaling>(&scaling); ntk && length > ntk->original_max_position) {
    const auto n = 2 * static_cast<double>(frequencies.size());
    const double stretch = ntk->factor * static_cast<double>(length) / static_cast<double>(ntk->original_max_position);
    base *= std::pow(stretch - (ntk->factor - 1), n / (n - 2));
  }
  plain_frequencies(base, frequencies);
  if (const auto* linear = std::get_if<LinearScaling>(&scaling)) {
    for (double& f : frequencies) f /= linear->factor;
  } else if (const auto* yarn = std::get_if<YarnScaling>(&scaling)) {
    scale_yarn(*yarn, base, frequencies);
  } else if (const auto* llama = std::get_if<Llama3Scaling>(&scaling)) {
    scale_llama3(*llama, frequencies);
  } else if (const auto* longer = std::get_if<LongRopeScaling>(&scaling)) {
    scale_long(*longer, length, frequencies);
  } else if (const auto* part = std::get_if<ProportionalScaling>(&scaling)) {
    scale_proportional(*part, frequencies);
  }
}

/// The factor on cos and sin; 1 except for YaRN and LongRoPE.
inline double rope_attention_factor(const RopeScaling& scaling) {
  if (const auto* longer = std::get_if<LongRopeScaling>(&scaling))
    return longer->attention_factor.value_or(
        std::sqrt(1.0 + std::log(longer->factor) / std::log(static_cast<double>(longer->original_max_position))));
  const auto* s = std::get_if<YarnScaling>(&scaling);
  if (!s) return 1.0;
  if (s->attention_factor) return *s->attention_factor;
  const auto g = [&](double m) { return 0.1 * m * std::log(s->factor) + 1.0; };
  return s->mscale && s->mscale_all_dim ? g(*s->mscale) / g(*s->mscale_all_dim) : g(1.0);
}

}  // namespace detail

}  // namespace headwise
