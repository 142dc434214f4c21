// SPDX-License-Identifier: MIT
// A prompt, then one token at a time: keys and values go into a KvCache once and are read from it at every step.
// The same function object does prefill and decode, and the result does not depend on how the tokens were cut.

#include <headwise/headwise.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

namespace hw = headwise;

int main() {
  constexpr hw::Index kTokens = 100, kPrompt = 90, kHeads = 32, kKvHeads = 8, kDim = 64;
  hw::Gqa<kHeads, kKvHeads, kDim> attend;
  hw::ThreadPool pool;

  std::vector<float> q(kTokens * kHeads * kDim), k(kTokens * kKvHeads * kDim), v(k.size()), out(q.size()),
      again(q.size());
  for (std::size_t i = 0; i < q.size(); ++i) q[i] = std::sin(0.37f * static_cast<float>(i));
  for (std::size_t i = 0; i < k.size(); ++i)
    k[i] = std::sin(0.91f * static_cast<float>(i)), v[i] = std::cos(static_cast<float>(i));

  // tokens [first, first + count) of an array [token][heads][dim]
  const auto tokens = [](std::vector<float>& x, hw::Index heads, hw::Index first, hw::Index count) {
    return hw::View(x.data() + first * heads * kDim, count, heads, kDim);
  };
  const auto step = [&](hw::KvCache<hw::bf16>& cache, std::vector<float>& result, hw::Index first, hw::Index count) {
    cache.append(tokens(k, kKvHeads, first, count), tokens(v, kKvHeads, first, count));
    attend(tokens(q, kHeads, first, count), cache, tokens(result, kHeads, first, count), {}, pool);
  };

  hw::KvCache<hw::bf16> cache(attend.heads(), kTokens);  // stored as bf16, computed in f32
  step(cache, out, 0, kPrompt);
  for (hw::Index t = kPrompt; t < kTokens; ++t) step(cache, out, t, 1);

  hw::KvCache<hw::bf16> at_once(attend.heads(), kTokens);
  step(at_once, again, 0, kTokens);
  std::printf("%td tokens in %td bytes; prefill and decode agree bit for bit: %s\n", cache.num_tokens(), cache.bytes(),
              out == again ? "yes" : "no");
  return out == again ? 0 : 1;
}
