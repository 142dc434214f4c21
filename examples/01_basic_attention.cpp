// SPDX-License-Identifier: MIT
// Attention over plain arrays: 4 query heads, 2 KV heads (GQA), causal, 5 tokens.

#include <headwise/headwise.hpp>

#include <cmath>
#include <cstdio>
#include <vector>

namespace hw = headwise;

int main() {
  constexpr hw::Index kTokens = 5;
  hw::Gqa<4, 2, 8> attend;  // 4 query heads share 2 KV heads of 8 dimensions

  // [token][head][dim]; any numbers will do
  std::vector<float> q(kTokens * 4 * 8), k(kTokens * 2 * 8), v(kTokens * 2 * 8), out(kTokens * 4 * 8);
  for (std::size_t i = 0; i < q.size(); ++i) q[i] = std::sin(static_cast<float>(i));
  for (std::size_t i = 0; i < k.size(); ++i) k[i] = std::cos(static_cast<float>(i)), v[i] = static_cast<float>(i / 16);

  attend(hw::View(q.data(), kTokens, 4, 8),
         hw::KvRows(hw::View(k.data(), kTokens, 2, 8), hw::View(v.data(), kTokens, 2, 8)),
         hw::View(out.data(), kTokens, 4, 8));

  // the values of token t are all t, so each output is a mean of the positions its token sees
  for (hw::Index t = 0; t < kTokens; ++t) {
    const float mean = out[static_cast<std::size_t>(t * 4 * 8)];
    std::printf("token %td attends to position %.3f on average\n", t, static_cast<double>(mean));
    if (!(mean >= 0.0f && mean <= static_cast<float>(t) + 1e-5f)) return 1;
  }
  return out[0] == 0.0f ? 0 : 1;  // the first token sees itself alone
}
