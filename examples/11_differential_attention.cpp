// SPDX-License-Identifier: MIT
// Differential attention (Ye et al. 2024, arXiv 2410.05258): one softmax map less λ times another, so that what both give
// to irrelevant tokens cancels. Two key heads share one value head of twice their dim. Both maps are one attention call,
// whose outputs are then subtracted; nothing is copied.

#include <headwise/headwise.hpp>

#include <cmath>
#include <cstdio>
#include <vector>

namespace hw = headwise;

int main() {
  constexpr hw::Index kHeads = 4, kDim = 32, kTokens = 48, kRelevant = 7;
  const auto at = [](hw::Index i) { return static_cast<std::size_t>(i); };

  // [token][head][map][dim] and [token][head][2·dim]: value d of a token is 1 in dimension (token mod 2·dim)
  std::vector<float> q(at(2 * kHeads * kDim), 0.1f), k(at(kTokens * 2 * kHeads * kDim), 0.1f),
      v(at(kTokens * kHeads * 2 * kDim)), out(at(2 * kHeads * 2 * kDim));
  for (hw::Index h = 0; h < kHeads; ++h)  // the first map alone sees that one token is relevant
    for (hw::Index d = 0; d < kDim; ++d) k[at(((kRelevant * kHeads + h) * 2 + 0) * kDim + d)] = 4.0f;
  for (hw::Index t = 0; t < kTokens; ++t)
    for (hw::Index h = 0; h < kHeads; ++h) v[at((t * kHeads + h) * 2 * kDim + t)] = 1.0f;

  // 2·H query heads read 2·H key heads, of which two share a value head
  const hw::Attention<hw::Heads<2 * kHeads, 2 * kHeads, kDim, 2 * kDim>> attend;
  attend(hw::View(q.data(), 1, 2 * kHeads, kDim),
         hw::KvRows(hw::View(k.data(), kTokens, 2 * kHeads, kDim), hw::View(v.data(), kTokens, kHeads, 2 * kDim)),
         hw::View(out.data(), 1, 2 * kHeads, 2 * kDim));

  // even heads less λ times odd heads, in place
  const hw::Strides every_second{0, 2 * kHeads * 2 * kDim, 2 * 2 * kDim, 1};
  const hw::View<float> first(out.data(), 1, 1, kHeads, 2 * kDim, every_second),
      second(out.data() + 2 * kDim, 1, 1, kHeads, 2 * kDim, every_second);
  const float noise_before = first(0, 0, 0, 0), signal_before = first(0, 0, 0, kRelevant);
  const auto lambda = static_cast<float>(hw::differential_lambda_init(2));
  hw::subtract_attention(first, lambda, second);

  const float noise = first(0, 0, 0, 0), signal = first(0, 0, 0, kRelevant);
  const auto ratio = [](float a, float b) { return static_cast<double>(std::abs(a / b)); };
  std::printf("lambda %.2f: weight of the relevant token over that of another %.1f before, %.1f after\n",
              static_cast<double>(lambda), ratio(signal_before, noise_before), ratio(signal, noise));
  return ratio(signal, noise) > ratio(signal_before, noise_before) ? 0 : 1;
}
