// SPDX-License-Identifier: MIT
#include "tests/attention/weights.hpp"

namespace headwise::testing {

Weights weights_of(const Inputs& queries, const Inputs& keys, const Asked& asked, float before,
                   const std::function<void(View<const float>, const Outputs&)>& call) {
  const Heads<>& heads = queries.heads;
  const Index b = queries.sequences, t = queries.query_tokens, h = heads.num_heads(), all = keys.key_tokens + kRoom;
  const auto filled = [](Index count, float x) { return std::vector<float>(static_cast<std::size_t>(count), x); };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  Weights got{{filled(b * t * h * heads.value_dim(), nan), filled(asked.lse ? b * t * h : 0, nan)},
              filled(asked.stage ? b * t * h * all : 0, nan),
              filled(keys.sequences * all * asked.mass_heads, asked.add ? before : nan)};
  Outputs outputs(View<float>(got.results.output.data(), b, t, h, heads.value_dim()));
  if (asked.lse)
    outputs = {View<float>(got.results.output.data(), b, t, h, heads.value_dim()),
               View<float>(got.results.lse.data(), b, t, h, 1)};
  if (asked.stage) outputs.scores = {View<float>(got.scores.data(), b, t, h, all), *asked.stage};
  if (asked.mass_heads > 0)
    outputs.mass = {View<float>(got.mass.data(), keys.sequences, all, asked.mass_heads, 1), asked.add,
                    asked.last_queries};
  call(View<const float>(queries.q.data(), b, t, h, heads.head_dim()), outputs);
  return got;
}

ExpectedWeights::ExpectedWeights(const Inputs& in, const Options& options, bool bf16_pairs)
    : in_(in), options_(options), pairs_(bf16_pairs) {
  const Heads<>& heads = in.heads;
  const Index D = heads.head_dim();
  const auto slice = [](const std::vector<float>& x, Index b, Index size) {
    return std::vector<double>(x.begin() + b * size, x.begin() + (b + 1) * size);
  };
  const auto largest_norm = [&](const std::vector<float>& x) {
    double largest = 0;
    for (std::size_t at = 0; at < x.size(); at += static_cast<std::size_t>(D)) {
      double sum = 0;
      for (std::size_t d = at; d < at + static_cast<std::size_t>(D); ++d)
        sum += static_cast<double>(x[d]) * static_cast<double>(x[d]);
      if (std::isfinite(sum)) largest = std::max(largest, sum);
    }
    return std::sqrt(largest);
  };
  reference::Parameters parameters = parameters_of(options);
  parameters.keep_scores = true;
  const std::vector<double> sinks(options.sink_logits.begin(), options.sink_logits.end());
  parameters.sink_logits = sinks;
  score_size_ =
      largest_norm(in.q) * largest_norm(in.k) * parameters.scale.value_or(1 / std::sqrt(static_cast<double>(D)));
  for (Index b = 0; b < in.sequences; ++b) {
    if (!options.key_lengths.empty()) parameters.key_length = options.key_lengths[static_cast<std::size_t>(b)];
    if (!options.query_lengths.empty()) parameters.query_length = options.query_lengths[static_cast<std::size_t>(b)];
    if (!options.prefix_lengths.empty()) parameters.prefix_length = options.prefix_lengths[static_cast<std::size_t>(b)];
    if (!options.key_starts.empty()) parameters.key_start = options.key_starts[static_cast<std::size_t>(b)];
    results_.push_back(reference::attend(
        {in.query_tokens, in.key_tokens, heads.num_heads(), heads.num_kv_heads(), D, heads.value_dim()},
        slice(in.q, b, in.query_tokens * heads.num_heads() * D),
        slice(in.k, b, in.key_tokens * heads.num_kv_heads() * D),
        slice(in.v, b, in.key_tokens * heads.num_kv_heads() * heads.value_dim()), parameters));
  }
}

double ExpectedWeights::weight_error() const {
  const double roundoff = 0x1p-24;
  double score = 4 * roundoff * (score_size_ + static_cast<double>(options_.softcap) * 8 + 1);
  if (!options_.alibi_slopes.empty()) score += 4 * roundoff * static_cast<double>(in_.key_tokens);
  if (pairs_) score += score_size_ * epsilon_of(Storage::bf16);
  return 2 * score + 8 * roundoff + 4 * roundoff * std::sqrt(static_cast<double>(in_.key_tokens) / 8 + 1) +
         (pairs_ ? 2 * epsilon_of(Storage::bf16) : 0);
}

void ExpectedWeights::check_scores(const std::vector<float>& actual, ScoreStage stage) const {
  const Index keys = in_.key_tokens, rows = in_.query_tokens * in_.heads.num_heads();
  ASSERT_EQ(std::ssize(actual), in_.sequences * rows * (keys + kRoom));
  for (Index b = 0; b < in_.sequences; ++b) {
    const reference::Result& result = results_[static_cast<std::size_t>(b)];
    const std::vector<double>& all = stage == ScoreStage::scaled       ? result.scaled
                                     : stage == ScoreStage::softcapped ? result.softcapped
                                     : stage == ScoreStage::biased     ? result.scores
                                                                       : result.weights;
    for (Index r = 0; r < rows; ++r)
      for (Index t = 0; t < keys + kRoom; ++t) {
        const auto got = static_cast<double>(actual[static_cast<std::size_t>((b * rows + r) * (keys + kRoom) + t)]);
        const double nothing = stage == ScoreStage::weights ? 0 : -std::numeric_limits<double>::infinity();
        const double expected = t < keys ? all[static_cast<std::size_t>(r * keys + t)] : nothing;
        const double error = weight_error(),
                     tolerance = stage == ScoreStage::weights ? error * expected + 0x1p-120 : error;
        ASSERT_TRUE(got == expected || std::abs(got - expected) <= tolerance ||
                    (std::isnan(expected) && std::isnan(got)))
            << "stage " << static_cast<int>(stage) << ", sequence " << b << ", row " << r << ", key " << t << ": "
            << got << ", expected " << expected << " ± " << tolerance;
      }
  }
}

void ExpectedWeights::check_mass(const std::vector<float>& actual, Index heads, std::optional<Index> last) const {
  const Index keys = in_.key_tokens, H = in_.heads.num_heads(), G = in_.heads.num_kv_heads();
  ASSERT_EQ(std::ssize(actual), in_.sequences * (keys + kRoom) * heads);
  for (Index b = 0; b < in_.sequences; ++b) {
    const Index queries =
        options_.query_lengths.empty() ? in_.query_tokens : options_.query_lengths[static_cast<std::size_t>(b)];
    for (Index t = 0; t < keys + kRoom; ++t)
      for (Index h = 0; h < heads; ++h) {
        double expected = 0, rows = 0;
        for (Index i = std::max<Index>(0, queries - last.value_or(queries)); i < queries; ++i)
          for (Index head = 0; head < H; ++head) {
            if ((heads == G ? head / (H / G) : head) != h || t >= keys) continue;
            expected +=
                results_[static_cast<std::size_t>(b)].weights[static_cast<std::size_t>((i * H + head) * keys + t)];
            ++rows;
          }
        const auto got = static_cast<double>(actual[static_cast<std::size_t>((b * (keys + kRoom) + t) * heads + h)]);
        const double tolerance = (weight_error() + 0x1p-24) * expected + rows * 0x1p-24;
        ASSERT_TRUE(std::abs(got - expected) <= tolerance || (std::isnan(expected) && std::isnan(got)))
            << "sequence " << b << ", key " << t << ", head " << h << ": " << got << ", expected " << expected << " ± "
            << tolerance;
      }
  }
}

}  // namespace headwise::testing
