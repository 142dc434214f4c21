// SPDX-License-Identifier: MIT
#include "tests/conformance/onnx_attention.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace headwise::conformance {
namespace {

/// The operator's heads: an attribute where rows are of rank 3, an axis otherwise.
Rows rows(const Case& given, const std::string& tensor, const std::string& attribute) {
  const Tensor& x = given.at(tensor);
  return {x, x.rank() == 4 ? x.size(1) : static_cast<Index>(given.attribute(attribute, 0))};
}

/// A mask of any rank, right-aligned as NumPy broadcasts.
Tensor of_rank_4(Tensor mask) {
  while (mask.rank() < 4) mask.shape.insert(mask.shape.begin(), 1);
  return mask;
}

constexpr Index kUnbounded = -1;

}  // namespace

OnnxAttention::OnnxAttention(const Case& given)
    : q_(rows(given, "Q", "q_num_heads")),
      new_keys_(rows(given, "K", "kv_num_heads")),
      new_values_(rows(given, "V", "kv_num_heads")),
      num_keys_(new_keys_.tokens()),
      scale_(given.attribute("scale", 1 / std::sqrt(static_cast<double>(q_.dim())))),
      softcap_(given.attribute("softcap", 0)) {
  if (given.find("past_key")) {
    past_.emplace(rows(given, "past_key", ""), rows(given, "past_value", ""));
    num_keys_ += past_->first.tokens();
  }
  if (const Tensor* lengths = given.find("nonpad_kv_seqlen"))
    for (Index b = 0; b < lengths->count(); ++b) nonpad_.push_back(static_cast<Index>((*lengths)[b]));
  if (const Tensor* mask = given.find("attn_mask")) {
    mask_ = of_rank_4(*mask);
    const Index width = mask_->size(3);
    if (width < num_keys_ && width != 1) {  // keys beyond the mask are hidden, as if they were not there
      require(nonpad_.empty() || *std::max_element(nonpad_.begin(), nonpad_.end()) <= width, "attn_mask (of ", width,
              " keys) must reach as far as nonpad_kv_seqlen");
      if (nonpad_.empty()) num_keys_ = width;
    }
  }
  const auto bound = [&](const char* name) { return static_cast<Index>(given.attribute(name, kUnbounded)); };
  const Index right = bound("right_window_size");
  // causal is the stricter of the two: sizes are at least 0
  place(bound("left_window_size"), given.attribute("is_causal", 0) == 0 ? right : 0);
  const Index all = new_keys_.tokens() + (past_ ? past_->first.tokens() : 0);
  key_lengths_ = nonpad_;
  if (num_keys_ < all) key_lengths_.assign(static_cast<std::size_t>(q_.sequences()), num_keys_);
}

std::vector<std::pair<Rows, Rows>> OnnxAttention::keys_and_values() const {
  std::vector<std::pair<Rows, Rows>> all;
  if (past_) all.push_back(*past_);
  all.emplace_back(new_keys_, new_values_);
  return all;
}

Index OnnxAttention::offset(Index sequence) const {
  if (past_) return past_->first.tokens();
  return nonpad_.empty() ? 0 : nonpad_[static_cast<std::size_t>(sequence)] - q_.tokens();
}

Index OnnxAttention::length(Index sequence) const {
  return nonpad_.empty() ? num_keys_ : nonpad_[static_cast<std::size_t>(sequence)];
}

/// Query i at position i + offset sees from `left` keys before itself to `right` after.
void OnnxAttention::place(Index left, Index right) {
  const Index shift = offset(0) + q_.tokens() - length(0);  // the same for all sequences: 0 with nonpad_kv_seqlen
  if (shift == 0) {
    if (left != kUnbounded) window_ = left + 1;
    if (right == 0)
      causal_ = true;
    else if (right != kUnbounded)
      window_right_ = right;
  } else if (left == kUnbounded && right != kUnbounded && shift + right >= 0) {
    window_right_ = shift + right;
  } else if (left == kUnbounded && right != kUnbounded) {
    num_keys_ += shift + right;  // no query sees those after
    causal_ = true;
  } else if (left != kUnbounded || right != kUnbounded) {
    hide(left, right);
  }
}

/// What place() says, as a mask, together with what the mask says already.
void OnnxAttention::hide(Index left, Index right) {
  const Index B = mask_ ? mask_->size(0) : 1, H = mask_ ? mask_->size(1) : 1, T = q_.tokens();
  Tensor all{"f32", {B, H, T, num_keys_}, {}};
  const auto before = [&](Index b, Index h, Index i, Index t) {
    if (!mask_) return 0.0;
    const Index rows = mask_->size(2), width = mask_->size(3);
    const double x = (*mask_)[((b * H + h) * rows + (rows == 1 ? 0 : i)) * width + (width == 1 ? 0 : t)];
    if (mask_->type != "bool") return x;
    return x != 0 ? 0 : -std::numeric_limits<double>::infinity();
  };
  for (Index b = 0; b < B; ++b)
    for (Index h = 0; h < H; ++h)
      for (Index i = 0; i < T; ++i)
        for (Index t = 0; t < num_keys_; ++t) {
          const Index p = i + offset(0);
          const bool seen = (left == kUnbounded || t >= p - left) && (right == kUnbounded || t <= p + right);
          const float x = seen ? static_cast<float>(before(b, h, i, t)) : -std::numeric_limits<float>::infinity();
          const char* bytes = reinterpret_cast<const char*>(&x);
          all.bytes.insert(all.bytes.end(), bytes, bytes + sizeof x);
        }
  mask_ = std::move(all);
}

Options OnnxAttention::options() const {
  Options options;
  options.scale = static_cast<float>(scale_);
  options.softcap = static_cast<float>(softcap_);
  options.causal = causal_;
  options.window = window_;
  options.window_right = window_right_;
  options.key_lengths = key_lengths_;
  return options;
}

Arithmetic OnnxAttention::arithmetic() const {
  double key = 0;
  for (const auto& [keys, values] : keys_and_values()) key = std::max(key, keys.largest_norm());
  double added = 0;
  for (Index i = 0; mask_ && i < mask_->count(); ++i)
    if (std::isfinite((*mask_)[i])) added = std::max(added, std::abs((*mask_)[i]));
  return {.keys = new_keys_.storage(),
          .outputs = q_.storage(),
          .score_size = std::abs(scale_) * q_.largest_norm() * key,
          .added_size = added,
          .softcap = softcap_,
          .num_keys = num_keys_,
          .head_dim = q_.dim()};
}

}  // namespace headwise::conformance
