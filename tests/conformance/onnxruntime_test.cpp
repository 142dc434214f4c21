// SPDX-License-Identifier: MIT
// 300 random calls of ONNX Runtime's operator GroupQueryAttention: keys turned by RoPE as they are appended after a past.
//
// Its local_window_size counts the query's own key, as our window does. smooth_softmax is a sink logit of 0 for each head.
// A prompt that is shorter than the call's tokens ends with padding, of which nothing is expected.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "tests/attention/inputs.hpp"
#include "tests/conformance/call.hpp"
#include "tests/conformance/mask_of.hpp"
#include "tests/conformance/suite.hpp"

namespace headwise::conformance {
namespace {

const CaseFile& file = cases("onnxruntime");

TEST(OnnxRuntimeFile, HoldsEveryCaseThatWasWritten) { expect_whole(file, 300); }

class OnnxRuntime : public ::testing::TestWithParam<Index> {};

class GroupQueryAttention {
 public:
  explicit GroupQueryAttention(const Case& given)
      : given_(given),
        heads_(static_cast<Index>(given.attribute("num_heads", 0))),
        kv_heads_(static_cast<Index>(given.attribute("kv_num_heads", 0))),
        q_(given.at("query"), heads_),
        k_(given.at("key"), kv_heads_),
        v_(given.at("value"), kv_heads_) {
    const Tensor& last = given.at("seqlens_k");
    for (Index b = 0; b < last.count(); ++b) {
      totals_.push_back(static_cast<Index>(last[b]) + 1);
      new_tokens_.push_back(given.at("past_key").size(2) == 0 ? totals_.back() : q_.tokens());
    }
    if (const Tensor* sinks = given.find("head_sink"))
      for (Index h = 0; h < heads_; ++h) sinks_.push_back(static_cast<float>((*sinks)[h]));
    else if (given.attribute("smooth_softmax", 0) != 0)
      sinks_.assign(static_cast<std::size_t>(heads_), 0.0f);
    if (given.has("rotary_dim"))
      rope_.emplace(q_.dim(),
                    RopeOptions{.style = given.attribute("rotary_interleaved", 0) != 0 ? RopeStyle::interleaved
                                                                                       : RopeStyle::half_split,
                                .rotary_dim = static_cast<Index>(given.attribute("rotary_dim", 0))});
    options_.scale = static_cast<float>(given.attribute("scale", 1 / std::sqrt(static_cast<double>(q_.dim()))));
    options_.softcap = static_cast<float>(given.attribute("softcap", 0));
    options_.causal = given.attribute("causal", 1) != 0;
    if (given.has("local_window_size")) options_.window = static_cast<Index>(given.attribute("local_window_size", 0));
    options_.query_lengths = new_tokens_;
    options_.sink_logits = sinks_;
    if (const Tensor* bias = given.find("attention_bias")) set_mask(options_, *bias);
  }
  GroupQueryAttention(const GroupQueryAttention&) = delete;
  GroupQueryAttention& operator=(const GroupQueryAttention&) = delete;

  Index queries(Index sequence) const { return new_tokens_[static_cast<std::size_t>(sequence)]; }
  Index keys(Index sequence) const { return totals_[static_cast<std::size_t>(sequence)]; }
  const Rows& q() const { return q_; }
  const Rows& k() const { return k_; }

  /// The past as it is, then the new keys, turned.
  KvCache<> cache() const {
    const LayerShape shape{kv_heads_, k_.dim(), v_.dim()};
    KvCache<> cache(std::span(&shape, 1), *std::max_element(totals_.begin(), totals_.end()),
                    {.num_sequences = q_.sequences(), .key_storage = k_.storage(), .value_storage = k_.storage()});
    const Rows past_k(given_.at("past_key"), kv_heads_), past_v(given_.at("past_value"), kv_heads_);
    for (Index b = 0; b < q_.sequences(); ++b) {
      const Index past = keys(b) - queries(b);
      append(cache, b, past_k, past_v, past, nullptr);
      append(cache, b, k_, v_, queries(b), rope_ ? &*rope_ : nullptr);
    }
    return cache;
  }

  Results attend() const {
    if (!rope_) return conformance::attend(q_, cache(), v_.dim(), options_);
    // queries turned in f32, where the operator rounds them to its type
    Tensor turned{"f32", given_.at("query").shape, {}};
    std::vector<float> numbers;
    for (Index i = 0; i < turned.count(); ++i) numbers.push_back(static_cast<float>(given_.at("query")[i]));
    const View<float> all(numbers.data(), q_.sequences(), q_.tokens(), heads_, q_.dim());
    std::vector<Index> positions;
    for (Index b = 0; b < q_.sequences(); ++b)
      for (Index t = 0; t < q_.tokens(); ++t) positions.push_back(keys(b) - queries(b) + t);
    rope_->apply(all, positions);
    turned.bytes.resize(numbers.size() * sizeof(float));
    std::memcpy(turned.bytes.data(), numbers.data(), turned.bytes.size());
    return conformance::attend(Rows(turned, heads_), cache(), v_.dim(), options_);
  }

  Arithmetic arithmetic() const {
    const double scale = std::abs(static_cast<double>(*options_.scale));
    const double keys = std::max(k_.largest_norm(), Rows(given_.at("past_key"), kv_heads_).largest_norm());
    double added = 0;
    if (const Tensor* bias = given_.find("attention_bias"))
      for (Index i = 0; i < bias->count(); ++i) added = std::max(added, std::abs((*bias)[i]));
    return {.keys = k_.storage(),
            .outputs = q_.storage(),
            .score_size = scale * q_.largest_norm() * keys,
            .added_size = added,
            .softcap = static_cast<double>(options_.softcap),
            .num_keys = *std::max_element(totals_.begin(), totals_.end()),
            .head_dim = q_.dim(),
            .others_roundoff = epsilon_of(q_.storage())};
  }

 private:
  static void append(KvCache<>& cache, Index sequence, const Rows& k, const Rows& v, Index tokens, const Rope* rope) {
    headwise::testing::with_type(k.storage(), [&]<class T>() {
      const auto first = [&](const Rows& rows) {
        const View<const T> all = rows.view<T>();
        return View<const T>(all.data() + sequence * all.strides().sequence, 1, tokens, rows.heads(), rows.dim(),
                             all.strides());
      };
      if (tokens == 0) return;
      if (rope)
        cache.append(0, sequence, first(k), first(v), *rope);
      else
        cache.append(0, sequence, first(k), first(v));
    });
  }

  const Case& given_;
  Index heads_, kv_heads_;
  Rows q_, k_, v_;
  std::vector<Index> totals_, new_tokens_;
  std::vector<float> sinks_;
  std::optional<Rope> rope_;
  Options options_;
};

/// Keys as turned and stored, each of two products of rounded factors; values as they came.
void check_present(const Case& given, const GroupQueryAttention& call) {
  const KvCache<> cache = call.cache();
  const Index heads = cache.layer_shape().num_kv_heads, dim = call.k().dim();
  const Rows keys(given.at("present_key"), heads), values(given.at("present_value"), heads);
  const double roundoff = epsilon_of(keys.storage());
  std::vector<float> key(static_cast<std::size_t>(dim)), value(key.size());
  for (Index b = 0; b < call.q().sequences(); ++b)
    for (Index t = 0; t < call.keys(b); ++t)
      for (Index h = 0; h < heads; ++h) {
        cache.read_key(0, b, t, h, key);
        cache.read_value(0, b, t, h, value);
        double size = 0;
        for (const float x : key) size = std::max(size, std::abs(static_cast<double>(x)));
        for (Index d = 0; d < dim; ++d) {
          ASSERT_NEAR(static_cast<double>(key[static_cast<std::size_t>(d)]), keys(b, t, h, d), 8 * roundoff * size);
          ASSERT_EQ(static_cast<double>(value[static_cast<std::size_t>(d)]), values(b, t, h, d));
        }
      }
}

TEST_P(OnnxRuntime, Case) {
  const Case given = file.read(GetParam());
  const GroupQueryAttention call(given);
  check_present(given, call);
  const Tensor &output = given.at("output"), &spread = given.at("spread");
  const Results results = call.attend();
  const Arithmetic arithmetic = call.arithmetic();
  const Index row = call.q().heads() * call.q().dim();  // of a token
  for (Index b = 0; b < call.q().sequences(); ++b) {
    const Index first = b * call.q().tokens() * row;
    expect_near(
        std::span(results.output)
            .subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(call.queries(b) * row)),
        [&](Index i) { return output[first + i]; },
        [&](Index i) { return arithmetic.of_output(output[first + i], spread[first + i]); },
        "sequence " + std::to_string(b));
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, OnnxRuntime, ::testing::ValuesIn(indices_of(file)), CaseName{&file});
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(OnnxRuntime);

}  // namespace
}  // namespace headwise::conformance
