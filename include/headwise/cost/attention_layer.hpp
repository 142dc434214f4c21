// SPDX-License-Identifier: MIT
#pragma once

#include <optional>

#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"
#include "headwise/cost/checked.hpp"
#include "headwise/cost/format.hpp"
#include "headwise/cost/machine.hpp"
#include "headwise/cost/step.hpp"

namespace headwise::cost {

/// What the cost of an attention layer depends on. Only hidden_size and num_heads must be given; the fields are those of
/// nn::MultiHeadAttentionOptions. Which query heads share which KV head changes no cost.
struct AttentionShape {
  /// Features of a token, in and out.
  Index hidden_size = 0;
  Index num_heads = 0;
  /// Unset: num_heads (MHA). Need not divide num_heads.
  std::optional<Index> num_kv_heads{};
  /// Unset: hidden_size / num_heads, which must then be whole.
  std::optional<Index> head_dim{};
  /// Unset: head_dim.
  std::optional<Index> value_dim{};
  bool query_bias = false, key_bias = false, value_bias = false, output_bias = false;
};

/// Whether a layer makes its own keys and values, or reads those of another one (cross-layer attention) or of an encoder
/// (cross-attention, once those are made): then it has the query and output projections only, and stores nothing.
enum class KvRole { producer, borrower };

/// One attention layer: y = concat_i(softmax(Q_i·K_m(i)ᵀ)·V_m(i))·Wo with Q = x·Wq [hidden → H·dk],
/// K = x·Wk [hidden → G·dk], V = x·Wv [hidden → G·dv], Wo [H·dv → hidden].
/// Counts that must be exact are Index and refuse to overflow; FLOPs and bytes of a step are double, exact up to 2⁵³.
/// Every function throws std::invalid_argument on counts, steps and windows that cannot be.
class AttentionLayer {
 public:
  explicit AttentionLayer(const AttentionShape& shape) : shape_(shape) {
    require(shape.hidden_size >= 1, "hidden_size (", shape.hidden_size, ") must be at least 1");
    require(shape.num_heads >= 1, "num_heads (", shape.num_heads, ") must be at least 1");
    if (!shape_.num_kv_heads) shape_.num_kv_heads = shape.num_heads;
    require(num_kv_heads() >= 1 && num_kv_heads() <= num_heads(), "num_kv_heads (", num_kv_heads(),
            ") must be 1 to num_heads (", num_heads(), ")");
    if (!shape_.head_dim) {
      require(shape.hidden_size % shape.num_heads == 0, "hidden_size (", shape.hidden_size,
              ") must be a multiple of num_heads (", shape.num_heads, "); set head_dim where it is not their quotient");
      shape_.head_dim = shape.hidden_size / shape.num_heads;
    }
    if (!shape_.value_dim) shape_.value_dim = shape_.head_dim;
    require(head_dim() >= 1, "head_dim (", head_dim(), ") must be at least 1");
    require(value_dim() >= 1, "value_dim (", value_dim(), ") must be at least 1");
    parameters();  // refuses shapes whose count overflows
  }

  /// With every unset count filled in.
  const AttentionShape& shape() const { return shape_; }
  Index hidden_size() const { return shape_.hidden_size; }
  Index num_heads() const { return shape_.num_heads; }
  Index num_kv_heads() const { return *shape_.num_kv_heads; }
  Index head_dim() const { return *shape_.head_dim; }
  Index value_dim() const { return *shape_.value_dim; }
  /// R = H/G, the mean where groups are unequal.
  double group_size() const { return detail::number(num_heads()) / detail::number(num_kv_heads()); }

  /// Elements of the weight matrices: d·H·dk + d·G·dk + d·G·dv + H·dv·d; of a borrower the first and the last term.
  Index weights(KvRole role = KvRole::producer) const {
    const Index kv_heads = role == KvRole::producer ? num_kv_heads() : 0;
    constexpr const char* kWhat = "parameters of an attention layer";
    return detail::sum(kWhat, {detail::product(kWhat, {hidden_size(), num_heads(), head_dim()}),
                               detail::product(kWhat, {hidden_size(), kv_heads, head_dim()}),
                               detail::product(kWhat, {hidden_size(), kv_heads, value_dim()}),
                               detail::product(kWhat, {num_heads(), value_dim(), hidden_size()})});
  }

  /// The same with the biases.
  Index parameters(KvRole role = KvRole::producer) const {
    const Index kv_heads = role == KvRole::producer ? num_kv_heads() : 0;
    constexpr const char* kWhat = "parameters of an attention layer";
    return detail::sum(kWhat, {weights(role), shape_.query_bias ? num_heads() * head_dim() : 0,
                               shape_.key_bias ? kv_heads * head_dim() : 0,
                               shape_.value_bias ? kv_heads * value_dim() : 0, shape_.output_bias ? hidden_size() : 0});
  }

  /// Bytes of the keys and values of one token: G rows of dk and G of dv elements, G·(dk + dv)·s without scales.
  Index kv_bytes_per_token(const KvFormat& format) const {
    constexpr const char* kWhat = "kv_bytes_per_token";
    return detail::sum(kWhat, {detail::product(kWhat, {num_kv_heads(), format.key.bytes(head_dim())}),
                               detail::product(kWhat, {num_kv_heads(), format.value.bytes(value_dim())})});
  }

  /// 2·batch·new_tokens·weights.
  double projection_flops(const Step& step, KvRole role = KvRole::producer) const {
    detail::check_step(step);
    return 2 * detail::number(step.batch) * detail::number(step.new_tokens) * detail::number(weights(role));
  }

  /// 2·batch·H·(dk + dv)·pairs, of a causal layer where a query sees `window` keys at most (unset: all).
  double core_flops(const Step& step, std::optional<Index> window = std::nullopt) const {
    detail::check_step(step);
    return flops_of_pairs(step.batch, detail::number(causal_pairs(step.new_tokens, step.past, window)));
  }

  /// Bytes of keys and values that a step reads: those that some new token sees, each once, whatever the group size.
  double kv_bytes_read(const Step& step, const KvFormat& format, std::optional<Index> window = std::nullopt) const {
    detail::check_step(step);
    return detail::number(step.batch) * detail::number(visible_keys(step.new_tokens, step.past, window)) *
           detail::number(kv_bytes_per_token(format));
  }

  /// Everything that a causal self-attention step asks for.
  StepCost cost(const Step& step, const Formats& formats, KvRole role = KvRole::producer,
                std::optional<Index> window = std::nullopt) const {
    return {.projection_flops = projection_flops(step, role),
            .core_flops = core_flops(step, window),
            .weight_bytes = detail::number(formats.weights.bytes(parameters(role))),
            .kv_bytes = kv_bytes_read(step, formats.kv, window)};
  }

  /// The same of cross-attention over the source's step.source_tokens keys, which were projected before.
  StepCost cross_attention_cost(const Step& step, const Formats& formats) const {
    detail::check_step(step);
    const double keys = detail::number(step.source_tokens);
    return {.projection_flops = projection_flops(step, KvRole::borrower),
            .core_flops = flops_of_pairs(step.batch, detail::number(step.new_tokens) * keys),
            .weight_bytes = detail::number(formats.weights.bytes(parameters(KvRole::borrower))),
            .kv_bytes = detail::number(step.batch) * keys * detail::number(kv_bytes_per_token(formats.kv))};
  }

  /// FLOPs of decode's core per byte of keys and values: 2·R/s, s bytes per element.
  double decode_intensity(const KvFormat& format) const {
    return flops_of_pairs(1, 1) / detail::number(kv_bytes_per_token(format));
  }

 private:
  double flops_of_pairs(Index batch, double pairs) const {
    return 2 * detail::number(batch) * detail::number(num_heads()) *
           (detail::number(head_dim()) + detail::number(value_dim())) * pairs;
  }

  AttentionShape shape_;
};

}  // namespace headwise::cost
