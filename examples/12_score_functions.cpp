// SPDX-License-Identifier: MIT
// Your own change of scores, compiled into your program: slopes of your own by head, score by score; and a window without
// an edge, a row of scores at a time, from an object with state.

#include <headwise/headwise.hpp>

#include <cmath>
#include <cstdio>
#include <vector>

namespace hw = headwise;

constexpr hw::Index kTokens = 200, kHeads = 8, kKvHeads = 2, kDim = 16;

/// Scores fall by `slope` for each token beyond `size`.
struct SoftWindow {
  hw::Index size;
  float slope;
  void operator()(hw::ScoreRow scores, hw::Index, hw::Index, hw::Index query, hw::Index first_key) const {
    const float distance = static_cast<float>(query - size - first_key);
    for (std::size_t j = 0; j < scores.size(); ++j) {
      const float beyond = distance - static_cast<float>(j);
      scores[j] -= beyond > 0 ? slope * beyond : 0.0f;
    }
  }
};

int main() {
  std::vector<float> q(kTokens * kHeads * kDim), k(kTokens * kKvHeads * kDim), v(k.size()), out(q.size()),
      own(q.size());
  for (std::size_t i = 0; i < q.size(); ++i) q[i] = std::sin(static_cast<float>(i));
  for (std::size_t i = 0; i < k.size(); ++i)
    k[i] = std::cos(static_cast<float>(3 * i)), v[i] = std::sin(static_cast<float>(2 * i));
  const hw::View<const float> queries(q.data(), kTokens, kHeads, kDim);
  const hw::KvRows keys(hw::View<const float>(k.data(), kTokens, kKvHeads, kDim),
                        hw::View<const float>(v.data(), kTokens, kKvHeads, kDim));
  const hw::Gqa<kHeads, kKvHeads, kDim> attend;

  // ALiBi, which the library has as well: the same results
  const std::vector<float> slopes = hw::alibi_slopes(kHeads);
  const auto biased = [&](float score, hw::Index, hw::Index head, hw::Index query, hw::Index key) {
    return score - slopes[static_cast<std::size_t>(head)] * static_cast<float>(query - key);
  };
  attend(queries, keys, hw::View<float>(out.data(), kTokens, kHeads, kDim), {.alibi_slopes = slopes});
  attend(queries, keys, hw::View<float>(own.data(), kTokens, kHeads, kDim), {.score_function = biased});
  float difference = 0;
  for (std::size_t i = 0; i < out.size(); ++i) difference = std::max(difference, std::abs(out[i] - own[i]));
  std::printf("ALiBi by a function of ours differs by %.1e\n", static_cast<double>(difference));

  // so steep a fall is a window
  const SoftWindow window{50, 1000.0f};
  attend(queries, keys, hw::View<float>(out.data(), kTokens, kHeads, kDim), {.window = 51});
  attend(queries, keys, hw::View<float>(own.data(), kTokens, kHeads, kDim), {.score_function = window});
  float window_difference = 0;
  for (std::size_t i = 0; i < out.size(); ++i)
    window_difference = std::max(window_difference, std::abs(out[i] - own[i]));
  std::printf("a soft window as steep as a wall differs by %.1e\n", static_cast<double>(window_difference));
  return difference < 1e-4f && window_difference < 1e-5f ? 0 : 1;
}
