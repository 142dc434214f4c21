// SPDX-License-Identifier: MIT
// Multi-head latent attention (DeepSeek-V2, 2024, arXiv 2405.04434, §2.1) in its absorbed form: the cache holds one latent c
// and one rotated key per token, for all heads together, once. Each head's keys would be W_UK·c and its values W_UV·c; but
//   q·(W_UK·c) = (W_UKᵀ·q)·c   and   Σ p·(W_UV·c) = W_UV·(Σ p·c),
// so W_UK goes into the query and W_UV behind the attention, which is multi-query attention over c. Compared with the plain
// form in double.

#include <headwise/headwise.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

namespace hw = headwise;
using hw::Index;

namespace {

constexpr Index kHeads = 8, kContent = 32, kRotated = 16, kValue = 24,
                kLatent = 64;  // DeepSeek: 128, 128, 64, 128, 512
constexpr Index kTokens = 80, kKey = kLatent + kRotated;

std::size_t at(Index i) { return static_cast<std::size_t>(i); }

std::vector<float> random_numbers(Index count) {
  static std::mt19937 generator(1);
  std::normal_distribution<float> normal;
  std::vector<float> result(at(count));
  for (float& x : result) x = normal(generator) / 4;
  return result;
}

struct Layer {
  std::vector<float> up_keys = random_numbers(kHeads * kContent * kLatent),  // W_UK [head][content][latent]
      up_values = random_numbers(kHeads * kValue * kLatent);                 // W_UV [head][value][latent]
};
struct Tokens {
  std::vector<float> queries =
                         random_numbers(kTokens * kHeads * (kContent + kRotated)),  // [token][head]{content, rotated}
      keys = random_numbers(kTokens * kKey);                                        // [token]{latent, rotated}
};

/// [token][head][value], the last token's alone, as the equations say: keys and values of every head made, in double.
std::vector<double> plain(const Layer& layer, const Tokens& tokens) {
  const auto turned = [](const float* x, Index position, Index i) {  // dimension i of the rotated part at a position
    const Index n = kRotated / 2, pair = i % n;
    const double angle = static_cast<double>(position) * std::pow(10000.0, -static_cast<double>(pair) / n);
    const double a = x[pair], b = x[pair + n];
    return i < n ? a * std::cos(angle) - b * std::sin(angle) : b * std::cos(angle) + a * std::sin(angle);
  };
  const auto up = [](const std::vector<float>& weight, Index row, const float* latent) {  // row of W · c
    double sum = 0;
    for (Index l = 0; l < kLatent; ++l) sum += static_cast<double>(weight[at(row * kLatent + l)]) * latent[l];
    return sum;
  };
  std::vector<double> out(at(kHeads * kValue));
  for (Index h = 0; h < kHeads; ++h) {
    const float* q = tokens.queries.data() + ((kTokens - 1) * kHeads + h) * (kContent + kRotated);
    std::vector<double> weights(at(kTokens));
    double sum = 0;
    for (Index t = 0; t < kTokens; ++t) {
      const float* key = tokens.keys.data() + t * kKey;
      double score = 0;
      for (Index d = 0; d < kContent; ++d) score += q[d] * up(layer.up_keys, h * kContent + d, key);
      for (Index d = 0; d < kRotated; ++d) score += turned(q + kContent, kTokens - 1, d) * turned(key + kLatent, t, d);
      weights[at(t)] = std::exp(score / std::sqrt(static_cast<double>(kContent + kRotated)));
      sum += weights[at(t)];
    }
    for (Index t = 0; t < kTokens; ++t)
      for (Index d = 0; d < kValue; ++d)
        out[at(h * kValue + d)] +=
            weights[at(t)] / sum * up(layer.up_values, h * kValue + d, tokens.keys.data() + t * kKey);
  }
  return out;
}

/// The same through the library, over a cache of latents.
std::vector<float> absorbed(const Layer& layer, const Tokens& tokens) {
  // what a token leaves: one key of latent and rotated part; its value is the latent itself
  const hw::LayerShape shape{.num_kv_heads = 1, .head_dim = kKey, .value_dim = kLatent, .values_in_keys = true};
  hw::KvCache<float> cache(std::span(&shape, 1), kTokens);
  const hw::Rope rope(kKey, {.rotary_begin = kLatent});
  cache.append(hw::View<const float>(tokens.keys.data(), kTokens, 1, kKey), rope);
  std::printf("%td bytes a token; keys and values of all heads would take %td\n", cache.bytes_per_token(),
              kHeads * (kContent + kRotated + kValue) * 4);

  // W_UK into the query of the last token
  std::vector<float> q(at(kHeads * kKey)), attended(at(kHeads * kLatent)), out(at(kHeads * kValue));
  for (Index h = 0; h < kHeads; ++h) {
    const float* from = tokens.queries.data() + ((kTokens - 1) * kHeads + h) * (kContent + kRotated);
    for (Index d = 0; d < kContent; ++d)
      for (Index l = 0; l < kLatent; ++l)
        q[at(h * kKey + l)] += from[d] * layer.up_keys[at((h * kContent + d) * kLatent + l)];
    std::copy_n(from + kContent, kRotated, q.begin() + h * kKey + kLatent);
  }
  rope.apply(hw::View(q.data(), 1, kHeads, kKey), kTokens - 1);

  const hw::Attention<hw::Heads<kHeads, 1, kKey, kLatent>> attend;
  attend(hw::View(q.data(), 1, kHeads, kKey), cache, hw::View(attended.data(), 1, kHeads, kLatent),
         {.scale = 1 / std::sqrt(static_cast<float>(kContent + kRotated))});

  // W_UV behind
  for (Index h = 0; h < kHeads; ++h)
    for (Index d = 0; d < kValue; ++d)
      for (Index l = 0; l < kLatent; ++l)
        out[at(h * kValue + d)] += attended[at(h * kLatent + l)] * layer.up_values[at((h * kValue + d) * kLatent + l)];
  return out;
}

}  // namespace

int main() {
  const Layer layer;
  const Tokens tokens;
  const std::vector<double> expected = plain(layer, tokens);
  const std::vector<float> actual = absorbed(layer, tokens);
  double error = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) error = std::max(error, std::abs(actual[i] - expected[i]));
  std::printf("largest difference between the absorbed and the plain form: %.1e\n", error);
  return error < 1e-5 ? 0 : 1;
}
